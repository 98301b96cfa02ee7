"""Listing: what each query of the index walks over, and a cursor that misses and repeats none."""

import random
import re
import sqlite3
from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies
from sqlalchemy import event

from pipeline.core.json.canonical import canonical_json
from pipeline.core.layout import attachment_path
from pipeline.core.runs.outcome import stored_run
from pipeline.errors import InputError
from pipeline.storage.index import listing
from pipeline.storage.index.listing import list_runs
from pipeline.storage.index.named import named_by_hash
from pipeline.storage.index.programs import runs_of_program
from pipeline.storage.index.run_index import RunIndex
from pipeline.storage.index.tables import LISTED_BY, IndexedRun, indexed_run, runs
from schemas.run_filter import RunFilter
from tests.builders import (
    ABSENT,
    GCODE,
    attachment,
    attachment_ref,
    judged,
    red_request,
    run_request,
    sha256,
)
from tests.laws import offenders
from tests.storage.stores import change_index, index_at, judged_record, opened, source

# The ids that a look-up is given come as one JSON text, EXISTS has a row of its own, and what a
# bounded query has found is read to its end.
_HARMLESS = re.compile(
    r"json_each|CONSTANT ROW|"
    r"SCAN (parts|merged|newest|page|cutting|refused|found|\(subquery-\d+\))$"
)

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
    "gcode_sha256": sha256(GCODE),
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

    event.listen(index.database.engine, "before_cursor_execute", note)
    try:
        work()
    finally:
        event.remove(index.database.engine, "before_cursor_execute", note)
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


PROGRAM = b"G90\r\nG1 Z-30\r\nM30\r\n"
_TO_CUT = {"kind": "gcode", "mime": "text/plain", "filename": "part.nc"}
_CLAIMED = {"hashes": {"gcode_sha256": sha256(PROGRAM)}}
_NAMED = {"attachments": [attachment_ref(PROGRAM, **_TO_CUT)]}
WAYS: dict[str, dict[str, Any]] = {
    "inline": {"outputs": {"gcode_text": PROGRAM.decode()}},
    "attached inline": {"outputs": ABSENT, "attachments": [attachment(PROGRAM, **_TO_CUT)]},
    "attached by name": {"outputs": ABSENT, **_NAMED},
    "claimed": {"outputs": ABSENT, **_CLAIMED},
    "at its path": {
        "outputs": {"gcode_path": attachment_path(sha256(PROGRAM))},
        "attachments": [attachment_ref(PROGRAM, kind="debug")],
    },
    "listed as debug": {
        "outputs": ABSENT,
        **_CLAIMED,
        "attachments": [attachment_ref(PROGRAM, kind="debug")],
    },
}
"""How a program comes with a request (docs/messages.md)."""


@pytest.mark.parametrize("way", WAYS)
def test_a_program_lists_its_runs_and_those_that_withhold_it(tmp_path: Path, way: str) -> None:
    with opened(tmp_path / "store") as store:
        requests = [
            run_request(run_id="ok", **WAYS[way]),
            red_request(run_id="red", **WAYS[way]),
            run_request(run_id="incomplete", **WAYS[way], tool_id=ABSENT),
            run_request(run_id="other"),
            red_request(run_id="other_red"),
        ]
        store.commit([judged_record(request, offset) for offset, request in enumerate(requests)])
        with store.index.looking_up() as connection:
            page = list_runs(connection, RunFilter(gcode_sha256=sha256(PROGRAM)))
            walked = walk(connection, gcode_sha256=sha256(PROGRAM), limit=1)
            blocked = walk(connection, gcode_sha256=sha256(PROGRAM), status="BLOCKED")
    assert [item["run_id"] for item in page.items] == ["red", "ok", "incomplete"] == walked
    assert blocked == ["red", "incomplete"]
    # What a verdict withholds has no hash in any answer.
    assert [item["gcode_sha256"] for item in page.items] == [None, sha256(PROGRAM), None]


