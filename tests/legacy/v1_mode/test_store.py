"""A batch becomes rows of the v1 store, or nothing does; delivered again it makes the same."""

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.record import RecordId, RecordSource
from pipeline.errors import RejectLimitError, StoreError
from pipeline.legacy.v1.row import MARK
from pipeline.legacy.v1_mode.outcome import judge_run_as_row
from pipeline.legacy.v1_mode.store import JudgedV1Record, V1Runs
from pipeline.storage.batch_store import RejectLimit
from tests.builders import incomplete_request, record, red_request, run_request
from tests.storage.stores import in_children

TOPIC = "rmos.runs.requests"
FOREIGN = {"run_v1": {"run_id": "run_v1", "status": "OK", "meta": None}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "runs.json"
    file.write_text(json.dumps(FOREIGN, indent=2, sort_keys=True))
    return file


def judged(request: dict[str, Any], offset: int, partition: int = 0) -> JudgedV1Record:
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
    judged(run_request(run_id="run_a"), 0),
    judged(red_request(run_id="run_b"), 1),
    tombstone(2),
    judged(run_request(run_id="run_a"), 3),
    judged(run_request(run_id="run_a", notes="changed"), 4),
    judged(incomplete_request(run_id="run_c"), 5),
    judged(run_request(run_id="run_v1"), 6),
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
        runs.commit([*bad, judged(run_request(), 500)])
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
            runs.commit([judged(request, offset, partition)])

    assert in_children(partial(store_eight, partition) for partition in range(3)) == [0] * 3
    assert len(json.loads(path.read_text())) == 1 + 24
