"""One example of each answer, as OpenAPI shows it; a test holds them against their shapes."""

from typing import Any

from schemas.http_answers import RUNS_PATH

RUN_ID = "run_6f1d2c3b4a5968778695a4b3c2d1e0f0"
CREATED_AT_UTC = "2025-12-18T14:03:22.123456Z"
SHA256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
GCODE_SHA256 = "db39d973250db8d7b74abf238fabb936754a289854c8b393bc4b755cc09e0a11"
OTHER_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_PATH = f"runs/2025-12-18/{RUN_ID}.json"

RUN_REQUEST: dict[str, Any] = {
    "run_id": RUN_ID,
    "created_at_utc": CREATED_AT_UTC,
    "event_type": "toolpaths",
    "mode": "saw",
    "tool_id": "saw:veneer_160",
    "feasibility": {"risk_level": "GREEN", "score": 92.5},
    "request": {"operation": "rip", "params": {"spindle_rpm": 5000}},
    "outputs": {"gcode_text": "G90\nG21\nM30\n"},
}

SUBMITTED: dict[str, Any] = {
    "run_id": RUN_ID,
    "created_at_utc": CREATED_AT_UTC,
    "status": "OK",
    "may_cut": True,
    "decision": {"risk_level": "GREEN", "score": 92.5},
    "feasibility_sha256": SHA256,
    "artifact_sha256": OTHER_SHA256,
    "artifact_path": _PATH,
    "gcode_sha256": GCODE_SHA256,
    "gcode_known_by": "stored",
    "missing_attachments": [],
    "outcome": "persisted",
}

BLOCKED: dict[str, Any] = {
    "error": "SAFETY_BLOCKED",
    "message": "The run is stored and BLOCKED: RISK_RED.",
    **{name: value for name, value in SUBMITTED.items() if not name.startswith("gcode_")},
    "status": "BLOCKED",
    "may_cut": False,
    "decision": {"risk_level": "RED", "block_reason": "RISK_RED"},
}

INVALID_REQUEST: dict[str, Any] = {
    "error": "INVALID_REQUEST",
    "message": "Nothing was published. tool_id: required, and not there.",
    "violations": [
        {"field": "tool_id", "code": "MISSING", "reason": "required, and not there"},
    ],
}

ACCEPTED: dict[str, Any] = {
    "status": "ACCEPTED",
    "message": "The broker has the request; it was not judged in time and will be.",
    "run_id": RUN_ID,
    "created_at_utc": CREATED_AT_UTC,
}

RUN_PAGE: dict[str, Any] = {
    "items": [
        {
            "run_id": RUN_ID,
            "created_at_utc": CREATED_AT_UTC,
            "event_type": "toolpaths",
            "status": "OK",
            "mode": "saw",
            "tool_id": "saw:veneer_160",
            "material_id": "maple",
            "machine_id": None,
            "workflow_session_id": "ws_42",
            "risk_level": "GREEN",
            "score": 92.5,
            "block_reason": None,
            "feasibility_sha256": SHA256,
            "toolpaths_sha256": None,
            "gcode_sha256": GCODE_SHA256,
            "gcode_known_by": "stored",
            "artifact_sha256": OTHER_SHA256,
            "artifact_path": _PATH,
            "advisory_count": 1,
            "explanation_status": "READY",
        }
    ],
    "next_cursor": None,
    "limit": 50,
}

ADVISORY: dict[str, Any] = {
    "advisory_id": "adv_1",
    "kind": "explanation",
    "created_at_utc": "2025-12-19T08:00:00Z",
    "engine_id": "explainer",
    "engine_version": "20260101",
    "title": "Why this cut is safe",
    "content_sha256": SHA256,
    "mime": "text/markdown",
    "size_bytes": 48,
    "link_sha256": OTHER_SHA256,
}

