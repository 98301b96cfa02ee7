"""A new index beside the old one, put in its place by rename once it is whole."""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import TypeVar

from pipeline.core.record import Partition
from pipeline.disk.locks import INDEX_LOCK, exclusive_lock
from pipeline.disk.small_files import flush_folder
from pipeline.storage.index.engine import read_only
from pipeline.storage.index.run_index import INDEX_FILE, RunIndex

_ROWS = 500
_NEW_INDEX = f"{INDEX_FILE}.rebuilt"
_CLAIMS_IN_HAND = "SELECT epoch, topic, partition, offset FROM claims_in_hand"
_TOPIC_IDS = "SELECT topic, topic_id FROM topic_ids WHERE epoch = ?"
_Entry = TypeVar("_Entry")


@contextmanager
def new_index(root: Path) -> Iterator[RunIndex]:
    """Make an index beside the old one, whole and durable at the end of the block."""
    path = root / _NEW_INDEX
    for leftover in _files_of(path):
        leftover.unlink(missing_ok=True)
    index = RunIndex(path)
    try:
        yield index
        index.fold_log()
    finally:
        index.close()


def accepted_losses_of(root: Path) -> dict[int, dict[Partition, int]]:
    """Return the offsets up to which the index that is there says a loss was accepted, by epoch.

    Neither files nor leaves have them. The index may be missing, damaged or of another format: then
    what can be read of it is returned.
    """
    return _offsets_of(root, "accepted_losses")


def reported_claims_of(root: Path) -> dict[int, dict[Partition, int]]:
    """Return before which offsets waiting claims were reported, likewise."""
    return _offsets_of(root, "reported_claims")


def claims_in_hand_of(root: Path) -> list[tuple[int, str, int, int]]:
    """Return the claims whose events may not have been sent, likewise; see `take_claims`."""
    try:
        with closing(read_only(root / INDEX_FILE)) as index:
            return index.execute(_CLAIMS_IN_HAND).fetchall()
    except sqlite3.Error:
        return []


def _offsets_of(root: Path, table: str) -> dict[int, dict[Partition, int]]:
    found: dict[int, dict[Partition, int]] = {}
    try:
        with closing(read_only(root / INDEX_FILE)) as index:
            rows = index.execute(f"SELECT epoch, topic, partition, next_offset FROM {table}")  # noqa: S608
            for epoch, topic, partition, offset in rows:
                found.setdefault(epoch, {})[topic, partition] = offset
    except sqlite3.Error:
        return found
    return found


def topic_ids_of(root: Path, epoch: int) -> dict[str, str]:
    """Return the ids of the topics that the index that is there has noted in `epoch`.

    Nothing else has them; without, the next start of a worker learns them again.
    """
    try:
        with closing(read_only(root / INDEX_FILE)) as index:
            return dict(index.execute(_TOPIC_IDS, (epoch,)).fetchall())
    except sqlite3.Error:
        return {}


def batches(rows: Iterable[_Entry]) -> Iterator[list[_Entry]]:
    """Yield `rows` in lists of a size that the index takes at a time."""
    remaining = iter(rows)
    while batch := list(islice(remaining, _ROWS)):
        yield batch


def put_in_place(root: Path) -> None:
    """Put the new index of the store at `root` in the place of the old one, durably."""
    with exclusive_lock(root / INDEX_LOCK):
        # The file first: a death on the way leaves no index, which says so, rather than an index
        # without its log, which would be an older one. A log that stayed would be taken for that
        # of the new file.
        for old in _files_of(root / INDEX_FILE):
            old.unlink(missing_ok=True)
        (root / _NEW_INDEX).replace(root / INDEX_FILE)
        flush_folder(root)


def _files_of(index: Path) -> tuple[Path, Path, Path]:
    return (
        index,
        index.with_name(f"{index.name}-wal"),
        index.with_name(f"{index.name}-shm"),
    )
