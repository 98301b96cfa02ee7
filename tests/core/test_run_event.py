"""The event of a run request: canonical JSON, one identifier however often it is delivered."""

import json
from dataclasses import replace

import pytest

from pipeline.core.canonical_json import canonical_json
from pipeline.core.outcome import RecordSource, settle_rejected, settle_run, stored_run
from pipeline.core.run_event import broker_time, event_id, run_event, run_event_headers
from pipeline.core.verdict import Rejected
from tests.builders import judged, red_request, run_request, sha256

SOURCE = RecordSource(1, "rmos.runs.requests", 3, 41)


def test_the_identifier_is_the_hash_of_epoch_topic_partition_offset() -> None:
    assert event_id(SOURCE) == sha256("1/rmos.runs.requests/3/41")
    others = [
        replace(SOURCE, **change) for change in ({"epoch": 2}, {"partition": 1}, {"offset": 4})
    ]
    assert len({event_id(source) for source in [SOURCE, *others]}) == 4


def test_the_event_of_a_stored_run_describes_it() -> None:
    run = judged(red_request())
    event = run_event(settle_run(run, stored_run(run, SOURCE), SOURCE, intact=True), SOURCE)
    assert json.loads(event) == {
        "schema_version": "rmos.run_event/1",
        "event_id": event_id(SOURCE),
        "outcome": "persisted",
        "may_cut": False,
        "run_id": run.run_id,
        "status": "BLOCKED",
        "risk_level": "RED",
        "block_reason": "rim speed above the blade's limit",
        "hashes": {"feasibility_sha256": run.built.document["hashes"]["feasibility_sha256"]},
        "artifact_sha256": run.artifact_sha256,
        "artifact_path": run.path,
        "size_bytes": len(run.built.content),
        "source": {"topic": "rmos.runs.requests", "partition": 3, "offset": 41},
    }
    assert event == canonical_json(json.loads(event))


def test_an_ok_run_may_be_cut_and_has_no_reason() -> None:
    run = judged(run_request())
    event = json.loads(
        run_event(settle_run(run, stored_run(run, SOURCE), SOURCE, intact=True), SOURCE)
    )
    assert event["may_cut"] is True
    assert "block_reason" not in event
    assert "error" not in event


def test_a_conflict_describes_the_stored_run_and_says_why() -> None:
    stored = stored_run(judged(run_request()), SOURCE)
    later = replace(SOURCE, offset=99)
    outcome = settle_run(judged(run_request(notes="x")), stored, later, intact=True)
    event = json.loads(run_event(outcome, later))
    assert (event["outcome"], event["may_cut"]) == ("conflict", False)
    assert event["artifact_sha256"] == stored.artifact_sha256
    assert event["source"]["offset"] == 99
    assert event["error"]["code"] == "RUN_CONFLICT"


def test_a_rejected_record_without_a_run_id_has_none_in_its_event() -> None:
    event = json.loads(run_event(settle_rejected(Rejected("INVALID_JSON", "Expected x.")), SOURCE))
    assert event == {
        "schema_version": "rmos.run_event/1",
        "event_id": event_id(SOURCE),
        "outcome": "rejected",
        "may_cut": False,
        "source": {"topic": "rmos.runs.requests", "partition": 3, "offset": 41},
        "error": {"code": "INVALID_JSON", "message": "Expected x."},
    }


def test_the_headers_are_those_of_cloudevents_in_binary_mode() -> None:
    run = judged(run_request())
    outcome = settle_run(run, stored_run(run, SOURCE), replace(SOURCE, offset=42), intact=True)
    assert dict(run_event_headers(outcome, SOURCE, 1_766_066_602_123)) == {
        "ce_specversion": b"1.0",
        "ce_id": event_id(SOURCE).encode(),
        "ce_source": b"/rmos/persist",
        "ce_type": b"rmos.run.duplicate.v1",
        "ce_time": b"2025-12-18T14:03:22.123000Z",
        "ce_subject": run.run_id.encode(),
        "content-type": b"application/json",
    }


def test_an_event_without_a_run_id_has_no_subject() -> None:
    headers = run_event_headers(settle_rejected(Rejected("INVALID_JSON", "x")), SOURCE, 0)
    assert "ce_subject" not in dict(headers)


@pytest.mark.parametrize(
    ("timestamp_ms", "text"),
    [
        (-1, "1970-01-01T00:00:00Z"),
        (0, "1970-01-01T00:00:00Z"),
        (1, "1970-01-01T00:00:00.001000Z"),
        (1_766_066_602_000, "2025-12-18T14:03:22Z"),
    ],
)
def test_a_broker_time_is_shown_as_a_stored_time(timestamp_ms: int, text: str) -> None:
    assert broker_time(timestamp_ms) == text
