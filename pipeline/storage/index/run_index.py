"""The index: one row a run and one an advisory, in SQLite. It decides who was first.

It can be rebuilt. SQLite in WAL mode with `synchronous=FULL`, so a committed row survives a
power cut.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import (
    URL,
    BigInteger,
    Boolean,
    ClauseElement,
    Column,
    Connection,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    RowMapping,
    String,
    Table,
    bindparam,
    create_engine,
    event,
    exists,
    func,
    or_,
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import ConnectionPoolEntry

from pipeline.core.advisories.outcome import StoredAdvisory
from pipeline.core.advisories.verdict import AdvisoryClaim
from pipeline.core.reject_limit import FloodWindow
from pipeline.core.runs.cut_program import CutProgram
from pipeline.core.runs.outcome import RecordSource, StoredRun
from pipeline.disk.faults import INDEX_NAME
from pipeline.disk.regular_files import NotAFileError, state_of
from pipeline.errors import StoreNotReadyError
from schemas.timestamps import microseconds_since_epoch, parse_timestamp

INDEX_FILE = INDEX_NAME
"""Opened by SQLite alone: who closes a file ends every lock of its process on it (POSIX), those of
SQLite too. Another process would then delete the log that a writer goes on to write into."""

INDEX_LOCK = "index.lock"
INDEX_FORMAT = 4
"""`user_version` of the file. Another one is rebuilt, never converted: the index is derived."""

LISTED_BY = (
    *("status", "mode", "tool_id", "event_type", "risk_level", "workflow_session_id"),
    *("material_id", "machine_id"),
)
"""Columns by which runs are listed."""

_metadata = MetaData()

runs = Table(
    "runs",
    _metadata,
    Column("run_id", String, primary_key=True),
    Column("created_at_utc", String, nullable=False),
    # Sorts as the time does; the text does not, as its fraction is left out where it is zero.
    Column("created_at_us", BigInteger, nullable=False),
    Column("event_type", String, nullable=False),
    Column("status", String, nullable=False),
    Column("mode", String, nullable=False),
    Column("tool_id", String, nullable=False),
    Column("material_id", String),
    Column("machine_id", String),
    Column("workflow_session_id", String),
    Column("risk_level", String, nullable=False),
    Column("score", Float),
    Column("block_reason", String),
    Column("feasibility_sha256", String, nullable=False),
    Column("toolpaths_sha256", String),
    Column("gcode_sha256", String),
    Column("opplan_sha256", String),
    # Of the program that would be cut; `stored` alone means that the artifact's hashes have it.
    Column("gcode_known_by", String),
    Column("legacy", Boolean, nullable=False),
    Column("artifact_sha256", String, nullable=False),
    Column("artifact_path", String, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("request_sha256", String, nullable=False),
    Column("source_epoch", Integer),
    Column("source_topic", String),
    Column("source_partition", Integer),
    Column("source_offset", BigInteger),
    # One for each filter of the listing, each in the order of the listing: no query walks over
    # more rows than fit its filter.
    Index("runs_newest_first", "created_at_us", "run_id"),
    *(Index(f"runs_by_{name}", name, "created_at_us", "run_id") for name in LISTED_BY),
)
# Who lists leaves out the runs whose file no record explains.
Index(
    "runs_unexplained",
    runs.c.source_offset,
    runs.c.run_id,
    sqlite_where=runs.c.source_offset.is_(None),
)
# An index file of before has only those of its time. The format stays: they change no answer.
_run_indexes = sorted(runs.indexes, key=lambda index: str(index.name))

attachments = Table(
    "attachments",
    _metadata,
    Column("run_id", String, ForeignKey("runs.run_id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("sha256", String, nullable=False),
    Column("kind", String, nullable=False),
    Index("attachments_by_blob", "sha256"),
)

# Blobs that a run names and does not show, so that no other way leads to them.
withheld_blobs = Table(
    "withheld_blobs",
    _metadata,
    Column("sha256", String, primary_key=True),
    Column("run_id", String, ForeignKey("runs.run_id"), primary_key=True),
)

# What a run withholds and no attachment of it names: the requests that are kept aside say it.
withheld_payloads = Table(
    "withheld_payloads",
    _metadata,
    Column("sha256", String, primary_key=True),
    Column("run_id", String, ForeignKey("runs.run_id"), primary_key=True),
)

advisories = Table(
    "advisories",
    _metadata,
    # Not a foreign key: a claim may come before its run.
    Column("run_id", String, primary_key=True),
    Column("advisory_id", String, primary_key=True),
    Column("created_at_utc", String, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("kind", String, nullable=False),
    Column("engine_id", String),
    Column("engine_version", String),
    Column("request_id", String),
    Column("title", String),
    Column("content_sha256", String),
    Column("mime", String),
    Column("size_bytes", BigInteger),
    Column("link_sha256", String, nullable=False),
    Column("link_path", String),
    Column("source_epoch", Integer),
    Column("source_topic", String),
    Column("source_partition", Integer),
    Column("source_offset", BigInteger),
    Index("advisories_of_run", "run_id", "created_at_us", "advisory_id"),
)

Index(
    "advisories_unlinked",
    advisories.c.source_epoch,
    advisories.c.source_topic,
    advisories.c.source_partition,
    advisories.c.source_offset,
    sqlite_where=advisories.c.link_path.is_(None),
)

positions = Table(
    "positions",
    _metadata,
    Column("epoch", Integer, primary_key=True),
    Column("topic", String, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("next_offset", BigInteger, nullable=False),
)

# Up to which offset the operator gave up what the store does not have. Made in indexes of before
# too: the format stays, as whoever does not know the table does not miss it.
accepted_losses = Table(
    "accepted_losses",
    _metadata,
    Column("epoch", Integer, primary_key=True),
    Column("topic", String, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("next_offset", BigInteger, nullable=False),
)

# Which topic of its name an epoch is about, as Kafka tells one from another. Made in indexes of
# before too, as above.
topic_ids = Table(
    "topic_ids",
    _metadata,
    Column("epoch", Integer, primary_key=True),
    Column("topic", String, primary_key=True),
    Column("topic_id", String, nullable=False),
)

flood_windows = Table(
    "flood_windows",
    _metadata,
    Column("group_id", String, primary_key=True),
    Column("verdicts", String, nullable=False),
)

_HASHES = ("feasibility_sha256", "toolpaths_sha256", "gcode_sha256", "opplan_sha256")
_STORED = (
    *_HASHES,
    "gcode_known_by",
    "run_id",
    "status",
    "risk_level",
    "block_reason",
    "legacy",
    "artifact_sha256",
    "artifact_path",
    "size_bytes",
    "request_sha256",
    "source_epoch",
    "source_topic",
    "source_partition",
    "source_offset",
)


def _driver_sql(statement: ClauseElement) -> str:
    """Return `statement` as SQLite reads it, its values by position."""
    return str(statement.compile(dialect=sqlite_dialect()))


_INSERT_RUN = _driver_sql(insert(runs))
_INSERT_ATTACHMENT = _driver_sql(insert(attachments))
_INSERT_WITHHELD = _driver_sql(insert(withheld_blobs))
_INSERT_WITHHELD_PAYLOAD = _driver_sql(insert(withheld_payloads))
_WITHHELD_BLOB = "attachments."
# One value for all the ids: binding each took as long as finding it.
_KNOWN_RUNS = text(
    f"SELECT {', '.join(_STORED)} FROM runs WHERE run_id IN (SELECT value FROM json_each(:ids))"  # noqa: S608
).columns(*(runs.c[name] for name in _STORED))
# Built once: building a query takes longer than this one takes.
_LINKED_ADVISORIES = (
    select(advisories)
    .where(
        advisories.c.run_id == bindparam("run_id"),
        advisories.c.link_path.is_not(None),
        advisories.c.source_offset.is_not(None),
    )
    .order_by(advisories.c.created_at_us, advisories.c.advisory_id)
)
_LOOKUP_IDS = 500
_INSERT_ADVISORY = _driver_sql(insert(advisories))
_LINK_ADVISORY = "UPDATE advisories SET link_path = ? WHERE run_id = ? AND advisory_id = ?"
_KNOWN_ADVISORIES = text(
    "SELECT * FROM advisories WHERE (run_id, advisory_id) IN "
    "(SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(:ids))"
).columns(*advisories.c)


@dataclass(frozen=True, slots=True)
class IndexedRun:
    """A run as the index keeps it.

    Attributes:
        row: A row of `runs`, in the order of its columns.
        attachments: Rows of `attachments`, likewise.
        withheld: Rows of `withheld_blobs`, likewise.
        withheld_payloads: Rows of `withheld_payloads`, likewise; None where nobody can say which.
    """

    row: tuple[Any, ...]
    attachments: list[tuple[Any, ...]]
    withheld: list[tuple[Any, ...]] = field(default_factory=list)
    withheld_payloads: list[tuple[Any, ...]] | None = None


def indexed_run(
    document: Mapping[str, Any], run: StoredRun, withheld_payloads: Iterable[str] | None = None
) -> IndexedRun:
    """Return what the index keeps of the artifact `document`, or of its outline.

    Args:
        document: The artifact.
        run: Describes the same artifact.
        withheld_payloads: Hashes of what it withholds beside attachments, where they are known.
    """
    source = run.source
    hashes = run.hashes
    created_at_utc = document["created_at_utc"]
    row = (
        run.run_id,
        created_at_utc,
        microseconds_since_epoch(parse_timestamp(created_at_utc)),
        document["event_type"],
        run.status,
        document["mode"],
        document["tool_id"],
        document.get("material_id"),
        document.get("machine_id"),
        document.get("workflow_session_id"),
        run.risk_level,
        document["decision"].get("score"),
        run.block_reason,
        hashes["feasibility_sha256"],
        hashes.get("toolpaths_sha256"),
        run.program.sha256 if run.program else None,
        hashes.get("opplan_sha256"),
        run.program.known_by if run.program else None,
        run.legacy,
        run.artifact_sha256,
        run.artifact_path,
        run.size_bytes,
        run.request_sha256,
        source.epoch if source else None,
        source.topic if source else None,
        source.partition if source else None,
        source.offset if source else None,
    )
    listed = [
        (run.run_id, position, ref["sha256"], ref["kind"])
        for position, ref in enumerate(document["attachments"])
    ]
    withheld = [
        (name.removeprefix(_WITHHELD_BLOB), run.run_id)
        for name in document["provenance"].get("withheld", ())
        if name.startswith(_WITHHELD_BLOB)
    ]
    payloads = None if withheld_payloads is None else [(n, run.run_id) for n in withheld_payloads]
    return IndexedRun(row, listed, withheld, payloads)


def with_source(found: IndexedRun, source: RecordSource) -> IndexedRun:
    """Return the same run with the record that made it."""
    row = dict(zip(runs.c.keys(), found.row, strict=True))
    row |= {
        "source_epoch": source.epoch,
        "source_topic": source.topic,
        "source_partition": source.partition,
        "source_offset": source.offset,
    }
    return replace(found, row=tuple(row.values()))


def stored_run_of_row(row: RowMapping) -> StoredRun:
    """Return what a row of `runs` tells of its run."""
    return StoredRun(
        run_id=row["run_id"],
        source=_source_of_row(row),
        status=row["status"],
        risk_level=row["risk_level"],
        block_reason=row["block_reason"],
        hashes=_artifact_hashes(row),
        artifact_sha256=row["artifact_sha256"],
        artifact_path=row["artifact_path"],
        size_bytes=row["size_bytes"],
        request_sha256=row["request_sha256"],
        legacy=row["legacy"],
        program=program_of_row(row),
    )


def _artifact_hashes(row: RowMapping) -> dict[str, str]:
    """Return the hashes of the artifact: what the program's is known by otherwise is none."""
    found = {name: row[name] for name in _HASHES if row[name] is not None}
    if row["gcode_known_by"] != "stored":
        found.pop("gcode_sha256", None)
    return found


