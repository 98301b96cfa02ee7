"""Checkpoints: what a log signs about itself, its size and its root (C2SP tlog-checkpoint)."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.core.base64_text import decode_base64, encode_base64
from pipeline.ledger.tlog.errors import EvidenceError
from pipeline.ledger.tlog.merkle import EMPTY_ROOT, HASH_BYTES
from pipeline.ledger.tlog.notes import NoteSigner, VerifierKey, parse_note, sign_note, verify_note

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
        EvidenceError: It is malformed, signed by nobody in `keys`, or of another log.
    """
    note = parse_note(content)
    # Nothing in the text counts before the signature does (signed-note, introduction).
    verify_note(note, keys)
    checkpoint = parse_checkpoint(note.text)
    if origin is not None and checkpoint.origin != origin:
        message = f"expected a checkpoint of {origin}, found one of {checkpoint.origin}"
        raise EvidenceError(message)
    return checkpoint


def parse_checkpoint(text: str) -> Checkpoint:
    """Return the checkpoint in the text of a note.

    Raises:
        EvidenceError: The text is not exactly that of a checkpoint without extension lines.
    """
    *lines, rest = text.split("\n")
    if len(lines) != _LINES or rest:
        message = f"expected origin, size and root in a checkpoint, found {len(lines)} lines"
        raise EvidenceError(message)
    origin, size, encoded_root = lines
    root = decode_base64(encoded_root)
    if not origin or not _SIZE.fullmatch(size) or len(root) != HASH_BYTES:
        message = f"expected origin, size and a root of 32 bytes, found {lines}"
        raise EvidenceError(message)
    return Checkpoint(origin, int(size), root)
