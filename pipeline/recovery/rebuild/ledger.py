"""Builds the logs of a store without a ledger, from the start of its topics.

The records that the store has consumed are judged again and committed by the function that a
worker commits with, so the leaves are those that it would have written from the start: the rows
of the index decide which record was first. What is on disk stays as it is. Killed, it goes on where
the logs end.

What the broker no longer has can have no leaf: it was removed by retention, or is gone from the
middle of the log. What the store went past without storing it, as an operator has let it, is
consumed now.
"""

from contextlib import closing
from dataclasses import dataclass, field

from pipeline.broker.admin.groups import refuse_running_workers
from pipeline.broker.admin.topics import OffsetRange, partition_offsets
from pipeline.broker.connection import describe_cluster
from pipeline.broker.reading.log_holes import describe_holes, find_holes
from pipeline.broker.reading.ranges import holds_records
from pipeline.core.progress import Progress, no_progress
from pipeline.core.record import Partition
from pipeline.disk.owner import refuse_as_root
from pipeline.disk.store_identity import check_identity, read_store
from pipeline.errors import StoreNotReadyError
from pipeline.ledger.log_id import LogId
from pipeline.ledger.writer import Ledger
from pipeline.recovery.replay.reading import commit_ranges
from pipeline.recovery.replay.request_topics import request_topics
from pipeline.settings import Settings
from pipeline.storage.index.run_index import open_index_to_read
from pipeline.storage.ledger_key import open_ledger
from pipeline.storage.store import open_store_to_write


@dataclass(slots=True)
class MissingLeaves:
    """What the store has consumed and the logs do not have.

    Attributes:
        ranges: What to read, by topic and partition.
        lost: What the broker no longer has of it, in words.
        without_log: Logs of partitions that the store has consumed from, which do not exist.
    """

    ranges: dict[Partition, OffsetRange] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    without_log: list[LogId] = field(default_factory=list)

    def refuse_loss(self) -> None:
        """Refuse to build without what the broker no longer has.

        Raises:
            StoreNotReadyError: Something is gone.
        """
        if self.lost:
            raise StoreNotReadyError(
                f"The broker no longer has {'; '.join(self.lost)}: they can have no leaf; to "
                "build the logs without them, run rmos ledger init --accept-loss."
            )

    @property
    def offsets(self) -> int:
        """Number of offsets to read; some of them may hold no record."""
        return sum(each.end - each.beginning for each in self.ranges.values())


async def find_missing_leaves(settings: Settings) -> MissingLeaves:
    """Compare the logs with where the store stands in each partition.

    The broker is asked only where they do not agree.

    Raises:
        StoreNotReadyError: The store has no key, workers run, or store and broker do not fit.
        IntegrityError: A log is not what was written.
        BrokerError: No broker answers.
    """
    missing = MissingLeaves()
    identity = read_store(settings.data_dir)
    ledger = open_ledger(settings)
    if ledger is None:
        return missing
    behind = _behind(settings, ledger, identity.epoch, missing)
    if not behind:
        return missing
    cluster_id = await describe_cluster(settings)
    check_identity(identity, settings.data_dir, cluster_id=cluster_id, prefix=settings.prefix)
    offsets = await partition_offsets(settings, {topic for topic, _ in behind})
    for place, wanted in behind.items():
        await _look(settings, place, wanted, offsets[place], missing)
    for place, holes in (await find_holes(settings, missing.ranges)).items():
        missing.lost.append(f"{describe_holes(place, holes)}, from the middle of the log")
    if missing.ranges:
        await refuse_running_workers(settings, "the logs have to be built up to where they stand")
    return missing


def _behind(
    settings: Settings, ledger: Ledger, epoch: int, missing: MissingLeaves
) -> dict[Partition, OffsetRange]:
    """Return the partitions whose log ends before the store's position, and what is between."""
    behind = {}
    names = {topic.name for topic in request_topics(settings.topics)}
    with closing(open_index_to_read(settings.data_dir)) as index:
        positions = sorted(index.positions(epoch).items())
    for place, position in positions:
        if place[0] not in names or not position:
            continue
        log = LogId(epoch, *place)
        reader = ledger.reader(log)
        if reader is None:
            missing.without_log.append(log)
        following = 0 if reader is None else reader.next_offset
        if following < position:
            behind[place] = OffsetRange(following, position)
    return behind


async def _look(
    settings: Settings,
    place: Partition,
    wanted: OffsetRange,
    there: OffsetRange,
    missing: MissingLeaves,
) -> None:
    """Find out which records of `wanted` the broker still has."""
    topic, partition = place
    if wanted.end > there.end:
        raise StoreNotReadyError(
            f"The store has records up to offset {wanted.end} of {topic}, partition {partition}, "
            f"the log ends at {there.end}: the broker has lost records or is another; run rmos "
            "store new-epoch."
        )
    begin = max(wanted.beginning, there.beginning)
    is_new = any(place == (log.topic, log.partition) for log in missing.without_log)
    if begin >= wanted.end and not wanted.beginning and not is_new:
        # An empty log: it was made when this loss was accepted.
        return
    if begin > wanted.beginning:
        last = min(begin, wanted.end) - 1
        missing.lost.append(f"offsets {wanted.beginning} to {last} of {topic}-{partition}")
    # What ends a transaction has an offset too, and gets no leaf.
    if begin < wanted.end and await holds_records(settings, topic, partition, begin, wanted.end):
        missing.ranges[place] = OffsetRange(begin, wanted.end)


async def build_logs(
    settings: Settings,
    missing: MissingLeaves,
    progress: Progress = no_progress,
) -> int:
    """Append the leaves that are missing; return of how many records.

    Args:
        settings: The broker and the store.
        missing: As `find_missing_leaves` has found; what is lost is left out.
        progress: Called after each chunk of a topic.

    Raises:
        IntegrityError: A log is not what was written.
        StoreError: The disk failed; what is done stays, and doing it again goes on from there.
        BrokerError: The broker cannot be reached.
    """
    refuse_as_root(settings.data_dir)
    done = 0
    for topic in request_topics(settings.topics):
        ranges = {place: each for place, each in missing.ranges.items() if place[0] == topic.name}
        if ranges:
            ledger = open_ledger(settings)
            opened = topic.store(open_store_to_write(settings.data_dir), ledger=ledger)
            with closing(opened) as store:
                done += await commit_ranges(settings, topic, store, ranges, progress)
    ledger = open_ledger(settings)
    if ledger is not None:
        # Of a partition whose records are all gone the log is empty, and there.
        ledger.begin(missing.without_log)
    return done