def test_a_program_and_another_filter_are_searched_by_the_program(index: RunIndex) -> None:
    def holds(case: tuple[str, str | None]) -> None:
        name, cursor = case

        def work() -> None:
            with index.looking_up() as connection:
                wanted = {name: VALUES[name], "gcode_sha256": VALUES["gcode_sha256"]}
                list_runs(connection, RunFilter(**wanted, cursor=cursor))

        plans = plans_of(index, work)
        merged = plans[plans.index("MERGE (UNION ALL)") :]
        of_runs, withheld = merged[: merged.index("RIGHT")], merged[merged.index("RIGHT") :]
        searched = "runs_by_arrival_and_gcode_sha256 (<expr>=? AND <expr>=?"
        assert sum(searched in plan for plan in of_runs) == 2, plans
        # Behind the merge, the rows of one page.
        assert not any("TEMP B-TREE" in plan for plan in of_runs[:-1]), plans
        assert any("autoindex_runs_1 (run_id=?)" in plan for plan in withheld), plans
        assert any("withheld_payloads_1 (sha256=?)" in plan for plan in withheld), plans
        assert any("withheld_blobs_1 (sha256=?)" in plan for plan in withheld), plans
        assert any("attachments_by_blob (sha256=?)" in plan for plan in withheld), plans

    assert offenders(holds, product(VALUES, [None, cursor_of(index)])) == []


def test_a_program_that_no_record_explains_is_in_no_list(tmp_path: Path) -> None:
    root = tmp_path / "store"
    with opened(root) as store:
        store.commit([judged_record(run_request()), judged_record(red_request(run_id="red"), 1)])
        change_index(root, "UPDATE runs SET source_offset = NULL")
        with store.index.looking_up() as connection:
            assert walk(connection, gcode_sha256=sha256(GCODE)) == []


def test_no_look_up_of_a_program_scans_or_sorts(index: RunIndex) -> None:
    def work() -> None:
        with index.looking_up() as connection:
            runs_of_program(connection, sha256(GCODE))

    plans = plans_of(index, work)
    assert_no_scan(plans)
    assert not any("TEMP B-TREE" in plan for plan in plans), plans


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


# Of the last one SQLite's shortest text reads as another number.
@pytest.mark.parametrize(
    "score", [None, 0, 1e-7, 5e-05, 0.0001, 0.1 + 0.2, 97, 3.2541798275871504e-306]
)
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
        if "json_group_array" in statement:
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
            # Its tools are counted first.
            wanted = RunFilter(tool_id_prefix="saw:")
            counts = [list_runs(connection, wanted).items[0]["advisory_count"]]
            connection.set_trace_callback(None)
            counts.append(list_runs(connection, wanted).items[0]["advisory_count"])
    assert counts == [0, 1]


def test_an_item_says_whether_a_machine_may_cut_by_its_run(tmp_path: Path) -> None:
    root = tmp_path / "store"
    requests = [run_request(run_id="run_1"), run_request(run_id="old"), red_request(run_id="red")]
    with opened(root) as store:
        store.commit([judged_record(request, offset) for offset, request in enumerate(requests)])
        change_index(root, "UPDATE runs SET legacy = 1 WHERE run_id = 'old'")
        with store.index.looking_up() as connection:
            items = list_runs(connection, RunFilter()).items
    assert {item["run_id"]: item["may_cut"] for item in items} == {
        "run_1": True,
        "old": False,
        "red": False,
    }


def in_plain_python(rows: list[tuple[str, int, str, str]], wanted: RunFilter) -> list[str]:
    """Return the run_ids that `wanted` asks for, newest first."""
    return [
        run_id
        for run_id, _, tool_id, status in sorted(
            rows, key=lambda row: (row[1], row[0]), reverse=True
        )
        if tool_id.startswith(wanted.tool_id_prefix or "")
        and wanted.tool_id in {None, tool_id}
        and wanted.status in {None, status}
    ]


@pytest.fixture(scope="module")
def row() -> dict[str, Any]:
    """Return a row by the names of its columns."""
    verdict = judged(run_request())
    values = indexed_run(verdict.built.index_fields, stored_run(verdict, source(0))).row
    return dict(zip(runs.c.keys(), values, strict=True))


