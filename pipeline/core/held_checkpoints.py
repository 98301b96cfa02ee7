"""The file of held checkpoints: what a log's owner hands out, and what others check him by.

Signed notes in the order of their origins, an empty line between two. Each is the note as the log
published it, byte for byte (C2SP tlog-checkpoint), so it can be cut out and given to any other
program that reads notes; one note alone is such a file too.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from pipeline.ledger.tlog.checkpoints import Checkpoint, parse_checkpoint
from pipeline.ledger.tlog.errors import EvidenceError
from pipeline.ledger.tlog.notes import parse_note

HELD_LIMIT_BYTES: Final = 64_000_000
"""Far above 36 logs in each of a thousand epochs, at about 300 bytes a note."""


@dataclass(frozen=True, slots=True)
class HeldCheckpoint:
    """One checkpoint of the file.

    Attributes:
        note: The signed note, byte for byte.
        checkpoint: What it says; its signature is not checked yet.
    """

    note: bytes
    checkpoint: Checkpoint


def write_held(notes: Iterable[bytes]) -> bytes:
    """Return the file that holds `notes`, of which each log has one.

    Raises:
        EvidenceError: One is no checkpoint, a log has two, or there is none.
    """
    held = sorted(map(_read_one, notes), key=_origin)
    _check_order(held)
    return b"\n".join(each.note for each in held)


def parse_held(content: bytes) -> tuple[HeldCheckpoint, ...]:
    """Return the checkpoints in a file, of which no signature is checked yet.

    Raises:
        EvidenceError: It is not what `write_held` makes.
    """
    if len(content) > HELD_LIMIT_BYTES:
        message = f"expected held checkpoints of at most {HELD_LIMIT_BYTES:,} bytes"
        raise EvidenceError(message)
    held = tuple(map(_read_one, _notes_in(content)))
    _check_order(held)
    return held


def _notes_in(content: bytes) -> Iterator[bytes]:
    """Cut a file into notes: a text, an empty line, signature lines, and an empty line between.

    A checkpoint's text has no empty line (`parse_checkpoint` takes three lines with something in
    each), so every second one stands between two notes.
    """
    parts = content.split(b"\n\n")
    if len(parts) % 2:
        message = "expected whole signed checkpoints, an empty line between two"
        raise EvidenceError(message)
    last = len(parts) - 2
    for start in range(0, len(parts), 2):
        # All but the last lost the newline of their signature line to the cut.
        end = b"" if start == last else b"\n"
        yield parts[start] + b"\n\n" + parts[start + 1] + end


def _read_one(note: bytes) -> HeldCheckpoint:
    return HeldCheckpoint(note, parse_checkpoint(parse_note(note).text))


def _origin(held: HeldCheckpoint) -> str:
    return held.checkpoint.origin


def _check_order(held: Iterable[HeldCheckpoint]) -> None:
    origins = list(map(_origin, held))
    if not origins:
        message = "expected a checkpoint, found none"
        raise EvidenceError(message)
    for before, after in pairwise(origins):
        if before >= after:
            message = f"expected checkpoints in the order of origins, found {after} after {before}"
            raise EvidenceError(message)
