"""A new index in the place of the one that is there, which may be damaged.

On a disk it is a file beside the old one, put in its place by rename. In a database that many hosts
share, all rows are replaced in one transaction, while no batch of theirs begins
(`pipeline/storage/index/postgres.py`). Either way nobody sees half of it, and what fails before the
end leaves the old one.

It takes over what neither files nor leaves have: losses that were accepted, claims that were
reported or are in hand, and the ids of the topics. The windows of the reject limit begin anew.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeAlias, TypeVar

from pipeline.core.record import Partition
from pipeline.disk.owner import refuse_as_root
from pipeline.disk.sqlite.replacement import new_database, put_in_place, rows_left
from pipeline.storage.index.queries import IndexTransaction
from pipeline.storage.index.run_index import RunIndex
from pipeline.storage.index.schema import SCHEMA

_ROWS = 500
_CLAIMS_IN_HAND = "SELECT epoch, topic, partition, offset FROM claims_in_hand"
_TOPIC_IDS = "SELECT topic, topic_id FROM topic_ids WHERE epoch = ?"
_Entry = TypeVar("_Entry")

Replacement: TypeAlias = Callable[[], AbstractContextManager[IndexTransaction]]
"""Begins a transaction that is given all rows; at its end they are in place of those before."""


@contextmanager
def replacing_file(root: Path, epoch: int) -> Iterator[Replacement]:
    """Prepare to put a new file in the place of the index of the store at `root`.

    Raises:
        StoreNotReadyError: We are root, and the store belongs to another user.
    """
    refuse_as_root(root)
    yield partial(_replaced, root, epoch)


@contextmanager
def _replaced(root: Path, epoch: int) -> Iterator[IndexTransaction]:
    with new_index(root) as index, index.transaction() as transaction:
        yield transaction
        for each, given_up in accepted_losses_of(root).items():
            transaction.accept_losses(each, given_up)
        for each, reported in reported_claims_of(root).items():
            transaction.note_reported_claims(each, reported)
        transaction.take_claims(claims_in_hand_of(root))
        for topic, topic_id in topic_ids_of(root, epoch).items():
            transaction.note_topic_id(epoch, topic, topic_id)
    put_in_place(root)


@contextmanager
def new_index(root: Path) -> Iterator[RunIndex]:
    """Make an index beside the old one, whole and durable at the end of the block."""
    with new_database(root, SCHEMA) as database:
        yield RunIndex(database)


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
    found = rows_left(root, _CLAIMS_IN_HAND)
    return [(epoch, topic, partition, offset) for epoch, topic, partition, offset in found]


def _offsets_of(root: Path, table: str) -> dict[int, dict[Partition, int]]:
    found: dict[int, dict[Partition, int]] = {}
    rows = rows_left(root, f"SELECT epoch, topic, partition, next_offset FROM {table}")  # noqa: S608
    for epoch, topic, partition, offset in rows:
        found.setdefault(epoch, {})[topic, partition] = offset
    return found


def topic_ids_of(root: Path, epoch: int) -> dict[str, str]:
    """Return the ids of the topics that the index that is there has noted in `epoch`.

    Nothing else has them; without, the next start of a worker learns them again.
    """
    return dict(rows_left(root, _TOPIC_IDS, (epoch,)))


def batches(rows: Iterable[_Entry]) -> Iterator[list[_Entry]]:
    """Yield `rows` in lists of a size that the index takes at a time."""
    remaining = iter(rows)
    while batch := list(islice(remaining, _ROWS)):
        yield batch
