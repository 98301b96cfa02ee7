"""Requests as a shop's CAM systems send them, each with one change: `run_request(mode="router")`.

Every call returns a new object. `ABSENT` as a value leaves the field out.
"""

import base64
import hashlib
import json
from copy import deepcopy
from typing import Any, Final

from pipeline.core.runs.verdict import JudgedRun, Rejected, judge_run_record

ABSENT: Final = object()
"""As a value of a change: leave the field out."""

RUN_ID = "run_6f1d2c3b4a5968778695a4b3c2d1e0f0"
CREATED_AT_UTC = "2025-12-18T14:03:22.123456Z"

GCODE = """\
G90
G21
G94
(post GRBL)
M3 S18000
G4 P2
G0 Z5.0000
G0 X97.0000 Y47.0000
G1 Z-3.0000 F300
G1 X3.0000 F1200
M5
M30
"""

_SAW: dict[str, Any] = {
    "schema_version": "rmos.run_request/1",
    "run_id": RUN_ID,
    "created_at_utc": CREATED_AT_UTC,
    "event_type": "toolpaths",
    "mode": "saw",
    "tool_id": "saw:veneer_160",
    "material_id": "maple",
    "machine_id": "shop_saw_2",
    "workflow_session_id": "ws_42",
    "workflow_mode": "saw",
    "post_processor_id": "grbl",
    "engine_version": "feasibility_engine_v1",
    "toolchain_version": "saw_cam_v1.4",
    "post_processor_version": "grbl_post_2.1",
    "config_fingerprint": "9f2b6c1d04e8a735",
    "feasibility": {
        "mode": "saw",
        "tool_id": "saw:veneer_160",
        "risk_level": "GREEN",
        "score": 92.5,
        "blocking": False,
        "blocking_reasons": [],
        "constraints": [],
        "warnings": [],
        "engine_version": "feasibility_engine_v1",
        "details": {"kerf_mm": 1.6, "rim_speed_m_per_s": 42.0, "bbox": None},
    },
    "request": {
        "operation": "rip",
        "geometry": {"type": "slice", "length_mm": 600, "width_mm": 120, "thickness_mm": 0.6},
        "material": {"id": "maple", "type": "hardwood", "hardness": "hard"},
        "tool": {"diameter_mm": 160, "type": "saw_blade", "teeth": 48},
        "params": {"spindle_rpm": 5000, "feed_rate_mm_min": 1800.0, "passes": 1},
    },
    "outputs": {
        "gcode_text": GCODE,
        "toolpaths": {
            "units": "mm",
            "moves": [
                {"code": "G0", "z": 5.0},
                {"code": "G0", "x": 97.0, "y": 47.0},
                {"code": "G1", "z": -3.0, "f": 300.0},
                {"code": "G1", "x": 3.0, "f": 1200.0, "meta": {"slowdown": 0.6}},
            ],
        },
    },
    "meta": {"operator": "ana", "job": "veneer 17"},
}

_ROUTER: dict[str, Any] = {
    "schema_version": "rmos.run_request/1",
    "run_id": "run_0c5e8a7f6b9d41c28e3f5a6b7c8d9e0f",
    "created_at_utc": "2026-01-15T21:47:51.126087+00:00",
    "event_type": "approval",
    "mode": "router",
    "tool_id": "adaptive:endmill_6",
    "material_id": "walnut",
    "post_processor_id": "linuxcnc",
    "feasibility": {
        "mode": "adaptive",
        "tool_id": "adaptive:endmill_6",
        "safety": {
            "risk_level": "YELLOW",
            "score": 68,
            "block_reason": None,
            "warnings": ["stepdown is high (> 3.0 mm); consider smaller passes"],
            "details": {"engine": "feasibility_engine_v1", "limit": "stepdown <= 3.0"},
        },
    },
    "request": {
        "geometry": {
            "type": "pocket_with_island",
            "width_mm": 80,
            "length_mm": 80,
            "depth_mm": 10,
            "island": {"width_mm": 20, "length_mm": 20},
        },
        "material": {"id": "walnut", "type": "hardwood", "hardness": "medium-hard"},
        "tool": {"diameter_mm": 6, "type": "endmill", "flutes": 2},
        "params": {"doc_mm": 5.0, "woc_percent": 40, "feed_rate_mm_min": 1000},
    },
    "outputs": {
        "gcode_text": GCODE,
        "opplan_json": {"steps": [{"op": "rough", "z": -3.0}, {"op": "finish", "z": -3.0}]},
    },
}

