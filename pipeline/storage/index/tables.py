"""The tables of the index, and a row from an artifact or a link and back."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    RowMapping,
    String,
    Table,
)

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


runs = Table(
    "runs",
    metadata,
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
withheld_blobs = Table(
    "withheld_blobs",
    metadata,
    Column("sha256", String, primary_key=True),
    Column("run_id", String, ForeignKey("runs.run_id"), primary_key=True),
)


# What a run withholds and no attachment of it names: it is read from quarantined requests.
withheld_payloads = Table(
    "withheld_payloads",
    metadata,
    Column("sha256", String, primary_key=True),
    Column("run_id", String, ForeignKey("runs.run_id"), primary_key=True),
)


advisories = Table(
    "advisories",
    metadata,
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


positions = Table(
    "positions",
    metadata,
    Column("epoch", Integer, primary_key=True),
    Column("topic", String, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("next_offset", BigInteger, nullable=False),
)


# Up to which offset the operator gave up what the store does not have. Made in indexes of before
# too: the format stays, as whoever does not know the table does not miss it.
accepted_losses = Table(
    "accepted_losses",
    metadata,
    Column("epoch", Integer, primary_key=True),
    Column("topic", String, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("next_offset", BigInteger, nullable=False),
)


# Which topic of its name an epoch is about, as Kafka tells one from another. Made in indexes of
# before too, as above.
topic_ids = Table(
    "topic_ids",
    metadata,
    Column("epoch", Integer, primary_key=True),
    Column("topic", String, primary_key=True),
    Column("topic_id", String, nullable=False),
)


reject_windows = Table(
    "flood_windows",
    metadata,
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


_WITHHELD_BLOB = "attachments."


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
    """Return what the index keeps of the artifact `document`, or of its index fields.

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
        source.id.topic if source else None,
        source.id.partition if source else None,
        source.id.offset if source else None,
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
        "source_topic": source.id.topic,
        "source_partition": source.id.partition,
        "source_offset": source.id.offset,
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
        hashes=artifact_hashes(row),
        artifact_sha256=row["artifact_sha256"],
        artifact_path=row["artifact_path"],
        size_bytes=row["size_bytes"],
        request_sha256=row["request_sha256"],
        legacy=row["legacy"],
        program=program_of_row(row),
    )


def artifact_hashes(row: RowMapping) -> dict[str, str]:
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
        row["source_epoch"],
        RecordId(row["source_topic"], row["source_partition"], row["source_offset"]),
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
        source.id.topic if source else None,
        source.id.partition if source else None,
        source.id.offset if source else None,
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
