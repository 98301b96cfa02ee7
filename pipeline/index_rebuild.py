"""Rebuild the index of a store from what it is derived from: files, and the request topics.

The files say which runs there are; the topic says which record made each. Procedure, with the
same numbers in `rebuild_index`:

1. Refuse while a worker runs: it would go on writing into the old index.
2. Read every artifact and every link.
3. Read the run requests, and the rows of older stores, from their start. A record whose artifact
   is on disk, byte for byte, made it. A record before the committed offset whose artifact is not
   on disk gets a row all the same: the row is as if the file were right, so that the loss is found
   and not papered over.
4. Read the advisory requests likewise; `rebuilt_advisories` says what they tell.
5. Write a new index beside the old one and put it in its place by rename.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from aiokafka import ConsumerRecord

from pipeline.broker.admin import committed_offsets, group_members
from pipeline.broker.connection import describe_cluster
from pipeline.broker.topic_reader import read_topic
from pipeline.core.judges import RunJudge, run_judges
from pipeline.core.outcome import RecordSource, StoredRun, stored_run
from pipeline.core.verdict import JudgedRun
from pipeline.errors import StoreNotReadyError
from pipeline.rebuilt_advisories import RebuiltAdvisories
from pipeline.settings import Settings
from pipeline.storage.artifact_files import (
    FoundArtifact,
    FoundLink,
    StrangeFile,
    find_run_files,
)
from pipeline.storage.faults import store_faults
from pipeline.storage.identity import StoreIdentity, check_identity, read_store
from pipeline.storage.index import INDEX_FILE, INDEX_LOCK, IndexedRun, RunIndex, indexed_run
from pipeline.storage.locks import exclusive_lock

_ROWS = 500
_NEW_INDEX = f"{INDEX_FILE}.rebuilt"
_Entry = TypeVar("_Entry")


@dataclass(slots=True)
class RebuildReport:
    """What a rebuild found.

    Attributes:
        runs: Rows of the new index.
        without_record: Runs whose file no record of the topic explains.
        without_file: Runs that a record made and whose file is missing or has other bytes.
        strange: Files below `runs` that are no artifact and no link of their place.
        advisories: Rows of advisories in the new index, linked or not.
        links_without_record: Advisories whose link no record of the topic explains.
        links_changed: Advisories whose link is not what their first request makes.
        links_to_make: Claims whose run is there: the advise worker links them.
    """

    runs: int = 0
    without_record: list[str] = field(default_factory=list)
    without_file: list[str] = field(default_factory=list)
    strange: list[StrangeFile] = field(default_factory=list)
    advisories: int = 0
    links_without_record: list[str] = field(default_factory=list)
    links_changed: list[str] = field(default_factory=list)
    links_to_make: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether files and topic tell the same."""
        return not (self.without_file or self.links_changed or self.strange)


@dataclass(slots=True)
class _Row:
    """A run of the new index.

    Attributes:
        file_sha256: Of the file that is on disk; None where there is none.
    """

    run: StoredRun
    indexed: IndexedRun
    file_sha256: str | None

    @property
    def has_file(self) -> bool:
        """Whether the file is what the record made."""
        return self.file_sha256 == self.run.artifact_sha256


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
    rows, advisories = _rows_of_files(root, report, progress)  # 2.
    topics = settings.topics
    committed = await committed_offsets(settings, topics.persist_group, [topics.run_requests])
    committed |= await committed_offsets(settings, topics.migrate_group, [topics.legacy_runs])
    committed |= await committed_offsets(settings, topics.advise_group, [topics.advisory_requests])
    read = partial(_read_counted, settings, committed, progress)
    for topic, judge in run_judges(topics).items():  # 3.
        async for record, offset in read(topic, f"records of {topic}"):
            _explain(rows, identity, record, offset, judge)
    async for record, offset in read(topics.advisory_requests, "advisory requests"):  # 4.
        advisories.explain(record, identity.epoch, offset)
    _report(rows, report)
    _report_advisories(advisories, rows, report)
    with store_faults(root):
        with _new_index(root) as index, index.transaction() as transaction:  # 5.
            for batch in _batches(row.indexed for row in rows.values()):
                transaction.add_runs(batch)
            for claims in _batches(advisories.rows.values()):
                transaction.add_advisories(claims)
            transaction.advance(identity.epoch, committed)
        _put_in_place(root)
    return report