def program_of_row(row: RowMapping) -> CutProgram | None:
    """Return the program that would be cut by the run of a row; None where it is not known."""
    if row["gcode_sha256"] is None:
        return None
    return CutProgram(row["gcode_sha256"], row["gcode_known_by"])


def _source_of_row(row: RowMapping) -> RecordSource | None:
    if row["source_offset"] is None:
        return None
    return RecordSource(
        row["source_epoch"], row["source_topic"], row["source_partition"], row["source_offset"]
    )


def advisory_row(advisory: StoredAdvisory) -> tuple[Any, ...]:
    """Return the row of `advisories`, in the order of its columns."""
    source = advisory.source
    return (
        advisory.run_id,
        advisory.advisory_id,
        advisory.created_at_utc,
        microseconds_since_epoch(parse_timestamp(advisory.created_at_utc)),
        advisory.claim.kind,
        advisory.claim.engine_id,
        advisory.claim.engine_version,
        advisory.request_id,
        advisory.title,
        advisory.claim.content_sha256,
        advisory.mime,
        advisory.size_bytes,
        advisory.link_sha256,
        advisory.link_path,
        source.epoch if source else None,
        source.topic if source else None,
        source.partition if source else None,
        source.offset if source else None,
    )


def _advisory_of_row(row: RowMapping) -> StoredAdvisory:
    return StoredAdvisory(
        run_id=row["run_id"],
        advisory_id=row["advisory_id"],
        source=_source_of_row(row),
        created_at_utc=row["created_at_utc"],
        claim=AdvisoryClaim(
            row["kind"], row["engine_id"], row["engine_version"], row["content_sha256"]
        ),
        request_id=row["request_id"],
        title=row["title"],
        mime=row["mime"],
        size_bytes=row["size_bytes"],
        link_sha256=row["link_sha256"],
        link_path=row["link_path"],
    )


