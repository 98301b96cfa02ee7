"""An audit of dates keeps these alone, and parts say together what an audit of the whole says."""

import json
import shutil
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline.audit import queries
from pipeline.audit.audited_store import IndexInFile
from pipeline.audit.journal import report_name
from pipeline.audit.kept import audit_files
from pipeline.audit.plan import AuditPlan
from pipeline.audit.rules.parts import END_US, FIRST_US, AuditPart, JoinedFindings, sum_of
from pipeline.core.json.canonical import canonical_json
from pipeline.disk.sqlite.scratch import ScratchDatabase
from pipeline.disk.stored_files import StoredFiles
from pipeline.storage.index.run_index import INDEX_FILE
from schemas.audit_report import AuditReport
from schemas.audit_request import AuditRequest
from tests.audit import test_store_audit as damages
from tests.audit.audited import (
    LARGE_GCODE,
    LOG,
    Audited,
    add_advisories,
    add_file,
    add_runs,
    advisory,
    advisory_record,
    audit,
    run,
    run_record,
)
from tests.audit.test_finding_texts import STORES
from tests.storage.stores import change_index


def in_parts(
    audited: Callable[[str], Audited], count: int = 3
) -> tuple[list[Mapping[str, Any]], dict[str, Any]]:
    """Return the findings that all parts have together, and the report of the whole."""
    parts = AuditPart.all_of("audit_1", count)
    found = [audited(part.audit_id) for part in parts]
    joined, known = JoinedFindings(), dict[bytes, Mapping[str, Any]]()
    lines: list[bytes] = []
    for each in found:
        for finding in each.findings:
            document = finding.document("audit_1")
            line = canonical_json(document)
            known[line] = document
            lines += joined.add(line, document)
    lines += joined.end()
    report = sum_of([each.report for each in found], parts, joined.codes)
    AuditReport.model_validate(report)
    return [known[line] for line in lines], report


def check_same(found: list[Mapping[str, Any]], report: dict[str, Any], whole: Audited) -> None:
    expected = [each.document("audit_1") for each in whole.findings]
    assert sorted(map(str, found)) == sorted(map(str, expected))
    for name in ("audit_id", "scope", "mode", "counts", "codes", "logs"):
        assert report[name] == whole.report[name], name
    integrity = report["verdicts"]["integrity"]
    said, _, why = integrity["reason"].partition(" Audited in ")
    assert why.endswith("so there is no store root.")
    integrity["reason"] = said
    assert report["verdicts"] == whole.report["verdicts"]
    assert "store_root" not in report


def of_no_run(store: Path) -> None:
    """Advisories whose run has not come: rows that are gone, or of no leaf; leaves of one twice."""
    for number in range(4):
        record = advisory_record(advisory(number, f"run_to_come_{number}"), 10 + number)
        add_advisories(store, [record])
    change_index(store, "DELETE FROM advisories WHERE run_id = 'run_to_come_0'")
    change_index(store, "UPDATE advisories SET run_id = 'x' WHERE run_id = 'run_to_come_1'")


def gone_with_rows_and_files(store: Path) -> None:
    """Leaves alone tell of a run with its link, and of one that was moved to another date."""
    for path in (store / "runs/2025-12-18").glob("run_0*"):
        path.unlink()
    change_index(store, "DELETE FROM runs WHERE run_id = 'run_0'")
    change_index(store, "DELETE FROM advisories WHERE run_id = 'run_0'")
    change_index(store, "UPDATE runs SET created_at_us = 0 WHERE run_id = 'run_3'")


def copied_elsewhere(store: Path) -> None:
    damages.copied(store)
    add_file(store / "runs/2025-12-20/run_0_advisory_adv_0.json")
    add_file(store / "runs/2025-99-99/run_0.json")


DAY_US = 86_400_000_000
TIMES = (
    "x",
    b"x",
    2**63 - 1,
    -(2**63),
    1e300,
    1.5,
    -1.5,
    10**18,
    -500_000,
    -1,
    0,
    FIRST_US,
    END_US,
)


def forged(store: Path, run_id: str, created_at_us: object) -> None:
    """Add a row of a run that no leaf and no file is of, made at a time, or at none."""
    row = "temp.forged"
    with closing(sqlite3.connect(store / INDEX_FILE)) as index, index:
        index.execute("CREATE TEMP TABLE forged AS SELECT * FROM runs WHERE run_id = 'run_0'")
        index.execute(f"UPDATE {row} SET run_id = ?, created_at_us = ?", (run_id, created_at_us))
        index.execute(f"UPDATE {row} SET artifact_path = replace(artifact_path, 'run_0', run_id)")
        index.execute(f"INSERT INTO runs SELECT * FROM {row}")


def times_forged(store: Path) -> None:
    """Rows of any time; of a run that has a leaf too, with its file and without."""
    for number, created_at_us in enumerate(TIMES):
        forged(store, f"forged_{number}", created_at_us)
    change_index(store, "UPDATE runs SET created_at_us = 'x' WHERE run_id IN ('run_0', 'run_3')")
    (store / "runs/2025-12-18/run_3.json").unlink()
    add_advisories(store, [advisory_record(advisory(9, "forged_0"), 20)])


