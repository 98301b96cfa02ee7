"""Rebuilds the index of a store from its files, ledger and request topics.

The files show which runs exist; the ledger, or where there is none the topic, names the record
made each. Procedure, with the same numbers in `rebuild_index`:

1. Refuse while a worker runs: it would go on writing into the old index. Where many hosts share an
   index, their batches wait for the lock of the store instead, from here to the end.
2. Read every artifact and every link.
3. Read the leaves of all logs. The first leaf of a run or an advisory is that of the
   record that made it. A file with other bytes than its leaf ends it here: a new row would
   make it look right.
4. Where the epoch has a ledger, read from the topics what it lacks: the record of a leaf
   whose file is not there, for the rest of its row, which is as if the file were right, so that
   the loss is found and not papered over; and what follows the last leaves, for files of a batch
   that died before its leaves. A broker is needed for these alone.
5. Where it has none, read the topics from their start. A record whose artifact is on disk, byte for
   byte, made it; one before the committed offset has its row all the same, as above.
6. Put the new rows in the place of the old ones, all at once (`storage/index/replacement.py`).

The position of a partition is where its log ends, or where there is none what is committed.
"""

from collections.abc import Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from pipeline.broker.admin.groups import refuse_running_workers
from pipeline.broker.admin.topics import OffsetRange, partition_offsets
from pipeline.broker.connection import describe_cluster
from pipeline.broker.reading.log_holes import describe_holes
from pipeline.broker.reading.ranges import read_offsets, read_ranges
from pipeline.core.layout import LinkPath, date_of
from pipeline.core.progress import Progress, no_progress
from pipeline.core.record import Partition, RecordId, RecordSource
from pipeline.core.store.contents import StoreContents
from pipeline.disk.store_identity import check_identity
from pipeline.errors import BrokerError, IntegrityError, StoreNotReadyError
from pipeline.ledger.leaf import LedgerLeaf
from pipeline.ledger.reader import StoreLogs
from pipeline.recovery.rebuild.rows import RebuiltRows, RebuiltRun
from pipeline.recovery.replay.request_topics import (
    consumed_offsets,
    holes_in_consumed,
    request_topics,
)
from pipeline.settings import Settings
from pipeline.storage.archives import Archives
from pipeline.storage.artifacts import UnexpectedFile
from pipeline.storage.contents import opened_contents
from pipeline.storage.index.replacement import Replacement, batches
from pipeline.storage.ledger_key import verifier_keys
from pipeline.storage.store import index_replacement


