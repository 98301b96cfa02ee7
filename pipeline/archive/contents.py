"""What belongs into the tar of some dates, by the ledger: artifacts, links, attachments.

1. Every log is read at one checkpoint: a `run` leaf whose path has one of the dates gives an
   artifact, an `advisory` leaf of such a run gives a link.
2. Each file must be there, with the bytes of its leaf. A date is not archived where something is
   missing, or differs, or waits for its link.
3. Attachments that they name go along if nothing else names them, by the rows of the index, those
   of advisories that wait included. One that another run names stays in the store, and so does the
   whole request of a run, in quarantine: a reader of the tar may not read that.

Memory grows by the files of the dates: some 3 KB each, measured with 500 and 2,500 runs.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Final, Literal

from pydantic import Field

from pipeline.core.layout import LinkPath, attachment_path, date_of, parse_path
from pipeline.core.progress import Progress
from pipeline.core.record import RecordId, RecordSource
from pipeline.core.store.contents import StoreContents
from pipeline.core.store.files import Files
from pipeline.errors import ArchivedError, IntegrityError, NotFoundError, RefusedError
from pipeline.ledger.leaf import LedgerLeaf
from pipeline.ledger.reader import LogReader, StoreLogs
from pipeline.storage.archives import ArchivedLog, ArchivedTar, ArchiveRecord
from pipeline.storage.artifacts import read_recorded
from pipeline.storage.attachments import AttachmentFiles
from pipeline.storage.checksums import attachments_of
from pipeline.storage.index.named import named_by_others
from pipeline.storage.index.run_index import RunIndex
from schemas.fields import DATE_PATTERN, Frozen

TAR_VERSION: Final = "rmos.archive_tar/1"


class DateCounts(Frozen):
    """How many files of one date a tar has."""

    artifacts: int = Field(ge=0)
    links: int = Field(ge=0)


class ArchiveManifest(Frozen):
    """What a tar says of itself, in its member `archive.json`.

    Attributes:
        store_id: Of the store.
        dates: UTC dates, each with its counts.
        attachments: Number of attachments.
        logs: How far each log had come, in the order of their folders.
    """

    schema_version: Literal["rmos.archive_tar/1"] = TAR_VERSION
    store_id: str
    dates: dict[Annotated[str, Field(pattern=DATE_PATTERN)], DateCounts]
    attachments: int = Field(ge=0)
    logs: list[ArchivedLog]


def record_of(manifest: ArchiveManifest, date: str, tar: ArchivedTar) -> ArchiveRecord:
    """Return the record of a date of a tar: all of it but the place follows from the tar."""
    counts = manifest.dates[date]
    return ArchiveRecord(
        store_id=manifest.store_id,
        date=date,
        artifacts=counts.artifacts,
        links=counts.links,
        attachments=manifest.attachments,
        logs=manifest.logs,
        tar=tar,
    )


def is_record_of(record: ArchiveRecord, manifest: ArchiveManifest) -> bool:
    """Return whether a record says what the manifest of its tar says."""
    is_listed = record.date in manifest.dates
    return is_listed and record == record_of(manifest, record.date, record.tar)


@dataclass(frozen=True, slots=True)
class LoggedFile:
    """An artifact or a link, as its leaf says.

    Attributes:
        path: Relative to the store.
        sha256: Of its bytes.
        reader: The log with its leaf.
        index: Of the leaf.
        sources: The record of its run; of a link its own too.
    """

    path: str
    sha256: str
    reader: LogReader
    index: int
    sources: tuple[RecordSource, ...]


def logged_files(
    readers: Sequence[LogReader], dates: Iterable[str], sizes: dict[str, int] | None = None
) -> dict[str, LoggedFile]:
    """Return the artifacts and links of some dates by their paths, in the order of the paths.

    Args:
        readers: Of every log, at its checkpoint.
        dates: UTC dates.
        sizes: How many leaves of each log count, by its folder; all if not given.

    Raises:
        IntegrityError: A log is not what was written.
    """
    wanted, runs, found = set(dates), dict[str, LoggedFile](), dict[str, LoggedFile]()
    for reader, index, leaf, source in _leaves(readers, sizes):
        if leaf.kind == "run" and leaf.path is not None and date_of(leaf.path) in wanted:
            file = LoggedFile(leaf.path, str(leaf.sha256), reader, index, (source,))
            if runs.setdefault(str(leaf.run_id), file) is file:
                found[leaf.path] = file
    # A claim may be older than its run, and stand in another log.
    for reader, index, leaf, source in _leaves(readers, sizes):
        run = runs.get(str(leaf.run_id)) if leaf.kind == "advisory" else None
        if run is not None:
            path = str(LinkPath(date_of(run.path), str(leaf.run_id), str(leaf.advisory_id)))
            sources = (*run.sources, source)
            link = LoggedFile(path, str(leaf.link_sha256), reader, index, sources)
            found.setdefault(path, link)
    return dict(sorted(found.items()))


def _leaves(
    readers: Sequence[LogReader], sizes: dict[str, int] | None
) -> Iterator[tuple[LogReader, int, LedgerLeaf, RecordSource]]:
    for reader in readers:
        log = reader.log
        size = reader.size if sizes is None else sizes.get(log.path, 0)
        for index, leaf in enumerate(reader.leaves(end=size)):
            record = RecordId(log.topic, log.partition, leaf.offset)
            yield reader, index, leaf, RecordSource(log.epoch, record)


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes into a tar.

    Attributes:
        manifest: What it says of itself.
        files: Artifacts and links.
        attachments: SHA-256 of each that goes along, sorted.
        notes: The checkpoint of each log, which the proofs of the leaves lead to.
        shared: Attachments that something else names too: they stay in the store.
        missing: Attachments that never came.
    """

    manifest: ArchiveManifest
    files: Sequence[LoggedFile]
    attachments: Sequence[str]
    notes: Sequence[bytes]
    shared: int
    missing: int


