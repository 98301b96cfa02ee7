"""The sums of a store: a line for `sha256sum -c` for each file, and one root over all of them.

A line is the SHA-256 in hex, two spaces and the path relative to the store's root. Lines are a
set: a file that several runs name has one line. The store root is the RFC 6962 root whose leaves
are the lines, in the order of their bytes, without newline. So it is a function of which files
there are to be, and not of when, in which order and by how many workers they were written.

1. Every log is read at one checkpoint, each leaf checked against its root.
2. A `run` leaf gives the line of an artifact, an `advisory` leaf that of a link, if its run has a
   `run` leaf.
3. What an artifact or a link names as attachments is read from the file, whose bytes must be those
   of its leaf.
4. The lines are a set, in the order of their bytes.

Step 3 reads artifacts and links, never attachments: so a store that was restored has the same root
even where a blob that was uploaded beside the topic is missing, and `sha256sum -c` reports it.

What is archived has no line: it is not in the store, and without it there is no store root.

Leaves and lines are kept in a temporary database on disk, so memory does not grow with the store.
"""

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import NamedTuple

import msgspec

from pipeline.core.layout import LinkPath, StorePath, attachment_path, parse_path
from pipeline.core.record import RecordId, RecordSource
from pipeline.core.store.contents import StoreContents
from pipeline.disk.sqlite.scratch import ScratchDatabase, SqliteError
from pipeline.errors import ArchivedError, IntegrityError, StoreError
from pipeline.ledger.leaf import LedgerLeaf, parse_leaf
from pipeline.ledger.reader import LogReader, StoreLogs
from pipeline.ledger.stored_log import ledger_faults
from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.merkle import leaf_hash, root_of_hashes
from pipeline.ledger.tlog.tiles import bundles_of
from pipeline.storage.archives import Archives
from pipeline.storage.artifacts import read_recorded


class _Attachment(msgspec.Struct):
    sha256: str


class _Artifact(msgspec.Struct):
    attachments: list[_Attachment]


class _Link(msgspec.Struct):
    content_sha256: str | None = None


# They skip all the rest, which is most of a file.
_artifact = msgspec.json.Decoder(_Artifact)
_link = msgspec.json.Decoder(_Link)


def sum_line(sha256: str, path: str) -> str:
    """Return the line of one file, without its newline."""
    return f"{sha256}  {path}"


def attachments_of_artifact(content: bytes) -> list[str]:
    """Return the SHA-256 of every attachment that an artifact names.

    Raises:
        EvidenceError: `content` is no artifact.
    """
    try:
        return [each.sha256 for each in _artifact.decode(content).attachments]
    except msgspec.DecodeError as error:
        raise EvidenceError(f"expected an artifact: {error}") from error


def attachments_of_link(content: bytes) -> list[str]:
    """Return the SHA-256 of the content that a link names, if it names one.

    Raises:
        EvidenceError: `content` is no link.
    """
    try:
        sha256 = _link.decode(content).content_sha256
    except msgspec.DecodeError as error:
        raise EvidenceError(f"expected a link: {error}") from error
    return [] if sha256 is None else [sha256]


def attachments_of(place: StorePath | None, content: bytes) -> list[str]:
    """Return the SHA-256 of every attachment that the artifact or link at `place` names.

    Raises:
        EvidenceError: `content` is none.
    """
    is_link = isinstance(place, LinkPath)
    return attachments_of_link(content) if is_link else attachments_of_artifact(content)


def attachment_line(sha256: str) -> str:
    """Return the line of an attachment, whose name is its hash."""
    return sum_line(sha256, attachment_path(sha256))


def root_of_lines(lines: Iterable[str]) -> bytes:
    """Return the root over distinct lines, which come in the order of their bytes.

    Raises:
        EvidenceError: They come in another order.
    """
    return root_of_hashes(map(leaf_hash, _in_order(lines)))


def _in_order(lines: Iterable[str]) -> Iterable[bytes]:
    before = b""
    for line in lines:
        content = line.encode()
        if content <= before:
            raise EvidenceError(
                f"expected distinct lines in order, found {line} after {before.decode()}"
            )
        before = content
        yield content


_TABLES = """
CREATE TABLE runs (run_id TEXT NOT NULL, path TEXT NOT NULL, sha256 TEXT NOT NULL,
    epoch INTEGER NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL,
    offset INTEGER NOT NULL);
CREATE TABLE links (run_id TEXT NOT NULL, advisory_id TEXT NOT NULL, sha256 TEXT NOT NULL,
    epoch INTEGER NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL,
    offset INTEGER NOT NULL);
CREATE TABLE lines (line TEXT NOT NULL);
"""
_RUNS_IN_ORDER = """
SELECT path, sha256, epoch, topic, partition, offset FROM runs ORDER BY path
"""
_LINKS_OF_RUNS = """
SELECT runs.path, links.run_id, links.advisory_id, links.sha256,
    runs.epoch, runs.topic, runs.partition, runs.offset,
    links.epoch, links.topic, links.partition, links.offset
FROM links JOIN runs USING (run_id) ORDER BY runs.path, links.advisory_id
"""
# Of texts in one encoding the order of SQLite is that of their bytes.
_LINES_IN_ORDER = "SELECT DISTINCT line FROM lines ORDER BY line"
_DATE = slice(len("runs/"), len("runs/2025-12-18"))


