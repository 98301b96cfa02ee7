"""The state that a replay starts from: its store, opened to be read, and its partitions.

Of each partition: the requested range, the consumed part, and the position of the store.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

from pipeline.broker.admin.groups import committed_offsets
from pipeline.broker.admin.topics import OffsetRange
from pipeline.broker.connection import describe_cluster
from pipeline.broker.reading.log_holes import Hole, find_holes
from pipeline.consumers.engine.topic_identity import check_topic_ids
from pipeline.core.record import Partition
from pipeline.core.store.identity import StoreIdentity
from pipeline.disk.store_identity import check_identity
from pipeline.ledger.log_id import LogId
from pipeline.ledger.reader import LogReader, StoreLogs
from pipeline.ledger.writer import Ledger
from pipeline.recovery.replay.findings import Finding
from pipeline.recovery.replay.history import LeafCursor, PartitionHistory, covers
from pipeline.recovery.replay.request_topics import RequestTopic, request_topics
from pipeline.recovery.replay.selection import SelectedRange, Selection, resolve
from pipeline.settings import Settings
from pipeline.storage.contents import opened_contents
from pipeline.storage.index.run_index import RunIndex
from pipeline.storage.ledger_key import open_ledger_of, verifier_keys
from pipeline.storage.store import Store, open_to_read


@dataclass(frozen=True, slots=True)
class ReplayedPartition:
    """One partition of a selection.

    Attributes:
        topic: Its topic.
        log_id: Its log in the ledger.
        log: What the broker holds.
        begin: First offset that is asked for.
        end: Offset after the last one that is asked for and was consumed.
        pending: Offsets that are asked for and not consumed yet: they are the workers' own.
        position: The next offset of the store, by the index.
        leaves: The leaves of that log; None where there is none.
        leaves_to: Offset after that of the last leaf.
        has_every_leaf: Whether all that is asked for has leaves: then nothing before it need be
            read.
        holes: Offsets in what is to be read that were those of records, which are gone.
    """

    topic: RequestTopic
    log_id: LogId
    log: OffsetRange
    begin: int
    end: int
    pending: int
    position: int
    leaves: LogReader | None
    leaves_to: int
    has_every_leaf: bool
    holes: tuple[Hole, ...] = ()

    @property
    def place(self) -> Partition:
        """Topic and number."""
        return self.topic.name, self.log_id.partition

    @property
    def stored_to(self) -> int:
        """Offset up to which the store knows records, by rows or by leaves."""
        return max(self.position, self.leaves_to)

    @property
    def to_read(self) -> OffsetRange:
        """What to read of it: from the log's start where a record may have no leaf."""
        if self.begin >= self.end:
            return OffsetRange(self.end, self.end)
        return OffsetRange(self.begin if self.has_every_leaf else self.log.beginning, self.end)

    def history(self) -> PartitionHistory:
        """Return a history in which nothing is read yet."""
        cursor = LeafCursor(self.leaves, self.begin, self.end)
        known_to = self.holes[0][0] if self.holes else None
        remembers = not self.has_every_leaf
        return PartitionHistory(self.begin, cursor, remembers=remembers, known_to=known_to)

    def hole_findings(self) -> Iterator[Finding]:
        """Yield a finding for each hole, which names it as an option of a replay does."""
        for begin, end in self.holes:
            place = f"{self.topic.name}/{self.log_id.partition}:{begin}-{end}"
            yield Finding("missing", "record", place, "records", "none: they are gone from the log")


async def replayed_partitions(
    settings: Settings, selection: Selection, ledger: Ledger | None, index: RunIndex, epoch: int
) -> list[ReplayedPartition]:
    """Return every partition that `selection` is about, in the order of a replay.

    Args:
        settings: The broker.
        selection: What is asked for.
        ledger: That of the store.
        index: Likewise.
        epoch: Of the store.

    Raises:
        StoreNotReadyError: A topic is another than the one that the store has records of.
        InputError: The selection is of no request topic.
        BrokerError: The broker cannot be reached, or a topic is missing.
        IntegrityError: A log is not what was written.
    """
    await check_topic_ids(settings, index, epoch)
    topics = request_topics(settings.topics)
    ranges = await resolve(settings, selection, [topic.name for topic in topics])
    found = []
    for topic in topics:
        # Before the store is asked: a worker that goes on meanwhile only makes it know more.
        committed = await committed_offsets(settings, topic.group, [topic.name])
        stored = index.positions(epoch)
        for place, asked in ranges.items():
            if place[0] == topic.name:
                leaves = None if ledger is None else ledger.reader(LogId(epoch, *place))
                # Where the group never was, no record is left to a worker.
                consumed = committed.get(place, 0) if committed else asked.log.end
                reached = stored.get(place, 0), consumed
                found.append(_partition(topic, LogId(epoch, *place), asked, leaves, reached))
    holes = await find_holes(settings, {each.place: each.to_read for each in found})
    return [replace(each, holes=tuple(holes.get(each.place, ()))) for each in found]


def _partition(
    topic: RequestTopic,
    log_id: LogId,
    asked: SelectedRange,
    leaves: LogReader | None,
    reached: tuple[int, int],
) -> ReplayedPartition:
    position, _ = reached
    begin, asked_end = asked.selected.beginning, asked.selected.end
    end = max(min(asked_end, max(reached)), begin)
    return ReplayedPartition(
        topic,
        log_id,
        asked.log,
        begin,
        end,
        pending=asked_end - end,
        position=position,
        leaves=leaves,
        leaves_to=0 if leaves is None else leaves.next_offset,
        has_every_leaf=covers(leaves, begin, end),
    )


@dataclass(frozen=True, slots=True)
class OpenedStore:
    """A store that nothing is written to.

    Attributes:
        store: The store; its index is an empty one elsewhere where a new store has none yet.
        ledger: Its logs; None where the settings have none.
        logs: The same with those of earlier epochs, whatever key of the store has signed them.
    """

    store: Store
    ledger: Ledger | None
    logs: StoreLogs | None


async def identity_for_broker(settings: Settings) -> StoreIdentity:
    """Return the identity of the store that the settings name, which keeps this broker's topics.

    Raises:
        StoreNotReadyError: There is no store, or it keeps those of another broker or prefix.
        BrokerError: No broker answers.
    """
    with opened_contents(settings) as store:
        identity, name = store.identity, store.name
    cluster_id = await describe_cluster(settings)
    check_identity(identity, name, cluster_id=cluster_id, prefix=settings.prefix)
    return identity


@contextmanager
def opened_to_read(settings: Settings) -> Iterator[OpenedStore]:
    """Open the store for the length of a block; no file of it is made or changed.

    Raises:
        StoreNotReadyError: Its index is missing over files, or damaged, or there is no key.
        StoreError: The disk failed.
    """
    with closing(open_to_read(settings)) as store:
        ledger, logs = open_ledger_of(settings, store), None
        if ledger is not None:
            logs = StoreLogs(store, verifier_keys(settings, store.identity, store.files))
        yield OpenedStore(store, ledger, logs)
