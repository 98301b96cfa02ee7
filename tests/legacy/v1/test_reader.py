"""How two rows differ, in v1's own groups and severities."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.legacy.v1.reader import diff_rows

REAL = Path(__file__).parents[4] / "shared" / "data" / "v1" / "runs.json"
A: dict[str, Any] = {
    "run_id": "run_a",
    "created_at_utc": "2026-01-05T05:07:16+00:00",
    "status": "OK",
    "tool_id": "t",
    "request_hash": "1" * 64,
    "gcode_hash": None,
    "feasibility": {"score": 75.0, "safety": {"risk_level": "GREEN"}},
    "attachments": [{"sha256": "b", "kind": "debug", "filename": "x", "mime": "text/plain"}],
    "notes": None,
}


def changed(**changes: Any) -> dict[str, Any]:
    return diff_rows(A, {**A, "run_id": "run_b", **changes})


def test_rows_that_say_the_same_do_not_differ() -> None:
    assert changed() == {
        "a": {"run_id": "run_a", "created_at_utc": A["created_at_utc"]},
        "b": {"run_id": "run_b", "created_at_utc": A["created_at_utc"]},
        "diff_severity": "INFO",
        "changed_paths": [],
        "diff": {},
    }


@pytest.mark.parametrize(
    ("change", "severity", "paths"),
    [
        ({"status": "BLOCKED"}, "CRITICAL", ["status"]),
        ({"gcode_hash": "2" * 64}, "CRITICAL", ["hashes.gcode_hash"]),
        ({"toolpaths_hash": "2" * 64}, "CRITICAL", ["hashes.toolpaths_hash"]),
        ({"request_hash": "2" * 64}, "WARNING", ["hashes.request_hash"]),
        ({"geometry_hash": "2"}, "INFO", ["hashes.geometry_hash"]),
        ({"tool_id": "u", "notes": "n"}, "INFO", ["context.tool_id", "notes"]),
        ({"errors": ["e"]}, "INFO", ["errors"]),
        ({"attachments": None}, "INFO", ["attachments"]),
    ],
)
def test_what_changed_says_how_severe_it_is(
    change: dict[str, Any], severity: str, paths: list[str]
) -> None:
    found = changed(**change)
    assert (found["diff_severity"], found["changed_paths"]) == (severity, paths)


def test_a_change_of_feasibility_is_named_where_v1_named_it() -> None:
    risky = changed(feasibility={"score": 75.0, "risk_bucket": "RED", "safety": {}})
    assert (risky["diff_severity"], risky["changed_paths"]) == (
        "CRITICAL",
        ["feasibility.risk_bucket"],
    )
    assert set(risky["diff"]["feasibility"]) == {"risk_bucket", "safety"}
    assert changed(feasibility=None)["changed_paths"] == ["feasibility.score"]
    assert changed(feasibility=None)["diff_severity"] == "WARNING"


def test_the_order_of_attachments_is_no_difference() -> None:
    other = {"sha256": "a", "kind": "gcode", "filename": "y"}
    both = [*A["attachments"], other]
    assert diff_rows({**A, "attachments": both}, {**A, "attachments": both[::-1]})["diff"] == {}


@given(st.dictionaries(st.sampled_from(sorted(A)), st.none() | st.integers() | st.text()))
def test_any_row_can_be_compared(row: dict[str, Any]) -> None:
    assert diff_rows(row, row)["diff"] == {}
    json.dumps(diff_rows(A, row))


@pytest.mark.skipif(not REAL.exists(), reason="the real rows of v1 are not here")
def test_the_real_rows_can_be_compared() -> None:
    rows = list(json.loads(REAL.read_text()).values())
    severities = {diff_rows(a, b)["diff_severity"] for a in rows for b in rows}
    assert severities == {"CRITICAL", "INFO"}
