"""A run as a row of the v1 store: the inverse of the migration, as far as v1 has the fields.

A row has the 40 fields of v1 and no other: the program of v1 fails over a file with one more. What
v1 has no field for and a repeated request is known by stands in `meta`, under one key of ours. The
row is made from the artifact, so what is withheld there is not here either.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeGuard, get_args

from pipeline.core.dead_letters.carried_record import ReadContent
from pipeline.core.envelope import Rejected, judged_apart
from pipeline.core.runs.cut_program import cut_program
from pipeline.core.runs.safety import may_cut
from pipeline.core.runs.verdict import JudgedRun, judge_run_record
from schemas.fields import RISK_LEVELS, RunStatus, is_sha256
from schemas.timestamps import parse_timestamp

MARK: Final = "rmos_runs"
"""The key in `meta` of what only we know of a row; a producer's own value under it gives way."""

# Every field of v1 that the artifact has under the same name.
_SAME_NAMES = (
    *("workflow_session_id", "tool_id", "material_id", "machine_id", "workflow_mode"),
    *("toolchain_id", "post_processor_id", "geometry_ref", "geometry_hash", "event_type"),
    *("status", "feasibility", "parent_run_id", "drift_detected", "drift_summary"),
    *("gate_policy_id", "gate_decision", "engine_version", "toolchain_version"),
    *("post_processor_version", "config_fingerprint", "notes", "errors", "mode"),
    "request_summary",
)
_ALWAYS_NULL = (
    *("fork_of_event_type", "fork_reason", "override_note", "gate_policy_version"),
    *("advisory_inputs", "explanation_summary"),
)
_HASHES = {
    "request_hash": "feasibility_sha256",
    "toolpaths_hash": "toolpaths_sha256",
    "gcode_hash": "gcode_sha256",
}
_STATUSES = frozenset(get_args(RunStatus))


@dataclass(frozen=True, slots=True)
class V1RecordId:
    """The record that made a row, named without a store: by the cluster in place of the epoch."""

    cluster_id: str
    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class RowMark:
    """What only we know of a row.

    Attributes:
        request_sha256: Of the request's canonical body: what tells a duplicate from a conflict.
        artifact_sha256: Of the artifact that the same request makes in the v2 store.
        source: The record that made the row; None where it was exported from the v2 store.
    """

    request_sha256: str
    artifact_sha256: str
    source: V1RecordId | None = None


@dataclass(frozen=True, slots=True)
class JudgedRow:
    """A record that makes a run of the v1 store.

    Attributes:
        row: Without a mark: the record's place is not known to whoever judges.
        mark: Without a source.
        may_cut: Whether a machine may cut by it.
        is_incomplete: Whether the request had violations.
    """

    run_id: str
    row: dict[str, Any]
    mark: RowMark
    may_cut: bool
    is_incomplete: bool


def judge_run_as_row(key: ReadContent | None, value: ReadContent | None) -> JudgedRow | Rejected:
    """Return what a record is, by the judge of the v2 store, as a row of the v1 store.

    Raises:
        OSError: The machine is at fault, not the record.
        MemoryError: The same.
    """
    judged = judge_run_record(key, value)
    if isinstance(judged, Rejected):
        return judged
    return judged_apart(lambda: _judged_row(judged))


def _judged_row(judged: JudgedRun) -> JudgedRow:
    document = judged.built.document
    return JudgedRow(
        judged.run_id,
        v1_row(document),
        RowMark(judged.request_sha256, judged.artifact_sha256),
        may_cut(
            status=document["status"],
            risk_level=document["decision"]["risk_level"],
            legacy="legacy" in document["provenance"],
        ),
        judged.is_incomplete,
    )


def v1_row(artifact: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of a run, every field of v1 there, null where there is nothing."""
    decision = artifact["decision"]
    hashes = artifact["hashes"]
    return {
        "run_id": artifact["run_id"],
        # v1 wrote what isoformat gives for UTC.
        "created_at_utc": parse_timestamp(artifact["created_at_utc"]).isoformat(),
        **{name: artifact.get(name) for name in _SAME_NAMES},
        **dict.fromkeys(_ALWAYS_NULL),
        **{old: hashes.get(new) for old, new in _HASHES.items()},
        "decision": {
            "risk_level": decision["risk_level"],
            "score": decision.get("score"),
            "block_reason": decision.get("block_reason"),
            "warnings": decision.get("warnings", []),
            "details": decision.get("details", {}),
        },
        "attachments": artifact["attachments"] or None,
        "explanation_status": "NONE",
        "meta": artifact["meta"],
    }


def marked(row: Mapping[str, Any], mark: RowMark) -> dict[str, Any]:
    """Return a row that carries `mark`."""
    told: dict[str, Any] = {
        "request_sha256": mark.request_sha256,
        "artifact_sha256": mark.artifact_sha256,
    }
    if mark.source is not None:
        source = mark.source
        told["source"] = {
            "cluster_id": source.cluster_id,
            "topic": source.topic,
            "partition": source.partition,
            "offset": source.offset,
        }
    return {**row, "meta": {**row["meta"], MARK: told}}


def mark_of(row: Mapping[str, Any]) -> RowMark | None:
    """Return the mark of a row; None where it is not ours, or somebody has damaged it."""
    meta = row.get("meta")
    told = meta.get(MARK) if isinstance(meta, dict) else None
    if not isinstance(told, dict):
        return None
    request_sha256, artifact_sha256 = told.get("request_sha256"), told.get("artifact_sha256")
    if not _is_hash(request_sha256) or not _is_hash(artifact_sha256):
        return None
    return RowMark(request_sha256, artifact_sha256, _source_of(told.get("source")))


def _is_hash(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and is_sha256(value)


def _source_of(told: object) -> V1RecordId | None:
    try:
        return V1RecordId(**told)  # type: ignore[arg-type]
    except TypeError:
        return None


def told_of(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what an event tells of the stored run; None where the row does not say it."""
    decision = row.get("decision")
    if not isinstance(decision, dict):
        return None
    status, risk_level = row.get("status"), decision.get("risk_level")
    hashes = {new: row[old] for old, new in _HASHES.items() if row.get(old) is not None}
    if (
        status not in _STATUSES
        or risk_level not in RISK_LEVELS
        or "feasibility_sha256" not in hashes
        or not all(map(_is_hash, hashes.values()))
    ):
        return None
    told = {
        "status": status,
        "risk_level": risk_level,
        "hashes": hashes,
        **_program_of(row, hashes),
    }
    if isinstance(decision.get("block_reason"), str):
        told["block_reason"] = decision["block_reason"]
    return told


def _program_of(row: Mapping[str, Any], hashes: dict[str, Any]) -> dict[str, Any]:
    listed = row.get("attachments")
    refs = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    named = [each for each in refs if _is_hash(each.get("sha256")) and "kind" in each]
    empty: dict[str, Any] = {"outputs": {}, "provenance": {}, "meta": {}}
    as_artifact = {"attachments": named, "hashes": hashes, **empty}
    program = cut_program({"status": row["status"], **as_artifact})
    if program is None:
        return {}
    return {"gcode_sha256": program.sha256, "gcode_known_by": program.known_by}
