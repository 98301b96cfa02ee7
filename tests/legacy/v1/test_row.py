"""A run as a row of the v1 store: v1's fields and no other, and nothing that would have cut."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.record import RecordId
from pipeline.core.runs.artifact_parts import INLINE_GCODE_LIMIT_BYTES
from pipeline.core.runs.verdict import Rejected
from pipeline.legacy.v1.row import MARK, RowMark, V1Source, mark_of, marked, v1_row
from pipeline.legacy.v1_mode.outcome import JudgedRow, event_fields, judge_run_as_row
from tests.builders import (
    attachment_ref,
    document,
    incomplete_request,
    judged,
    record,
    red_request,
    rosette_request,
    run_request,
    sha256,
)

REAL = Path(__file__).parents[4] / "shared" / "data" / "v1" / "runs.json"
V1_FIELDS = {
    *("run_id", "created_at_utc", "workflow_session_id", "tool_id", "material_id", "machine_id"),
    *("workflow_mode", "toolchain_id", "post_processor_id", "geometry_ref", "geometry_hash"),
    *("event_type", "status", "feasibility", "request_hash", "toolpaths_hash", "gcode_hash"),
    *("attachments", "parent_run_id", "fork_of_event_type", "fork_reason", "drift_detected"),
    *("drift_summary", "override_note", "gate_policy_id", "gate_policy_version"),
    *("gate_decision", "engine_version", "toolchain_version", "post_processor_version"),
    *("config_fingerprint", "notes", "errors", "mode", "request_summary", "decision"),
    *("advisory_inputs", "explanation_status", "explanation_summary", "meta"),
}
SOURCE = V1Source("cluster-1", RecordId("rmos.runs.requests", 3, 7))
GCODE = "G1 X10\n"


def row_of(request: dict[str, Any]) -> dict[str, Any]:
    return judged_row(request).row


def judged_row(request: dict[str, Any]) -> JudgedRow:
    verdict = judge_run_as_row(*record(request))
    assert isinstance(verdict, JudgedRow)
    return verdict


@pytest.mark.parametrize(
    "request_body", [run_request(), rosette_request(), red_request(), incomplete_request()]
)
def test_a_row_has_the_fields_of_v1_and_no_other(request_body: dict[str, Any]) -> None:
    """The program of v1 fails over a file with a field that it does not know."""
    row = row_of(request_body)
    assert set(row) == V1_FIELDS
    assert set(row["decision"]) == {"risk_level", "score", "block_reason", "warnings", "details"}


@pytest.mark.skipif(not REAL.exists(), reason="the real rows of v1 are not here")
def test_the_fields_of_v1_are_those_of_its_real_rows() -> None:
    for row in json.loads(REAL.read_text()).values():
        assert set(row) == V1_FIELDS


def test_a_row_says_what_the_artifact_says() -> None:
    request = rosette_request(material_id="maple", errors=["loose"], meta={"shift": 2})
    row, artifact = row_of(request), document(request)
    for name in ("run_id", "mode", "tool_id", "status", "feasibility", "request_summary"):
        assert row[name] == artifact[name], name
    assert (row["material_id"], row["errors"], row["meta"]) == ("maple", ["loose"], {"shift": 2})
    assert row["request_hash"] == artifact["hashes"]["feasibility_sha256"]
    assert row["decision"]["risk_level"] == artifact["decision"]["risk_level"]
    assert (row["fork_reason"], row["explanation_status"]) == (None, "NONE")


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("2025-12-18T14:03:22Z", "2025-12-18T14:03:22+00:00"),
        ("2025-12-18T14:03:22.5+01:00", "2025-12-18T13:03:22.500000+00:00"),
    ],
)
def test_times_are_written_as_v1_wrote_them(given: str, written: str) -> None:
    assert row_of(run_request(created_at_utc=given))["created_at_utc"] == written


def test_a_run_that_is_ok_names_its_gcode_and_attachments_by_hash() -> None:
    ref = attachment_ref()
    request = run_request(outputs={"gcode_text": GCODE}, attachments=[ref])
    row = row_of(request)
    assert row["gcode_hash"] == sha256(GCODE)
    assert row["attachments"] == [ref]
    assert set(row["attachments"][0]) == {
        *("sha256", "kind", "mime", "filename", "size_bytes", "created_at_utc")
    }


@pytest.mark.parametrize("length", [7, INLINE_GCODE_LIMIT_BYTES + 1])
@pytest.mark.parametrize("risk", ["RED", "UNKNOWN", "ERROR", "purple", None])
def test_unsafe_is_never_ok_and_shows_nothing_to_cut_by(risk: str | None, length: int) -> None:
    gcode = "G" * length
    feasibility = {"risk_level": risk, "checked": True}
    request = run_request(
        status="OK",
        feasibility=feasibility,
        decision=None,
        outputs={"gcode_text": gcode, "toolpaths": {"x": 1}},
        attachments=[attachment_ref(gcode.encode(), kind="gcode")],
    )
    verdict = judged_row(request)
    assert (verdict.row["status"], verdict.may_cut) == ("BLOCKED", False)
    assert (verdict.row["gcode_hash"], verdict.row["toolpaths_hash"]) == (None, None)
    assert verdict.row["attachments"] is None
    assert gcode not in json.dumps(verdict.row)
    assert sha256(gcode) not in json.dumps(verdict.row)


def test_the_judge_is_that_of_the_other_store() -> None:
    for request in (run_request(), red_request(), incomplete_request()):
        same, row = judged(request), judged_row(request)
        assert row.mark == RowMark(same.request_sha256, same.artifact_sha256)
        assert row.is_incomplete == same.is_incomplete
    assert judge_run_as_row(b"run_1", None) == Rejected(
        "TOMBSTONE", "Expected a request, found a record without a value."
    )


def test_a_mark_is_read_as_it_was_written() -> None:
    verdict = judged_row(run_request(meta={"shift": 2}))
    mark = RowMark(verdict.mark.request_sha256, verdict.mark.artifact_sha256, SOURCE)
    row = json.loads(json.dumps(marked(verdict.row, mark)))
    assert mark_of(row) == mark
    assert row["meta"]["shift"] == 2
    assert mark_of(marked(verdict.row, verdict.mark)) == verdict.mark
    assert "shift" in verdict.row["meta"]
    assert MARK not in verdict.row["meta"]


def test_a_producer_cannot_write_the_mark() -> None:
    request = run_request(meta={MARK: {"request_sha256": "0" * 64, "artifact_sha256": "0" * 64}})
    verdict = judged_row(request)
    assert mark_of(marked(verdict.row, verdict.mark)) == verdict.mark


@pytest.mark.parametrize(
    "meta",
    [
        None,
        [],
        {},
        {MARK: None},
        {MARK: {"request_sha256": "0" * 64}},
        {MARK: {"request_sha256": 1, "artifact_sha256": "0" * 64}},
        {MARK: {"request_sha256": "X" * 64, "artifact_sha256": "0" * 64}},
    ],
)
def test_a_row_without_a_whole_mark_is_not_ours(meta: Any) -> None:
    assert mark_of({"run_id": "run_1", "meta": meta}) is None
    assert mark_of({"run_id": "run_1"}) is None


@pytest.mark.parametrize("source", [None, {}, [], {"cluster_id": "c", "more": 1}])
def test_a_damaged_source_is_no_source(source: Any) -> None:
    told = {"request_sha256": "0" * 64, "artifact_sha256": "1" * 64, "source": source}
    assert mark_of({"meta": {MARK: told}}) == RowMark("0" * 64, "1" * 64, None)


def test_what_is_reported_of_a_run_names_no_artifact() -> None:
    assert event_fields(row_of(run_request())) == {
        "status": "OK",
        "risk_level": "GREEN",
        "hashes": document(run_request())["hashes"],
        "gcode_sha256": document(run_request())["hashes"]["gcode_sha256"],
        "gcode_known_by": "stored",
    }
    attached = run_request(outputs=None, attachments=[attachment_ref(b"G1", kind="gcode")])
    told = event_fields(row_of(attached))
    assert told is not None
    assert (told["gcode_sha256"], told["gcode_known_by"]) == (sha256(b"G1"), "attached")
    told = event_fields(row_of(red_request()))
    assert told is not None
    assert (told["status"], told["risk_level"]) == ("BLOCKED", "RED")
    assert told["block_reason"]


@pytest.mark.parametrize(
    "change",
    [
        {"decision": None},
        {"decision": {"risk_level": "purple"}},
        {"status": "fine"},
        {"request_hash": None},
        {"request_hash": "abc"},
        {"gcode_hash": 7},
    ],
)
def test_nothing_is_reported_of_a_row_that_does_not_say_it(change: dict[str, Any]) -> None:
    assert event_fields(row_of(run_request()) | change) is None


def test_a_row_can_be_made_of_an_artifact_that_is_stored() -> None:
    assert v1_row(document(run_request())) == row_of(run_request())
