"""The tables of the index: each column with the value that it holds of a run or an advisory."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Select,
    String,
    Table,
)
from sqlalchemy.dialects.sqlite import dialect

from pipeline.core.advisories.outcome import StoredAdvisory
from pipeline.core.advisories.verdict import AdvisoryClaim
from pipeline.core.record import RecordId, RecordSource
from pipeline.core.runs.cut_program import CutProgram
from pipeline.core.runs.outcome import StoredRun
from schemas.timestamps import microseconds_since_epoch, parse_timestamp

LISTED_BY = (
    *("status", "mode", "tool_id", "event_type", "risk_level", "workflow_session_id"),
    *("material_id", "machine_id"),
)
"""Columns by which runs are listed."""

metadata = MetaData()

_Getter: TypeAlias = Callable[[Any, Any], Any]
_MappedColumn: TypeAlias = tuple[Column[Any], _Getter]


def _withheld_table(name: str) -> Table:
    return Table(
        name,
        metadata,
        Column("sha256", String, primary_key=True),
        Column("run_id", String, ForeignKey("runs.run_id"), primary_key=True),
    )


def _offsets_table(name: str) -> Table:
    return Table(
        name,
        metadata,
        Column("epoch", Integer, primary_key=True),
        Column("topic", String, primary_key=True),
        Column("partition", Integer, primary_key=True),
        Column("next_offset", BigInteger, nullable=False),
    )


def _microseconds(created_at_utc: str) -> int:
    return microseconds_since_epoch(parse_timestamp(created_at_utc))


def _source_columns() -> tuple[_MappedColumn, ...]:
    """Return the columns of the record that made a row; empty where it is unknown."""
    return (
        (Column("source_epoch", Integer), lambda row, _: row.source and row.source.epoch),
        (Column("source_topic", String), lambda row, _: row.source and row.source.id.topic),
        (
            Column("source_partition", Integer),
            lambda row, _: row.source and row.source.id.partition,
        ),
        (Column("source_offset", BigInteger), lambda row, _: row.source and row.source.id.offset),
    )


def _text(name: str, get: _Getter, *, nullable: bool = False) -> _MappedColumn:
    return Column(name, String, nullable=nullable), get


# Each column with its value from a run and its artifact.
_RUN_COLUMNS: tuple[_MappedColumn, ...] = (
    (Column("run_id", String, primary_key=True), lambda run, _: run.run_id),
    _text("created_at_utc", lambda _, artifact: artifact["created_at_utc"]),
    # Sorts as the time does; the text does not, as its fraction is left out where it is zero.
    (
        Column("created_at_us", BigInteger, nullable=False),
        lambda _, artifact: _microseconds(artifact["created_at_utc"]),
    ),
    _text("event_type", lambda _, artifact: artifact["event_type"]),
    _text("status", lambda run, _: run.status),
    _text("mode", lambda _, artifact: artifact["mode"]),
    _text("tool_id", lambda _, artifact: artifact["tool_id"]),
    _text("material_id", lambda _, artifact: artifact.get("material_id"), nullable=True),
    _text("machine_id", lambda _, artifact: artifact.get("machine_id"), nullable=True),
    _text(
        "workflow_session_id",
        lambda _, artifact: artifact.get("workflow_session_id"),
        nullable=True,
    ),
    _text("risk_level", lambda run, _: run.risk_level),
    (Column("score", Float), lambda _, artifact: artifact["decision"].get("score")),
    _text("block_reason", lambda run, _: run.block_reason, nullable=True),
    _text("feasibility_sha256", lambda run, _: run.hashes["feasibility_sha256"]),
    _text("toolpaths_sha256", lambda run, _: run.hashes.get("toolpaths_sha256"), nullable=True),
    _text("gcode_sha256", lambda run, _: run.program and run.program.sha256, nullable=True),
    _text("opplan_sha256", lambda run, _: run.hashes.get("opplan_sha256"), nullable=True),
    # Of the program that would be cut; `stored` alone means that the artifact's hashes have it.
    _text("gcode_known_by", lambda run, _: run.program and run.program.known_by, nullable=True),
    (Column("legacy", Boolean, nullable=False), lambda run, _: run.legacy),
    _text("artifact_sha256", lambda run, _: run.artifact_sha256),
    _text("artifact_path", lambda run, _: run.artifact_path),
    (Column("size_bytes", BigInteger, nullable=False), lambda run, _: run.size_bytes),
    _text("request_sha256", lambda run, _: run.request_sha256),
    *_source_columns(),
)
_RUN_GETTERS = tuple(get for _, get in _RUN_COLUMNS)

runs = Table(
    "runs",
    metadata,
    *(column for column, _ in _RUN_COLUMNS),
    # One for each filter of the listing, each in the order of the listing: no query walks over
    # more rows than fit its filter.
    Index("runs_newest_first", "created_at_us", "run_id"),
    *(Index(f"runs_by_{name}", name, "created_at_us", "run_id") for name in LISTED_BY),
)

# An index file of before has only those of its time. The format stays: they change no answer.
run_indexes = sorted(runs.indexes, key=lambda index: str(index.name))

attachments = Table(
    "attachments",
    metadata,
    Column("run_id", String, ForeignKey("runs.run_id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("sha256", String, nullable=False),
    Column("kind", String, nullable=False),
    Index("attachments_by_blob", "sha256"),
)

# Blobs that a run names and does not show, so that no other way leads to them.
withheld_blobs = _withheld_table("withheld_blobs")

# What a run withholds and no attachment of it names: it is read from quarantined requests.
withheld_payloads = _withheld_table("withheld_payloads")

# Each column with its value from an advisory.
_ADVISORY_COLUMNS: tuple[_MappedColumn, ...] = (
    # Not a foreign key: a claim may come before its run.
    (Column("run_id", String, primary_key=True), lambda row, _: row.run_id),
    (Column("advisory_id", String, primary_key=True), lambda row, _: row.advisory_id),
    _text("created_at_utc", lambda row, _: row.created_at_utc),
    (
        Column("created_at_us", BigInteger, nullable=False),
        lambda row, _: _microseconds(row.created_at_utc),
    ),
    _text("kind", lambda row, _: row.claim.kind),
    _text("engine_id", lambda row, _: row.claim.engine_id, nullable=True),
    _text("engine_version", lambda row, _: row.claim.engine_version, nullable=True),
    _text("request_id", lambda row, _: row.request_id, nullable=True),
    _text("title", lambda row, _: row.title, nullable=True),
    _text("content_sha256", lambda row, _: row.claim.content_sha256, nullable=True),
    _text("mime", lambda row, _: row.mime, nullable=True),
    (Column("size_bytes", BigInteger), lambda row, _: row.size_bytes),
    _text("link_sha256", lambda row, _: row.link_sha256),
    _text("link_path", lambda row, _: row.link_path, nullable=True),
    *_source_columns(),
)
_ADVISORY_GETTERS = tuple(get for _, get in _ADVISORY_COLUMNS)

advisories = Table(
    "advisories",
    metadata,
    *(column for column, _ in _ADVISORY_COLUMNS),
    Index("advisories_of_run", "run_id", "created_at_us", "advisory_id"),
)

positions = _offsets_table("positions")

# Up to which offset the operator gave up what the store does not have. Made in indexes of before
# too: the format stays, as a program that does not know the table does not miss it.
accepted_losses = _offsets_table("accepted_losses")

# Which topic of its name an epoch is about, as Kafka distinguishes them. Made in indexes of
# before too, as above.
topic_ids = Table(
    "topic_ids",
    metadata,
    Column("epoch", Integer, primary_key=True),
    Column("topic", String, primary_key=True),
    Column("topic_id", String, nullable=False),
)


# Before which offset of an advisory topic every claim that waited too long was reported. Made in
# indexes of before too, as above.
reported_claims = _offsets_table("reported_claims")

# Claims that are being linked, until their events are confirmed. Made in indexes of before too.
claims_in_hand = Table(
    "claims_in_hand",
    metadata,
    Column("epoch", Integer, primary_key=True),
    Column("topic", String, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("offset", BigInteger, primary_key=True),
)


reject_windows = Table(
    "flood_windows",
    metadata,
    Column("group_id", String, primary_key=True),
    Column("verdicts", String, nullable=False),
)

_HASHES = ("feasibility_sha256", "toolpaths_sha256", "gcode_sha256", "opplan_sha256")

_WITHHELD_BLOB = "attachments."


@dataclass(frozen=True, slots=True)
class IndexedRun:
    """A run as the index keeps it.

    Attributes:
        row: A row of `runs`, in the order of its columns.
        attachments: Rows of `attachments`, likewise.
        withheld: Rows of `withheld_blobs`, likewise.
        withheld_payloads: Rows of `withheld_payloads`, likewise; None where they are unknown.
    """

    row: tuple[Any, ...]
    attachments: list[tuple[Any, ...]]
    withheld: list[tuple[Any, ...]] = field(default_factory=list)
    withheld_payloads: list[tuple[Any, ...]] | None = None


def indexed_run(
    document: Mapping[str, Any], run: StoredRun, withheld_payloads: Iterable[str] | None = None
) -> IndexedRun:
    """Return what the index keeps of the artifact `document`, or of its index fields.

    Args:
        document: The artifact.
        run: Describes the same artifact.
        withheld_payloads: Hashes of what it withholds beside attachments, where they are known.
    """
    row = tuple([get(run, document) for get in _RUN_GETTERS])
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
        "source_topic": source.id.topic,
        "source_partition": source.id.partition,
        "source_offset": source.id.offset,
    }
    return replace(found, row=tuple(row.values()))


def driver_text(query: Select[Any]) -> str:
    """Return a query as the driver takes it, its parameters by name.

    Made once for a query that is asked often: making one takes longer than SQLite's answer.
    """
    return str(query.compile(dialect=dialect(paramstyle="named")))


def stored_run_of_row(row: Mapping[Any, Any]) -> StoredRun:
    """Return the run of a row of `runs`."""
    gcode_sha256 = row["gcode_sha256"]
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
        legacy=bool(row["legacy"]),
        program=gcode_sha256 and CutProgram(gcode_sha256, row["gcode_known_by"]),
    )


def _artifact_hashes(row: Mapping[Any, Any]) -> dict[str, str]:
    """Return the hashes of the artifact: what the program's is known by otherwise is none."""
    found = {name: row[name] for name in _HASHES if row[name] is not None}
    if row["gcode_known_by"] != "stored":
        found.pop("gcode_sha256", None)
    return found


def _source_of_row(row: Mapping[Any, Any]) -> RecordSource | None:
    if row["source_offset"] is None:
        return None
    return RecordSource(
        row["source_epoch"],
        RecordId(row["source_topic"], row["source_partition"], row["source_offset"]),
    )


def advisory_row(advisory: StoredAdvisory) -> tuple[Any, ...]:
    """Return the row of `advisories`, in the order of its columns."""
    return tuple([get(advisory, None) for get in _ADVISORY_GETTERS])


def advisory_of_row(row: Mapping[Any, Any]) -> StoredAdvisory:
    """Return what a row of `advisories` holds of its advisory."""
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