_ROSETTE: dict[str, Any] = {
    "schema_version": "rmos.run_request/1",
    "run_id": "run_7b0e1d2c3f4a5b6c7d8e9f0a1b2c3d4e",
    "created_at_utc": "2026-02-01T09:30:00+01:00",
    "event_type": "toolpaths",
    "mode": "rosette",
    "tool_id": "rosette:herringbone_24",
    "material_id": "palisander",
    "machine_id": "rosette_mill",
    "toolchain_id": "rosette_cam_v1",
    "post_processor_id": "fanuc",
    "geometry_ref": "RosetteParamSpec:v1",
    "geometry_hash": "5c1e0f6a",
    "feasibility": {
        "risk_bucket": "green",
        "score": 81.25,
        "rings": [{"r_mm": 50.8, "ok": True}, {"r_mm": 57.15, "ok": True}],
    },
    "decision": {"risk_level": "GREEN", "score": 81, "details": {"rule": "ring_width"}},
    "request": {
        "spec": {"rings": 3, "tiles_per_ring": 24, "pattern": "herringbone"},
        "tolerance_mm": 1e-05,
    },
    "outputs": {"gcode_text": GCODE, "preview_svg": "<svg xmlns='http://www.w3.org/2000/svg'/>"},
}


_ADVISORY: dict[str, Any] = {
    "schema_version": "rmos.advisory_request/1",
    "run_id": RUN_ID,
    "advisory_id": "adv_1",
    "created_at_utc": "2025-12-19T08:00:00Z",
    "kind": "explanation",
    "engine_id": "explainer",
    "engine_version": "20260101",
    "title": "Why this cut is safe",
    "content_text": "The rim speed stays **below** the blade's limit.",
}


def advisory_request(**changes: Any) -> dict[str, Any]:
    """Return an explanation of the saw request, its text inline."""
    return _changed(_ADVISORY, changes)


def run_request(**changes: Any) -> dict[str, Any]:
    """Return a complete saw request: GREEN at the top of its feasibility, G-code inline."""
    return _changed(_SAW, changes)


def router_request(**changes: Any) -> dict[str, Any]:
    """Return a router request: YELLOW under `safety`, an operation plan, no version stamps."""
    return _changed(_ROUTER, changes)


def rosette_request(**changes: Any) -> dict[str, Any]:
    """Return a rosette request: GREEN in `decision` and as a `risk_bucket`, a preview."""
    return _changed(_ROSETTE, changes)


def red_request(**changes: Any) -> dict[str, Any]:
    """Return the saw request, which its evaluation calls RED."""
    red = {
        "risk_level": "RED",
        "blocking": True,
        "blocking_reasons": ["rim speed above the blade's limit"],
        "warnings": ["blade 160 is rated for 4,500 rpm"],
    }
    return run_request(**({"feasibility": red} | changes))


def incomplete_request(**changes: Any) -> dict[str, Any]:
    """Return the saw request without the tool it needs."""
    return run_request(**({"tool_id": ABSENT} | changes))


def attachment(content: bytes = b"0\nSECTION\n", **changes: Any) -> dict[str, Any]:
    """Return an attachment that brings `content` inline."""
    described = {
        "sha256": sha256(content),
        "kind": "dxf_input",
        "mime": "image/vnd.dxf",
        "filename": "part.dxf",
        "size_bytes": len(content),
        "created_at_utc": CREATED_AT_UTC,
        "content_base64": base64.b64encode(content).decode(),
    }
    return _changed(described, changes)


def attachment_ref(content: bytes = b"0\nSECTION\n", **changes: Any) -> dict[str, Any]:
    """Return an attachment that names an uploaded blob."""
    return attachment(content, **({"content_base64": ABSENT} | changes))


def encode(request: Any) -> bytes:
    """Return `request` as a producer may write it: keys in their own order, UTF-8."""
    return json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode()


def record(request: dict[str, Any]) -> tuple[bytes, bytes]:
    """Return the key and the value of the record that carries `request`."""
    return request["run_id"].encode(), encode(request)


def judge(request: dict[str, Any]) -> JudgedRun | Rejected:
    """Return what becomes of the record that carries `request`."""
    return judge_run_record(*record(request))


def judged(request: dict[str, Any]) -> JudgedRun:
    """Return the run that `request` makes; it must make one."""
    verdict = judge(request)
    assert isinstance(verdict, JudgedRun), verdict
    return verdict


def document(request: dict[str, Any]) -> dict[str, Any]:
    """Return the artifact that `request` makes, read back from its bytes."""
    read: dict[str, Any] = json.loads(judged(request).built.content)
    return read


def sha256(content: bytes | str) -> str:
    """Return the SHA-256 of bytes, or of the UTF-8 bytes of a text."""
    data = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()


def _changed(original: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = deepcopy(original) | changes
    return {name: value for name, value in merged.items() if value is not ABSENT}
