"""One example of each answer for OpenAPI, with every field of its shape."""

from typing import Any

from pydantic import BaseModel

from schemas import http_answers as shapes
from schemas.http_answers import RUNS_PATH
from schemas.run_artifact import RunArtifact
from schemas.run_diff import DiffCounts, DiffedRun, DiffItem, RunDiff

RUN_ID = "run_6f1d2c3b4a5968778695a4b3c2d1e0f0"
SHA256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
_OTHER_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_GCODE_SHA256 = "db39d973250db8d7b74abf238fabb936754a289854c8b393bc4b755cc09e0a11"
_LATER_UTC = "2025-12-19T08:00:00Z"
_PROGRAM = {"gcode_sha256": _GCODE_SHA256, "gcode_known_by": "stored"}
_SCORED = {"risk_level": "GREEN", "score": 92.5}
_SUMMARY = {"operation": "rip", "params": {"spindle_rpm": 5000}}
_OUTPUTS = {"gcode_text": "G90\nG21\nM30\n"}

_VALUES: dict[str, Any] = {
    "schema_version": "rmos.run_artifact/2",
    "run_id": RUN_ID,
    "created_at_utc": "2025-12-18T14:03:22.123456Z",
    "event_type": "toolpaths",
    "status": "OK",
    "mode": "saw",
    "tool_id": "saw:veneer_160",
    "material_id": "maple",
    "machine_id": None,
    "workflow_session_id": "ws_42",
    **_SCORED,
    "block_reason": None,
    "feasibility_sha256": SHA256,
    "toolpaths_sha256": None,
    **_PROGRAM,
    "artifact_sha256": _OTHER_SHA256,
    "artifact_path": f"runs/2025-12-18/{RUN_ID}.json",
    "advisory_count": 1,
    "explanation_status": "READY",
    "request_summary": _SUMMARY,
    "feasibility": _SCORED,
    "decision": _SCORED,
    "hashes": {"feasibility_sha256": SHA256, "gcode_sha256": _GCODE_SHA256},
    "outputs": _OUTPUTS,
    "attachments": [],
    "advisory_inputs": [],
    "meta": {},
    "provenance": {"request_sha256": _OTHER_SHA256},
    "missing_attachments": [],
    "may_cut": True,
    "outcome": "persisted",
    "advisory_id": "adv_1",
    "count": 1,
    "sha256": SHA256,
    "kind": "dxf_input",
    "mime": "image/vnd.dxf",
    "filename": "part.dxf",
    "size_bytes": 5,
    "download_url": f"{RUNS_PATH}/{RUN_ID}/attachments/{SHA256}",
}