_Named = dict[str, set[str]]
"""By the SHA-256 of an attachment the paths of the files that name it."""


def contents_of(
    index: RunIndex, logs: StoreLogs, dates: Sequence[str], progress: Progress
) -> Contents:
    """Return what belongs into the tar of some dates.

    Raises:
        NotFoundError: A date has no run.
        RefusedError: A date is archived already, or something of it is missing.
        IntegrityError: A log, a file or an attachment is not what was written.
        StoreError: The disk or the index failed.
    """
    readers = list(logs.open_all())
    files = logged_files(readers, dates)  # 1.
    for date in dates:
        if not any(date_of(path) == date for path in files):
            raise NotFoundError(f"NOT_FOUND: No leaf of the ledger is of a run of {date}.")
    named: _Named = {}
    read = logs.store.files.at_once(partial(_names_in, logs.store), files.values())  # 2.
    for number, (path, names) in enumerate(zip(files, read, strict=True), 1):
        for sha256 in names:
            named.setdefault(sha256, set()).add(path)
        progress("files", number, len(files))
    own, missing = _own_attachments(index, logs.store.files, named)  # 3.
    manifest = ArchiveManifest(
        store_id=logs.store_id,
        dates={date: counts_of(files, date) for date in sorted(set(dates))},
        attachments=len(own),
        logs=[
            ArchivedLog(
                log=each.log.path,
                next_offset=each.next_offset,
                size=each.size,
                root_sha256=each.checkpoint.root.hex(),
            )
            for each in readers
        ],
    )
    shared = len(named) - len(own) - missing
    notes = [each.note for each in readers]
    return Contents(manifest, list(files.values()), own, notes, shared, missing)


def counts_of(files: Iterable[str], date: str) -> DateCounts:
    """Return how many artifacts and links of a date are among some paths."""
    links = [isinstance(parse_path(path), LinkPath) for path in files if date_of(path) == date]
    return DateCounts(artifacts=len(links) - sum(links), links=sum(links))


def _names_in(store: StoreContents, file: LoggedFile) -> list[str]:
    """Return the SHA-256 of each attachment that a file names.

    Raises:
        RefusedError: It is archived.
        IntegrityError: It is missing, or not as its leaf says.
    """
    try:
        content = read_recorded(store, file.path, file.sha256, sources=file.sources)
    except ArchivedError as error:
        raise RefusedError(f"Nothing was written: {file.path} is archived already.") from error
    except IntegrityError as error:
        raise IntegrityError(
            f"Nothing was written: {error} A date is archived where it is whole. An advisory whose "
            "run has just come has its link within seconds."
        ) from error
    return attachments_of(parse_path(file.path), content)


def _own_attachments(index: RunIndex, files: Files, named: _Named) -> tuple[list[str], int]:
    """Return the attachments that nothing but these files names, and how many never came."""
    with index.looking_up() as connection:
        shared = named_by_others(connection, named)
    own, missing = [], 0
    for check in files.at_once(AttachmentFiles(files).check, sorted(named.keys() - shared)):
        sha256 = check.sha256
        if check.error == "hash_mismatch":
            raise IntegrityError(
                f"Nothing was written: expected {attachment_path(sha256)} to have the SHA-256 that "
                f"is its name, found {check.actual_sha256}."
            )
        if check.error is None:
            own.append(sha256)
        else:
            missing += 1
    return own, missing
