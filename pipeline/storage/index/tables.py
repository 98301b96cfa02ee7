"""The tables of the index, and the values that their rows hold of a run or an advisory."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import structs
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    text,
)

from pipeline.core.advisories.outcome import StoredAdvisory
from pipeline.core.advisories.verdict import AdvisoryClaim
from pipeline.core.record import RecordId, RecordSource
from pipeline.core.runs.artifact import IndexFields
from pipeline.core.runs.cut_program import CutProgram
from pipeline.core.runs.outcome import StoredRun
from schemas.timestamps import microseconds_since_epoch

LISTED_BY = (
    *("status", "mode", "tool_id", "event_type", "risk_level", "workflow_session_id"),
    *("material_id", "machine_id"),
)
"""Columns by which runs are listed."""

ARRIVAL = "coalesce(source_offset >> 10, -1)"
"""Which runs came at about the same time: 1,024 offsets of each partition.

Hashes come in no order, so each new run changes a page of their index at random. Behind this number
it changes one of the few pages of its time, however many runs there are; a hash is looked up once
for each number. -1 is that of the runs that no record explains.
"""
HASH_START = 12
"""Digits of a hash that an index keeps: 48 bits, and few of 1,000,000 runs share them."""

metadata = MetaData()


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
    # What is stored was parsed before, so both agree, and this one takes a tenth of the time.
    return microseconds_since_epoch(datetime.fromisoformat(created_at_utc))


def _source_columns() -> tuple[Column[Any], ...]:
    """Return the columns of the record that made a row; empty where it is unknown."""
    return (
        Column("source_epoch", Integer),
        Column("source_topic", String),
        Column("source_partition", Integer),
        Column("source_offset", BigInteger),
    )


def _source_values(source: RecordSource | None) -> tuple[Any, ...]:
    return (None, None, None, None) if source is None else (source.epoch, *source.id)


runs = Table(
    "runs",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("created_at_utc", String, nullable=False),
    # Sorts as the time does; the text does not, as its fraction is left out where it is zero.
    Column("created_at_us", BigInteger, nullable=False),
    *(Column(name, String, nullable=False) for name in ("event_type", "status", "mode", "tool_id")),
    *(Column(name, String) for name in ("material_id", "machine_id", "workflow_session_id")),
    Column("risk_level", String, nullable=False),
    Column("score", Float),
    Column("block_reason", String),
    Column("feasibility_sha256", String, nullable=False),
    *(Column(name, String) for name in ("toolpaths_sha256", "gcode_sha256", "opplan_sha256")),
    # Of the program that would be cut; `stored` alone means that the artifact's hashes have it.
    Column("gcode_known_by", String),
    Column("legacy", Boolean, nullable=False),
    Column("artifact_sha256", String, nullable=False),
    Column("artifact_path", String, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("request_sha256", String, nullable=False),
    *_source_columns(),
    # One for each filter of the listing, each in the order of the listing: no query walks over
    # more rows than fit one of its filters.
    Index("runs_newest_first", "created_at_us", "run_id"),
    *(Index(f"runs_by_{name}", name, "created_at_us", "run_id") for name in LISTED_BY),
)


def hash_start(text: str) -> str:
    """Return the expression of the first digits of a hash; `text` is a column or a parameter."""
    return f"substr({text}, 1, {HASH_START})"


def _hash_index(name: str, *more: str) -> None:
    expressions = (ARRIVAL, hash_start(name), *more)
    Index(f"runs_by_arrival_and_{name}", *map(text, expressions), _table=runs)


# To find a run by a hash that somebody has; those of a program are listed.
_hash_index("artifact_sha256")
_hash_index("feasibility_sha256")
_hash_index("gcode_sha256", "created_at_us", "run_id")

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

advisories = Table(
    "advisories",
    metadata,
    # Not a foreign key: a claim may come before its run.
    Column("run_id", String, primary_key=True),
    Column("advisory_id", String, primary_key=True),
    Column("created_at_utc", String, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("kind", String, nullable=False),
    *(Column(name, String) for name in ("engine_id", "engine_version", "request_id", "title")),
    *(Column(name, String) for name in ("content_sha256", "mime")),
    Column("size_bytes", BigInteger),
    Column("link_sha256", String, nullable=False),
    Column("link_path", String),
    *_source_columns(),
    Index("advisories_of_run", "run_id", "created_at_us", "advisory_id"),
)
advisory_indexes = [
    Index("advisories_by_id", advisories.c.advisory_id),
    Index("advisories_by_content", advisories.c.content_sha256),
]

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


# Of a group in a partition; both are in the name, so that the format stays.
reject_windows = Table(
    "flood_windows",
    metadata,
    Column("group_id", String, primary_key=True),
    Column("verdicts", String, nullable=False),
)

_HASHES = ("feasibility_sha256", "toolpaths_sha256", "gcode_sha256", "opplan_sha256")

_WITHHELD_BLOB = "attachments."


class IndexedRun(msgspec.Struct, frozen=True, gc=False):
    """A run as the index keeps it.

    Attributes:
        row: A row of `runs`, in the order of its columns.
        attachments: Rows of `attachments`, likewise.
        withheld: Rows of `withheld_blobs`, likewise.
        withheld_payloads: Rows of `withheld_payloads`, likewise; None where they are unknown.
    """

    row: tuple[Any, ...]
    attachments: Sequence[tuple[Any, ...]]
    withheld: Sequence[tuple[Any, ...]] = ()
    withheld_payloads: Sequence[tuple[Any, ...]] | None = None


def indexed_run(
    fields: IndexFields, run: StoredRun, withheld_payloads: Iterable[str] | None = None
) -> IndexedRun:
    """Return what the index keeps of an artifact.

    Args:
        fields: Of the artifact.
        run: Describes the same artifact.
        withheld_payloads: Hashes of what it withholds beside attachments, where they are known.
    """
    listed = [
        (run.run_id, position, sha256, kind)
        for position, (sha256, kind) in enumerate(fields.attachments)
    ]
    withheld = [
        (name.removeprefix(_WITHHELD_BLOB), run.run_id)
        for name in fields.withheld
        if name.startswith(_WITHHELD_BLOB)
    ]
    payloads = None if withheld_payloads is None else [(n, run.run_id) for n in withheld_payloads]
    return IndexedRun(_run_row(fields, run), listed, withheld, payloads)


def _run_row(fields: IndexFields, run: StoredRun) -> tuple[Any, ...]:
    """Return the row of `runs`, in the order of its columns."""
    hashes, program = run.hashes, run.program
    return (
        run.run_id,
        fields.created_at_utc,
        _microseconds(fields.created_at_utc),
        fields.event_type,
        run.status,
        fields.mode,
        fields.tool_id,
        fields.material_id,
        fields.machine_id,
        fields.workflow_session_id,
        run.risk_level,
        # SQLite keeps no -0.0, and PostgreSQL does.
        0.0 if fields.score == 0 else fields.score,
        run.block_reason,
        hashes["feasibility_sha256"],
        hashes.get("toolpaths_sha256"),
        program and program.sha256,
        hashes.get("opplan_sha256"),
        program and program.known_by,
        run.legacy,
        run.artifact_sha256,
        run.artifact_path,
        run.size_bytes,
        run.request_sha256,
        *_source_values(run.source),
    )


def with_source(found: IndexedRun, source: RecordSource) -> IndexedRun:
    """Return the same run with the record that made it."""
    values = _source_values(source)
    return structs.replace(found, row=(*found.row[: -len(values)], *values))


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
    claim = advisory.claim
    return (
        advisory.run_id,
        advisory.advisory_id,
        advisory.created_at_utc,
        _microseconds(advisory.created_at_utc),
        claim.kind,
        claim.engine_id,
        claim.engine_version,
        advisory.request_id,
        advisory.title,
        claim.content_sha256,
        advisory.mime,
        advisory.size_bytes,
        advisory.link_sha256,
        advisory.link_path,
        *_source_values(advisory.source),
    )


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