@pytest.fixture(scope="module")
def template(
    tmp_path_factory: pytest.TempPathFactory, row: dict[str, Any]
) -> Iterator[tuple[RunIndex, dict[str, Any]]]:
    """Yield an empty index, and a row."""
    index = index_at(tmp_path_factory.mktemp("listing") / "index.sqlite3")
    yield index, row
    index.close()


def fill(
    index: RunIndex,
    template: dict[str, Any],
    rows: list[tuple[Any, ...]],
    names: tuple[str, ...] = ("run_id", "created_at_us", "tool_id", "status"),
) -> None:
    """Let the index have these runs alone; of each the values of `names`."""
    with index.transaction() as transaction:
        transaction.connection.exec_driver_sql("DELETE FROM runs")
        transaction.add_runs(
            IndexedRun(tuple((template | dict(zip(names, row, strict=True))).values()), [])
            for row in rows
        )


TOOL_IDS = strategies.sampled_from(["saw", "saw:", "saw:a", "saw:b", "sax", "Saw:a", "säge", "s"])
PREFIXES = ["", "s", "saw", "saw:", "saw:b", "sä", "S", "t"]


@settings(max_examples=30)
@given(
    found=strategies.lists(
        strategies.tuples(strategies.integers(0, 3), TOOL_IDS, strategies.booleans()), max_size=40
    ),
    budget=strategies.sampled_from([1, 2, 4, 1000]),
)
def test_filters_list_what_plain_python_finds_page_by_page(
    kept_index: RunIndex,
    row: dict[str, Any],
    found: list[tuple[int, str, bool]],
    budget: int,
) -> None:
    rows = [
        (f"run_{number:03d}", 10**15 + time, tool_id, "OK" if is_ok else "BLOCKED")
        for number, (time, tool_id, is_ok) in enumerate(found)
    ]
    fill(kept_index, row, rows)

    def holds(case: tuple[dict[str, str], str | None, int]) -> None:
        tools, status, limit = case
        wanted = {**tools, "status": status}
        with kept_index.looking_up() as connection:
            listed = walk(connection, **wanted, limit=limit)
        assert listed == in_plain_python(rows, RunFilter.of(**wanted))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "_FIRST_BUDGET", budget)
        tools = [{"tool_id_prefix": prefix} for prefix in PREFIXES]
        tools += [{"tool_id": "saw:a"}, {"tool_id": "s"}]
        assert offenders(holds, product(tools, [None, "BLOCKED"], [2, 50])) == []


@settings(max_examples=30)
@given(
    found=strategies.lists(
        strategies.tuples(
            strategies.integers(10**15, 10**15 + 3),
            strategies.sampled_from([None, 0, 1023, 1024, 1_000_000, 2**40]),
            strategies.sampled_from(["a" * 64, "a" * 63 + "b", "c" * 64]),
        ),
        max_size=30,
    )
)
def test_a_program_is_found_whenever_its_runs_arrived(
    kept_index: RunIndex, row: dict[str, Any], found: list[tuple[int, int | None, str]]
) -> None:
    rows = [(f"run_{number:03d}", *each) for number, each in enumerate(found)]
    fill(kept_index, row, rows, ("run_id", "created_at_us", "source_offset", "gcode_sha256"))
    newest = sorted(rows, key=lambda row: (row[1], row[0]), reverse=True)

    def holds(sha256: str) -> None:
        explained = [row[0] for row in newest if row[3] == sha256 and row[2] is not None]
        unexplained = [row[0] for row in newest if row[3] == sha256 and row[2] is None]
        with kept_index.looking_up() as connection:
            listed = [walk(connection, gcode_sha256=sha256, limit=limit) for limit in (1, 2, 50)]
            named = {each.run_id for each in named_by_hash(connection, sha256)}
            cutting = runs_of_program(connection, sha256).cutting
        assert listed == [explained] * 3
        assert named == set(explained)
        # Only a run that a record explains may be cut by.
        assert (cutting and cutting.run_id) == next(iter([*explained, *unexplained]), None)

    assert offenders(holds, ["a" * 64, "a" * 63 + "b", "c" * 64, "d" * 64]) == []


