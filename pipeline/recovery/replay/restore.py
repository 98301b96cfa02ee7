"""Restores missing files, rows and leaves from the topics, with the same bytes and no events.

Procedure, with the same numbers in the code:

1. Fix what is asked for, up to what the workers have consumed: what they have not is theirs.
2. Refuse where the start of a log is gone, where records are gone from its middle and later ones
   have no leaf that decides whether they were first, and, while workers run, where leaves are to be
   appended: a worker that is further on would leave a gap in the ledger that nothing closes.
3. Read each partition, from its start where a record may have no leaf; judge every record.
4. Of records that the store knows: make again the files, and the rows, of those that were
   first (`history`). A known file that has other bytes is reported and left alone.
5. What follows without a gap the store consumes, by the function that a worker calls: files,
   leaves, rows, position. Runs come before advisories, so links find their runs. What follows
   after a gap gets files and rows alone, if its record was first; the workers add its leaf.
6. Compare what could not be restored, and look for uploads that no message brings back.
7. Give the store root: 32 bytes that two stores share where they hold the same.

Only the store shows how far a restore came: killed anywhere, it is started
again and comes to the same end.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from pipeline.broker.admin.groups import refuse_running_workers
from pipeline.broker.reading.log_holes import describe_holes
from pipeline.broker.reading.ranges import holds_records
from pipeline.core.envelope import Rejected
from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.record import RecordSource
from pipeline.core.store.files import Creation
from pipeline.errors import ArchivedError, IntegrityError, StoreNotReadyError
from pipeline.ledger.reader import StoreLogs
from pipeline.recovery.replay.comparison import StoreComparison
from pipeline.recovery.replay.findings import Finding, Tally, what_lies_at
from pipeline.recovery.replay.history import (
    ObservedRecord,
    PartitionHistory,
    expected_sha256,
    key_of,
    sha256_of_leaf,
    uploads_of,
)
from pipeline.recovery.replay.partitions import (
    ReplayedPartition,
    identity_for_broker,
    replayed_partitions,
)
from pipeline.recovery.replay.reading import UNLIMITED, JudgedChunk, Reading, read_partitions
from pipeline.recovery.replay.request_topics import request_topics
from pipeline.recovery.replay.selection import Selection
from pipeline.settings import Settings
from pipeline.storage.batch_plan import INTERNAL_ERROR
from pipeline.storage.batch_store import BatchStore
from pipeline.storage.checksums import store_root
from pipeline.storage.index.queries import known_rows
from pipeline.storage.ledger_key import verifier_keys
from pipeline.storage.store import Store, open_to_write

_THERE = {Creation.SAME, Creation.CREATED}
_FIRST_OUTCOMES = {"persisted", "linked", "waiting"}


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore came to.

    Attributes:
        counts: Records and files, and findings by kind.
        pending: Offsets that are asked for and were not consumed yet.
        differs: Whether something could not be restored.
        store_root: To compare with that of another store; None where there is no ledger, or where
            files are not as they were written.
    """

    counts: dict[str, int]
    pending: int
    differs: bool
    store_root: str | None


async def restore(
    settings: Settings,
    selection: Selection,
    report: Callable[[Finding], None],
    *,
    accept_loss: bool = False,
    reading: Reading = UNLIMITED,
) -> Restored:
    """Restore what is asked for into the store that the settings name.

    Args:
        settings: Broker, store and ledger key.
        selection: What is asked for.
        report: Called with each finding.
        accept_loss: The operator accepts that the start of a log is gone.
        reading: Rate limit and progress.

    Raises:
        InputError: The selection is of no request topic.
        StoreNotReadyError: Workers run, or records of a log are gone. Nothing was written.
        StoreError: There is no store, it does not fit the broker, or the disk failed.
        IntegrityError: A log is not what was written, or an offset has another leaf.
        BrokerError: The broker cannot be reached, or a topic is missing.
    """
    identity = await identity_for_broker(settings)
    store, ledger = open_to_write(settings)
    with closing(store):
        partitions = await replayed_partitions(  # 1.
            settings, selection, ledger, store.index, identity.epoch
        )
        is_whole = selection.run_id is None
        steps = [
            RestoreSteps.of(each, has_ledger=ledger is not None, is_whole=is_whole)
            for each in partitions
        ]
        if not accept_loss:
            refuse_loss(steps)  # 2.
        await _refuse_undecided(settings, partitions)
        await _refuse_workers_ahead(settings, steps)
        tally = Tally(report)
        for partition in partitions:
            tally.add_all(partition.hole_findings())
        stores = {
            topic.name: topic.store(store, ledger=ledger)
            for topic in request_topics(settings.topics)
        }
        restorer = _Restorer(stores, StoreComparison(store, store.index, tally), tally)
        by_place = {each.partition.place: each for each in steps}
        await read_partitions(  # 3.
            settings,
            partitions,
            lambda partition, chunk: restorer.handle(by_place[partition.place], chunk),
            reading=reading,
            run_id=selection.run_id,
        )
        has_root = ledger is not None
        root = await asyncio.to_thread(_store_root, settings, store) if has_root else None  # 7.
    pending = sum(each.pending for each in partitions)
    return Restored(dict(tally.counts), pending, tally.differs, root)