class RunIndex:
    """The index file of one store. Its writers take turns by the lock of the store."""

    def __init__(self, path: Path, *, may_be_new: bool = True, is_made: bool = False) -> None:
        """Open the index at `path`, made where it is missing or empty.

        Args:
            path: The file.
            may_be_new: Whether an index without anything in it can be the right one.
            is_made: Whether `is_made` has told so: then nothing is made, and no writer waited for.

        Raises:
            StoreNotReadyError: The file is damaged, of another format, or empty and may not be.
        """
        self._path = path
        _check_regular(path)
        self._engine = _open_engine(path)
        try:
            if not is_made:
                _prepare(self._engine, path, may_be_new=may_be_new)
            self._inode = path.stat().st_ino
        except BaseException:
            self.close()
            raise

    @property
    def was_replaced(self) -> bool:
        """Whether another file is under the index's name now, as after a rebuild."""
        try:
            return self._path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator["IndexTransaction"]:
        """Begin to write; commit at the end of the block, or roll back if it raises."""
        with self._engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield IndexTransaction(connection)
                connection.exec_driver_sql("COMMIT")
            except BaseException:
                # Not in so many words: after a fault of the disk SQLite may have rolled back by
                # itself, and the complaint about that would hide the fault.
                connection.rollback()
                raise

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Read one consistent state while the block runs."""
        with self._engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            try:
                yield connection
            finally:
                connection.rollback()

    def find(self, run_id: str) -> StoredRun | None:
        """Return the run, or None where the index has none."""
        with self.reading() as connection:
            return IndexTransaction(connection).known_runs([run_id]).get(run_id)

    def find_all(self, run_ids: Sequence[str]) -> dict[str, StoredRun]:
        """Return those of `run_ids` that the index holds, by run_id."""
        with self.reading() as connection:
            return IndexTransaction(connection).known_runs(run_ids)

    def positions(self, epoch: int) -> dict[tuple[str, int], int]:
        """Return the next offset of each topic and partition in `epoch`."""
        with self.reading() as connection:
            return IndexTransaction(connection).positions(epoch)

    def accepted_losses(self, epoch: int) -> dict[tuple[str, int], int]:
        """Return up to which offset of each topic and partition a loss was accepted."""
        with self.reading() as connection:
            return IndexTransaction(connection).accepted_losses(epoch)

    def kept_to(self, epoch: int) -> dict[tuple[str, int], int]:
        """Return before which offset of each partition everything is here or was given up."""
        with self.reading() as connection:
            both = IndexTransaction(connection)
            kept = both.positions(epoch)
            for place, given_up in both.accepted_losses(epoch).items():
                kept[place] = max(given_up, kept.get(place, 0))
        return kept

    def topic_ids(self, epoch: int) -> dict[str, str]:
        """Return the id of each topic that the store keeps in `epoch`, where it is known."""
        with self.reading() as connection:
            rows = connection.execute(select(topic_ids).where(topic_ids.c.epoch == epoch))
            return {row.topic: row.topic_id for row in rows}

    def all_runs(self) -> Iterator[StoredRun]:
        """Return every run, in the order of run_ids."""
        with self.reading() as connection:
            query = select(*(runs.c[name] for name in _STORED)).order_by(runs.c.run_id)
            result = connection.execution_options(yield_per=_LOOKUP_IDS).execute(query)
            for row in result.mappings():
                yield stored_run_of_row(row)

    def differing_columns(self, expected: IndexedRun) -> list[str]:
        """Return what the index tells of a run otherwise than `expected`, but for its source.

        A run that is not there differs in nothing: that is for its path to tell.
        """
        run_id = expected.row[0]
        with self.reading() as connection:
            row = connection.execute(select(runs).where(runs.c.run_id == run_id)).one_or_none()
            if row is None:
                return []
            differing = [
                column.name
                for column, found, wanted in zip(runs.c, row, expected.row, strict=True)
                if found != wanted and not column.name.startswith("source_")
            ]
            parts = (
                (attachments, expected.attachments),
                (withheld_blobs, expected.withheld),
                (withheld_payloads, expected.withheld_payloads),
            )
            for table, wanted_rows in parts:
                if wanted_rows is None:
                    continue
                query = select(table).where(table.c.run_id == run_id)
                found_rows = [tuple(each) for each in connection.execute(query)]
                if sorted(found_rows) != sorted(wanted_rows):
                    differing.append(table.name)
        return differing

    def is_withheld(self, sha256: str) -> bool:
        """Tell whether any run names this blob, or had its bytes inline, without showing it."""
        tables = (withheld_blobs, withheld_payloads)
        query = select(or_(*(exists().where(table.c.sha256 == sha256) for table in tables)))
        with self.reading() as connection:
            return bool(connection.execute(query).scalar_one())

    def linked_advisories(self, run_id: str) -> list[StoredAdvisory]:
        """Return the linked advisories of a run, in the order of (created_at_utc, advisory_id).

        A link that no record explains is none.
        """
        with self.reading() as connection:
            found = connection.execute(_LINKED_ADVISORIES, {"run_id": run_id})
            return [_advisory_of_row(row) for row in found.mappings()]

    def all_advisories(self) -> Iterator[StoredAdvisory]:
        """Return every advisory, linked or not, in the order of run_id and advisory_id."""
        query = select(advisories).order_by(advisories.c.run_id, advisories.c.advisory_id)
        with self.reading() as connection:
            result = connection.execution_options(yield_per=_LOOKUP_IDS).execute(query)
            for row in result.mappings():
                yield _advisory_of_row(row)

    def claims_to_link(
        self, epoch: int, topic: str, after: tuple[int, int], limit: int
    ) -> list[RecordSource]:
        """Return claims whose run is there, in the order of their records.

        Args:
            epoch: That of the records; those of an earlier one cannot be read any more.
            topic: The request topic.
            after: Partition and offset that the records lie behind.
            limit: Most claims to return.
        """
        place = (advisories.c.source_partition, advisories.c.source_offset)
        query = (
            select(*place)
            .where(
                advisories.c.link_path.is_(None),
                advisories.c.source_epoch == epoch,
                advisories.c.source_topic == topic,
                tuple_(*place) > after,
                exists().where(runs.c.run_id == advisories.c.run_id),
            )
            .order_by(*place)
            .limit(limit)
        )
        with self.reading() as connection:
            found = connection.execute(query).all()
        return [RecordSource(epoch, topic, partition, offset) for partition, offset in found]

    def fold_log(self) -> None:
        """Move everything from the write-ahead log into the file itself, durably."""
        with self._engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def count(self) -> int:
        """Return the number of runs."""
        return self._count(runs)

    def count_advisories(self) -> int:
        """Return the number of advisories, linked or not."""
        return self._count(advisories)

    def _count(self, table: Table) -> int:
        with self.reading() as connection:
            return connection.execute(select(func.count()).select_from(table)).scalar_one()


class IndexTransaction:
    """What is done between the begin and the commit of one batch."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def known_runs(self, run_ids: Sequence[str]) -> dict[str, StoredRun]:
        """Return those of `run_ids` that the index holds."""
        found: dict[str, StoredRun] = {}
        for start in range(0, len(run_ids), _LOOKUP_IDS):
            ids = json.dumps(run_ids[start : start + _LOOKUP_IDS])
            for row in self._connection.execute(_KNOWN_RUNS, {"ids": ids}).mappings():
                found[row["run_id"]] = stored_run_of_row(row)
        return found

    def add_runs(self, added: Iterable[IndexedRun]) -> None:
        """Insert new runs with their attachments."""
        entries = list(added)
        listed = [row for entry in entries for row in entry.attachments]
        withheld = [row for entry in entries for row in entry.withheld]
        payloads = [row for entry in entries for row in entry.withheld_payloads or ()]
        # Straight to the driver: binding 26 named values a row took longer than the insert.
        if entries:
            self._connection.exec_driver_sql(_INSERT_RUN, [entry.row for entry in entries])
        if listed:
            self._connection.exec_driver_sql(_INSERT_ATTACHMENT, listed)
        if withheld:
            self._connection.exec_driver_sql(_INSERT_WITHHELD, withheld)
        if payloads:
            self._connection.exec_driver_sql(_INSERT_WITHHELD_PAYLOAD, payloads)

    def known_advisories(
        self, keys: Sequence[tuple[str, str]]
    ) -> dict[tuple[str, str], StoredAdvisory]:
        """Return those of `keys`, each a run_id and an advisory_id, that the index holds."""
        found: dict[tuple[str, str], StoredAdvisory] = {}
        for start in range(0, len(keys), _LOOKUP_IDS):
            ids = json.dumps(keys[start : start + _LOOKUP_IDS])
            for row in self._connection.execute(_KNOWN_ADVISORIES, {"ids": ids}).mappings():
                advisory = _advisory_of_row(row)
                found[advisory.key] = advisory
        return found

    def add_advisories(self, added: Iterable[StoredAdvisory]) -> None:
        """Insert new advisories, linked or not."""
        entries = [advisory_row(advisory) for advisory in added]
        if entries:
            self._connection.exec_driver_sql(_INSERT_ADVISORY, entries)

    def link_advisories(self, linked: Iterable[StoredAdvisory]) -> None:
        """Note the links of advisories that were waiting for their run."""
        entries = [(each.link_path, *each.key) for each in linked]
        if entries:
            self._connection.exec_driver_sql(_LINK_ADVISORY, entries)

    def positions(self, epoch: int) -> dict[tuple[str, int], int]:
        """Return the next offset of each topic and partition in `epoch`."""
        return self._offsets(positions, epoch)

    def advance(self, epoch: int, next_offsets: Mapping[tuple[str, int], int]) -> None:
        """Note the next offset of partitions; never one that is smaller than before."""
        self._raise_offsets(positions, epoch, next_offsets)

    def accepted_losses(self, epoch: int) -> dict[tuple[str, int], int]:
        """Return up to which offset of each topic and partition a loss was accepted."""
        return self._offsets(accepted_losses, epoch)

    def accept_losses(self, epoch: int, next_offsets: Mapping[tuple[str, int], int]) -> None:
        """Note that what the store misses before these offsets is given up."""
        self._raise_offsets(accepted_losses, epoch, next_offsets)

    def note_topic_id(self, epoch: int, topic: str, topic_id: str) -> None:
        """Note which topic of its name the store keeps in `epoch`; the first one stays."""
        self._connection.execute(
            insert(topic_ids).on_conflict_do_nothing(),
            {"epoch": epoch, "topic": topic, "topic_id": topic_id},
        )

    def _offsets(self, table: Table, epoch: int) -> dict[tuple[str, int], int]:
        rows = self._connection.execute(select(table).where(table.c.epoch == epoch))
        return {(row.topic, row.partition): row.next_offset for row in rows}

    def _raise_offsets(
        self, table: Table, epoch: int, next_offsets: Mapping[tuple[str, int], int]
    ) -> None:
        statement = insert(table)
        statement = statement.on_conflict_do_update(
            index_elements=["epoch", "topic", "partition"],
            set_={"next_offset": func.max(table.c.next_offset, statement.excluded.next_offset)},
        )
        rows = [
            {"epoch": epoch, "topic": topic, "partition": partition, "next_offset": offset}
            for (topic, partition), offset in next_offsets.items()
        ]
        if rows:
            self._connection.execute(statement, rows)

    def flood_window(self, group_id: str) -> FloodWindow:
        """Return the last verdicts of a consumer group."""
        statement = select(flood_windows.c.verdicts).where(flood_windows.c.group_id == group_id)
        return FloodWindow(self._connection.execute(statement).scalar() or "")

    def keep_flood_window(self, group_id: str, window: FloodWindow) -> None:
        """Note the last verdicts of a consumer group."""
        statement = insert(flood_windows)
        statement = statement.on_conflict_do_update(
            index_elements=["group_id"], set_={"verdicts": statement.excluded.verdicts}
        )
        self._connection.execute(statement, {"group_id": group_id, "verdicts": window.verdicts})


