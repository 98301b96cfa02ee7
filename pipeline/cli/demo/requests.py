"""The requests of `rmos demo`, in the shapes of a real shop's CAM system."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

CREATED_AT_UTC = "2025-12-18T14:03:22Z"

_SMALL_POCKET = """\
G90
G21
M3 S18000
G0 Z5.000
G0 X3.000 Y3.000
G1 Z-3.000 F300
G1 X97.000 F1200
G1 Y47.000
G1 X3.000
G1 Y3.000
G0 Z5.000
M5
M30"""


class DemoRequest(NamedTuple):
    """One record of the demo: what it shows, its key and its bytes."""

    title: str
    key: bytes
    value: bytes


def demo_requests() -> list[DemoRequest]:
    """Return the records of the demo, in order."""
    green = _request("run_demo_green", "GREEN", 92.0, gcode=_SMALL_POCKET)
    careful = "stepdown is high (> 3.0 mm); consider smaller passes"
    large = "\n".join(_raster_pocket())
    yellow = _request("run_demo_yellow", "YELLOW", 61.5, warnings=(careful,), gcode=large)
    incomplete = {**_request("run_demo_incomplete", "GREEN", 88.0), "tool_id": 42}
    return [
        _record("GREEN", green),
        _record("YELLOW, 300 KB of G-code", yellow),
        _record("RED", red_request("run_demo_red")),
        _record("no risk in it", _request("run_demo_unknown", None, None)),
        _record("incomplete: tool_id is 42", incomplete),
        DemoRequest("not JSON", b"run_demo_broken", b'{"run_id": "run_demo_broken", '),
        _record("the GREEN one again", green),
        _record("the GREEN one, changed", {**green, "tool_id": "router:endmill_3mm"}),
    ]


def red_request(run_id: str) -> dict[str, Any]:
    """Return a request that must be blocked."""
    reason = "z_rough must be negative (cutting depth)"
    return _request(run_id, "RED", 0.0, block_reason=reason, gcode=_SMALL_POCKET)


def _record(title: str, request: dict[str, Any]) -> DemoRequest:
    value = json.dumps(request, ensure_ascii=False).encode()
    return DemoRequest(title, request["run_id"].encode(), value)


def _request(
    run_id: str,
    risk_level: str | None,
    score: float | None,
    *,
    block_reason: str | None = None,
    warnings: Sequence[str] = (),
    gcode: str | None = None,
) -> dict[str, Any]:
    verdict = {"risk_level": risk_level, "score": score, "block_reason": block_reason}
    return {
        "run_id": run_id,
        "created_at_utc": CREATED_AT_UTC,
        "mode": "router",
        "tool_id": "router:endmill_6mm",
        "material_id": "maple",
        "machine_id": "router_1",
        "event_type": "toolpaths",
        "engine_version": "feasibility_engine_v1",
        "feasibility": {"mode": "router", "safety": {**verdict, "warnings": list(warnings)}},
        "request": {
            "design": {"type": "pocket", "width_mm": 100, "length_mm": 50, "depth_mm": 3},
            "context": {"strategy": "spiral", "stepover": 0.45, "stepdown_mm": 1.5},
        },
        **({} if gcode is None else {"outputs": {"gcode_text": gcode}}),
    }


def _raster_pocket() -> Iterator[str]:
    """Yield a finishing pass in rows of 0.05 mm: 300 KB, above the inline limit."""
    yield from ("G90", "G21", "M3 S18000", "G0 Z5.000")
    for row in range(1, 6720):
        start, end = (3.0, 397.0) if row % 2 else (397.0, 3.0)
        yield f"G1 X{start:.3f} Y{row * 0.05:.3f} Z-3.000 F1200"
        yield f"G1 X{end:.3f}"
    yield from ("G0 Z5.000", "M5", "M30")