@dataclass(slots=True)
class RebuildReport:
    """What a rebuild found.

    Attributes:
        runs: Rows of the new index.
        without_record: Runs whose file no leaf and no record explains.
        without_file: Runs that a record made and whose file is missing or has other bytes.
        unexpected: Files below `runs` that are no artifact and no link of their place.
        advisories: Rows of advisories in the new index, linked or not.
        links_without_record: Advisories whose link no leaf and no record explains.
        links_changed: Advisories whose link is not what their first request makes.
        links_to_make: Claims whose run is there: the advise worker links them.
        lost: Runs and advisories with a leaf, but neither a file nor a record: they
            have no row.
        archived: Artifacts and links that are archived; their rows are made of their records.
    """

    runs: int = 0
    without_record: list[str] = field(default_factory=list)
    without_file: list[str] = field(default_factory=list)
    unexpected: list[UnexpectedFile] = field(default_factory=list)
    advisories: int = 0
    links_without_record: list[str] = field(default_factory=list)
    links_changed: list[str] = field(default_factory=list)
    links_to_make: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    archived: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether files, ledger and topic agree."""
        unexplained = self.without_record or self.links_without_record
        unlike = self.without_file or self.links_changed or self.unexpected or self.lost
        return not (unexplained or unlike)


async def rebuild_index(settings: Settings, progress: Progress = no_progress) -> RebuildReport:
    """Rebuild the index of the store that the settings name.

    Raises:
        StoreNotReadyError: There is no store, it belongs to another cluster, or a worker runs.
        IntegrityError: A file or the ledger is not what was written; the old index is in place.
        StoreError: The disk, the bucket or the database failed; the old index is still in place.
        BrokerError: No broker answers, and the ledger alone is not enough.
    """
    with opened_contents(settings) as store, index_replacement(settings, store) as replacement:
        return await _rebuild(settings, store, replacement, progress)


async def _rebuild(
    settings: Settings, store: StoreContents, replacement: Replacement, progress: Progress
) -> RebuildReport:
    identity = store.identity
    no_broker = await _look_for_broker(settings, store)  # 1.
    rows = RebuiltRows(store.files)
    rows.take_files(progress)  # 2.
    logs = StoreLogs(store, verifier_keys(settings, identity, store.files))
    positions = rows.take_leaves(logs, progress)  # 3.
    rows.refuse_differing()
    has_ledger = identity.epoch in positions
    if no_broker is not None and not (has_ledger and not rows.wanted and not rows.has_unexplained):
        raise _needed(no_broker, rows, has_ledger=has_ledger)
    if has_ledger:
        await _take_records(settings, identity.epoch, rows, progress)  # 4.
        # A batch that died before its leaves: its records come again, and are first again.
        begin, committed = positions[identity.epoch], {}
    else:
        begin, committed = {}, await consumed_offsets(settings)  # 5.
        await _refuse_holes(settings, committed)
        positions[identity.epoch] = committed
    if not has_ledger or rows.has_unexplained:
        await _explain(
            settings, identity.epoch, rows, begin=begin, committed=committed, progress=progress
        )
    report = _report(rows, take_archives(Archives(store), rows))
    with store.faults(), replacement() as transaction:  # 6.
        for batch in batches(row.indexed for row in rows.runs.rows.values()):
            transaction.add_runs(batch)
        for claims in batches(rows.advisories.rows.values()):
            transaction.add_advisories(claims)
        for epoch, reached in positions.items():
            transaction.advance(epoch, reached)
    return report


async def _look_for_broker(settings: Settings, store: StoreContents) -> BrokerError | None:
    """Refuse while a worker runs; return why there is no broker to ask, if there is none.

    A worker that runs all the same finds another index at its next batch, and stops.
    """
    identity = store.identity
    try:
        cluster_id = await describe_cluster(settings)
    except BrokerError as error:
        return error
    check_identity(identity, store.name, cluster_id=cluster_id, prefix=settings.prefix)
    if not settings.is_shared:
        await refuse_running_workers(settings, "they would go on writing into the old index")
    return None


def _needed(error: BrokerError, rows: RebuiltRows, *, has_ledger: bool) -> BrokerError:
    if not has_ledger:
        return BrokerError(f"{error} Without a ledger only the topics show what made each file.")
    count = len(rows.wanted)
    return BrokerError(
        f"{error} It is needed for {count} records whose file or link is not there, and for files "
        "that no leaf explains."
    )


async def _take_records(
    settings: Settings, epoch: int, rows: RebuiltRows, progress: Progress
) -> None:
    """Read the records of the wanted leaves, each by its offset."""
    offsets: dict[Partition, set[int]] = {}
    for source, _ in rows.wanted:
        if source.epoch == epoch:
            offsets.setdefault(source.id.topic_partition, set()).add(source.id.offset)
    if not offsets:
        return
    judges = {topic.name: topic.judge for topic in request_topics(settings.topics)}
    count = 0
    async with aclosing(read_offsets(settings, offsets)) as records:
        async for record in records:
            verdict = judges[record.topic](record.key, record.value)
            rows.take_record(RecordSource(epoch, RecordId.of(record)), verdict)
            count += 1
            progress("records of missing files", count, None)


async def _explain(
    settings: Settings,
    epoch: int,
    rows: RebuiltRows,
    *,
    begin: Mapping[Partition, int],
    committed: Mapping[Partition, int],
    progress: Progress,
) -> None:
    """Let the records of the topics explain the files, each topic from `begin` to its end."""
    for topic in request_topics(settings.topics):
        ranges = {
            place: OffsetRange(max(each.beginning, begin.get(place, 0)), each.end)
            for place, each in (await partition_offsets(settings, [topic.name])).items()
        }
        count = 0
        async with aclosing(read_ranges(settings, ranges)) as records:
            async for record in records:
                source = RecordSource(epoch, RecordId.of(record))
                is_consumed = record.offset < committed.get(source.id.topic_partition, 0)
                verdict = topic.judge(record.key, record.value)
                rows.explain(source, verdict, is_consumed=is_consumed)
                count += 1
                progress(f"records of {topic.name}", count, None)


async def _refuse_holes(settings: Settings, committed: Mapping[Partition, int]) -> None:
    """Refuse to decide what made a file where records are gone, and no leaf names it.

    Raises:
        StoreNotReadyError: Records are gone from the middle of a log.
    """
    there = await partition_offsets(settings, sorted({topic for topic, _ in committed}))
    if holes := await holes_in_consumed(settings, there, committed):
        gone = "; ".join(describe_holes(place, found) for place, found in holes.items())
        raise StoreNotReadyError(
            f"Records are gone from the middle of the log: {gone}. Nothing shows which record "
            "made a file, and the store has no leaves that say it: put back the folder ledger of a "
            "backup of this store first. The old index is in place."
        )


def take_archives(archives: Archives, rows: RebuiltRows) -> int:
    """Let rows whose file is archived say so; return how many they are.

    Raises:
        IntegrityError: Of something archived there is neither the file nor the record.
    """
    runs, advisories, marked = rows.runs.rows, rows.advisories.rows, 0
    if lost := sum(_is_lost(archives, runs, *each) for each in rows.wanted):
        raise IntegrityError(
            f"Nothing was replaced: {lost:,} runs and advisories are archived, and the topics have "
            "their records no more, so nothing here has their rows. Put their files back first "
            "(rmos archive restore FILE)."
        )
    for row in runs.values():
        if not row.has_file and archives.is_archived(row.run.artifact_path, row.run.source):
            row.is_archived = True
            marked += 1
    for key, link in advisories.items():
        known = runs.get(link.run_id)
        if link.link_path is None and known is not None:
            path = _link_path(known, *key)
            if archives.is_archived(path, known.run.source, link.source):
                # The link was made once.
                advisories[key] = replace(link, link_path=path)
                marked += 1
    return marked


def _is_lost(
    archives: Archives, runs: Mapping[str, RebuiltRun], source: RecordSource, leaf: LedgerLeaf
) -> bool:
    """Return whether a leaf without a row is of something archived."""
    if leaf.path is not None:
        return archives.is_archived(leaf.path, source)
    known = runs.get(str(leaf.run_id))
    if known is None:
        return False  # Its run is lost too, and counted.
    path = _link_path(known, str(leaf.run_id), str(leaf.advisory_id))
    return archives.is_archived(path, known.run.source, source)


def _link_path(known: RebuiltRun, run_id: str, advisory_id: str) -> str:
    return str(LinkPath(date_of(known.run.artifact_path), run_id, advisory_id))


def _report(rows: RebuiltRows, archived: int) -> RebuildReport:
    paths = rows.runs.paths()
    return RebuildReport(
        runs=len(paths),
        without_record=rows.runs.without_record(),
        without_file=rows.runs.without_file(),
        unexpected=[*rows.unexpected, *rows.advisories.misplaced(paths)],
        advisories=len(rows.advisories.rows),
        links_without_record=_names(rows.advisories.without_record()),
        links_changed=_names(rows.advisories.changed),
        links_to_make=_names(rows.advisories.to_be_linked(paths)),
        lost=[
            f"{leaf.run_id} {leaf.advisory_id}" if leaf.advisory_id else str(leaf.run_id)
            for _, leaf in rows.wanted
        ],
        archived=archived,
    )


def _names(keys: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{run_id} {advisory_id}" for run_id, advisory_id in keys]
