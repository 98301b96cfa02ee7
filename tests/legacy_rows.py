"""Rows as older stores have them, each with one change: `v1_row(status="BLOCKED")`.

In the shapes of the shop's own rows; the values are made up.
"""

import json
from copy import deepcopy
from typing import Any

from pipeline.legacy.attachments import FoundBlob
from pipeline.legacy.mapping import MappedRow, map_row
from tests.builders import ABSENT, sha256

V1_NAMES = (
    *("advisory_inputs", "attachments", "config_fingerprint", "created_at_utc", "decision"),
    *("drift_detected", "drift_summary", "engine_version", "errors", "event_type"),
    *("explanation_status", "explanation_summary", "feasibility", "fork_of_event_type"),
    *("fork_reason", "gate_decision", "gate_policy_id", "gate_policy_version", "gcode_hash"),
    *("geometry_hash", "geometry_ref", "machine_id", "material_id", "meta", "mode", "notes"),
    *("override_note", "parent_run_id", "post_processor_id", "post_processor_version"),
    *("request_hash", "request_summary", "run_id", "status", "tool_id", "toolchain_id"),
    *("toolchain_version", "toolpaths_hash", "workflow_mode", "workflow_session_id"),
)
"""The 40 keys that every row of a v1 store has."""

RUN_ID = "run_0a1b2c3d4e5f6071"

_GREEN: dict[str, Any] = dict.fromkeys(V1_NAMES) | {
    "run_id": RUN_ID,
    "created_at_utc": "2025-11-03T09:15:42.004200+00:00",
    "event_type": "rosette_plan_execution",
    "explanation_status": "NONE",
    "feasibility": {
        "mode": "rosette",
        "safety": {
            "block_reason": None,
            "details": {"engine": "cam_stub_v1"},
            "risk_level": "GREEN",
            "score": 75.0,
            "warnings": ["stub feasibility for rosette"],
        },
        "tool_id": "rosette:plan",
    },
    "request_hash": "1" * 64,
    "status": "OK",
    "tool_id": "rosette:plan",
    "toolpaths_hash": "2" * 64,
    "workflow_mode": "rosette",
}
_UNKNOWN_SAFETY = {
    "block_reason": "Unsupported mode for feasibility: unknown",
    "details": {"context": "helical_gcode"},
    "risk_level": "UNKNOWN",
    "warnings": ["no engine for this mode"],
}
_ORIGINAL_V2: dict[str, Any] = {
    "run_id": "run_11112222333344445555666677778888",
    "created_at_utc": "2025-12-18T22:30:00.250000Z",
    "mode": "saw",
    "tool_id": "saw:veneer_160",
    "status": "OK",
    "request_summary": {"keys": ["design", "context"], "tool_id": "saw:veneer_160"},
    "feasibility": {"risk_bucket": "GREEN", "score": 91.5},
    "decision": {
        "risk_level": "GREEN",
        "score": 91.5,
        "block_reason": None,
        "warnings": [],
        "details": {},
    },
    "hashes": {
        "feasibility_sha256": "3" * 64,
        "toolpaths_sha256": None,
        "gcode_sha256": sha256("G0 X1\n"),
        "opplan_sha256": None,
    },
    "outputs": {
        "gcode_text": "G0 X1\n",
        "opplan_json": None,
        "gcode_path": None,
        "opplan_path": None,
        "preview_svg_path": None,
    },
    "attachments": None,
    "advisory_inputs": [],
    "explanation_status": "NONE",
    "explanation_summary": None,
    "event_type": "toolpaths",
    "notes": "first cut",
    "errors": None,
    "lineage": {"parent_plan_run_id": "run_plan_1"},
    "request_id": "req-7",
    "meta": {"operator": "ana"},
}


def v1_row(**changes: Any) -> dict[str, Any]:
    """Return a GREEN row of a v1 store: its verdict is in `feasibility.safety` alone."""
    return _changed(_GREEN, changes)


def unknown_row(**changes: Any) -> dict[str, Any]:
    """Return a row that a v1 store recorded as BLOCKED because nobody evaluated it."""
    row = {
        "run_id": "run_8899aabbccddeeff",
        "created_at_utc": "2025-11-04T00:00:00+00:00",
        "event_type": "helical_gcode_blocked",
        "feasibility": {"mode": "unknown", "safety": _UNKNOWN_SAFETY, "tool_id": "helical_gcode"},
        "notes": "Blocked by safety policy: UNKNOWN",
        "status": "BLOCKED",
        "tool_id": "helical_gcode",
        "toolpaths_hash": None,
        "workflow_mode": "helical",
    }
    return v1_row(**(row | changes))


def bare_row(**changes: Any) -> dict[str, Any]:
    """Return a row that is OK in a v1 store though nobody evaluated it."""
    row = {
        "run_id": "run_0011223344556677",
        "event_type": "adaptive_gcode_execution",
        "feasibility": None,
        "gcode_hash": "4" * 64,
        "toolpaths_hash": None,
    }
    return v1_row(**(row | changes))


def original_v2_row(**changes: Any) -> dict[str, Any]:
    """Return an artifact as the original v2 code wrote it, parsed."""
    return _changed(_ORIGINAL_V2, changes)


def v1_file(*rows: dict[str, Any]) -> bytes:
    """Return the bytes of a v1 store, as v1 wrote them."""
    return json.dumps({row["run_id"]: row for row in rows}, indent=2, sort_keys=True).encode()


def mapped(row: dict[str, Any], *blobs: FoundBlob, **options: Any) -> MappedRow:
    """Return the message that carries `row`."""
    named = {blob.sha256: blob for blob in blobs}
    return map_row(row["run_id"], row, blobs=named, **({"origin": "v1"} | options))


def artifact(row: dict[str, Any], *blobs: FoundBlob, **options: Any) -> dict[str, Any]:
    """Return the artifact that `row` makes, read back from its bytes."""
    read: dict[str, Any] = json.loads(mapped(row, *blobs, **options).judged.built.content)
    return read


def legacy_request(**changes: Any) -> dict[str, Any]:
    """Return the message that carries the GREEN row."""
    read: dict[str, Any] = json.loads(mapped(v1_row()).body)
    return _changed(read, changes)


def found(content: bytes, suffix: str = "") -> FoundBlob:
    """Return a content as it was found in an older store."""
    return FoundBlob(sha256(content), len(content), suffix, content)


def _changed(original: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    changed = deepcopy(original) | changes
    return {name: value for name, value in changed.items() if value is not ABSENT}
