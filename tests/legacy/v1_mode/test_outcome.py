"""The outcome of a record follows from the rows of the v1 store, and a batch is all or nothing."""

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.record import RecordId, RecordSource
from pipeline.core.runs.event import event_id
from pipeline.errors import RejectLimitError, StoreError
from pipeline.legacy.v1.row import MARK, RowMark, V1Source, marked
from pipeline.legacy.v1_mode.outcome import (
    JudgedRow,
    JudgedV1Record,
    V1Outcome,
    V1Runs,
    epoch_of_cluster,
    judge_run_as_row,
    resolve_row,
    v1_run_event,
)
from pipeline.storage.batch_store import RejectLimit
from schemas.run_event import RunEvent
from tests.builders import incomplete_request, record, red_request, run_request
from tests.storage.stores import in_children

SOURCE = V1Source("cluster-1", RecordId("rmos.runs.requests", 0, 7))
EVENT_SOURCE = RecordSource(1, RecordId("rmos.runs.requests", 0, 7))


def judged(request: dict[str, Any]) -> JudgedRow:
    verdict = judge_run_as_row(*record(request))
    assert isinstance(verdict, JudgedRow)
    return verdict


GREEN = judged(run_request())
ROW_MARK = RowMark(GREEN.mark.request_sha256, GREEN.mark.artifact_sha256, SOURCE)
STORED = marked(GREEN.row, ROW_MARK)


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
        replace(SOURCE, id=SOURCE.id._replace(topic="t")),
        replace(SOURCE, id=SOURCE.id._replace(partition=1)),
        replace(SOURCE, id=SOURCE.id._replace(offset=8)),
    ],
)
def test_the_same_request_from_any_other_source_is_a_duplicate(other: V1Source) -> None:
    outcome = resolve_row(GREEN, STORED, other)
    assert (outcome.kind, outcome.may_cut) == ("duplicate", True)


def test_a_row_exported_from_the_other_store_makes_its_request_a_duplicate() -> None:
    outcome = resolve_row(GREEN, marked(GREEN.row, replace(ROW_MARK, source=None)), SOURCE)
    assert (outcome.kind, outcome.may_cut) == ("duplicate", True)


def test_another_request_is_a_conflict_that_describes_the_stored_run() -> None:
    outcome = resolve_row(judged(red_request(run_id=GREEN.run_id)), STORED, SOURCE)
    assert (outcome.kind, outcome.code, outcome.may_cut) == ("conflict", "RUN_CONFLICT", False)
    told = event(outcome)
    assert (told.status, told.risk_level, told.may_cut) == ("OK", "GREEN", False)
    assert told.error is not None
    assert ROW_MARK.request_sha256 in told.error.message


def test_a_row_of_v1_itself_is_in_conflict_with_every_request() -> None:
    outcome = resolve_row(GREEN, GREEN.row, SOURCE)
    assert (outcome.kind, outcome.code, outcome.may_cut) == ("conflict", "RUN_CONFLICT", False)
    assert "one that nobody knows" in (outcome.message or "")
    bare = resolve_row(GREEN, {"run_id": GREEN.run_id, "status": "OK"}, SOURCE)
    assert (bare.fields, event(bare).status) == (None, None)


def test_a_row_that_cannot_be_read_is_reported_and_not_touched() -> None:
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


def test_an_event_of_a_record_that_is_no_run_reports_why() -> None:
    outcome = V1Outcome("rejected", None, None, "TOMBSTONE", "Expected a request.")
    value = json.loads(v1_run_event(outcome, EVENT_SOURCE))
    assert value["error"] == {"code": "TOMBSTONE", "message": "Expected a request."}
    assert not outcome.drifted


def test_a_cluster_stands_for_an_epoch_that_nobody_counts_to() -> None:
    assert epoch_of_cluster("a") == epoch_of_cluster("a") > 1 << 32
    assert epoch_of_cluster("a") != epoch_of_cluster("b")


