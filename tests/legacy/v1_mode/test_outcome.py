"""What becomes of a record, given the rows of the v1 store."""

import json
from dataclasses import replace
from typing import Any

import pytest

from pipeline.core.record import RecordId, RecordSource
from pipeline.core.runs.event import event_id
from pipeline.legacy.v1.row import RowMark, V1Source, marked
from pipeline.legacy.v1_mode.outcome import (
    JudgedRow,
    V1Outcome,
    epoch_of_cluster,
    judge_run_as_row,
    resolve_row,
    v1_run_event,
)
from schemas.run_event import RunEvent
from tests.builders import record, red_request, run_request

SOURCE = V1Source("cluster-1", RecordId("rmos.runs.requests", 0, 7))
EVENT_SOURCE = RecordSource(1, RecordId("rmos.runs.requests", 0, 7))


def judged(request: dict[str, Any]) -> JudgedRow:
    verdict = judge_run_as_row(*record(request))
    assert isinstance(verdict, JudgedRow)
    return verdict


GREEN = judged(run_request())
MARK = RowMark(GREEN.mark.request_sha256, GREEN.mark.artifact_sha256, SOURCE)
STORED = marked(GREEN.row, MARK)


def event(outcome: V1Outcome) -> RunEvent:
    return RunEvent.model_validate_json(v1_run_event(outcome, EVENT_SOURCE))


def test_the_record_that_made_a_row_is_persisted_whenever_it_comes() -> None:
    outcome = resolve_row(GREEN, STORED, SOURCE)
    assert (outcome.kind, outcome.code, outcome.may_cut) == ("persisted", None, True)
    told = event(outcome)
    assert told.event_id == event_id(EVENT_SOURCE)
    assert (told.status, told.risk_level, told.may_cut) == ("OK", "GREEN", True)
    assert (told.artifact_path, told.artifact_sha256, told.size_bytes) == (None, None, None)


@pytest.mark.parametrize(
    "other",
    [
        replace(SOURCE, cluster_id="other"),
        replace(SOURCE, id=replace(SOURCE.id, topic="t")),
        replace(SOURCE, id=replace(SOURCE.id, partition=1)),
        replace(SOURCE, id=replace(SOURCE.id, offset=8)),
    ],
)
def test_the_same_request_from_any_other_source_is_a_duplicate(other: V1Source) -> None:
    outcome = resolve_row(GREEN, STORED, other)
    assert (outcome.kind, outcome.may_cut) == ("duplicate", True)


def test_a_row_exported_from_the_other_store_makes_its_request_a_duplicate() -> None:
    outcome = resolve_row(GREEN, marked(GREEN.row, replace(MARK, source=None)), SOURCE)
    assert (outcome.kind, outcome.may_cut) == ("duplicate", True)


def test_another_request_is_a_conflict_that_describes_the_stored_run() -> None:
    outcome = resolve_row(judged(red_request(run_id=GREEN.run_id)), STORED, SOURCE)
    assert (outcome.kind, outcome.code, outcome.may_cut) == ("conflict", "RUN_CONFLICT", False)
    told = event(outcome)
    assert (told.status, told.risk_level, told.may_cut) == ("OK", "GREEN", False)
    assert told.error is not None
    assert MARK.request_sha256 in told.error.message


def test_a_row_of_v1_itself_is_in_conflict_with_every_request() -> None:
    outcome = resolve_row(GREEN, GREEN.row, SOURCE)
    assert (outcome.kind, outcome.code, outcome.may_cut) == ("conflict", "RUN_CONFLICT", False)
    assert "one that nobody knows" in (outcome.message or "")
    bare = resolve_row(GREEN, {"run_id": GREEN.run_id, "status": "OK"}, SOURCE)
    assert (bare.fields, event(bare).status) == (None, None)


def test_a_row_that_cannot_be_read_is_told_and_not_touched() -> None:
    outcome = resolve_row(GREEN, None, SOURCE)
    assert (outcome.kind, outcome.code, outcome.may_cut) == ("rejected", "ARTIFACT_CORRUPT", False)
    assert event(outcome).run_id == GREEN.run_id


@pytest.mark.parametrize(
    "change",
    [{"status": "BLOCKED"}, {"decision": {"risk_level": "RED"}}, {"decision": None}],
)
def test_both_the_row_and_the_request_must_say_that_a_machine_may_cut(
    change: dict[str, Any],
) -> None:
    assert not resolve_row(GREEN, STORED | change, SOURCE).may_cut
    red = judged(red_request())
    opened = marked(red.row, replace(red.mark, source=SOURCE)) | {
        "status": "OK",
        "decision": {"risk_level": "GREEN"},
    }
    assert not resolve_row(red, opened, SOURCE).may_cut


def test_an_event_of_a_record_that_is_no_run_tells_why() -> None:
    outcome = V1Outcome("rejected", None, None, "TOMBSTONE", "Expected a request.")
    value = json.loads(v1_run_event(outcome, EVENT_SOURCE))
    assert value["error"] == {"code": "TOMBSTONE", "message": "Expected a request."}
    assert not outcome.drifted


def test_a_cluster_stands_for_an_epoch_that_nobody_counts_to() -> None:
    assert epoch_of_cluster("a") == epoch_of_cluster("a") > 1 << 32
    assert epoch_of_cluster("a") != epoch_of_cluster("b")
