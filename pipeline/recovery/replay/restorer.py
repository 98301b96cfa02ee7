"""Makes again what is missing of one chunk after another: steps 4 to 6 of `restore`.

What restoring a partition takes: which records the store knows, which it is to consume.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.broker.admin.groups import group_members
from pipeline.broker.reading.log_holes import describe_holes
from pipeline.broker.reading.record_ranges import holds_records
from pipeline.core.envelope import Rejected
from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.record import Partition, RecordSource
from pipeline.disk.durable_files import Creation
from pipeline.errors import StoreNotReadyError
from pipeline.recovery.replay.comparison import StoreComparison
from pipeline.recovery.replay.expected import expected_sha256, key_of, sha256_of_leaf, uploads_of
from pipeline.recovery.replay.findings import Finding, Tally, place_of, what_lies_at
from pipeline.recovery.replay.history import ObservedRecord, PartitionHistory
from pipeline.recovery.replay.judged_chunks import JudgedChunk
from pipeline.recovery.replay.partitions import ReplayedPartition
from pipeline.recovery.replay.request_topics import RequestTopic
from pipeline.settings import Settings
from pipeline.storage.batch_store import INTERNAL_ERROR, BatchStore
from pipeline.storage.index.transaction import IndexTransaction
from pipeline.storage.restoring import RestoredFile


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

    def is_known(self, observed: ObservedRecord) -> bool:
        """Tell whether the store was told of a record, or is to be told of its files alone."""
        return not self.follows_on or observed.record.source.id.offset < self.partition.stored_to

    def is_to_consume(self, observed: ObservedRecord) -> bool:
        """Tell whether the store is to consume a record as from a worker."""
        return self.follows_on and observed.record.source.id.offset >= self._consume_from


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
        raise StoreNotReadyError(
            f"Retention has removed {'; '.join(lost)}, and the store does not have them: restore "
            "from a backup of the store first, or go on without them by --accept-loss."
        )


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
        raise StoreNotReadyError(
            f"Records are gone from the middle of the log: {'; '.join(undecided)}. Nobody can tell "
            "who was first among those behind them, and the store has no leaves that say it: put "
            "back the folder ledger of a backup of this store first."
        )


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
                raise StoreNotReadyError(
                    f"Stop the workers of {group} first, {len(members)} of them run: the store "
                    f"lacks records of {topic.name} that they have passed."
                )


_THERE = {Creation.SAME, Creation.CREATED}
_FIRST_OUTCOMES = {"persisted", "linked", "waiting"}


class Restorer:
    """Restores into the stores of all request topics, which are one folder."""

    def __init__(
        self,
        root: Path,
        stores: Mapping[str, BatchStore[Any, Any]],
        steps: Mapping[Partition, RestoreSteps],
        tally: Tally,
    ) -> None:
        """Begin with nothing restored.

        Args:
            root: Folder of the store.
            stores: What keeps the records of each topic, by its name.
            steps: What is to be done for each partition.
            tally: Gets what is found.
        """
        self._stores = stores
        self._steps = steps
        self._tally = tally
        index = next(iter(stores.values())).index
        self._comparison = StoreComparison(root, index, tally)

    def handle(self, partition: ReplayedPartition, chunk: JudgedChunk) -> None:
        """Restore what some records of a partition have made.

        Raises:
            IntegrityError: A log is not what was written, or an offset has another leaf.
            StoreError: The disk or the index failed.
        """
        steps = self._steps[partition.place]
        observed = steps.history.observe(chunk)
        self._tally.counts["records"] += len(observed)
        known = [each for each in observed if steps.is_known(each)]
        new = [each for each in observed if steps.is_to_consume(each)]
        unsettled = set()
        if known:
            unsettled |= self._make_again(partition, known, follows_on=steps.follows_on)  # 4.
        if new:
            unsettled |= self._consume(partition, new)  # 5.
        open_ends = [each for each in observed if each.record.source in unsettled]
        if open_ends:
            self._comparison.compare(partition.topic, open_ends)  # 6.

    def _make_again(
        self, partition: ReplayedPartition, known: Sequence[ObservedRecord], *, follows_on: bool
    ) -> set[RecordSource]:
        """Restore what known records have made; return those that are to be looked at."""
        for each in known:
            if each.is_internal_error:
                self._tally.add(Finding("internal_error", "leaf", place_of(each.record.source)))
        firsts = self._firsts(partition.topic, known)
        safe = [each.record for each in firsts if _makes_what_its_leaf_tells(each)]
        # Only where nothing was left out before may the store say that it has come so far.
        reached = {partition.place: known[-1].record.source.id.offset + 1} if follows_on else {}
        restoration = self._stores[partition.topic.name].restore(safe, reached)
        for file in restoration.files:
            self._count(file)
        settled = {record.source for record in safe} - set(restoration.unlike)
        settled -= {file.source for file in restoration.files if file.creation not in _THERE}
        return {
            each.record.source
            for each in firsts
            if each.record.source not in settled or uploads_of(each.record.verdict)
        }

    def _firsts(self, topic: RequestTopic, known: Sequence[ObservedRecord]) -> list[ObservedRecord]:
        """Return those of `known` that made a run or claimed an advisory."""
        with self._stores[topic.name].index.reading() as connection:
            records = [each.record for each in known]
            rows = topic.plan(records, IndexTransaction(connection)).known
        return [
            each
            for each in known
            if not isinstance(each.record.verdict, Rejected)
            and each.was_first(rows.get(key_of(each.record.verdict)))
        ]

    def _count(self, file: RestoredFile) -> None:
        if file.creation is Creation.CREATED:
            path, sha256 = file.file.path, sha256_of_bytes(file.file.content)
            what, place = what_lies_at(path), place_of(file.source)
            self._tally.add(Finding("restored", what, path, sha256, source=place))
        elif file.creation is Creation.SAME:
            self._tally.counts["intact"] += 1

    def _consume(
        self, partition: ReplayedPartition, new: Sequence[ObservedRecord]
    ) -> set[RecordSource]:
        """Let the store consume records; return those that are to be looked at."""
        result = self._stores[partition.topic.name].commit([each.record for each in new])
        self._tally.counts["consumed"] += len(new)
        unsettled = set()
        for each, outcome in zip(new, result.outcomes, strict=True):
            source = each.record.source
            if outcome.code == INTERNAL_ERROR:
                self._tally.add(Finding("internal_error", "leaf", place_of(source)))
            is_first = outcome.kind in _FIRST_OUTCOMES and uploads_of(each.record.verdict)
            if is_first or outcome.code == "ARTIFACT_CORRUPT":
                unsettled.add(source)
        return unsettled


def _makes_what_its_leaf_tells(observed: ObservedRecord) -> bool:
    """Tell whether the program makes the very bytes that are in the ledger for ever."""
    return observed.leaf is None or sha256_of_leaf(observed.leaf) == expected_sha256(
        observed.record.verdict
    )
