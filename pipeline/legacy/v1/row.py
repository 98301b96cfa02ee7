"""A run as a row of the v1 store: the inverse of the migration, as far as v1 has the fields.

A row has the 40 fields of v1 and no other: the program of v1 fails over a file with one more. What
v1 has no field for and a repeated request is known by stands in `meta`, under one key of ours. The
row is made from the artifact, so what is withheld there is not here either.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pipeline.core.record import RecordId
from schemas.fields import is_sha256
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
HASHES = {
    "request_hash": "feasibility_sha256",
    "toolpaths_hash": "toolpaths_sha256",
    "gcode_hash": "gcode_sha256",
}


def as_object(value: object) -> dict[str, Any]:
    """Return a value that is an object; else an empty one."""
    return value if isinstance(value, dict) else {}


def objects_in(value: object) -> list[dict[str, Any]]:
    """Return the objects of a value that is a list; else none."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


@dataclass(frozen=True, slots=True)
class V1Source:
    """The record that made a row, named without a store: by the cluster in place of the epoch."""

    cluster_id: str
    id: RecordId


@dataclass(frozen=True, slots=True)
class RowMark:
    """What only we know of a row.

    Attributes:
        request_sha256: Of the request's canonical body: decides duplicate or conflict.
        artifact_sha256: Of the artifact that the same request makes in the v2 store.
        source: The record that made the row; None where it was exported from the v2 store.
    """

    request_sha256: str
    artifact_sha256: str
    source: V1Source | None = None


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
        **{old: hashes.get(new) for old, new in HASHES.items()},
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
    fields: dict[str, Any] = {
        "request_sha256": mark.request_sha256,
        "artifact_sha256": mark.artifact_sha256,
    }
    if mark.source is not None:
        fields["source"] = {"cluster_id": mark.source.cluster_id, **mark.source.id._asdict()}
    return {**row, "meta": {**row["meta"], MARK: fields}}


def mark_of(row: Mapping[str, Any]) -> RowMark | None:
    """Return the mark of a row; None where it is not ours, or it is damaged."""
    meta = row.get("meta")
    fields = meta.get(MARK) if isinstance(meta, dict) else None
    if not isinstance(fields, dict):
        return None
    request_sha256, artifact_sha256 = fields.get("request_sha256"), fields.get("artifact_sha256")
    if not is_sha256(request_sha256) or not is_sha256(artifact_sha256):
        return None
    return RowMark(request_sha256, artifact_sha256, _source_of(fields.get("source")))


def _source_of(fields: object) -> V1Source | None:
    if not isinstance(fields, dict) or "cluster_id" not in fields:
        return None
    record = {key: value for key, value in fields.items() if key != "cluster_id"}
    try:
        return V1Source(fields["cluster_id"], RecordId(**record))
    except TypeError:
        return None
