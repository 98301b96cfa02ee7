"""The event of a run request: the same bytes for every delivery, and its CloudEvents headers."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from pipeline.core.json.canonical import canonical_json
from pipeline.core.record import RecordId, RecordSource
from pipeline.core.runs.event import broker_time, event_id, run_event, run_event_headers
from pipeline.core.runs.outcome import Outcome, resolve_rejected, resolve_run, stored_run
from pipeline.core.runs.verdict import Rejected
from schemas.run_event import RunEvent
from schemas.timestamps import parse_timestamp
from tests.builders import attachment_ref, judged, red_request, run_request, sha256

SOURCE = RecordSource(1, RecordId("rmos.runs.requests", 3, 42))


def outcome_of(request: dict[str, Any], **changes: Any) -> Outcome:
    verdict = judged(request)
    run = structs.replace(stored_run(verdict, SOURCE), **changes)
    return resolve_run(verdict, run, SOURCE, intact=True)


OUTCOMES = {
    "persisted": outcome_of(run_request()),
    "blocked": outcome_of(red_request()),
    "duplicate": outcome_of(
        run_request(), source=SOURCE._replace(id=SOURCE.id._replace(offset=41))
    ),
    "conflict": outcome_of(run_request(), request_sha256="0" * 64),
    "rejected": resolve_rejected(Rejected("TOMBSTONE", "Expected a request.")),
    "rejected with a run_id": resolve_rejected(Rejected("KEY_MISMATCH", "Expected.", "run_1")),
}


def read(outcome: Outcome) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(run_event(outcome, SOURCE))
    return event


@pytest.mark.parametrize("name", OUTCOMES)
def test_every_event_is_of_the_published_shape(name: str) -> None:
    event = RunEvent.model_validate_json(run_event(OUTCOMES[name], SOURCE))
    assert event.outcome == OUTCOMES[name].kind


def test_an_event_says_everything_that_a_machine_asks() -> None:
    event = read(OUTCOMES["persisted"])
    run = OUTCOMES["persisted"].run
    assert run is not None
    assert event == {
        "schema_version": "rmos.run_event/1",
        "event_id": event_id(SOURCE),
        "outcome": "persisted",
        "may_cut": True,
        "run_id": run.run_id,
        "status": "OK",
        "risk_level": "GREEN",
        "hashes": run.hashes,
        "artifact_sha256": run.artifact_sha256,
        "artifact_path": f"runs/2025-12-18/{run.run_id}.json",
        "size_bytes": run.size_bytes,
        "gcode_sha256": run.hashes["gcode_sha256"],
        "gcode_known_by": "stored",
        "source": {"topic": "rmos.runs.requests", "partition": 3, "offset": 42},
    }


@pytest.mark.parametrize(
    ("request_", "known_by"),
    [
        (run_request(outputs=None, hashes={"gcode_sha256": sha256(b"G1")}), "claimed"),
        (run_request(outputs=None, attachments=[attachment_ref(b"G1", kind="gcode")]), "attached"),
    ],
)
def test_a_program_that_did_not_come_as_text_is_named_all_the_same(
    request_: dict[str, Any], known_by: str
) -> None:
    event = read(outcome_of(request_))
    assert (event["gcode_sha256"], event["gcode_known_by"]) == (sha256(b"G1"), known_by)
    assert "gcode_sha256" not in event["hashes"]


def test_missing_attachments_change_nothing_else() -> None:
    whole = OUTCOMES["duplicate"]
    event = read(structs.replace(whole, missing_attachments=("a" * 64,)))
    assert event.pop("missing_attachments") == ["a" * 64]
    assert event == read(whole)


def test_a_blocked_run_is_reported_with_its_reason_and_may_not_be_cut() -> None:
    event = read(OUTCOMES["blocked"])
    assert (event["may_cut"], event["status"]) == (False, "BLOCKED")
    assert "gcode_sha256" not in event
    assert event["block_reason"] == "rim speed above the blade's limit"


def test_a_conflict_describes_the_stored_run_and_may_not_be_cut() -> None:
    event = read(OUTCOMES["conflict"])
    assert (event["may_cut"], event["status"], event["outcome"]) == (False, "OK", "conflict")
    assert event["error"]["code"] == "RUN_CONFLICT"
    assert event["artifact_sha256"]


def test_a_rejected_record_describes_no_run() -> None:
    assert set(read(OUTCOMES["rejected"])) == {
        "schema_version",
        "event_id",
        "outcome",
        "may_cut",
        "source",
        "error",
    }
    assert read(OUTCOMES["rejected with a run_id"])["run_id"] == "run_1"


def test_the_id_is_the_hash_of_where_the_record_lies() -> None:
    assert event_id(SOURCE) == hashlib.sha256(b"1/rmos.runs.requests/3/42").hexdigest()


@pytest.mark.parametrize(
    "other",
    [
        SOURCE._replace(epoch=2),
        SOURCE._replace(id=SOURCE.id._replace(topic="rmos.runs.legacy")),
        SOURCE._replace(id=SOURCE.id._replace(partition=4)),
        SOURCE._replace(id=SOURCE.id._replace(offset=43)),
    ],
)
def test_every_part_of_the_source_counts_for_the_id(other: RecordSource) -> None:
    assert event_id(other) != event_id(SOURCE)


def test_the_headers_are_those_of_cloudevents_in_binary_mode() -> None:
    outcome = OUTCOMES["persisted"]
    assert outcome.run_id is not None
    assert dict(run_event_headers(outcome, SOURCE, 1_766_066_602_123)) == {
        "ce_specversion": b"1.0",
        "ce_id": event_id(SOURCE).encode(),
        "ce_source": b"/rmos/persist",
        "ce_type": b"rmos.run.persisted.v1",
        "ce_subject": outcome.run_id.encode(),
        "ce_time": b"2025-12-18T14:03:22.123000Z",
        "content-type": b"application/json",
    }


def test_without_a_run_id_there_is_no_subject() -> None:
    names = [name for name, _ in run_event_headers(OUTCOMES["rejected"], SOURCE, 0)]
    assert "ce_subject" not in names


@pytest.mark.parametrize(
    ("timestamp_ms", "text"),
    [
        (-1, "1970-01-01T00:00:00Z"),
        (0, "1970-01-01T00:00:00Z"),
        (1, "1970-01-01T00:00:00.001000Z"),
        (1_766_066_602_000, "2025-12-18T14:03:22Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999000Z"),
        (253_402_300_800_000, "9999-12-31T23:59:59.999000Z"),
        (2**63 - 1, "9999-12-31T23:59:59.999000Z"),
        (-(2**63), "1970-01-01T00:00:00Z"),
    ],
)
def test_a_broker_time_is_reported_as_a_time(timestamp_ms: int, text: str) -> None:
    assert broker_time(timestamp_ms) == text


@given(st.integers(946_684_800_000, 4_102_444_799_999))
def test_a_broker_time_is_exact(timestamp_ms: int) -> None:
    assert parse_timestamp(broker_time(timestamp_ms)).timestamp() * 1000 == pytest.approx(
        timestamp_ms, abs=0.001
    )


@pytest.mark.parametrize("name", OUTCOMES)
def test_an_event_is_canonical_json(name: str) -> None:
    event = run_event(OUTCOMES[name], SOURCE)
    assert event == canonical_json(json.loads(event))