def _check_regular(path: Path) -> None:
    """Refuse what SQLite would follow, or wait for."""
    try:
        state_of(str(path))
    except NotAFileError as error:
        message = f"Expected the index {path} to be a file, found {error}: run rmos index rebuild."
        raise StoreNotReadyError(message) from error


def _open_engine(path: Path) -> Engine:
    # Transactions are begun in so many words, so the driver must not begin any itself.
    engine = create_engine(
        # Not as text, in which a `?` of the path would begin options.
        URL.create("sqlite", database=str(path)),
        connect_args={"timeout": 60.0, "check_same_thread": False, "isolation_level": None},
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, record: ConnectionPoolEntry) -> None:
        del record
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    return engine


def read_only(path: Path) -> sqlite3.Connection:
    """Open the index at `path` as SQLite does by itself, so that nothing is made or changed.

    Raises:
        sqlite3.Error: There is none, or something that is no regular file.
    """
    try:
        state_of(str(path))
    except NotAFileError as error:
        raise sqlite3.OperationalError(str(error)) from error
    address = f"file:{quote(str(path))}?mode=ro"
    return sqlite3.connect(address, uri=True, check_same_thread=False)


def is_made(path: Path) -> bool:
    """Tell whether there is an index at `path` with all that is in one; no writer is waited for.

    Raises:
        StoreNotReadyError: The file is damaged, or of another format.
    """
    if not path.exists():
        return False
    _check_regular(path)
    engine = _open_engine(path)
    try:
        with _damage_told(path), engine.connect() as connection:
            found = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            names = connection.exec_driver_sql("SELECT name FROM sqlite_master").scalars().all()
    finally:
        engine.dispose()
    if found != 0:
        _check_format(found, path)
    expected = {accepted_losses.name, topic_ids.name, *(index.name for index in _run_indexes)}
    return found != 0 and expected <= set(names)


