"""Outcomes and events of advisories: what is told of a claim, and that it is always the same."""

import hashlib
import json
from typing import Any

import pytest

from pipeline.core.advisories.outcome import (
    AdvisoryOutcome,
    advisory_event,
    advisory_event_headers,
    resolve_advisory,
    resolve_rejected_advisory,
    run_not_found,
    stored_advisory,
)
from pipeline.core.advisories.verdict import JudgedAdvisory, judge_advisory_record
from pipeline.core.envelope import Rejected
from pipeline.core.record import RecordId, RecordSource
from schemas.advisory_event import AdvisoryEvent
from tests.builders import RUN_ID, advisory_request, record

SOURCE = RecordSource(2, RecordId("rmos.advisories.requests", 3, 41))
OTHER = RecordSource(2, RecordId("rmos.advisories.requests", 3, 42))
PATH = f"runs/2025-12-18/{RUN_ID}_advisory_adv_1.json"


def judged(**changes: Any) -> JudgedAdvisory:
    verdict = judge_advisory_record(*record(advisory_request(**changes)))
    assert isinstance(verdict, JudgedAdvisory)
    return verdict


def resolved(
    asked: JudgedAdvisory, source: RecordSource, path: str | None = PATH, *, intact: bool = True
) -> AdvisoryOutcome:
    return resolve_advisory(asked, stored_advisory(judged(), SOURCE, path), source, intact=intact)


def told(outcome: AdvisoryOutcome, source: RecordSource = SOURCE) -> dict[str, Any]:
    value = advisory_event(outcome, source)
    AdvisoryEvent.model_validate_json(value)
    event: dict[str, Any] = json.loads(value)
    return event


@pytest.mark.parametrize(
    ("outcome", "word"),
    [
        (resolved(judged(), SOURCE), "linked"),
        (resolved(judged(), SOURCE, None), "waiting"),
        (resolved(judged(), OTHER), "duplicate"),
        (resolved(judged(), OTHER, None), "duplicate"),
        (resolved(judged(title="other"), OTHER), "duplicate"),
        (resolved(judged(kind="note"), OTHER), "ADVISORY_CONFLICT"),
        (resolved(judged(kind="note"), OTHER, None), "ADVISORY_CONFLICT"),
        (resolved(judged(), SOURCE, intact=False), "ARTIFACT_CORRUPT"),
        (resolved(judged(kind="note"), OTHER, intact=False), "ARTIFACT_CORRUPT"),
        (resolved(judged(), SOURCE._replace(epoch=1)), "duplicate"),
    ],
)
def test_the_first_line_that_fits_is_the_outcome(outcome: AdvisoryOutcome, word: str) -> None:
    assert (outcome.code or outcome.kind) == word


def test_an_advisory_without_a_known_record_is_a_duplicate() -> None:
    known = stored_advisory(judged(), None, PATH)
    assert resolve_advisory(judged(), known, SOURCE, intact=True).kind == "duplicate"


def test_another_link_from_the_record_that_claimed_it_is_drift() -> None:
    assert resolved(judged(title="other"), SOURCE).drifted
    assert not resolved(judged(title="other"), OTHER).drifted


def test_linked_reports_where_the_link_is() -> None:
    event = told(resolved(judged(), SOURCE))
    assert event == {
        "schema_version": "rmos.advisory_event/1",
        "event_id": hashlib.sha256(b"2/rmos.advisories.requests/3/41/linked").hexdigest(),
        "outcome": "linked",
        "run_id": RUN_ID,
        "advisory_id": "adv_1",
        "kind": "explanation",
        "content_sha256": judged().claim.content_sha256,
        "link_sha256": judged().link_sha256,
        "link_path": PATH,
        "source": {"topic": SOURCE.id.topic, "partition": 3, "offset": 41},
    }


@pytest.mark.parametrize("asked", [judged(title="other"), judged(kind="note")])
def test_a_later_request_reports_the_first_whether_it_is_linked_or_not(
    asked: JudgedAdvisory,
) -> None:
    event = told(resolved(asked, OTHER), OTHER)
    assert event == told(resolved(asked, OTHER, None), OTHER)
    assert event["link_sha256"] == judged().link_sha256
    assert event["kind"] == "explanation"
    assert "link_path" not in event


def test_waiting_not_found_and_linked_are_three_events_of_one_record() -> None:
    waiting = resolved(judged(), SOURCE, None)
    outcomes = (waiting, run_not_found(waiting), resolved(judged(), SOURCE))
    events = [told(outcome) for outcome in outcomes]
    assert [event["outcome"] for event in events] == ["waiting", "rejected", "linked"]
    assert len({event["event_id"] for event in events}) == 3
    assert events[1]["error"]["code"] == "RUN_NOT_FOUND"


def test_a_rejected_record_is_reported_with_its_reason_alone() -> None:
    outcome = resolve_rejected_advisory(Rejected("INVALID_JSON", "Expected an object."))
    event = told(outcome)
    assert event["error"] == {"code": "INVALID_JSON", "message": "Expected an object."}
    assert not {"run_id", "advisory_id", "kind"} & event.keys()


def test_headers_are_those_of_a_cloud_event() -> None:
    outcome = resolved(judged(), SOURCE, None)
    headers = dict(advisory_event_headers(outcome, SOURCE, 1_700_000_000_123))
    assert headers == {
        "ce_specversion": b"1.0",
        "ce_id": told(outcome)["event_id"].encode(),
        "ce_source": b"/rmos/advise",
        "ce_type": b"rmos.advisory.waiting.v1",
        "ce_time": b"2023-11-14T22:13:20.123000Z",
        "ce_subject": RUN_ID.encode(),
        "content-type": b"application/json",
    }
