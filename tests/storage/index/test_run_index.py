"""The index: what a row keeps, who begins and ends a transaction, and what is refused."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from pipeline.core.advisories.outcome import StoredAdvisory
from pipeline.core.advisories.verdict import AdvisoryClaim, judge_advisory_record
from pipeline.core.record import Partition
from pipeline.core.reject_limit import RejectWindow
from pipeline.core.runs.outcome import StoredRun, stored_run
from pipeline.errors import StoreError, StoreNotReadyError
from pipeline.storage.index import queries, tables
from pipeline.storage.index.run_index import RunIndex
from pipeline.storage.index.schema import SCHEMA
from pipeline.storage.index.tables import (
    IndexedRun,
    advisories,
    advisory_of_row,
    advisory_row,
    indexed_run,
    runs,
)
from schemas.timestamps import format_timestamp, microseconds_since_epoch, parse_timestamp
from tests.builders import (
    advisory_request,
    attachment,
    attachment_ref,
    incomplete_request,
    judged,
    record,
    red_request,
    rosette_request,
    router_request,
    run_request,
)
from tests.storage.stores import index_at, open_descriptors, source

REQUESTS = {
    "saw": run_request(),
    "router": router_request(),
    "rosette": rosette_request(),
    "red": red_request(),
    "incomplete": incomplete_request(),
    "claimed program": run_request(outputs=None, hashes={"gcode_sha256": "a" * 64}),
    "attached program": run_request(
        outputs=None, attachments=[attachment_ref(b"G1", kind="gcode")]
    ),
    "unexpected texts": run_request(
        notes="\u0000", mode="säge 🪚", machine_id="a'b\"c", workflow_session_id=" "
    ),
    "a reason with a zero": run_request(
        decision={"risk_level": "RED", "block_reason": "a\u0000b\n🪚" * 300}
    ),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.sqlite3"


@pytest.fixture
def index(path: Path) -> Iterator[RunIndex]:
    index = index_at(path)
    yield index
    index.close()


def entry(request: dict[str, Any], offset: int = 0) -> tuple[StoredRun, IndexedRun]:
    verdict = judged(request)
    run = stored_run(verdict, source(offset))
    return run, indexed_run(verdict.built.index_fields, run)


def add(index: RunIndex, *requests: dict[str, Any]) -> list[StoredRun]:
    entries = [entry(request, offset) for offset, request in enumerate(requests)]
    with index.transaction() as transaction:
        transaction.add_runs(indexed for _, indexed in entries)
    return [run for run, _ in entries]


@pytest.mark.parametrize("name", REQUESTS)
def test_a_run_is_read_back_as_it_was_added(any_index: RunIndex, name: str) -> None:
    (run,) = add(any_index, REQUESTS[name])
    found = any_index.find(run.run_id)
    assert found == run
    assert found is not None
    assert type(found.legacy) is bool
    assert type(found.size_bytes) is int


def test_each_column_of_a_row_holds_what_its_name_says(index: RunIndex, path: Path) -> None:
    request = run_request(outputs={"gcode_text": "G1", "opplan_json": {}, "toolpaths": []})
    (run,) = add(index, request)
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        (row,) = map(dict, connection.execute("SELECT * FROM runs"))
    assert row == {
        "run_id": request["run_id"],
        "created_at_utc": "2025-12-18T14:03:22.123456Z",
        "created_at_us": 1_766_066_602_123_456,
        "event_type": "toolpaths",
        "status": "OK",
        "mode": "saw",
        "tool_id": "saw:veneer_160",
        "material_id": "maple",
        "machine_id": "shop_saw_2",
        "workflow_session_id": "ws_42",
        "risk_level": "GREEN",
        "score": 92.5,
        "block_reason": None,
        **run.hashes,
        "gcode_known_by": "stored",
        "legacy": 0,
        "artifact_sha256": run.artifact_sha256,
        "artifact_path": run.artifact_path,
        "size_bytes": run.size_bytes,
        "request_sha256": run.request_sha256,
        "source_epoch": 1,
        "source_topic": "rmos.runs.requests",
        "source_partition": 0,
        "source_offset": 0,
    }
    assert len(run.hashes) == 4


@given(st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31)))  # noqa: DTZ001 - in UTC
def test_the_microseconds_of_a_row_are_those_of_its_stored_time(moment: datetime) -> None:
    stored = format_timestamp(moment.replace(tzinfo=UTC))
    verdict = judged(run_request(created_at_utc=stored))
    row = indexed_run(verdict.built.index_fields, stored_run(verdict, source(0))).row
    assert row[1:3] == (stored, microseconds_since_epoch(parse_timestamp(stored)))


def test_each_column_of_an_advisory_holds_what_its_name_says() -> None:
    advisory = StoredAdvisory(
        run_id="run_1",
        advisory_id="adv_1",
        source=source(7),
        created_at_utc="2025-12-18T14:03:22Z",
        claim=AdvisoryClaim("note", "an engine", "its version", "ab" * 32),
        request_id="a request",
        title="a title",
        mime="text/markdown",
        size_bytes=5,
        link_sha256="cd" * 32,
        link_path="runs/2025-12-18/run_1_advisory_adv_1.json",
    )
    row = dict(zip(advisories.c.keys(), advisory_row(advisory), strict=True))
    assert row["created_at_us"] == 1_766_066_602_000_000
    assert advisory_of_row(row) == advisory


def test_a_run_without_a_source_is_read_back_without_one(any_index: RunIndex) -> None:
    verdict = judged(run_request())
    run = structs.replace(stored_run(verdict, source(0)), source=None)
    with any_index.transaction() as transaction:
        transaction.add_runs([indexed_run(verdict.built.index_fields, run)])
    assert any_index.find(run.run_id) == run


def test_what_nobody_added_is_not_found(any_index: RunIndex) -> None:
    add(any_index, run_request(run_id="Run_A"))
    assert any_index.find("run_a") is None
    assert any_index.find("RUN_A") is None
    assert any_index.find("") is None
    assert any_index.count() == 1


@pytest.mark.parametrize(
    ("request_", "score"),
    [
        *((run_request(), 92.5), (router_request(), 68), (incomplete_request(), None)),
        (run_request(decision={"risk_level": "GREEN", "score": -0.0}), 0),
    ],
)
def test_a_score_is_kept_as_the_number_it_is(
    any_index: RunIndex, request_: dict[str, Any], score: float | None
) -> None:
    (run,) = add(any_index, request_)
    with any_index.reading() as connection:
        found = connection.execute(select(runs.c.score)).scalar_one()
    assert found == score
    assert str(found) != "-0.0"
    assert any_index.find(run.run_id) == run


def test_the_number_of_a_time_sorts_as_the_time_does(any_index: RunIndex) -> None:
    in_order = [
        "2000-01-01T00:00:00Z",
        "2025-12-18T14:03:22Z",
        "2025-12-18T14:03:22.000001Z",
        "2025-12-18T14:03:22.1Z",
        "2025-12-18T14:03:23Z",
        "2025-12-18T23:30:00-01:00",
        "2099-12-31T23:59:59.999999Z",
    ]
    shuffled = [in_order[place] for place in (3, 0, 6, 2, 5, 1, 4)]
    add(
        any_index,
        *(
            run_request(run_id=f"run_{in_order.index(time)}", created_at_utc=time)
            for time in shuffled
        ),
    )
    with any_index.reading() as connection:
        query = select(runs.c.run_id).order_by(runs.c.created_at_us)
        found = list(connection.execute(query).scalars())
    assert found == [f"run_{place}" for place in range(7)]


def test_attachments_are_listed_in_their_order_also_twice_the_same(
    index: RunIndex, path: Path
) -> None:
    listed = [attachment(b"one"), attachment_ref(b"two"), attachment(b"one")]
    (run,) = add(index, run_request(attachments=listed))
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT position, sha256, run_id FROM attachments ORDER BY position"
        found = connection.execute(query).fetchall()
    assert found == [(n, listed[n]["sha256"], run.run_id) for n in range(3)]


def test_a_run_is_added_once_and_a_second_time_rolls_all_back(index: RunIndex) -> None:
    add(index, run_request(run_id="run_1"))
    with pytest.raises(StoreError, match="UNIQUE"):
        add(index, run_request(run_id="run_2"), run_request(run_id="run_1"))
    assert index.count() == 1


def test_an_attachment_belongs_to_a_run(any_index: RunIndex) -> None:
    orphan = ("nobody", 0, "0" * 64, "debug")
    with (
        pytest.raises(StoreError, match=r"(?i)foreign key"),
        any_index.transaction() as transaction,
    ):
        transaction.add_runs([IndexedRun(entry(run_request())[1].row, [orphan])])
    assert any_index.count() == 0


def test_more_ids_than_one_look_up_takes_are_all_found(any_index: RunIndex) -> None:
    template = entry(run_request())[1].row
    names = [f"run_{n}" for n in range(1201)]
    with any_index.transaction() as transaction:
        transaction.add_runs(IndexedRun((name, *template[1:]), []) for name in names)
    with any_index.transaction() as transaction:
        found = queries.known_runs(transaction.connection, [*names, "unknown"])
    assert set(found) == set(names)


def advance_and_raise(index: RunIndex, error: BaseException) -> None:
    with index.transaction() as transaction:
        transaction.advance(1, {("topic", 0): 5})
        raise error


def can_go_on(index: RunIndex) -> bool:
    """Tell whether nothing of a failed transaction is left, and the next one is kept."""
    assert index.positions(1) == {}
    with index.transaction() as transaction:
        transaction.advance(1, {("topic", 0): 6})
    return index.positions(1) == {("topic", 0): 6}


@pytest.mark.parametrize("error", [ValueError("a fault"), KeyboardInterrupt()], ids=repr)
def test_whatever_is_raised_inside_rolls_back(any_index: RunIndex, error: BaseException) -> None:
    with pytest.raises(type(error)):
        advance_and_raise(any_index, error)
    assert can_go_on(any_index)


def test_a_rollback_that_sqlite_did_itself_does_not_hide_the_fault(index: RunIndex) -> None:
    def be_rolled_back() -> None:
        with index.transaction() as transaction:
            transaction.advance(1, {("topic", 0): 5})
            transaction.connection.exec_driver_sql("ROLLBACK")
            raise ValueError("the first fault")

    with pytest.raises(ValueError, match="the first fault"):
        be_rolled_back()
    assert can_go_on(index)


def test_a_commit_that_fails_is_rolled_back(index: RunIndex) -> None:
    def fail_at_commit() -> None:
        with index.transaction() as transaction:
            transaction.advance(1, {("topic", 0): 5})
            # A foreign key that is checked at the commit alone.
            transaction.connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
            transaction.connection.exec_driver_sql(
                "INSERT INTO attachments VALUES ('nobody', 0, 'sha', 'kind')"
            )

    with pytest.raises(StoreError, match="FOREIGN KEY"):
        fail_at_commit()
    assert can_go_on(index)


def test_a_reader_sees_the_state_before_an_open_transaction(path: Path, index: RunIndex) -> None:
    with closing_index(path) as other, index.transaction() as transaction:
        transaction.advance(1, {("topic", 0): 5})
        assert other.positions(1) == {}
        assert index.positions(1) == {}
    assert index.positions(1) == {("topic", 0): 5}


def closing_index(path: Path) -> closing[RunIndex]:
    return closing(index_at(path))


def test_positions_of_epochs_are_kept_apart_and_never_go_back(any_index: RunIndex) -> None:
    with any_index.transaction() as transaction:
        transaction.advance(1, {("topic", 0): 5, ("topic", 1): 7})
        transaction.advance(2, {("topic", 0): 1})
        transaction.advance(1, {("topic", 0): 4, ("topic", 1): 2**40})
        transaction.advance(1, {})
    assert any_index.positions(1) == {("topic", 0): 5, ("topic", 1): 2**40}
    assert any_index.positions(2) == {("topic", 0): 1}
    assert any_index.positions(3) == {}


def test_reject_windows_are_kept_apart_by_group_and_partition_and_replaced(
    any_index: RunIndex,
) -> None:
    one, two = ("topic", 0), ("topic", 1)
    empty, first, second = RejectWindow(), RejectWindow("01"), RejectWindow("1")

    def windows(group: str | None, *places: Partition) -> Any:
        asked = queries.BatchQuestions(1, group, places, ())
        with any_index.transaction((), asked.all) as transaction:
            return asked.state(transaction.answers).windows

    assert windows("a", one) == {one: empty}
    with any_index.transaction() as transaction:
        transaction.keep_reject_windows("a", {one: second, two: second})
        transaction.keep_reject_windows("b", {one: second})
        transaction.keep_reject_windows("a", {one: first})
    assert windows("a", one, two) == {one: first, two: second}
    assert windows("b", two, one) == {one: second, two: empty}
    assert windows(None, one) == {}


def test_a_batch_asks_all_at_once_and_gets_what_each_question_alone_gets(
    any_index: RunIndex,
) -> None:
    added = add(any_index, run_request(run_id="run_1"), run_request(run_id="run_2"))
    claim = StoredAdvisory(
        run_id="run_1",
        advisory_id="adv_1",
        source=source(3),
        created_at_utc="2025-12-18T14:03:22Z",
        claim=AdvisoryClaim("note", None, None, None),
        request_id=None,
        title=None,
        mime=None,
        size_bytes=None,
        link_sha256="cd" * 32,
        link_path=None,
    )
    with any_index.transaction() as transaction:
        transaction.add_advisories([claim])
        transaction.advance(1, {("topic", 0): 5})
        transaction.advance(2, {("topic", 0): 9})
    verdicts = [
        *(judged(run_request(run_id=f"run_{number}")) for number in (1, 3)),
        *(
            judge_advisory_record(*record(advisory_request(run_id=r, advisory_id=a)))
            for r, a in [("run_1", "adv_1"), ("run_2", "adv_1")]
        ),
    ]
    asked = queries.BatchQuestions(1, None, [("topic", 0)], verdicts)
    with any_index.transaction((), asked.all) as transaction:
        state = asked.state(transaction.answers)
        assert state.known == queries.known_rows(transaction.connection, verdicts)
    assert state.positions == {("topic", 0): 5}
    assert list(state.known.runs.values()) == added
    assert state.known.advisories == {("run_1", "adv_1"): claim}


def test_the_window_that_a_group_had_for_all_partitions_goes(any_index: RunIndex) -> None:
    place = ("topic", 0)
    with any_index.transaction() as transaction:
        for group in ("a", "b"):
            row = {"group_id": group, "verdicts": "11"}
            transaction.connection.execute(tables.reject_windows.insert(), row)
        transaction.keep_reject_windows("a", {place: RejectWindow("0")})
    with any_index.transaction() as transaction:
        found = transaction.connection.execute(select(tables.reject_windows.c.group_id)).scalars()
        assert sorted(found) == ["a topic/0", "b"]


def test_every_commit_is_flushed_before_it_returns(index: RunIndex) -> None:
    with index.transaction([]) as transaction:
        settings = {
            name: transaction.connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    full = 2
    assert settings == {"journal_mode": "wal", "synchronous": full, "foreign_keys": 1}


def test_the_page_cache_and_the_log_are_bounded(index: RunIndex) -> None:
    with index.transaction([]) as transaction:
        bounds = [
            transaction.connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("cache_size", "cache_spill", "wal_autocheckpoint")
        ]
    # KiB where negative, else pages of 4 KiB.
    assert bounds == [-16_384, 10_000, 16_000]


def test_reads_beside_a_batch_leave_the_next_one_its_connection(index: RunIndex) -> None:
    # Of two that wrote in turn each would read again what the other has changed, and that is all.
    def written_by() -> object:
        with index.transaction([]) as transaction, index.reading():
            return transaction.connection.connection.driver_connection

    first = written_by()
    with index.reading():
        assert written_by() is first
    assert written_by() is first


def test_a_look_up_cannot_write_and_a_fault_of_it_is_one_of_the_store(index: RunIndex) -> None:
    add(index, run_request())
    with pytest.raises(StoreError, match="readonly"), index.looking_up() as connection:
        connection.execute("DELETE FROM runs")
    assert index.count() == 1


def test_nothing_stays_open_of_an_index_that_is_closed_while_it_is_looked_at(path: Path) -> None:
    before = open_descriptors()
    index = index_at(path)
    with index.looking_up() as connection:
        index.close()
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (0,)
    assert open_descriptors() == before


def test_rows_survive_closing_and_opening(path: Path) -> None:
    with closing_index(path) as index:
        (run,) = add(index, run_request())
    with closing_index(path) as index:
        assert index.find(run.run_id) == run


def test_rows_in_the_log_alone_are_found_after_a_death(path: Path, tmp_path: Path) -> None:
    """Copy file and log while they are open: what a death leaves."""
    with closing_index(path) as index:
        (run,) = add(index, run_request())
        copy = tmp_path / "copy" / path.name
        copy.parent.mkdir()
        for name in (path.name, f"{path.name}-wal"):
            copy.with_name(name).write_bytes(path.with_name(name).read_bytes())
    with closing_index(copy) as index:
        assert index.find(run.run_id) == run


def test_an_index_of_another_format_is_refused_and_nothing_stays_open(path: Path) -> None:
    with closing_index(path):
        pass
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version={SCHEMA.format + 1}")
    before = open_descriptors()
    # The error keeps what it went through alive, so a descriptor would be seen.
    with pytest.raises(StoreNotReadyError, match="run rmos index rebuild") as caught:
        index_at(path)
    assert open_descriptors() == before, caught


def test_a_damaged_index_is_refused_and_nothing_stays_open(path: Path) -> None:
    with closing_index(path) as index:
        add(index, run_request())
    path.write_bytes(b"\xa5" * path.stat().st_size)
    before = open_descriptors()
    for _ in range(2):
        with pytest.raises(StoreNotReadyError, match=r"cannot be read.*run rmos index rebuild"):
            index_at(path)
    assert open_descriptors() == before


def test_an_index_with_nothing_in_it_is_refused_where_it_cannot_be_new(path: Path) -> None:
    with pytest.raises(StoreNotReadyError, match=r"is empty.*run rmos index rebuild"):
        index_at(path, may_be_new=False)


def test_an_index_that_lost_its_log_while_young_is_refused(path: Path) -> None:
    index = index_at(path)
    young = path.read_bytes()
    index.close()
    path.write_bytes(young)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (0,)
    with pytest.raises(StoreNotReadyError, match="run rmos index rebuild"):
        index_at(path, may_be_new=False)


def test_a_replaced_index_is_noticed(path: Path, index: RunIndex, tmp_path: Path) -> None:
    assert not index.was_replaced
    (tmp_path / "other").write_bytes(b"")
    (tmp_path / "other").replace(path)
    assert index.was_replaced
    path.unlink()
    assert index.was_replaced


def _note_position(index: RunIndex) -> None:
    with index.transaction() as transaction:
        transaction.advance(1, {("topic", 0): 5})


@pytest.mark.parametrize(
    "use",
    [_note_position, lambda index: index.positions(1), lambda index: index.kept_to(1)],
    ids=["write", "read", "read twice"],
)
def test_a_fault_of_the_file_is_one_of_the_store(
    path: Path, index: RunIndex, use: Callable[[RunIndex], object]
) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE positions")
    with pytest.raises(StoreError, match="no such table: positions") as caught:
        use(index)
    assert str(path.parent) in str(caught.value)


def test_a_folder_that_is_not_there_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(OperationalError):
        index_at(tmp_path / "none" / "index.sqlite3")


def test_an_accepted_loss_is_kept_also_by_an_index_of_before(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite3"
    with closing(index_at(path)):
        pass
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE accepted_losses")
    with closing(index_at(path)) as index:
        with index.transaction() as transaction:
            transaction.accept_losses(1, {("topic", 0): 6})
            transaction.accept_losses(1, {("topic", 0): 4, ("topic", 1): 2})
        assert index.accepted_losses(1) == {("topic", 0): 6, ("topic", 1): 2}
        assert index.accepted_losses(2) == {}
        assert index.positions(1) == {}


def test_an_index_of_before_gets_the_indexes_that_it_has_not(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite3"
    with closing(index_at(path)):
        pass
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP INDEX runs_by_machine_id")
    with closing(index_at(path)):
        pass
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")
        assert ("runs_by_machine_id",) in found.fetchall()