def advisories_of_rows(store: Path) -> None:
    """Advisories whose runs have rows and no leaf, on each date; rows of such, without a leaf."""
    for number in range(3):
        forged(store, f"forged_{number}", (20_440 + number) * DAY_US)
        add_advisories(store, [advisory_record(advisory(9, f"forged_{number}"), 20 + number)])
    change_index(store, "DELETE FROM advisories WHERE run_id = 'forged_0'")
    change_index(store, "UPDATE advisories SET advisory_id = 'x' WHERE run_id = 'forged_1'")
    change_index(store, "UPDATE advisories SET link_sha256 = 'x' WHERE run_id = 'forged_2'")


def log_of_runs_gone(store: Path) -> None:
    shutil.rmtree(store / LOG)


MORE = {
    "times": [times_forged],
    "advisories of rows": [advisories_of_rows],
    "log of runs gone": [log_of_runs_gone],
    "of no run": [of_no_run],
    "leaves alone": [gone_with_rows_and_files],
    "leaves alone, no index": [gone_with_rows_and_files, damages.index_gone],
    "copied elsewhere": [copied_elsewhere],
    "copied elsewhere, no index": [damages.index_gone, damages.entry_changed],
    "as it was written": [],
    "older ledger": [damages.failed_once, damages.checkpoint_of_other_leaves],
}


@pytest.mark.parametrize("mode", ["full", "quick"])
@pytest.mark.parametrize("name", [*STORES, *MORE])
def test_parts_say_together_what_an_audit_of_the_whole_says(
    store: Path, name: str, mode: str
) -> None:
    for change in (STORES | MORE)[name]:
        change(store)
    found, report = in_parts(lambda audit_id: audit(store, mode, audit_id=audit_id))
    check_same(found, report, audit(store, mode))


def test_parts_read_the_sample_of_the_whole(store: Path) -> None:
    damages.edited(store)
    found, report = in_parts(lambda audit_id: audit(store, "sampled", audit_id=audit_id, share=0.5))
    check_same(found, report, audit(store, "sampled", share=0.5))


def test_each_part_has_its_own_moment_and_the_whole_the_leaves_that_all_have_read(
    store: Path,
) -> None:
    before = audit(store)

    def audited(audit_id: str) -> Audited:
        if audit_id.endswith("part-2-of-3"):
            add_dates(store)
        return audit(store, audit_id=audit_id)

    found, report = in_parts(audited)
    assert found == []
    assert report["logs"] == before.report["logs"]
    assert report["counts"]["leaves"] == before.report["counts"]["leaves"]
    # Of those dates, which came meanwhile, that the later parts have.
    assert report["counts"]["days"] in {9, 10}


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    return counted_rows(monkeypatch)


