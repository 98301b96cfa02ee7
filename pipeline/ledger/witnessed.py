"""Trusted checkpoints compared with the present logs.

A trusted checkpoint was printed earlier and kept by a third party, out of the owner's reach.

For each trusted checkpoint:

1. One of the keys signed it, where its bytes alone are not trusted.
2. The store has the log, with a checkpoint that one of the keys signed.
3. The log has at least as many leaves.
4. Its tiles give the root of its own checkpoint.
5. They give the trusted root over as many leaves as the checkpoint covers.
6. The consistency proof between the two verifies (RFC 6962 section 2.1.2).
7. Every bundle with a leaf that the checkpoint covers is read; its leaves give the hashes in the
   tiles.

Steps 4 to 6 are about hashes alone. Newer leaves are not read.

Those that audits find in a folder are trusted whatever key signed them: a log that was made anew
with another key must be found. Write access to that folder is therefore a matter of trust.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.progress import Progress, no_progress
from pipeline.errors import InputError, IntegrityError
from pipeline.ledger.log_id import LogId
from pipeline.ledger.reader import LogReader, StoreLogs
from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.checkpoints import (
    Checkpoint,
    TrustedCheckpoint,
    open_checkpoint,
    parse_trusted,
)
from pipeline.ledger.tlog.tiles import bundles_of


@dataclass(frozen=True, slots=True)
class ComparedLog:
    """A trusted checkpoint and the log of now.

    Attributes:
        origin: Of the log.
        trusted_size: Leaves that the trusted checkpoint covers.
        size: Leaves of now; None where they are not known.
        fault: Why the log does not begin with the checkpoint; None where it is.
    """

    origin: str
    trusted_size: int
    size: int | None
    fault: str | None


def compare_trusted(
    logs: StoreLogs,
    trusted: Iterable[TrustedCheckpoint],
    progress: Progress = no_progress,
) -> Iterator[ComparedLog]:
    """Yield each trusted checkpoint compared with its log.

    Args:
        logs: Of the store.
        trusted: The checkpoints, each of another log.
        progress: Called after each bundle of leaves.
    """
    ids = logs.by_origin()
    trusted = list(trusted)
    total, before = sum(each.checkpoint.size for each in trusted), 0
    for each in trusted:
        log = ids.get(each.checkpoint.origin)
        size, fault = None, None
        try:
            _check_signed(each, logs)
            reader = _open(logs, log)
            size = reader.size
            check_continues(reader, each.checkpoint)
            for read in _read_leaves(reader, each.checkpoint.size):
                progress("leaves", before + read, total)
        except (EvidenceError, IntegrityError) as error:
            fault = str(error)
        before += each.checkpoint.size
        yield ComparedLog(each.checkpoint.origin, each.checkpoint.size, size, fault)


def _check_signed(trusted: TrustedCheckpoint, logs: StoreLogs) -> None:  # 1.
    try:
        open_checkpoint(trusted.note, logs.keys)
    except EvidenceError as error:
        raise EvidenceError(
            f"the trusted checkpoint is signed by an unknown key: {error}"
        ) from error


def _open(logs: StoreLogs, log: LogId | None) -> LogReader:  # 2.
    if log is None:
        raise EvidenceError("origin missing: the store has no such log")
    return logs.open(log)


def _read_leaves(reader: LogReader, size: int) -> Iterator[int]:  # 7.
    """Read the leaves that the checkpoint covers; yield after each bundle how many were read."""
    read = 0
    for index in range(bundles_of(size)):
        read += len(reader.bundle(index))
        yield min(read, size)


def check_continues(reader: LogReader, old: Checkpoint) -> None:
    """Check that the hashes of a log go on from `old`, whose word is taken (3. to 6.).

    Raises:
        EvidenceError: It does not.
        IntegrityError: Its tiles are not what was written.
    """
    if reader.size < old.size:  # 3.
        raise EvidenceError(
            f"smaller than held: expected at least {old.size} leaves, found {reader.size}; its "
            "tail was cut off"
        )
    if reader.root_of(reader.size) != reader.checkpoint.root:  # 4.
        raise EvidenceError("expected tiles of the root of the log's own checkpoint, found others")
    found = reader.root_of(old.size)
    if found != old.root:  # 5.
        raise EvidenceError(
            f"other root: expected {old.root.hex()} over the first {old.size} leaves, found "
            f"{found.hex()}; what was held is changed, missing or moved"
        )
    reader.prove_consistency(old)  # 6.


def trusted_checkpoints(folder: Path | None) -> list[Checkpoint]:
    """Return the checkpoints in the files of `folder`, in order; none where there is no folder.

    Raises:
        InputError: A file has no trusted checkpoints, or cannot be read.
    """
    return [] if folder is None else list(_read(folder))


def _read(folder: Path) -> Iterator[Checkpoint]:
    path = folder
    try:
        for path in sorted(each for each in folder.iterdir() if not each.name.startswith(".")):
            yield from (trusted.checkpoint for trusted in parse_trusted(path.read_bytes()))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read for trusted checkpoints: {error.strerror}."
        ) from error
    except EvidenceError as error:
        raise InputError(f"{path} has no trusted checkpoints: {error}.") from error
