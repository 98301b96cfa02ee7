"""Each partition of a request topic as the log, the group, the store and its ledger see it.

Only a worker that has stored a record commits its offset. Where a group stands beyond its
store all the same, another program has committed in its name, or the store is an older copy.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from pipeline.broker.admin.groups import committed_offsets
from pipeline.broker.admin.topics import OffsetRange, partition_offsets
from pipeline.broker.reading.ranges import holds_records
from pipeline.core.record import Partition
from pipeline.ledger.log_id import LogId
from pipeline.ledger.reader import LogReader
from pipeline.settings import Settings
from pipeline.storage.store import Store

ReadLog: TypeAlias = Callable[[LogId], LogReader | None]
"""Opens a log at its checkpoint of now; None where it does not exist yet."""


@dataclass(frozen=True, slots=True)
class PartitionState:
    """One partition, looked at once.

    Attributes:
        begin: First offset that the broker's log still has.
        end: Offset after the last one.
        committed: Where the group goes on; None where it has never been.
        stored: Where the store goes on: the next offset of its last transaction, else 0.
        given_up: Before it, the operator accepted that records are not in the store.
        ledger: The store's own log of it; None where there is none.
        logged: The offset after that of the ledger's last leaf, else 0.
    """

    topic: str
    partition: int
    begin: int
    end: int
    committed: int | None
    stored: int
    given_up: int
    ledger: LogReader | None
    logged: int

    @property
    def topic_partition(self) -> Partition:
        """What names it."""
        return self.topic, self.partition

    @property
    def place(self) -> str:
        """Topic and partition, for a sentence."""
        return f"{self.topic}, partition {self.partition}"

    @property
    def following(self) -> int:
        """The offset that is to be consumed next, whether the log holds it or not."""
        following = self.committed if self.committed is not None else self.stored
        return max(following, self.given_up)

    @property
    def kept(self) -> int:
        """Before it, every record is in the store or was given up."""
        return max(self.stored, self.given_up)

    @property
    def read_from(self) -> int:
        """The offset from which the log is read: its start where the group's is of no use."""
        committed = -1 if self.committed is None else self.committed
        return committed if self.begin <= committed <= self.end else self.begin

    @property
    def offsets(self) -> OffsetRange:
        """What the broker has."""
        return OffsetRange(self.begin, self.end)


async def partition_states(
    settings: Settings, store: Store, read_log: ReadLog | None, *, topic: str, group: str
) -> list[PartitionState]:
    """Return every partition of `topic` as log, group, store and ledger see it.

    Partitions that were added, and that the settings do not include, are left out. A store without
    a ledger has no `read_log`.

    Raises:
        IntegrityError: A log of the ledger is not what was written.
        StoreError: The disk failed.
        BrokerError: No broker answers.
    """
    # In the order in which a record passes them backwards: another worker that goes on while we
    # look only makes the later ones larger, and must not look like a loss.
    committed = await committed_offsets(settings, group, [topic])
    epoch = store.identity.epoch
    given_up = store.index.accepted_losses(epoch)
    stored = store.index.positions(epoch)
    numbers = range(settings.request_partitions)
    ledgers = [read_log and read_log(LogId(epoch, topic, number)) for number in numbers]
    offsets = await partition_offsets(settings, [topic])
    return [
        PartitionState(
            topic,
            number,
            offsets[topic, number].beginning,
            offsets[topic, number].end,
            committed.get((topic, number)),
            stored.get((topic, number), 0),
            given_up.get((topic, number), 0),
            ledger,
            0 if ledger is None else ledger.next_offset,
        )
        for number, ledger in enumerate(ledgers)
        if (topic, number) in offsets
    ]


async def is_beyond_store(
    settings: Settings, place: Partition, *, committed: int, kept: int, log: OffsetRange
) -> bool:
    """Return whether the group went past records that the store has not seen.

    The group also goes past what ends a transaction; the store gets nothing of it. Where
    it stands beyond the log's end, the log is read from its start, so nothing is passed over.

    Args:
        settings: The broker.
        place: The partition.
        committed: Where the group goes on.
        kept: Before it, every record is in the store or was given up.
        log: What the broker has.

    Raises:
        BrokerError: No broker answers.
    """
    if not kept < committed <= log.end:
        return False
    if kept < log.beginning:
        return True
    return await holds_records(settings, *place, kept, committed)


def beyond_store(place: Partition, *, committed: int, stored: int) -> str:
    """Return where the group and the store stand, without a full stop."""
    return (
        f"The group has committed offset {committed} of {place[0]}, partition {place[1]}, the "
        f"store has records up to {stored}"
    )


def ways_back(settings: Settings, group: str) -> str:
    """Return the way out, as the rest of a sentence."""
    name = group.removeprefix(f"{settings.prefix}.")
    return (
        f"if somebody else reads with this group, stop that and run rmos offsets reset {name} "
        "--to-store; if only the index is old, run rmos index rebuild; if the files are, run "
        "rmos replay restore; to go on without them, start with --accept-loss"
    )