TOPIC = "rmos.runs.requests"
FOREIGN = {"run_v1": {"run_id": "run_v1", "status": "OK", "meta": None}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "runs.json"
    file.write_text(json.dumps(FOREIGN, indent=2, sort_keys=True))
    return file


def judged_record(request: dict[str, Any], offset: int, partition: int = 0) -> JudgedV1Record:
    place = RecordSource(1, RecordId(TOPIC, partition, offset))
    key, value = record(request)
    return JudgedV1Record.of(place, judge_run_as_row(key, value), value, 0)


def tombstone(offset: int) -> JudgedV1Record:
    place = RecordSource(1, RecordId(TOPIC, 0, offset))
    return JudgedV1Record.of(place, judge_run_as_row(b"k", None), None, 0)


def runs_at(path: Path) -> V1Runs:
    return V1Runs(path, "cluster-1")


def kinds(path: Path, records: list[JudgedV1Record], runs: V1Runs | None = None) -> list[str]:
    outcomes = (runs or runs_at(path)).commit(records).outcomes
    return [outcome.code or outcome.kind for outcome in outcomes]


BATCH = [
    judged_record(run_request(run_id="run_a"), 0),
    judged_record(red_request(run_id="run_b"), 1),
    tombstone(2),
    judged_record(run_request(run_id="run_a"), 3),
    judged_record(run_request(run_id="run_a", notes="changed"), 4),
    judged_record(incomplete_request(run_id="run_c"), 5),
    judged_record(run_request(run_id="run_v1"), 6),
]
OUTCOMES = [
    *("persisted", "persisted", "TOMBSTONE", "duplicate", "RUN_CONFLICT", "persisted"),
    "RUN_CONFLICT",
]


def test_a_batch_delivered_again_has_the_same_outcomes_and_writes_nothing(path: Path) -> None:
    assert kinds(path, BATCH) == OUTCOMES
    written, changed = path.read_bytes(), path.stat().st_ino
    assert kinds(path, BATCH) == OUTCOMES
    assert (path.read_bytes(), path.stat().st_ino) == (written, changed)
    rows = json.loads(written)
    assert set(rows) == {"run_a", "run_b", "run_c", "run_v1"}
    assert rows["run_v1"] == FOREIGN["run_v1"]
    assert rows["run_a"]["meta"][MARK]["source"]["offset"] == 0
    assert {rows[name]["status"] for name in ("run_b", "run_c")} == {"BLOCKED"}


def test_a_batch_in_parts_makes_the_same_file(path: Path, tmp_path: Path) -> None:
    kinds(path, BATCH)
    other = tmp_path / "parts.json"
    other.write_text(json.dumps(FOREIGN, indent=2, sort_keys=True))
    runs = runs_at(other)
    assert [kinds(other, [each], runs) for each in BATCH] == [[kind] for kind in OUTCOMES]
    assert other.read_bytes() == path.read_bytes()


def test_the_file_is_replaced_once_a_batch(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced = []
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda *a, **k: (replaced.append(a), real(*a, **k)))
    kinds(path, BATCH)
    assert len(replaced) == 1


def test_a_row_that_cannot_be_read_harms_no_other_record(path: Path) -> None:
    path.write_text('{\n  "run_a": {"score": NaN},\n  "run_v1": {}\n}')
    expected = [*OUTCOMES]
    expected[0] = expected[3] = expected[4] = "ARTIFACT_CORRUPT"
    assert kinds(path, BATCH) == expected
    assert '"run_a": {"score": NaN}' in path.read_text()


def test_a_file_that_is_cut_off_stops_the_worker(path: Path) -> None:
    path.write_text('{"run_v1": {')
    with pytest.raises(StoreError, match="put back a whole copy"):
        kinds(path, BATCH)


def test_the_reject_limit_writes_nothing_and_can_be_accepted(path: Path) -> None:
    runs = runs_at(path)
    before = path.read_bytes()
    bad = [tombstone(offset) for offset in range(500)]
    with pytest.raises(RejectLimitError, match="500 of the last 501 records"):
        runs.commit([*bad, judged_record(run_request(), 500)])
    assert path.read_bytes() == before
    assert runs.commit(bad, RejectLimit("g", 1)).accepted_rejects == 1
    with pytest.raises(RejectLimitError):
        runs.commit([tombstone(500)])
    assert runs.commit([tombstone(500)], RejectLimit("g", 5)).accepted_rejects == 1


def test_records_delivered_again_do_not_count_twice_against_the_reject_limit(path: Path) -> None:
    runs = runs_at(path)
    bad = [tombstone(offset) for offset in range(300)]
    for _ in range(3):
        runs.commit(bad)


def test_two_processes_on_one_file_lose_no_row(path: Path) -> None:
    def store_eight(partition: int) -> None:
        runs = runs_at(path)
        for offset in range(8):
            request = run_request(run_id=f"run_{partition}_{offset}")
            runs.commit([judged_record(request, offset, partition)])

    assert in_children(partial(store_eight, partition) for partition in range(3)) == [0] * 3
    assert len(json.loads(path.read_text())) == 1 + 24