@pytest.mark.parametrize(
    "wanted",
    [
        {"date_to": "2099-12-31"},
        {"tool_id_prefix": "saw:"},
        {"tool_id_prefix": "saw:", "date_to": "2099-12-31"},
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", ["few tools", "a tool a run", "one time", "old tools"])
def test_a_page_takes_no_more_steps_in_a_larger_index(
    template: tuple[RunIndex, dict[str, Any]],
    shape: str,
    wanted: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Steps of SQLite's machine, which depend on data alone: the first page, one in the middle."""
    monkeypatch.setattr(listing, "_FIRST_BUDGET", 100)
    index, row = template
    steps = []
    for count in (500, 2_000):
        rows = [run_of_shape(shape, number) for number in range(count)]
        fill(index, row, rows)
        run_id, time, *_ = rows[count // 2]
        steps.append(0)

        def step() -> None:
            steps[-1] += 1

        with index.looking_up() as connection:
            connection.set_progress_handler(step, 10)
            for cursor in (None, listing._write_cursor(time, run_id)):
                page = list_runs(connection, RunFilter(**wanted, cursor=cursor))
                assert len(page.items) == 50
            connection.set_progress_handler(None, 0)
    assert steps[1] < 1.5 * steps[0], steps


@pytest.mark.parametrize("wanted", [{"tool_id": "rare"}, {"status": "BLOCKED"}], ids=str)
def test_two_filters_take_as_long_as_the_one_with_fewer_runs(
    template: tuple[RunIndex, dict[str, Any]],
    wanted: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All other runs fit the other filter; what is asked for are the oldest ten."""
    monkeypatch.setattr(listing, "_FIRST_BUDGET", 100)
    index, row = template
    asked = {"tool_id": "usual", "status": "OK", **wanted}
    steps = []
    for count in (500, 2_000):
        rare = (asked["tool_id"], asked["status"])
        tools = [rare if number < 10 else ("usual", "OK") for number in range(count)]
        rows = [(f"run_{n:06d}", 10**15 + n, *tool) for n, tool in enumerate(tools)]
        fill(index, row, rows)
        steps.append(0)

        def step() -> None:
            steps[-1] += 1

        with index.looking_up() as connection:
            connection.set_progress_handler(step, 10)
            assert len(list_runs(connection, RunFilter(**asked)).items) == 10
            connection.set_progress_handler(None, 0)
    assert steps[1] < 1.5 * steps[0], steps


def run_of_shape(shape: str, number: int) -> tuple[str, int, str, str]:
    run_id, time = f"run_{number:06d}", 10**15 + number
    if shape == "few tools":
        return run_id, time, f"saw:{number % 3}", "OK"
    if shape == "a tool a run":
        return run_id, time, f"saw:{number:06d}", "OK"
    if shape == "one time":
        return run_id, 10**15, f"saw:{number % 3}", "OK"
    # Those of the prefix are the oldest of all.
    return run_id, time, f"saw:{number}" if number < 150 else f"x:{number % 3}", "OK"


def test_a_prefix_is_sorted_by_no_query(index: RunIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    cursor = cursor_of(index)

    def holds(case: tuple[str | None, str | None, int]) -> None:
        after, day, budget = case
        monkeypatch.setattr(listing, "_FIRST_BUDGET", budget)
        wanted = RunFilter(tool_id_prefix="saw:", cursor=after, date_to=day, limit=7)

        def work() -> None:
            with index.looking_up() as connection:
                list_runs(connection, wanted)

        plans = plans_of(index, work)
        assert_no_scan(plans)
        assert not any("TEMP B-TREE FOR ORDER" in plan for plan in plans), plans
        if budget > 1:
            # The next run of a tool is one seek, also behind many of the same time.
            assert any("AND (created_at_us,run_id)<(?,?))" in plan for plan in plans), plans

    assert offenders(holds, product([None, cursor], [None, "2026-01-01"], [1, 1000])) == []
