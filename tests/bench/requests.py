"""Run requests of real shape, about 4 KB each: unique run_ids, from a seed."""

import hashlib
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from schemas.timestamps import format_timestamp

DISTINCT = 2000
"""So many bodies are made; later requests repeat them with a run_id, a session and a time of their
own."""

DATES = 10
START = datetime(2026, 3, 1, 8, tzinfo=UTC)
STEP = timedelta(milliseconds=4)
"""From one request to the next in the order of arrival: 250 a second."""

BLOCKED_EACH = 50
"""One record of so many is RED, so its body is quarantined too."""

_MATERIALS = ("maple", "walnut", "cedar", "ebony", "spruce")
_POSTS = ("grbl", "linuxcnc", "mach4")


def encoded_requests(
    count: int, seed: str = "bench", *, random_dates: bool = False, ordered_ids: bool = False
) -> Iterator[tuple[bytes, bytes]]:
    """Yield the key and the value of each record.

    Args:
        count: How many.
        seed: The same seed makes the same ones.
        random_dates: False for times in the order of arrival, as machines send them; True for
            random ones over ten dates, as a migration or a replay out of order has them.
        ordered_ids: Whether run_ids sort in the order of arrival, as those of `new_run_id` do.
    """
    for number in range(count):
        digits = _digits(number, seed)
        run_id = f"run_{number:012x}{digits[:20]}" if ordered_ids else f"run_{digits[:32]}"
        created = (
            _random_time(number, random.Random(digits)) if random_dates else arrival_time(number)
        )
        body = _template(number % DISTINCT, seed) % (run_id, created, number // 40)
        yield run_id.encode(), body.encode()


@lru_cache(DISTINCT)
def _template(number: int, seed: str) -> str:
    request = run_request(number, seed)
    body = json.dumps(request, ensure_ascii=False, separators=(",", ":")).replace("%", "%%")
    for name in ("run_id", "created_at_utc"):
        body = body.replace(request[name], "%s")
    return body.replace(request["workflow_session_id"], "ws_%d")


def run_request(number: int, seed: str = "bench") -> dict[str, Any]:
    """Return the request of this number, at a random time; the same seed makes the same ones."""
    digits = _digits(number, seed)
    chance = random.Random(digits)
    material, post = chance.choice(_MATERIALS), chance.choice(_POSTS)
    moves = [_move(chance) for _ in range(24)]
    return {
        "schema_version": "rmos.run_request/1",
        "run_id": f"run_{digits[:32]}",
        "created_at_utc": _random_time(number, chance),
        "event_type": "toolpaths",
        "mode": "router",
        "tool_id": f"adaptive:endmill_{chance.choice((3, 6, 8))}",
        "material_id": material,
        "machine_id": f"router_{chance.randrange(4)}",
        "workflow_session_id": f"ws_{number // 40}",
        "workflow_mode": "design_first",
        "toolchain_id": "adaptive_cam_v2",
        "post_processor_id": post,
        "engine_version": "feasibility_engine_v1",
        "toolchain_version": "adaptive_cam_v2.3",
        "post_processor_version": f"{post}_post_2.1",
        "config_fingerprint": digits[32:48],
        "feasibility": _feasibility(number, chance),
        "request": _design(material, chance),
        "outputs": {
            "gcode_text": _gcode(post, moves),
            "toolpaths": {"units": "mm", "moves": moves},
            "opplan_json": {"steps": [{"op": "rough", "z": -3.0}, {"op": "finish", "z": -6.0}]},
        },
        "meta": {"operator": "ana", "job": f"pocket {number}", "shift": "early"},
    }


def _digits(number: int, seed: str) -> str:
    return hashlib.sha256(f"{seed}/{number}".encode()).hexdigest()


def arrival_time(number: int) -> str:
    """Return created_at_utc of a request in the order of arrival, as it is stored."""
    return format_timestamp(START + number * STEP)


def _random_time(number: int, chance: random.Random) -> str:
    second = chance.randrange(86_400)
    clock = f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
    return f"2026-03-{number % DATES + 1:02d}T{clock}.{chance.randrange(1_000_000):06d}Z"


def _feasibility(number: int, chance: random.Random) -> dict[str, Any]:
    level = "RED" if number % BLOCKED_EACH == 0 else chance.choice(("GREEN", "GREEN", "YELLOW"))
    return {
        "mode": "adaptive",
        "engine_version": "feasibility_engine_v1",
        "safety": {
            "risk_level": level,
            "score": round(chance.uniform(40, 100), 1),
            "block_reason": "stepdown above the limit of the tool" if level == "RED" else None,
            "warnings": ["stepdown is high (> 3.0 mm); consider smaller passes"],
            "details": {"limit": "stepdown <= 3.0", "stickout_mm": chance.randrange(18, 40)},
        },
        "constraints": [
            {"rule": rule, "ok": True, "margin": round(chance.random(), 4)}
            for rule in ("chipload", "deflection", "heat", "rim_speed", "workholding")
        ],
        "bbox": {"x": [0.0, 97.5], "y": [0.0, 47.25], "z": [-6.0, 5.0]},
        "estimated_seconds": round(chance.uniform(20, 900), 2),
    }


def _design(material: str, chance: random.Random) -> dict[str, Any]:
    return {
        "design": {
            "type": "pocket_with_island",
            "width_mm": chance.randrange(40, 120),
            "length_mm": chance.randrange(40, 120),
            "depth_mm": 10,
            "island": {"width_mm": 20, "length_mm": 20, "corner_radius_mm": 1.5},
        },
        "context": {
            "material": {"id": material, "type": "hardwood", "hardness": "medium-hard"},
            "tool": {"diameter_mm": 6, "type": "endmill", "flutes": 2},
            "params": {"doc_mm": 3.0, "woc_percent": 40, "feed_rate_mm_min": 1000},
            "machine": {"max_rpm": 24000, "travel_mm": [1200, 800, 120]},
        },
    }


def _move(chance: random.Random) -> dict[str, Any]:
    x, y = round(chance.uniform(0, 97), 4), round(chance.uniform(0, 47), 4)
    return {"code": "G1", "x": x, "y": y, "f": 1200.0}


def _gcode(post: str, moves: list[dict[str, Any]]) -> str:
    lines = [f"{move['code']} X{move['x']:.4f} Y{move['y']:.4f} F1200.0" for move in moves]
    head = ["G90", "G21", "G94", f"(post {post})", "M3 S18000", "G4 P2", "G0 Z5.0000"]
    return "\n".join([*head, "G1 Z-3.0000 F300", *lines, "G0 Z5.0000", "M5", "M30", ""])