RUN_VIEW: dict[str, Any] = {
    "schema_version": "rmos.run_artifact/2",
    "run_id": RUN_ID,
    "created_at_utc": CREATED_AT_UTC,
    "event_type": "toolpaths",
    "mode": "saw",
    "tool_id": "saw:veneer_160",
    "status": "OK",
    "request_summary": {"operation": "rip", "params": {"spindle_rpm": 5000}},
    "feasibility": {"risk_level": "GREEN", "score": 92.5},
    "decision": {"risk_level": "GREEN", "score": 92.5},
    "hashes": {"feasibility_sha256": SHA256, "gcode_sha256": GCODE_SHA256},
    "outputs": {"gcode_text": "G90\nG21\nM30\n"},
    "attachments": [],
    "advisory_inputs": [ADVISORY],
    "meta": {},
    "provenance": {"request_sha256": OTHER_SHA256},
    "explanation_status": "READY",
    "gcode_sha256": GCODE_SHA256,
    "gcode_known_by": "stored",
    "missing_attachments": [],
}

# The file itself has neither the linked advisories nor what is computed.
_COMPUTED = {"explanation_status", "gcode_sha256", "gcode_known_by", "missing_attachments"}
ARTIFACT: dict[str, Any] = {
    name: value for name, value in RUN_VIEW.items() if name not in _COMPUTED
} | {"advisory_inputs": []}

RUN_DIFF: dict[str, Any] = {
    "a": {"run_id": RUN_ID, "created_at_utc": CREATED_AT_UTC},
    "b": {"run_id": "run_2", "created_at_utc": "2025-12-19T08:00:00Z"},
    "diff_severity": "WARNING",
    "changed_paths": ["decision.score"],
    "diff": {"decision": {"score": {"a": 92.5, "b": 68}}},
    "items": [{"path": "decision.score", "op": "changed", "a": 92.5, "b": 68}],
    "truncated": False,
    "counts": {"added": 0, "removed": 0, "changed": 1},
    "summary": "WARNING: 1 field changed (decision.score); values: 0 added, 0 removed, 1 changed.",
}

ADVISORY_REQUEST: dict[str, Any] = {
    "advisory_id": "adv_1",
    "kind": "explanation",
    "engine_id": "explainer",
    "engine_version": "20260101",
    "title": "Why this cut is safe",
    "content_text": "The rim speed stays **below** the blade's limit.",
}

ATTACHED: dict[str, Any] = {"run_id": RUN_ID, "advisory_id": "adv_1", "status": "attached"}

ADVISORIES: dict[str, Any] = {
    "run_id": RUN_ID,
    "count": 1,
    "advisories": [
        {**ADVISORY, "download_url": f"{RUNS_PATH}/{RUN_ID}/attachments/{SHA256}"},
    ],
}

ATTACHMENTS: dict[str, Any] = {
    "run_id": RUN_ID,
    "count": 1,
    "attachments": [
        {
            "sha256": SHA256,
            "kind": "dxf_input",
            "mime": "image/vnd.dxf",
            "filename": "part.dxf",
            "size_bytes": 5,
            "created_at_utc": CREATED_AT_UTC,
            "download_url": f"{RUNS_PATH}/{RUN_ID}/attachments/{SHA256}",
        }
    ],
}

VERIFICATION: dict[str, Any] = {
    "run_id": RUN_ID,
    "verification": {
        "ok": False,
        "count": 1,
        "results": [
            {
                "sha256": SHA256,
                "ok": False,
                "size_bytes": 5,
                "actual_sha256": OTHER_SHA256,
                "error": "hash_mismatch",
                "kind": "dxf_input",
                "filename": "part.dxf",
                "rule": None,
            }
        ],
    },
}

STORED: dict[str, Any] = {"sha256": SHA256, "size_bytes": 5, "status": "created"}
LIVE: dict[str, Any] = {"live": True}
READY: dict[str, Any] = {
    "ready": True,
    "checks": {"broker answers": True, "disk writable": True},
    "reasons": [],
}

NOT_READY: dict[str, Any] = {
    "ready": False,
    "checks": {"broker answers": False, "disk writable": True},
    "reasons": [],
}
