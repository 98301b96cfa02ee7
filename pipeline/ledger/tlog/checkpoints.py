"""Checkpoints: the signed size and root of a log (C2SP tlog-checkpoint).

The file of trusted checkpoints: what a log's owner hands out, and others check the log with.

Signed notes in the order of their origins, an empty line between two. Each is the note as the log
published it, byte for byte (C2SP tlog-checkpoint), so it can be cut out and given to any other
program that reads notes; one note alone is such a file too.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.merkle import EMPTY_ROOT, HASH_BYTES
from pipeline.ledger.tlog.notes import (
    NoteSigner,
    VerifierKey,
    decode_base64,
    encode_base64,
    parse_note,
    sign_note,
    verify_note,
)

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_LINES: Final = 3


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a log.

    Attributes:
        origin: Which log; unique.
        size: Number of its leaves.
        root: Of its Merkle tree, 32 bytes.
    """

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The text of the note: origin, size and root, a line each (tlog-checkpoint, "Note text").

        Without extension lines, which the document does not recommend: nothing else in a log
        could confirm them.
        """
        return f"{self.origin}\n{self.size}\n{encode_base64(self.root)}\n"


def empty_checkpoint(origin: str) -> Checkpoint:
    """Return the checkpoint of a log without leaves."""
    return Checkpoint(origin, 0, EMPTY_ROOT)


def sign_checkpoint(checkpoint: Checkpoint, signers: Sequence[NoteSigner]) -> bytes:
    """Return the signed note; the same for the same checkpoint and keys."""
    return sign_note(checkpoint.text, signers)


def open_checkpoint(
    content: bytes, keys: Iterable[VerifierKey], *, origin: str | None = None
) -> Checkpoint:
    """Return the checkpoint that one of `keys` signed.

    Args:
        content: The signed note.
        keys: Whose word counts.
        origin: The log that it must be of; None for any.

    Raises:
        EvidenceError: It is malformed, signed by none of `keys`, or of another log.
    """
    note = parse_note(content)
    # Nothing in the text counts before the signature does (signed-note, introduction).
    verify_note(note, keys)
    checkpoint = parse_checkpoint(note.text)
    if origin is not None and checkpoint.origin != origin:
        raise EvidenceError(f"expected a checkpoint of {origin}, found one of {checkpoint.origin}")
    return checkpoint


def parse_checkpoint(text: str) -> Checkpoint:
    """Return the checkpoint in the text of a note.

    Raises:
        EvidenceError: The text is not exactly that of a checkpoint without extension lines.
    """
    *lines, rest = text.split("\n")
    if len(lines) != _LINES or rest:
        raise EvidenceError(
            f"expected origin, size and root in a checkpoint, found {len(lines)} lines"
        )
    origin, size, encoded_root = lines
    root = decode_base64(encoded_root)
    if not origin or not _SIZE.fullmatch(size) or len(root) != HASH_BYTES:
        raise EvidenceError(f"expected origin, size and a root of 32 bytes, found {lines}")
    return Checkpoint(origin, int(size), root)


TRUSTED_LIMIT_BYTES: Final = 64_000_000
"""Far above 36 logs in each of a thousand epochs, at about 300 bytes a note."""


@dataclass(frozen=True, slots=True)
class TrustedCheckpoint:
    """One checkpoint of the file.

    Attributes:
        note: The signed note, byte for byte.
        checkpoint: Its content; its signature is not checked yet.
    """

    note: bytes
    checkpoint: Checkpoint


def write_trusted(notes: Iterable[bytes]) -> bytes:
    """Return the file that holds `notes`, one for each log.

    Raises:
        EvidenceError: One is no checkpoint, a log has two, or there is none.
    """
    trusted = sorted(map(_read_one, notes), key=lambda each: each.checkpoint.origin)
    _check_order(trusted)
    return b"\n".join(each.note for each in trusted)


def parse_trusted(content: bytes) -> tuple[TrustedCheckpoint, ...]:
    """Return the checkpoints in a file, no signature checked yet.

    Raises:
        EvidenceError: It is not what `write_trusted` makes.
    """
    if len(content) > TRUSTED_LIMIT_BYTES:
        raise EvidenceError(
            f"expected trusted checkpoints of at most {TRUSTED_LIMIT_BYTES:,} bytes"
        )
    trusted = tuple(map(_read_one, _notes_in(content)))
    _check_order(trusted)
    return trusted


def _notes_in(content: bytes) -> Iterator[bytes]:
    """Cut a file into notes: a text, an empty line, signature lines, and an empty line between.

    A checkpoint's text has no empty line (`parse_checkpoint` takes three lines with something in
    each), so every second one stands between two notes.
    """
    parts = content.split(b"\n\n")
    if len(parts) % 2:
        raise EvidenceError("expected whole signed checkpoints, an empty line between two")
    last = len(parts) - 2
    for start in range(0, len(parts), 2):
        # All but the last lost the newline of their signature line to the cut.
        end = b"" if start == last else b"\n"
        yield parts[start] + b"\n\n" + parts[start + 1] + end


def _read_one(note: bytes) -> TrustedCheckpoint:
    return TrustedCheckpoint(note, parse_checkpoint(parse_note(note).text))


def _check_order(trusted: Iterable[TrustedCheckpoint]) -> None:
    origins = [each.checkpoint.origin for each in trusted]
    if not origins:
        raise EvidenceError("expected a checkpoint, found none")
    for before, after in pairwise(origins):
        if before >= after:
            raise EvidenceError(
                f"expected checkpoints in the order of origins, found {after} after {before}"
            )
