"""What a replay shows: every finding as JSON, the first ones as a table, and one line of counts."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from pipeline.broker.admin.topics import OffsetRange
from pipeline.cli.views.replay import (
    SHOWN_FINDINGS,
    plan_documents,
    plan_lines,
    plan_rows,
    plan_summary,
    restored_lines,
    shown_findings,
    verified_lines,
    verified_summary,
)
from pipeline.recovery.replay.findings import Finding, Tally
from pipeline.recovery.replay.plan import PlannedPartition, ReplayPlan
from pipeline.recovery.replay.restore import Restored
from pipeline.recovery.replay.verify import Verified

MISSING = Finding("missing", "artifact", "runs/2025-12-18/run_1.json", "ab", source="t/0/1")


def tallied(*findings: Finding) -> tuple[Tally, list[Finding]]:
    told: list[Finding] = []
    tally = Tally(told.append)
    for finding in findings:
        tally.add(finding)
    return tally, told


def test_a_finding_is_reported_once() -> None:
    upload = Finding("upload_missing", "attachment", "attachments/x", named_by="runs/a")
    other = Finding("upload_missing", "attachment", "attachments/x", named_by="runs/b")
    tally, told = tallied(MISSING, MISSING, upload, other, upload)
    assert told == [MISSING, upload, other]
    assert (tally.counts["missing"], tally.counts["upload_missing"]) == (1, 2)
    assert tally.differs


def test_what_an_operator_should_know_is_no_difference() -> None:
    tally, _ = tallied(
        *(Finding(kind, "file", kind) for kind in ("restored", "internal_error")),  # type: ignore[arg-type]
        *(Finding(kind, "file", kind) for kind in ("waiting", "unreferenced")),  # type: ignore[arg-type]
    )
    assert not tally.differs


def test_json_has_every_finding_without_what_it_has_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with shown_findings(as_json=True) as report:
        for _ in range(SHOWN_FINDINGS + 5):
            report(MISSING)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == SHOWN_FINDINGS + 5
    assert json.loads(lines[0]) == {
        "finding": "missing",
        "what": "artifact",
        "path": "runs/2025-12-18/run_1.json",
        "expected": "ab",
        "source": "t/0/1",
    }


def test_a_table_shows_what_is_wrong_before_what_was_restored(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with shown_findings(as_json=False) as report:
        for number in range(SHOWN_FINDINGS):
            report(Finding("restored", "artifact", f"runs/{number}"))
        report(Finding("different", "artifact", "runs/\x1b[2Jred", "ab", "cd"))
    shown = capsys.readouterr()
    rows = shown.out.splitlines()
    assert rows[1].startswith("different\tartifact\truns/\\u001b[2Jred\tab\tcd")
    assert len(rows) == SHOWN_FINDINGS + 1
    assert f"{SHOWN_FINDINGS} of {SHOWN_FINDINGS + 1} findings" in shown.err


def test_nothing_found_shows_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    with shown_findings(as_json=False):
        pass
    assert capsys.readouterr().out == ""


def test_a_line_counts_what_was_found() -> None:
    counts = {"records": 1500, "identical": 2000, "missing": 1, "upload_missing": 2}
    verified = Verified(counts, pending=7, foreign_asked=False, differs=True)
    assert list(verified_lines(verified)) == [
        "1,500 records: 2,000 files identical, 1 missing, 2 uploads missing, foreign files not "
        "looked for; not consumed yet, so left to the workers: 7 offsets"
    ]
    assert verified_summary(verified)["foreign"] is None
    asked = Verified({}, pending=0, foreign_asked=True, differs=False)
    assert list(verified_lines(asked)) == ["0 records: 0 files identical"]
    assert verified_summary(asked)["foreign"] == 0


def test_a_restore_ends_with_the_store_root_or_says_why_there_is_none() -> None:
    counts = {"records": 3, "consumed": 1, "restored": 2, "intact": 4}
    assert list(restored_lines(Restored(counts, 0, differs=False, store_root="ab" * 32))) == [
        "3 records: 1 consumed, 2 files restored, 4 intact",
        f"store root {'ab' * 32}",
    ]
    *_, last = restored_lines(Restored(counts, 0, differs=True, store_root=None))
    assert last.startswith("no store root")


def partition(number: int, log: tuple[int, int], position: int | None) -> PlannedPartition:
    offsets = OffsetRange(*log)
    times = (1_768_464_000_000, 1_768_464_001_500) if log[1] > log[0] else None
    return PlannedPartition(
        *("rmos.runs.requests", number, offsets, offsets, times, log[1]), position, position
    )


@pytest.fixture
def plan() -> Callable[..., ReplayPlan]:
    def make(*partitions: PlannedPartition, kept_ms: int = -1, store: bool = True) -> ReplayPlan:
        retention = {"rmos.runs.requests": kept_ms}
        return ReplayPlan(list(partitions), retention, "0" * 32 if store else None)

    return make


def test_a_plan_says_what_is_read_and_what_is_lost(plan: Callable[..., ReplayPlan]) -> None:
    found = plan(partition(0, (4, 10), 2), partition(1, (0, 0), 0), kept_ms=7_200_000)
    assert [row[:5] for row in plan_rows(found)] == [
        ["rmos.runs.requests", "0", "4-10", "4-10", "6"]
    ]
    summary = plan_summary(found)
    assert (summary["offsets"], summary["removed_by_retention"], summary["lost"]) == (6, 4, 2)
    told = list(plan_lines(found))
    assert told[0] == "6 offsets, 2026-01-15T08:00:00Z to 2026-01-15T08:00:01.500000Z"
    assert told[1].startswith("Retention has removed 4 offsets; of those the store lacks 2")
    assert "keeps its records for 2 hours only" in told[2]


def test_a_plan_names_records_that_are_gone_from_the_middle(
    plan: Callable[..., ReplayPlan],
) -> None:
    found = plan(replace(partition(3, (0, 9), 9), holes=((1, 2), (4, 7))))
    assert plan_summary(found)["holes"] == 4
    (document,) = plan_documents(found)
    assert document["holes"] == [{"from": 1, "to": 2}, {"from": 4, "to": 7}]
    assert list(plan_lines(found))[-1] == (
        "Records are gone from the middle of the log: offsets 1, 4 to 6 of rmos.runs.requests, "
        "partition 3."
    )


def test_a_plan_for_a_store_that_is_not_there_says_so(plan: Callable[..., ReplayPlan]) -> None:
    told = list(plan_lines(plan(partition(0, (0, 0), None), store=False)))
    assert told == ["0 offsets", "There is no store yet: rmos store init makes one."]