def _store_root(settings: Settings, store: Store) -> str | None:
    try:
        # Logs of earlier epochs may have been signed by keys that are out of use.
        logs = StoreLogs(store, verifier_keys(settings, store.identity, store.files))
        return store_root(logs).hex()
    except (ArchivedError, IntegrityError):
        return None  # A file that nothing here may mend; it was named where it was asked for.


@dataclass(frozen=True, slots=True)
class RestoreSteps:
    """What restoring one partition takes: which records the store knows, which it consumes.

    Attributes:
        partition: What is asked for, and how far the store has it.
        history: What was read of it.
        reached: Offset up to which the store has both rows and leaves.
        consume_from: First offset that the store may consume as from a worker.
        follows_on: Whether the range begins where the store's rows and leaves end, or before, so
            that it can be consumed without a gap.
    """

    partition: ReplayedPartition
    history: PartitionHistory
    reached: int
    consume_from: int
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
        consume_from = partition.leaves_to if has_ledger else partition.position
        reached = min(partition.position, consume_from)
        follows_on = is_whole and partition.begin <= max(reached, partition.log.beginning)
        return cls(partition, partition.history(), reached, consume_from, follows_on)

    @property
    def lost(self) -> tuple[int, int] | None:
        """First and last offset that neither the store nor the log has, where that matters."""
        log_begin = self.partition.log.beginning
        return (
            (self.reached, log_begin - 1) if self.follows_on and self.reached < log_begin else None
        )

    @property
    def goes_beyond_store(self) -> bool:
        """Whether there are records that the store has not received yet."""
        first_new = self.consume_from if self.follows_on else self.partition.stored_to
        return max(first_new, self.partition.begin) < self.partition.end

    def is_known(self, observed: ObservedRecord) -> bool:
        """Whether the store has received a record, or is to get its files alone."""
        return not self.follows_on or observed.record.source.id.offset < self.partition.stored_to

    def is_to_consume(self, observed: ObservedRecord) -> bool:
        """Whether the store is to consume a record as from a worker."""
        return self.follows_on and observed.record.source.id.offset >= self.consume_from


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


async def _refuse_undecided(settings: Settings, partitions: Iterable[ReplayedPartition]) -> None:
    """Refuse to decide who was first behind a hole in the log, where no leaf decides it.

    The request that was first may be what is gone: a later one, which was refused, would be made
    the run. No option changes that.

    Raises:
        StoreNotReadyError: Records behind a hole have no leaf.
    """
    undecided = []
    for partition in partitions:
        if not partition.holes:
            continue
        begin = max(partition.holes[0][1], partition.leaves_to)
        if await holds_records(settings, *partition.place, begin, partition.end):
            undecided.append(describe_holes(partition.place, list(partition.holes)))
    if undecided:
        raise StoreNotReadyError(
            f"Records are gone from the middle of the log: {'; '.join(undecided)}. Nothing shows "
            "who was first among those behind them, and the store has no leaves that say it: put "
            "back the folder ledger of a backup of this store first."
        )


async def _refuse_workers_ahead(settings: Settings, steps: Iterable[RestoreSteps]) -> None:
    """Refuse to append leaves beside a worker that is further on: it would leave a gap for ever.

    Files that the store has received are restored while workers run; they take turns by the lock.

    Raises:
        StoreNotReadyError: A worker of a topic runs whose records are new to the store.
    """
    behind = {each.partition.topic.group: each for each in steps if each.goes_beyond_store}
    for group, each in behind.items():
        reason = f"the store lacks records of {each.partition.topic.name} that they have passed"
        await refuse_running_workers(settings, reason, [group])


