"""The records of archived dates: `archives/<date>.json`, each written once.

A record names a tar, and how far each log had come when the tar was made. What a leaf before these
offsets explains is in the tar, if its date is that of the record; what came later is not. A file
that is missing, and that the record of its date covers, is archived. A record proves nothing: the
tar does, by `rmos archive verify`.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from pipeline.core.json.canonical import canonical_json
from pipeline.core.layout import ARCHIVES_FOLDER, ArchivePath, date_of, parse_path
from pipeline.core.record import RecordSource
from pipeline.core.runs.outcome import StoredRun
from pipeline.core.store.contents import StoreContents
from pipeline.core.store.files import Creation, NewFile, NotAFileError, ReadableFiles
from pipeline.errors import ArchivedError, IntegrityError, RefusedError
from pipeline.ledger.log_id import LogId
from pipeline.ledger.reader import LogReader
from pipeline.storage.batch_plan import StoredRow, path_of_row
from schemas.fields import DATE_PATTERN, Frozen, Sha256

ARCHIVE_VERSION: Final = "rmos.archive/1"
RECORD_LIMIT_BYTES: Final = 1 << 20
"""A log of a record has some 200 bytes: enough for 5,000 partitions of all epochs."""

_Count = Annotated[int, Field(ge=0)]


class ArchivedLog(Frozen):
    """How far one log had come when the tar was made.

    Attributes:
        log: Its folder, relative to the store.
        next_offset: One more than the offset of its last leaf.
        size: Number of its leaves.
        root_sha256: Their Merkle root.
    """

    log: str
    next_offset: _Count
    size: _Count
    root_sha256: Sha256


class ArchivedTar(Frozen):
    """The tar of one or more dates.

    Attributes:
        path: Where it was said to go.
        size_bytes: Of the whole file.
        sha256: Likewise.
    """

    path: str
    size_bytes: _Count
    sha256: Sha256


class ArchiveRecord(Frozen):
    """What was archived of one date, and into which tar.

    Attributes:
        store_id: Of the store.
        date: UTC date of the runs.
        artifacts: Number of artifacts of this date in the tar.
        links: Likewise.
        attachments: Number of attachments in the tar, of all its dates.
        logs: In the order of their folders.
        tar: The tar.
    """

    schema_version: Literal["rmos.archive/1"] = ARCHIVE_VERSION
    store_id: str
    date: Annotated[str, Field(pattern=DATE_PATTERN)]
    artifacts: _Count
    links: _Count
    attachments: _Count
    logs: list[ArchivedLog]
    tar: ArchivedTar

    def covers(self, *sources: RecordSource | None) -> bool:
        """Return whether the leaves of all these records are among those of the tar."""
        reached = {each.log: each.next_offset for each in self.logs}
        return all(
            source is not None and source.id.offset < reached.get(_log_of(source).path, 0)
            for source in sources
        )

    @property
    def content(self) -> bytes:
        """Its canonical bytes."""
        return canonical_json(self.model_dump())


def _log_of(source: RecordSource) -> LogId:
    return LogId(source.epoch, source.id.topic, source.id.partition)


class Archives:
    """The records of one store, each read when it is first asked for, and then kept.

    Threads that ask for the same record at once may each read it. A reader that lives long makes a
    new one for each question.
    """

    def __init__(self, store: StoreContents) -> None:
        self._store = store
        self._records: dict[str, ArchiveRecord | None] = {}

    def of(self, date: str) -> ArchiveRecord | None:
        """Return the record of a date; None where there is none, or one that cannot be read.

        Raises:
            StoreError: The disk failed.
        """
        if date not in self._records:
            try:
                self._records[date] = read_record(self._store, date)
            except IntegrityError:
                # It covers nothing. An audit reports it.
                self._records[date] = None
        return self._records[date]

    def covering(self, path: str, *sources: RecordSource | None) -> ArchiveRecord | None:
        """Return the record that covers an artifact or a link, whether its file is there or not.

        Args:
            path: Of the file.
            *sources: What its bytes come from: the record of its run, and of a link its own too.
        """
        record = self.of(date_of(path))
        return record if record is not None and record.covers(*sources) else None

    def is_archived(self, path: str, *sources: RecordSource | None) -> bool:
        """Return whether a record covers an artifact or a link, and its file is gone."""
        return self.covering(path, *sources) is not None and is_gone(self._store.files, path)

    def has_row(self, row: StoredRow, runs: Mapping[str, StoredRun]) -> bool:
        """Return whether a record covers the document of a row, likewise.

        Args:
            row: Of a run or an advisory.
            runs: By run_id; that of an advisory is among them where it is known.
        """
        path = path_of_row(row)
        run = row if isinstance(row, StoredRun) else runs.get(row.run_id)
        if path is None or run is None:
            return False
        return self.covering(path, row.source, run.source) is not None

    def dates(self) -> list[str]:
        """Return the dates that have a record which can be read, in order."""
        with self._store.faults():
            found = self._store.files.names(ARCHIVES_FOLDER)
        paths = [parse_path(each.path) for each in found]
        dates = [path.date for path in paths if isinstance(path, ArchivePath)]
        return [date for date in dates if self.of(date) is not None]


def is_gone(files: ReadableFiles, path: str) -> bool:
    """Return whether there is nothing at `path`: neither the file nor anything in its place.

    False where the disk cannot be asked: what cannot be looked at is a fault, and not archived.
    """
    try:
        return path not in files.present([path])
    except OSError:
        return False


def is_seen(files: ReadableFiles, path: str) -> bool:
    """Return whether there is anything at `path`; False where the disk cannot be asked."""
    try:
        return path in files.present([path])
    except OSError:
        return False


def mark_archived(
    store: StoreContents, items: Iterable[dict[str, Any]], find: Callable[[str], StoredRun | None]
) -> None:
    """Let each item of a listing whose artifact is archived say so.

    Args:
        store: The store.
        items: Of the listing.
        find: Gives the row of a run, by its run_id.

    Raises:
        StoreError: The disk failed.
    """
    archives = Archives(store)
    for item in items:
        path = item["artifact_path"]
        # Most dates have no record, and then nothing is looked up.
        if archives.of(date_of(path)) is not None and is_gone(store.files, path):
            run = find(item["run_id"])
            if run is not None and archives.covering(path, run.source) is not None:
                item["archived"] = True


def read_record(store: StoreContents, date: str) -> ArchiveRecord | None:
    """Return the record of a date; None where there is none.

    Raises:
        IntegrityError: What has its name is no record of this date and this store.
        StoreError: The disk failed.
    """
    path = str(ArchivePath(date))
    with store.faults():
        try:
            content = store.files.read(path, RECORD_LIMIT_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except NotAFileError as error:
            raise IntegrityError(f"The record {path} cannot be read ({error}).") from error
    try:
        record = ArchiveRecord.model_validate_json(content)
    except ValidationError as error:
        raise IntegrityError(f"Expected {path} to be the record of an archived date.") from error
    if record.date != date or record.store_id != store.identity.store_id:
        raise IntegrityError(
            f"Expected {path} to be of this date and this store, found {record.date} and the store "
            f"{record.store_id}."
        )
    if record.content != content:
        raise IntegrityError(f"Expected {path} in canonical JSON, found other bytes.")
    return record


def write_record(store: StoreContents, record: ArchiveRecord) -> bool:
    """Write the record of a date, durably; False where the same is there already.

    Raises:
        RefusedError: The date has another record by now; it stays.
        StoreError: The disk failed.
    """
    path = str(ArchivePath(record.date))
    with store.faults():
        made = store.files.create([NewFile(path, record.content)])
    if made[path] is Creation.CREATED:
        return True
    if read_record(store, record.date) != record:
        raise RefusedError(
            f"The date {record.date} has another record, {path}: it was archived into another tar "
            "meanwhile."
        )
    return False


def contradiction(log: ArchivedLog, reader: LogReader | None) -> str | None:
    """Return what the ledger says otherwise of a log than a record or a tar does; None if nothing.

    Args:
        log: As it is said to have been.
        reader: Of this log; None where the store has none.

    Raises:
        IntegrityError: The log is not what was written.
        StoreError: The disk failed.
    """
    size = 0 if reader is None else reader.size
    if reader is None or size < log.size:
        return f"expected {log.log} with at least {log.size:,} leaves, found {size:,}"
    if reader.root_of(log.size).hex() != log.root_sha256:
        return f"expected {log.log} to begin with other leaves"
    reached = reader.leaf(log.size - 1).offset + 1 if log.size else 0
    if log.next_offset != reached:
        return f"expected {log.log} to have come to offset {reached}, found {log.next_offset}"
    return None


def archived_error(path: str, record: ArchiveRecord) -> ArchivedError:
    """Return the error that a file is archived, with its record, which names the tar alone."""
    tar = record.tar
    # No answer holds a path of the server.
    named = tar.model_dump() | {"path": Path(tar.path).name}
    shown = record.model_dump() | {"tar": named}
    return ArchivedError(
        f"RUN_ARCHIVED: The file {path} is archived: it is in the tar with SHA-256 "
        f"{tar.sha256}, and rmos archive restore puts it back.",
        details={"archive": shown},
    )