def store_root(logs: StoreLogs) -> bytes:
    """Return the store root: 32 bytes that two stores share where they hold the same.

    Raises:
        IntegrityError: A log, or the bytes of an artifact or a link, are not what was written.
        ArchivedError: Files are archived.
    """
    return root_of_lines(checksums_of(logs))


def checksums_of(logs: StoreLogs, date: str | None = None) -> Iterator[str]:
    """Yield the lines of the whole store, or of the runs of one UTC date.

    Raises:
        IntegrityError: A log is not what was written; or, after the last line, an artifact or a
            link has other bytes than its leaf says, so what it names is not among the lines.
        ArchivedError: After the last line: all is well, and some files are archived; they, and what
            they name, are not among the lines.
    """
    with logs.store.faults(), _temporary() as database:
        # 1.
        for reader in logs.open_all():
            _keep_leaves(database, reader, date)
        # 2. and 3.
        first_fault, faults, archived = None, 0, 0
        for fault in _keep_lines(database, logs):
            first_fault = first_fault or fault
            faults, archived = faults + (fault is not None), archived + (fault is None)
        # 4.
        yield from (line for (line,) in database.execute(_LINES_IN_ORDER))
    if first_fault is not None:
        more = f" Nor are {faults - 1:,} more files as they were written." if faults > 1 else ""
        raise IntegrityError(f"{first_fault} What it names is not among the sums.{more}")
    if archived:
        raise ArchivedError(
            f"ARCHIVED: {archived:,} artifacts and links are archived, so they and what they name "
            "are not among the sums; SHA256SUMS in their tars has theirs. There is no store root.",
            details={"archived": archived},
        )


@contextmanager
def _temporary() -> Iterator[ScratchDatabase]:
    """Open a database in a file without a name, which goes with the connection.

    Raises:
        StoreError: There is no room for it.
    """
    try:
        with closing(ScratchDatabase.make()) as database:
            database.executescript(_TABLES)
            database.execute("BEGIN")
            yield database
    except SqliteError as error:
        raise StoreError(
            f"The temporary database of the sums failed: {error}; TMPDIR says where it is."
        ) from error


def _keep_leaves(database: ScratchDatabase, reader: LogReader, date: str | None) -> None:
    for index in range(bundles_of(reader.size)):
        with ledger_faults(reader.log):
            leaves = [parse_leaf(entry) for entry in reader.bundle(index)]
        runs = [leaf for leaf in leaves if leaf.kind == "run" and _is_of(leaf, date)]
        links = [leaf for leaf in leaves if leaf.kind == "advisory"]
        database.executemany(
            "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(leaf.run_id, leaf.path, leaf.sha256, *reader.log, leaf.offset) for leaf in runs],
        )
        database.executemany(
            "INSERT INTO links VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (leaf.run_id, leaf.advisory_id, leaf.link_sha256, *reader.log, leaf.offset)
                for leaf in links
            ],
        )


def _is_of(leaf: LedgerLeaf, date: str | None) -> bool:
    return date is None or (leaf.path is not None and leaf.path[_DATE] == date)


def _keep_lines(database: ScratchDatabase, logs: StoreLogs) -> Iterator[str | None]:
    """Write the lines; yield what is wrong with a file that names attachments, or is archived."""
    lines_of = partial(_lines_of, logs.store, Archives(logs.store))
    for lines, faults in logs.store.files.at_once(lines_of, _files(database)):
        database.executemany("INSERT INTO lines VALUES (?)", [(line,) for line in lines])
        yield from faults


def _files(database: ScratchDatabase) -> Iterator["_File"]:
    # In the order of paths: folder by folder.
    for path, sha256, *source in database.execute(_RUNS_IN_ORDER):
        yield _File(path, sha256, (_source(*source),))
    for path, run_id, advisory_id, sha256, *sources in database.execute(_LINKS_OF_RUNS):
        link = str(LinkPath(path[_DATE], run_id, advisory_id))
        yield _File(link, sha256, (_source(*sources[:4]), _source(*sources[4:])))


class _File(NamedTuple):
    """An artifact or a link.

    Attributes:
        sources: The record of its run, and of a link its own.
    """

    path: str
    sha256: str
    sources: tuple[RecordSource, ...]


def _source(epoch: int, topic: str, partition: int, offset: int) -> RecordSource:
    return RecordSource(epoch, RecordId(topic, partition, offset))


def _lines_of(
    store: StoreContents, archives: Archives, file: _File
) -> tuple[list[str], list[str | None]]:
    """Return the lines of a file, and what is wrong with it; None where it is archived."""
    path, sha256 = file.path, file.sha256
    if archives.is_archived(path, *file.sources):
        return [], [None]
    lines = [sum_line(sha256, path)]
    try:
        content = read_recorded(store, path, sha256, sources=file.sources)
        lines += map(attachment_line, attachments_of(parse_path(path), content))
    except IntegrityError as error:
        return lines, [str(error)]
    except EvidenceError as error:
        return lines, [f"{path} has the bytes of its leaf, and yet: {error}."]
    return lines, []