@dataclass(frozen=True, slots=True)
class _Restorer:
    """Restores one chunk after another into the stores of all request topics: one folder.

    Attributes:
        stores: What keeps the records of each topic, by its name.
        comparison: Compares what could not be restored.
        tally: Gets what is found.
    """

    stores: Mapping[str, BatchStore[Any, Any]]
    comparison: StoreComparison
    tally: Tally

    def handle(self, steps: RestoreSteps, chunk: JudgedChunk) -> None:
        """Restore what some records of a partition have made.

        Raises:
            IntegrityError: A log is not what was written, or an offset has another leaf.
            StoreError: The disk or the index failed.
        """
        observed = steps.history.observe(chunk)
        self.tally.counts["records"] += len(observed)
        known = [each for each in observed if steps.is_known(each)]
        new = [each for each in observed if steps.is_to_consume(each)]
        unfinished = set()
        if known:
            unfinished |= self._restore(steps, known)  # 4.
        if new:
            unfinished |= self._consume(steps, new)  # 5.
        to_compare = [each for each in observed if each.record.source in unfinished]
        if to_compare:
            self.comparison.compare(steps.partition.topic, to_compare)  # 6.

    def _restore(self, steps: RestoreSteps, known: Sequence[ObservedRecord]) -> set[RecordSource]:
        """Restore what known records have made; return those that are to be compared."""
        self.tally.add_all(
            Finding("internal_error", "leaf", str(each.record.source.id))
            for each in known
            if each.is_internal_error
        )
        firsts = self._firsts(steps, known)
        same = [each.record for each in firsts if _makes_what_its_leaf_names(each)]
        # Only where nothing was left out before may the store record that position.
        last = {steps.partition.place: known[-1].record.source.id.offset + 1}
        restoration = self.stores[steps.partition.topic.name].restore(
            same, last if steps.follows_on else {}
        )
        restored = {record.source for record in same}.difference(restoration.unlike)
        for file in restoration.files:
            if file.creation not in _THERE:
                restored.discard(file.source)
            elif file.creation is Creation.SAME:
                self.tally.counts["intact"] += 1
            else:
                path, sha256 = file.file.path, sha256_of_bytes(file.file.content)
                place = str(file.source.id)
                self.tally.add(Finding("restored", what_lies_at(path), path, sha256, source=place))
        return {
            each.record.source
            for each in firsts
            if each.record.source not in restored or uploads_of(each.record.verdict)
        }

    def _firsts(self, steps: RestoreSteps, known: Sequence[ObservedRecord]) -> list[ObservedRecord]:
        """Return those of `known` that made a run or claimed an advisory."""
        topic = steps.partition.topic
        with self.stores[topic.name].index.reading() as connection:
            records = [each.record for each in known]
            found = known_rows(connection, (record.verdict for record in records))
            rows = topic.store.plan_batch(records, found).known
        return [
            each
            for each in known
            if not isinstance(each.record.verdict, Rejected)
            and each.was_first(rows.get(key_of(each.record.verdict)))
        ]

    def _consume(self, steps: RestoreSteps, new: Sequence[ObservedRecord]) -> set[RecordSource]:
        """Let the store consume records; return those that are to be compared."""
        store = self.stores[steps.partition.topic.name]
        result = store.commit([each.record for each in new])
        self.tally.counts["consumed"] += len(new)
        unfinished = set()
        for each, outcome in zip(new, result.outcomes, strict=True):
            source = each.record.source
            if outcome.code == INTERNAL_ERROR:
                self.tally.add(Finding("internal_error", "leaf", str(source.id)))
            is_first = outcome.kind in _FIRST_OUTCOMES and uploads_of(each.record.verdict)
            if is_first or outcome.code == "ARTIFACT_CORRUPT":
                unfinished.add(source)
        return unfinished


def _makes_what_its_leaf_names(observed: ObservedRecord) -> bool:
    """Whether the program makes the very bytes that are in the ledger for ever."""
    expected = expected_sha256(observed.record.verdict)
    return observed.leaf is None or sha256_of_leaf(observed.leaf) == expected
