"""What becomes of a record, given what the store holds."""

from dataclasses import replace
from typing import Any

import pytest

from pipeline.core.outcome import RecordSource, settle_rejected, settle_run, stored_run
from pipeline.core.verdict import Rejected
from tests.builders import incomplete_request, judged, red_request, run_request

FIRST = RecordSource(1, "rmos.runs.requests", 3, 41)
ELSEWHERE = [
    replace(FIRST, offset=42),
    replace(FIRST, partition=4),
    replace(FIRST, topic="other.runs.requests"),
    replace(FIRST, epoch=2),
]


def test_what_the_index_holds_is_what_the_artifact_says() -> None:
    run = judged(red_request())
    stored = stored_run(run, FIRST)
    document = run.built.document
    assert stored.run_id == run.run_id
    assert (stored.status, stored.risk_level) == ("BLOCKED", "RED")
    assert stored.block_reason == document["decision"]["block_reason"]
    assert stored.hashes == document["hashes"]
    assert (stored.artifact_sha256, stored.artifact_path) == (run.artifact_sha256, run.path)
    assert stored.size_bytes == len(run.built.content)
    assert (stored.request_sha256, stored.legacy) == (run.request_sha256, False)


def test_the_record_that_made_a_run_is_persisted_however_often_it_comes() -> None:
    run = judged(run_request())
    outcome = settle_run(run, stored_run(run, FIRST), FIRST, intact=True)
    assert (outcome.kind, outcome.code, outcome.is_dead_letter) == ("persisted", None, False)
    assert outcome.may_cut


@pytest.mark.parametrize("source", ELSEWHERE)
def test_the_same_request_at_any_other_place_is_a_duplicate(source: RecordSource) -> None:
    run = judged(run_request())
    outcome = settle_run(run, stored_run(run, FIRST), source, intact=True)
    assert (outcome.kind, outcome.is_dead_letter, outcome.may_cut) == ("duplicate", False, True)


def test_a_run_of_which_only_the_file_tells_is_a_duplicate() -> None:
    run = judged(run_request())
    assert settle_run(run, stored_run(run, None), FIRST, intact=True).kind == "duplicate"


def test_another_request_under_the_same_run_id_is_a_conflict_that_describes_the_stored_run() -> (
    None
):
    stored = stored_run(judged(run_request()), FIRST)
    other = judged(run_request(notes="changed"))
    outcome = settle_run(other, stored, ELSEWHERE[0], intact=True)
    assert (outcome.kind, outcome.code, outcome.run) == ("conflict", "RUN_CONFLICT", stored)
    assert (outcome.is_dead_letter, outcome.may_cut) == (True, False)
    assert other.request_sha256 in (outcome.message or "")


@pytest.mark.parametrize("request_", [run_request(), run_request(notes="changed")])
def test_a_file_that_is_not_as_its_row_says_comes_before_anything_else(request_: Any) -> None:
    stored = stored_run(judged(run_request()), FIRST)
    outcome = settle_run(judged(request_), stored, FIRST, intact=False)
    assert (outcome.kind, outcome.code) == ("rejected", "ARTIFACT_CORRUPT")
    assert (outcome.run, outcome.may_cut, outcome.is_dead_letter) == (None, False, True)


@pytest.mark.parametrize("request_", [red_request(), incomplete_request()])
def test_nobody_may_cut_by_a_blocked_run(request_: Any) -> None:
    run = judged(request_)
    assert not settle_run(run, stored_run(run, FIRST), FIRST, intact=True).may_cut


def test_nobody_may_cut_by_history() -> None:
    run = judged(run_request())
    legacy = replace(stored_run(run, FIRST), legacy=True)
    assert not settle_run(run, legacy, FIRST, intact=True).may_cut


def test_other_bytes_of_the_same_request_are_drift_and_the_stored_run_is_described() -> None:
    run = judged(run_request())
    stored = replace(stored_run(run, FIRST), artifact_sha256="0" * 64)
    outcome = settle_run(run, stored, FIRST, intact=True)
    assert (outcome.kind, outcome.drifted, outcome.run) == ("persisted", True, stored)
    assert outcome.may_cut


@pytest.mark.parametrize(
    ("stored_as", "rendered_as", "may_cut"),
    [
        (("OK", "GREEN"), "OK", True),
        (("OK", "GREEN"), "RED", False),
        (("BLOCKED", "RED"), "OK", False),
    ],
)
def test_after_drift_a_machine_may_cut_only_if_both_say_so(
    stored_as: tuple[str, str], rendered_as: str, may_cut: bool
) -> None:
    rendered = judged(run_request() if rendered_as == "OK" else red_request())
    status, risk_level = stored_as
    stored = replace(
        stored_run(rendered, FIRST), status=status, risk_level=risk_level, artifact_sha256="0" * 64
    )
    outcome = settle_run(rendered, stored, FIRST, intact=True)
    assert (outcome.drifted, outcome.may_cut) == (True, may_cut)


def test_what_can_never_make_a_run_is_rejected_with_its_reason() -> None:
    outcome = settle_rejected(Rejected("KEY_MISMATCH", "Expected the key.", "run_1"))
    assert (outcome.kind, outcome.code, outcome.run_id) == ("rejected", "KEY_MISMATCH", "run_1")
    assert (outcome.is_dead_letter, outcome.may_cut, outcome.run) == (True, False, None)