def _prepare(engine: Engine, path: Path, *, may_be_new: bool) -> None:
    """Make the tables of a new file, check the format of an old one."""
    with _damage_told(path), engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        found = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        if found == INDEX_FORMAT:
            accepted_losses.create(connection, checkfirst=True)
            topic_ids.create(connection, checkfirst=True)
            for made in _run_indexes:
                made.create(connection, checkfirst=True)
        if found == 0 and may_be_new:
            _metadata.create_all(connection)
            connection.exec_driver_sql(f"PRAGMA user_version={INDEX_FORMAT}")
        connection.exec_driver_sql("COMMIT")
    if found == 0 and not may_be_new:
        message = f"The index {path} is empty, but there are runs: run rmos index rebuild."
        raise StoreNotReadyError(message)
    if found != 0:
        _check_format(found, path)


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    try:
        yield
    except DatabaseError as error:
        if not _is_damaged(error):
            raise
        message = f"The index {path} cannot be read ({error.orig}): run rmos index rebuild."
        raise StoreNotReadyError(message) from error


def _check_format(found: int, path: Path) -> None:
    if found != INDEX_FORMAT:
        message = (
            f"Expected the index {path} to be of format {INDEX_FORMAT}, found {found}: "
            "run rmos index rebuild."
        )
        raise StoreNotReadyError(message)


def _is_damaged(error: DatabaseError) -> bool:
    code = getattr(error.orig, "sqlite_errorcode", None)
    # The low byte is the kind of error, the others say more about it (sqlite.org/rescode.html).
    return code is not None and code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