def counted_rows(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    """Return how many rows each table of a plan has, once all of them are there, for each audit."""
    counted: list[dict[str, int]] = []
    resolve = AuditPlan.resolve
    tables = (
        *("run_leaves", "advisory_leaves", "run_rows", "advisory_rows", "attachment_rows"),
        "strays",
    )

    def counting(plan: AuditPlan, **given: Any) -> None:
        counted.append({name: plan.value(f"SELECT count(*) FROM {name}") for name in tables})
        resolve(plan, **given)

    monkeypatch.setattr(AuditPlan, "resolve", counting)
    return counted


def add_dates(store: Path) -> None:
    """Add ten dates with two runs each."""
    dates = [f"2026-01-{day:02d}" for day in range(1, 11)]
    requests = [run(f"{date}_{number}", date) for date in dates for number in range(2)]
    add_runs(store, [run_record(each, 20 + at) for at, each in enumerate(requests)])


def test_the_plan_of_a_date_has_what_is_of_the_date_alone(
    store: Path, kept: list[dict[str, int]]
) -> None:
    add_dates(store)
    audit(store, scope={"dates": ["2026-01-03"]})
    audit(store, scope={"run_ids": ["run_red", "run_of_nobody"]})
    of_date, of_runs = kept
    assert of_date == {
        "run_leaves": 2, "advisory_leaves": 0,
        "run_rows": 2, "advisory_rows": 0, "attachment_rows": 0, "strays": 0,
    }  # fmt: skip
    assert of_runs == {
        "run_leaves": 1, "advisory_leaves": 1,
        "run_rows": 1, "advisory_rows": 1, "attachment_rows": 1, "strays": 0,
    }  # fmt: skip


def test_the_plan_of_a_part_has_its_share_and_all_parts_have_everything_once(
    store: Path, kept: list[dict[str, int]]
) -> None:
    add_dates(store)
    audit(store)
    for part in AuditPart.all_of("a", 5):
        audit(store, audit_id=part.audit_id)
    whole, *parts = kept
    assert {name: sum(each[name] for each in parts) for name in whole} == whole
    assert max(each["run_leaves"] for each in parts) < whole["run_leaves"] / 2


def test_a_part_looks_up_no_request_that_a_row_explains(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index has no order by request: each look reads the whole table."""
    asked: list[str] = []
    look_up = IndexInFile.requests_of_runs

    def counting(index: IndexInFile, hashes: Sequence[str]) -> set[str]:
        asked.extend(hashes)
        return look_up(index, hashes)

    monkeypatch.setattr(IndexInFile, "requests_of_runs", counting)
    withheld = run("withheld", outputs={"gcode_text": LARGE_GCODE, "gcode_path": "/jobs/17.nc"})
    add_runs(store, [run_record(withheld, 11)])
    for part in AuditPart.all_of("a", 3):
        assert audit(store, audit_id=part.audit_id).findings == []
    assert len(asked) == 1, "that of the run which is OK"


def test_rows_that_cannot_be_read_once_more_are_not_said_to_be_missing(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, begun = IndexInFile.begin, list[None]()

    def once(index: IndexInFile, plan: ScratchDatabase) -> str | None:
        begun.append(None)
        return begin(index, plan) if len(begun) == 1 else "torn meanwhile"

    monkeypatch.setattr(IndexInFile, "begin", once)
    (store / "runs/2025-12-18/run_3.json").unlink()
    change_index(store, "UPDATE runs SET created_at_us = 0 WHERE run_id = 'run_3'")
    found = audit(store, scope={"dates": ["2025-12-18"]})
    assert found.codes == {"FILE_MISSING", "INDEX_MISSING"}
    assert len(begun) == 2


@pytest.mark.parametrize("count", [2, 3])
def test_parts_of_two_counts_are_not_counted_together(tmp_path: Path, count: int) -> None:
    for part in (*AuditPart.all_of("a", 2), *AuditPart.all_of("a", 3)[:count]):
        add_file(tmp_path / report_name(part.audit_id))
    (listed,) = audit_files(StoredFiles(tmp_path))
    assert (listed.audit_id, listed.state) == ("a", f"{count} of 3 parts are done")


def test_rows_of_a_date_are_found_without_reading_a_table(store: Path) -> None:
    with closing(sqlite3.connect(":memory:", uri=True)) as plan:
        plan.executescript(queries.TABLES)
        plan.execute(queries.ATTACH_INDEX.format(store / INDEX_FILE))
        for query in (queries.NEXT_MADE, queries.WANT_MADE, *queries.COPY_WANTED):
            values = (0,) * query.count("?")
            found = plan.execute(f"EXPLAIN QUERY PLAN {query}", values)
            steps = [row[3] for row in found]
            assert {step for step in steps if "SCAN" in step} <= {"SCAN wanted"}, steps
            by = "(run_id=?" if query in queries.COPY_WANTED else "(created_at_us>?"
            assert any(by in step for step in steps), steps


@pytest.mark.parametrize("order", [1, -1])
def test_of_a_blob_that_is_awaited_and_gone_the_whole_says_that_it_is_gone(order: int) -> None:
    """A note that was there when one part looked may not be there when another does."""
    joined, lines = JoinedFindings(), list[bytes]()
    for code, date in [("ATTACHMENT_AWAITED", "18"), ("ATTACHMENT_MISSING", "20")][::order]:
        finding = {"code": code, "path": "attachments/a", "expected": f"what runs/{date} names"}
        lines += joined.add(canonical_json(finding), finding)
    lines += joined.end()
    assert [json.loads(line)["code"] for line in lines] == ["ATTACHMENT_MISSING"]
    assert joined.codes == {"ATTACHMENT_MISSING": 1}


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100])
def test_each_date_and_each_folder_of_blobs_is_of_one_part(count: int) -> None:
    from datetime import date, timedelta

    parts = AuditPart.all_of("a", count)
    numbers = [(date(2026, 1, 1) + timedelta(day)).toordinal() for day in range(400)]
    assert all(sum(part.has(number) for part in parts) == 1 for number in numbers)


@pytest.mark.parametrize(
    ("audit_id", "part"),
    [
        ("a.part-2-of-3", AuditPart("a", 2, 3)),
        ("a.part-2-of-3.part-1-of-1", AuditPart("a.part-2-of-3", 1, 1)),
        ("a.part-4-of-3", None),
        ("a.part-0-of-3", None),
        ("a.part-1-of-101", None),
        # That of its tenth would be too long.
        ("a" * 87 + ".part-1-of-10", None),
        ("a", None),
    ],
)
def test_an_audit_is_a_part_by_its_id(audit_id: str, part: AuditPart | None) -> None:
    asked = {"audit_id": audit_id, "mode": "full"}
    assert AuditPart.of(AuditRequest.model_validate(asked | {"scope": {"all": True}})) == part
    of_dates = asked | {"scope": {"dates": ["2025-12-18"]}}
    assert AuditPart.of(AuditRequest.model_validate(of_dates)) is None


def test_parts_whose_ids_are_too_long_are_none() -> None:
    assert AuditPart.all_of("a" * 100, 3) == []
