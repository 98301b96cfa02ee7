"""An audit of dates keeps these alone, and parts say together what an audit of the whole says."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline.audit import queries
from pipeline.audit.plan import AuditPlan
from pipeline.audit.rules.parts import AuditPart
from pipeline.disk.sqlite.file import read_only
from pipeline.storage.index.run_index import INDEX_FILE
from schemas.audit_request import AuditRequest
from tests.audit.audited import (
    add_runs,
    audit,
    run,
    run_record,
)

DATES = ("2025-12-18", "2025-12-19", "2025-12-20")


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    """Return how many rows each table of a plan has, once all of them are there, for each audit."""
    counted: list[dict[str, int]] = []
    resolve = AuditPlan.resolve
    tables = ("run_leaves", "advisory_leaves", "run_rows", "advisory_rows", "attachment_rows")

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
        "run_rows": 2, "advisory_rows": 0, "attachment_rows": 0,
    }  # fmt: skip
    assert of_runs == {
        "run_leaves": 1, "advisory_leaves": 1,
        "run_rows": 1, "advisory_rows": 1, "attachment_rows": 1,
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


def test_rows_of_a_date_are_found_without_reading_a_table(store: Path) -> None:
    with closing(read_only(store / INDEX_FILE)) as index:
        index.execute("ATTACH ':memory:' AS plan")
        for query in (queries.NEXT_MADE, queries.WANT_MADE.partition("wanted")[2]):
            asked = query.replace("store.", "main.")
            values = (0,) * query.count("?")
            steps = [row[3] for row in index.execute(f"EXPLAIN QUERY PLAN {asked}", values)]
            assert all("runs_newest_first" in step for step in steps), steps
            assert not any(step.startswith("SCAN") for step in steps), steps


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
