"""Rebuild the index of a store from what it is derived from: files, and the request topic.

The files say which runs there are; the topic says which record made each. Procedure, with the
same numbers in `rebuild_index`:

1. Refuse while a worker runs: it would go on writing into the old index.
2. Read every artifact.
3. Read the topic from its start. A record whose artifact is on disk, byte for byte, made it. A
   record before the committed offset whose artifact is not on disk gets a row all the same: the
   row is as if the file were right, so that the loss is found and not papered over.
4. Write a new index beside the old one and put it in its place by rename.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from pipeline.broker.admin import committed_offsets, group_members, partition_offsets
from pipeline.broker.connection import broker_errors, client_options, describe_cluster
from pipeline.broker.tolerant_records import install_tolerant_records
from pipeline.core.outcome import RecordSource, StoredRun, stored_run
from pipeline.core.verdict import JudgedRun, judge_run_record
from pipeline.errors import StoreNotReadyError
from pipeline.settings import Settings
from pipeline.storage.artifact_files import FoundArtifact, StrangeFile, find_artifacts
from pipeline.storage.faults import store_faults
from pipeline.storage.identity import StoreIdentity, check_identity, read_store
from pipeline.storage.index import INDEX_FILE, INDEX_LOCK, IndexedRun, RunIndex, indexed_run
from pipeline.storage.locks import exclusive_lock

_ROWS = 500
_POLL_MS = 500


@dataclass(slots=True)
class RebuildReport:
    """What a rebuild found.

    Attributes:
        runs: Rows of the new index.
        without_record: Runs whose file no record of the topic explains.
        without_file: Runs that a record made and whose file is missing or has other bytes.
        strange: Files below `runs` that are no artifact of their place.
    """

    runs: int = 0
    without_record: list[str] = field(default_factory=list)
    without_file: list[str] = field(default_factory=list)
    strange: list[StrangeFile] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether files and topic tell the same."""
        return not (self.without_file or self.strange)


@dataclass(slots=True)
class _Row:
    run: StoredRun
    indexed: IndexedRun
    has_file: bool


Progress = Callable[[str, int], None]
"""Told what is read and how many so far."""


async def rebuild_index(
    settings: Settings, progress: Progress = lambda what, count: None
) -> RebuildReport:
    """Rebuild the index of the store at `settings.data_dir`.

    Raises:
        StoreNotReadyError: There is no store, it belongs to another cluster, or a worker runs.
        StoreError: The disk failed; the old index is still in place.
        BrokerError: No broker answers.
    """
    root = settings.data_dir
    identity = read_store(root)
    check_identity(
        identity, root, cluster_id=await describe_cluster(settings), prefix=settings.prefix
    )
    await _refuse_running_workers(settings)  # 1.
    report = RebuildReport()
    rows = _rows_of_files(root, report, progress)  # 2.
    group, topic = settings.topics.persist_group, settings.topics.run_requests
    committed = await committed_offsets(settings, group, [topic])
    count = 0
    async for record in _read_topic(settings, topic):  # 3.
        _explain(rows, identity, record, committed.get((topic, record.partition), 0))
        count += 1
        progress("records", count)
    _report(rows, report)
    with store_faults(root):
        _replace_index(root, identity, (row.indexed for row in rows.values()), committed)  # 4.
    return report


async def _refuse_running_workers(settings: Settings) -> None:
    members = await group_members(settings, settings.topics.persist_group)
    if members:
        message = (
            f"Stop the workers of {settings.topics.persist_group} first, {len(members)} of them "
            "run: they would go on writing into the old index."
        )
        raise StoreNotReadyError(message)


def _rows_of_files(root: Path, report: RebuildReport, progress: Progress) -> dict[str, _Row]:
    rows: dict[str, _Row] = {}
    for count, found in enumerate(find_artifacts(root), start=1):
        progress("files", count)
        if isinstance(found, StrangeFile):
            report.strange.append(found)
        elif found.run.run_id in rows:
            first = rows[found.run.run_id].run.artifact_path
            reason = f"expected one file of a run, found another at {first}"
            report.strange.append(StrangeFile(found.run.artifact_path, reason))
        else:
            rows[found.run.run_id] = _row_of_file(found)
    return rows


def _row_of_file(found: FoundArtifact) -> _Row:
    return _Row(found.run, found.indexed, has_file=True)


def _explain(
    rows: dict[str, _Row], identity: StoreIdentity, record: ConsumerRecord, committed: int
) -> None:
    """Let `record` explain its run, unless an earlier record has."""
    judged = judge_run_record(record.key, record.value)
    if not isinstance(judged, JudgedRun):
        return
    known = rows.get(judged.run_id)
    if known is not None and known.run.source is not None:
        return
    source = RecordSource(identity.epoch, record.topic, record.partition, record.offset)
    run = stored_run(judged, source)
    same_file = known is not None and known.run.artifact_sha256 == run.artifact_sha256
    if same_file or record.offset < committed:
        indexed = indexed_run(judged.built.outline, run)
        rows[run.run_id] = _Row(run, indexed, has_file=same_file)


def _report(rows: dict[str, _Row], report: RebuildReport) -> None:
    report.runs = len(rows)
    for run_id, row in sorted(rows.items()):
        if row.run.source is None:
            report.without_record.append(run_id)
        elif not row.has_file:
            report.without_file.append(run_id)


async def _read_topic(settings: Settings, topic: str) -> AsyncIterator[ConsumerRecord]:
    """Read `topic` from its start to where it ends now, each partition in order."""
    ends = {
        TopicPartition(name, partition): found.end
        for (name, partition), found in (await partition_offsets(settings, [topic])).items()
        if found.end > found.beginning
    }
    install_tolerant_records()
    consumer = AIOKafkaConsumer(
        **client_options(settings), enable_auto_commit=False, isolation_level="read_committed"
    )
    with broker_errors(settings):
        try:
            await consumer.start()
            # One partition after the other, so that the first of two is always the same one.
            for place in sorted(ends):
                consumer.assign([place])
                await consumer.seek_to_beginning(place)
                while await consumer.position(place) < ends[place]:
                    batches = await consumer.getmany(place, timeout_ms=_POLL_MS)
                    for record in batches.get(place, []):
                        if record.offset < ends[place]:
                            yield record
        finally:
            await consumer.stop()


def _replace_index(
    root: Path,
    identity: StoreIdentity,
    rows: Iterable[IndexedRun],
    committed: dict[tuple[str, int], int],
) -> None:
    new = root / f"{INDEX_FILE}.rebuilt"
    for leftover in _files_of(new):
        leftover.unlink(missing_ok=True)
    index = RunIndex(new)
    try:
        with index.transaction() as transaction:
            batch: list[IndexedRun] = []
            for row in rows:
                batch.append(row)
                if len(batch) == _ROWS:
                    transaction.add_runs(batch)
                    batch.clear()
            transaction.add_runs(batch)
            transaction.advance(identity.epoch, committed)
        index.fold_log()
    finally:
        index.close()
    with exclusive_lock(root / INDEX_LOCK):
        # The file first: a death on the way leaves no index, which says so, rather than an index
        # without its log, which would be an older one. A log that stayed would be taken for that
        # of the new file.
        for old in _files_of(root / INDEX_FILE):
            old.unlink(missing_ok=True)
        new.replace(root / INDEX_FILE)
        _flush_folder(root)


def _files_of(index: Path) -> tuple[Path, Path, Path]:
    return (
        index,
        index.with_name(f"{index.name}-wal"),
        index.with_name(f"{index.name}-shm"),
    )


def _flush_folder(root: Path) -> None:
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