def _example(shape: type[BaseModel], **values: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return an example of `shape`: its required fields, and what `values` has besides."""
    required = [name for name, field in shape.model_fields.items() if field.is_required()]
    return {name: _VALUES[name] for name in required if name not in values} | values


RUN_REQUEST = {
    **{name: _VALUES[name] for name in ("run_id", "created_at_utc", "event_type", "mode")},
    "tool_id": _VALUES["tool_id"],
    "feasibility": _SCORED,
    "request": _SUMMARY,
    "outputs": _OUTPUTS,
}
SUBMITTED = _example(shapes.SubmittedRun, **_PROGRAM)
BLOCKED = _example(
    shapes.BlockedRun,
    error="SAFETY_BLOCKED",
    message="The run is stored and BLOCKED: RISK_RED.",
    status="BLOCKED",
    may_cut=False,
    decision={"risk_level": "RED", "block_reason": "RISK_RED"},
)
INVALID_REQUEST = _example(
    shapes.InvalidRequestAnswer,
    error="INVALID_REQUEST",
    message="Nothing was published. tool_id: required, and not there.",
    violations=[
        _example(
            shapes.ToldViolation, field="tool_id", code="MISSING", reason="required, and not there"
        )
    ],
)
ACCEPTED = _example(
    shapes.AcceptedAnswer,
    status="ACCEPTED",
    message="The broker has the request; it was not judged in time and will be.",
)
UNCONFIRMED = {"error": "BROKER_UNAVAILABLE", "message": "The broker did not confirm."}
RUN_PAGE = _example(
    shapes.RunPageAnswer, items=[_example(shapes.RunItem)], next_cursor=None, limit=50
)
ADVISORY_REQUEST = {
    "advisory_id": "adv_1",
    "kind": "explanation",
    "engine_id": "explainer",
    "engine_version": "20260101",
    "title": "Why this cut is safe",
    "content_text": "The rim speed stays **below** the blade's limit.",
}
_ADVISORY = {name: value for name, value in ADVISORY_REQUEST.items() if name != "content_text"} | {
    "created_at_utc": _LATER_UTC,
    "content_sha256": SHA256,
    "mime": "text/markdown",
    "size_bytes": 48,
    "link_sha256": _OTHER_SHA256,
}
ARTIFACT = _example(RunArtifact)
RUN_VIEW = _example(shapes.RunView, **_PROGRAM, advisory_inputs=[_ADVISORY])
RUN_DIFF = _example(
    RunDiff,
    a=_example(DiffedRun),
    b=_example(DiffedRun, run_id="run_2", created_at_utc=_LATER_UTC),
    diff_severity="WARNING",
    changed_paths=["decision.score"],
    diff={"decision": {"score": {"a": 92.5, "b": 68}}},
    items=[_example(DiffItem, path="decision.score", op="changed", a=92.5, b=68)],
    truncated=False,
    counts=_example(DiffCounts, added=0, removed=0, changed=1),
    summary="WARNING: 1 field changed (decision.score); values: 0 added, 0 removed, 1 changed.",
)
ATTACHED = _example(shapes.AttachedAnswer, status="attached")
ADVISORIES = _example(
    shapes.AdvisoriesAnswer, advisories=[{**_ADVISORY, "download_url": _VALUES["download_url"]}]
)
ATTACHMENTS = _example(shapes.AttachmentsAnswer, attachments=[_example(shapes.ListedAttachment)])
VERIFICATION = _example(
    shapes.VerificationAnswer,
    verification=_example(
        shapes.Verification,
        ok=False,
        results=[
            _example(
                shapes.VerifiedAttachment,
                ok=False,
                actual_sha256=_OTHER_SHA256,
                error="hash_mismatch",
                rule=None,
            )
        ],
    ),
)
TOOLPATH = _example(
    shapes.ToolpathAnswer,
    gcode_sha256=_GCODE_SHA256,
    drawing_version=2,
    units="mm",
    is_whole=True,
    line_count=6,
    move_count=2,
    not_drawn_count=1,
    box={"low": [0.0, 0.0, -1.0], "high": [0.0, 0.0, 5.0]},
    cut_box={"low": [0.0, 0.0, -1.0], "high": [0.0, 0.0, 5.0]},
    cut_mm=6.0,
    rapid_mm=0.0,
    cut_seconds=3.6,
    tools=[1],
    feeds_mm_min=[100.0, 100.0],
    spindle_rpm=[18000.0],
    conditions_sha256="4b7c2bd2d23ae0e4ec8a0c9a5d6c3a2c6bb4cc3a2b71f7f6f0c4c7ad3c3f8a11",
    remarks=[
        {
            "what": "Lines that may be skipped (/) are drawn.",
            "count": 1,
            "lines": [4],
        }
    ],
    paths=[{"kind": "feed", "line": 5, "lines": [5], "points": [0.0, 0.0, 5.0, 0.0, 0.0, -1.0]}],
)
STORED = _example(shapes.StoredAttachment, status="created")
LIVE = _example(shapes.LiveAnswer, live=True)
READY = _example(
    shapes.ReadyAnswer,
    ready=True,
    checks={"broker answers": True, "disk writable": True},
    reasons=[],
)
NOT_READY = READY | {"ready": False, "checks": READY["checks"] | {"broker answers": False}}