async def _refuse_running_workers(settings: Settings) -> None:
    topics = settings.topics
    for group in (topics.persist_group, topics.advise_group, topics.advise_retry_group):
        members = await group_members(settings, group)
        if members:
            message = (
                f"Stop the workers of {group} first, {len(members)} of them run: they would go on "
                "writing into the old index."
            )
            raise StoreNotReadyError(message)


def _rows_of_files(
    root: Path, report: RebuildReport, progress: Progress
) -> tuple[dict[str, _Row], RebuiltAdvisories]:
    rows: dict[str, _Row] = {}
    advisories = RebuiltAdvisories()
    for count, found in enumerate(find_run_files(root), start=1):
        progress("files", count)
        if isinstance(found, FoundLink):
            strange = advisories.add_link(found.advisory)
        elif isinstance(found, FoundArtifact):
            strange = _add_run(rows, found)
        else:
            strange = found
        if strange is not None:
            report.strange.append(strange)
    return rows, advisories


def _add_run(rows: dict[str, _Row], found: FoundArtifact) -> StrangeFile | None:
    known = rows.setdefault(found.run.run_id, _row_of_file(found))
    if known.run is found.run:
        return None
    reason = f"expected one file of a run, found another at {known.run.artifact_path}"
    return StrangeFile(found.run.artifact_path, reason)


def _row_of_file(found: FoundArtifact) -> _Row:
    return _Row(found.run, found.indexed, found.run.artifact_sha256)


def _explain(
    rows: dict[str, _Row],
    identity: StoreIdentity,
    record: ConsumerRecord,
    committed: int,
    judge: RunJudge,
) -> None:
    """Let `record` explain its run, unless an earlier record has.

    Of two topics, whose records have no order, the one whose record made the file explains it.
    """
    judged = judge(record.key, record.value)
    if not isinstance(judged, JudgedRun):
        return
    known = rows.get(judged.run_id)
    explained_by = known.run.source if known is not None else None
    source = RecordSource(identity.epoch, record.topic, record.partition, record.offset)
    run = stored_run(judged, source)
    row = _Row(run, indexed_run(judged.built.outline, run), known.file_sha256 if known else None)
    if explained_by is not None:
        is_better = row.has_file and explained_by.topic != record.topic
        if (known is not None and known.has_file) or not is_better:
            return
    if row.has_file or record.offset < committed:
        rows[run.run_id] = row


def _report(rows: dict[str, _Row], report: RebuildReport) -> None:
    report.runs = len(rows)
    for run_id, row in sorted(rows.items()):
        if row.run.source is None:
            report.without_record.append(run_id)
        elif not row.has_file:
            report.without_file.append(run_id)


def _report_advisories(
    advisories: RebuiltAdvisories, rows: dict[str, _Row], report: RebuildReport
) -> None:
    paths = {run_id: row.run.artifact_path for run_id, row in rows.items()}
    report.advisories = len(advisories.rows)
    report.links_without_record = _names(advisories.without_record())
    report.links_changed = _names(advisories.changed)
    report.links_to_make = _names(advisories.to_be_linked(paths))
    report.strange += advisories.misplaced(paths)


def _names(keys: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{run_id} {advisory_id}" for run_id, advisory_id in keys]


async def _read_counted(
    settings: Settings,
    committed: Mapping[tuple[str, int], int],
    progress: Progress,
    topic: str,
    what: str,
) -> AsyncIterator[tuple[ConsumerRecord, int]]:
    """Read `topic`, each record with the committed offset of its partition."""
    count = 0
    async for record in read_topic(settings, topic):
        yield record, committed.get((topic, record.partition), 0)
        count += 1
        progress(what, count)


@contextmanager
def _new_index(root: Path) -> Iterator[RunIndex]:
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


def _batches(rows: Iterable[_Entry]) -> Iterator[list[_Entry]]:
    remaining = iter(rows)
    while batch := list(islice(remaining, _ROWS)):
        yield batch


def _put_in_place(root: Path) -> None:
    with exclusive_lock(root / INDEX_LOCK):
        # The file first: a death on the way leaves no index, which says so, rather than an index
        # without its log, which would be an older one. A log that stayed would be taken for that
        # of the new file.
        for old in _files_of(root / INDEX_FILE):
            old.unlink(missing_ok=True)
        (root / _NEW_INDEX).replace(root / INDEX_FILE)
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
