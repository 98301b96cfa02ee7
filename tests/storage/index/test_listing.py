"""Listing: what each query of the index walks over, and a cursor that misses and repeats none."""

import random
import re
import sqlite3
from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from pipeline.core.json.canonical import canonical_json
from pipeline.errors import InputError
from pipeline.storage.index.listing import list_runs
from pipeline.storage.index.run_index import RunIndex
from pipeline.storage.index.tables import LISTED_BY
from schemas.run_filter import RunFilter
from tests.builders import run_request
from tests.laws import offenders
from tests.storage.stores import change_index, judged_record, opened

# The ids that a look-up is given come as one JSON text, and EXISTS has a row of its own.
_HARMLESS = re.compile("json_each|CONSTANT ROW")

VALUES: dict[str, Any] = {
    "status": "OK",
    "mode": "saw",
    "tool_id": "saw:veneer_160",
    "event_type": "toolpaths",
    "risk_level": "GREEN",
    "workflow_session_id": "ws_42",
    "material_id": "maple",
    "machine_id": "shop_saw_2",
    "tool_id_prefix": "saw:",
    "date_from": "2025-01-01",
    "date_to": "2026-01-01",
}
FILTERS = [
    {},
    *({name: VALUES[name]} for name in VALUES),
    *({a: VALUES[a], b: VALUES[b]} for a, b in combinations(VALUES, 2)),
    VALUES,
]


@pytest.fixture
def index(tmp_path: Path) -> Iterator[RunIndex]:
    with opened(tmp_path / "store") as store:
        times = [f"2025-12-18T14:03:{second:02d}Z" for second in range(8)]
        requests = [
            run_request(run_id=f"run_{number:03d}", created_at_utc=random.choice(times))
            for number in range(60)
        ]
        store.commit([judged_record(request, offset) for offset, request in enumerate(requests)])
        yield store.index


def plans_of(index: RunIndex, work: Any) -> list[str]:
    """Return the plan of every query that `work` makes."""
    statements: list[tuple[str, Any]] = []
    # The last that came back is the first to be lent.
    with index.looking_up() as connection:
        connection.set_trace_callback(lambda statement: statements.append((statement, ())))

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        statements.append((statement, parameters))

    event.listen(index._engine, "before_cursor_execute", note)
    try:
        work()
    finally:
        event.remove(index._engine, "before_cursor_execute", note)
    with index.reading() as connection:
        return [
            str(row[3])
            for statement, parameters in statements
            if statement.lstrip().upper().startswith(("SELECT", "WITH"))
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]


def assert_no_scan(plans: list[str]) -> None:
    assert plans
    scans = [plan for plan in plans if plan.startswith("SCAN") and not _HARMLESS.search(plan)]
    assert scans == []
    assert any("USING INDEX" in plan or "COVERING INDEX" in plan for plan in plans)


def cursor_of(index: RunIndex) -> str:
    with index.looking_up() as connection:
        cursor = list_runs(connection, RunFilter(limit=1)).next_cursor
    assert cursor is not None
    return cursor


@pytest.mark.parametrize("with_cursor", [False, True])
def test_no_listing_scans_a_table(index: RunIndex, with_cursor: bool) -> None:
    cursor = cursor_of(index) if with_cursor else None
    for wanted in FILTERS:

        def work(wanted: dict[str, Any] = wanted) -> None:
            with index.looking_up() as connection:
                list_runs(connection, RunFilter(**wanted, cursor=cursor))

        assert_no_scan(plans_of(index, work))


def test_one_filter_is_answered_in_order_without_sorting(index: RunIndex) -> None:
    def holds(case: tuple[str, str | None]) -> None:
        name, cursor = case

        def work() -> None:
            with index.looking_up() as connection:
                list_runs(connection, RunFilter(**{name: VALUES[name]}, cursor=cursor))

        plans = plans_of(index, work)
        assert not any("TEMP B-TREE" in plan for plan in plans), plans
        assert any(f"runs_by_{name}" in plan for plan in plans), plans

    assert offenders(holds, product(LISTED_BY, [None, cursor_of(index)])) == []


def test_no_look_up_of_a_run_scans_a_table(index: RunIndex) -> None:
    looks = (
        lambda: index.find("run_001"),
        lambda: index.find_with_links("run_001"),
        lambda: index.is_withheld("0" * 64),
    )
    for look in looks:
        assert_no_scan(plans_of(index, look))


def walk(connection: sqlite3.Connection, **wanted: Any) -> list[str]:
    found: list[str] = []
    cursor = None
    while True:
        page = list_runs(connection, RunFilter(**wanted, cursor=cursor))
        found += [item["run_id"] for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return found


def test_a_walk_visits_each_run_once_also_at_equal_times(index: RunIndex) -> None:
    def holds(case: tuple[int, dict[str, Any]]) -> None:
        limit, wanted = case
        with index.looking_up() as connection:
            found = walk(connection, **wanted, limit=limit)
        assert sorted(found) == [f"run_{number:03d}" for number in range(60)]

    assert offenders(holds, product([1, 7, 59, 60, 61], FILTERS[:12])) == []


@pytest.mark.parametrize(
    ("prefix", "count"), [("saw:", 60), ("SAW:", 0), ("saw:veneer_160", 60), ("%", 0), ("", 60)]
)
def test_a_prefix_is_exact(index: RunIndex, prefix: str, count: int) -> None:
    with index.looking_up() as connection:
        assert len(walk(connection, tool_id_prefix=prefix)) == count


def test_a_cursor_is_only_what_we_wrote(index: RunIndex) -> None:
    cursor = cursor_of(index)
    with index.looking_up() as connection:
        for bad in (cursor + "=", cursor.replace("=", "") + "!", f" {cursor}", "ä"):
            with pytest.raises(InputError):
                list_runs(connection, RunFilter(cursor=bad))


@pytest.mark.parametrize("score", [None, 0, 1e-7, 5e-05, 0.0001, 0.1 + 0.2, 97])
def test_a_page_is_canonical_whatever_the_score(tmp_path: Path, score: float | None) -> None:
    decision = {"risk_level": "GREEN"} | ({} if score is None else {"score": score})
    with opened(tmp_path / "store") as store:
        store.commit([judged_record(run_request(decision=decision))])
        with store.index.looking_up() as connection:
            page = list_runs(connection, RunFilter())
    # Where the request has none, that of its evaluation counts.
    assert page.items[0]["score"] == (92.5 if score is None else score)
    assert page.content() == canonical_json(page.as_json())


def test_a_page_counts_the_links_of_the_state_that_it_lists(tmp_path: Path) -> None:
    root = tmp_path / "store"

    def link(statement: str) -> None:
        if "count(*)" in statement:
            columns = "run_id, advisory_id, created_at_utc, created_at_us, kind, link_sha256"
            change_index(
                root,
                f"INSERT INTO advisories ({columns}, link_path, source_offset) "
                "VALUES ('run_1', 'adv_1', '', 0, 'note', '', 'there', 0)",
            )

    with opened(root) as store:
        store.commit([judged_record(run_request(run_id="run_1"))])
        with store.index.looking_up() as connection:
            connection.set_trace_callback(link)
            counts = [list_runs(connection, RunFilter()).items[0]["advisory_count"]]
            connection.set_trace_callback(None)
            counts.append(list_runs(connection, RunFilter()).items[0]["advisory_count"])
    assert counts == [0, 1]
