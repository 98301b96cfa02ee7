"""What restoring a partition takes: which records the store knows, which it is to consume."""

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.broker.admin.topics import group_members
from pipeline.broker.reading.log_holes import describe_holes
from pipeline.broker.reading.record_ranges import holds_records
from pipeline.errors import StoreNotReadyError
from pipeline.recovery.replay.history import PartitionHistory, SeenRecord
from pipeline.recovery.replay.partitions import ReplayedPartition
from pipeline.settings import Settings


@dataclass(frozen=True, slots=True)
class RestoreSteps:
    """One partition.

    Attributes:
        partition: What is asked for, and how far the store has it.
        history: What was read of it.
        has_ledger: Whether the store keeps a ledger.
        follows_on: Whether the range begins where the store's rows and leaves end, or before, so
            that it can be consumed without a gap.
    """

    partition: ReplayedPartition
    history: PartitionHistory
    has_ledger: bool
    follows_on: bool

    @classmethod
    def of(
        cls, partition: ReplayedPartition, *, has_ledger: bool, is_whole: bool
    ) -> "RestoreSteps":
        """Return the steps of a partition.

        Args:
            partition: The partition.
            has_ledger: Whether the store keeps a ledger.
            is_whole: Whether every record of the range is asked for.
        """
        reached = _reached(partition, has_ledger=has_ledger)
        follows_on = is_whole and partition.begin <= max(reached, partition.log.beginning)
        return cls(partition, partition.history(), has_ledger, follows_on)

    @property
    def lost(self) -> tuple[int, int] | None:
        """First and last offset that neither the store nor the log has, where that matters."""
        reached = _reached(self.partition, has_ledger=self.has_ledger)
        begins_late = self.follows_on and reached < self.partition.log.beginning
        return (reached, self.partition.log.beginning - 1) if begins_late else None

    @property
    def goes_beyond_store(self) -> bool:
        """Whether there are records of which the store was told nothing yet."""
        first_new = self._consume_from if self.follows_on else self.partition.stored_to
        return max(first_new, self.partition.begin) < self.partition.end

    @property
    def _consume_from(self) -> int:
        return self.partition.leaves_to if self.has_ledger else self.partition.position

    def is_known(self, seen: SeenRecord) -> bool:
        """Tell whether the store was told of a record, or is to be told of its files alone."""
        return not self.follows_on or seen.record.source.offset < self.partition.stored_to

    def is_to_consume(self, seen: SeenRecord) -> bool:
        """Tell whether the store is to consume a record as from a worker."""
        return self.follows_on and seen.record.source.offset >= self._consume_from


def _reached(partition: ReplayedPartition, *, has_ledger: bool) -> int:
    """Return the offset up to which the store has both rows and leaves."""
    return min(partition.position, partition.leaves_to) if has_ledger else partition.position


def refuse_loss(steps: Iterable[RestoreSteps]) -> None:
    """Refuse to begin a log after its start: a ledger cannot be filled in later.

    Raises:
        StoreNotReadyError: Retention has removed what the store does not have.
    """
    lost = [
        f"offsets {each.lost[0]} to {each.lost[1]} of {each.partition.topic.name}, partition "
        f"{each.partition.log_id.partition}"
        for each in steps
        if each.lost is not None
    ]
    if lost:
        message = (
            f"Retention has removed {'; '.join(lost)}, and the store does not have them: restore "
            "from a backup of the store first, or go on without them by --accept-loss."
        )
        raise StoreNotReadyError(message)


async def refuse_undecided(settings: Settings, steps: Iterable[RestoreSteps]) -> None:
    """Refuse to say who was first behind a hole in the log, where no leaf says it.

    The request that was first may be what is gone: a later one, which was refused, would be made
    the run. No option changes that.

    Raises:
        StoreNotReadyError: Records behind a hole have no leaf.
        BrokerError: The broker cannot be reached.
    """
    undecided = []
    for partition in (each.partition for each in steps):
        if not partition.holes:
            continue
        begin = max(partition.holes[0][1], partition.leaves_to)
        topic, number = partition.place
        if await holds_records(settings, topic, number, begin, partition.end):
            undecided.append(describe_holes(partition.place, list(partition.holes)))
    if undecided:
        message = (
            f"Records are gone from the middle of the log: {'; '.join(undecided)}. Nobody can tell "
            "who was first among those behind them, and the store has no leaves that say it: put "
            "back the folder ledger of a backup of this store first."
        )
        raise StoreNotReadyError(message)


async def refuse_running_workers(settings: Settings, steps: Iterable[RestoreSteps]) -> None:
    """Refuse to append leaves beside a worker that is further on: it would leave a gap for ever.

    Files that the store was told of are restored while workers run; they take turns by the lock.

    Raises:
        StoreNotReadyError: A worker of a topic runs whose records are new to the store.
        BrokerError: The broker cannot be reached.
    """
    topics = {
        each.partition.topic.name: each.partition.topic for each in steps if each.goes_beyond_store
    }
    for topic in topics.values():
        for group in topic.groups:
            members = await group_members(settings, group)
            if members:
                message = (
                    f"Stop the workers of {group} first, {len(members)} of them run: the store "
                    f"lacks records of {topic.name} that they have passed."
                )
                raise StoreNotReadyError(message)
