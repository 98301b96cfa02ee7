"""What a migration tells of rows before and after, and what an older store got wrong."""

from typing import Any

import pytest

from pipeline.core.json.canonical import canonical_json
from pipeline.legacy.blobs import BlobState
from pipeline.legacy.report import WRONG, MigrationResult, report_row
from pipeline.legacy.source import CarriedRow, RefusedRow
from tests.builders import sha256
from tests.legacy_rows import artifact, bare_row, mapped, original_v2_row, unknown_row, v1_row


def wrong_in(row: dict[str, Any]) -> set[str]:
    return set(report_row(row, artifact(row), "0" * 64).wrong)


def right(**changes: Any) -> dict[str, Any]:
    """Return a row in which an older store got nothing wrong."""
    row = v1_row(
        decision={"risk_level": "GREEN"},
        feasibility={"risk_level": "GREEN"},
        toolpaths_hash=None,
        **changes,
    )
    row["request_hash"] = sha256(canonical_json(row["feasibility"]))
    return row


def test_a_row_in_which_all_agrees_has_nothing_wrong() -> None:
    assert wrong_in(right()) == set()
    report = report_row(right(), artifact(right()), "0" * 64)
    assert (report.risk_before, report.risk_after, report.evaluation_hash) == (
        "GREEN",
        "GREEN",
        "agrees",
    )


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (right() | {"request_hash": "1" * 64}, "hash_of_something_else"),
        (right() | {"request_hash": None}, None),
        (v1_row(request_hash=None, toolpaths_hash=None), "verdict_not_seen"),
        (right() | {"gcode_hash": "1" * 64}, "hash_without_content"),
        (right() | {"gcode_hash": "1" * 64, "gcode_text": "G0"}, None),
        (right() | {"decision": {"risk_level": "YELLOW"}}, "decision_contradicted"),
        (right() | {"decision": {"risk_level": "RED"}, "feasibility": None}, "ok_though_unsafe"),
    ],
)
def test_each_fault_is_reported_by_its_name(row: dict[str, Any], told: str | None) -> None:
    found = wrong_in(row)
    assert found >= {told} if told else found == set()


def test_a_reason_that_lies_deeper_was_not_seen() -> None:
    row = unknown_row(request_hash=None)
    assert wrong_in(row) == {"reason_not_seen"}
    assert wrong_in(bare_row(request_hash=None)) == {"ok_without_verdict", "hash_without_content"}


def test_a_row_that_somebody_evaluated_is_not_told_as_one_that_nobody_did() -> None:
    feasibility = {"safety": {"risk_level": "GREEN"}}
    lost = {"status": "OK", "decision": {"risk_level": "UNKNOWN"}, "feasibility": feasibility}
    assert "verdict_lost" in wrong_in(original_v2_row(**lost))
    assert "ok_without_verdict" not in wrong_in(original_v2_row(**lost))
    unsafe = lost | {"feasibility": {"safety": {"risk_level": "RED"}}}
    assert "ok_though_unsafe" in wrong_in(original_v2_row(**unsafe))
    assert "ok_without_verdict" in wrong_in(original_v2_row(**lost | {"feasibility": {}}))


def test_hashes_of_the_original_v2_code_are_looked_at_too() -> None:
    assert "hash_of_something_else" in wrong_in(original_v2_row())
    assert "hash_without_content" not in wrong_in(original_v2_row())


def test_the_result_counts_rows_before_and_after_and_says_it_in_words() -> None:
    result = MigrationResult()
    blobs: dict[str, BlobState] = {"a": "missing", "b": "as named"}
    for row in (v1_row(), unknown_row(), bare_row()):
        result.add(CarriedRow(row["run_id"], row, mapped(row), blobs), "mapped")
    result.add(RefusedRow("run_1", "BAD_DATE", "Expected a time."), "refused")
    summary = result.summary()
    assert (summary["rows"], summary["mapped"], summary["refused"]) == (4, 3, {"BAD_DATE": 1})
    assert summary["statuses"] == {"BLOCKED": 1, "OK": 2}
    assert summary["risks_before"] == {"UNKNOWN": 3}
    assert summary["risks_after"] == {"GREEN": 1, "UNKNOWN": 2}
    assert summary["hashes_before"] == {"differs": 3}
    assert summary["hashes_after"] == {"agrees": 3}
    assert summary["attachments"] == {"as named": 3, "missing": 3}
    assert result.sentences()[0] == (
        "In 3 of 3 rows what was kept as the hash of the evaluation is not it."
    )
    assert "3 of 6 attachments are not there." in result.sentences()
    assert set(summary["wrong"]) <= WRONG.keys()
