"""The database of PostgreSQL: locks, claims, scripts, whose it is, and what its faults are."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from threading import Event
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Boolean, Float, inspect

psycopg = pytest.importorskip("psycopg", reason="the extra scale is not installed")

from msgspec import structs

from pipeline.core.record import Partition
from pipeline.core.runs.outcome import stored_run
from pipeline.errors import InputError, StoreAwayError, StoreError, StoreNotReadyError
from pipeline.ledger.log_id import LogId
from pipeline.postgres import store_row as store_row_module
from pipeline.postgres.connections import name_of
from pipeline.postgres.scripts import missing_scripts, run_scripts, scripts
from pipeline.postgres.store_row import PostgresLock, change_row, make_row
from pipeline.postgres.text import kept
from pipeline.storage.index.postgres import open_postgres_index, store_row
from pipeline.storage.index.run_index import RunIndex
from pipeline.storage.index.schema import SCHEMA
from pipeline.storage.index.tables import IndexedRun, indexed_run
from tests.builders import judged, run_request
from tests.conftest import Servers
from tests.postgres.servers import IDENTITY, VERSIONS, Server, running, with_tables
from tests.storage.stores import source

TOPIC = "rmos.runs.requests"


@pytest.fixture(params=VERSIONS)
def server(request: pytest.FixtureRequest, servers: Servers) -> Server:
    found: Server = servers.get(request.param)
    return found


@pytest.fixture
def url(server: Server) -> str:
    return with_tables(server)


@pytest.fixture
def index(url: str) -> Iterator[RunIndex]:
    with closing(open_postgres_index(url, IDENTITY, None)) as index:
        yield index


def place(partition: int) -> LogId:
    return LogId(1, TOPIC, partition)


def row(run_id: str, offset: int = 0, partition: int = 0) -> IndexedRun:
    verdict = judged(run_request(run_id=run_id))
    return indexed_run(
        verdict.built.index_fields, stored_run(verdict, source(offset, partition=partition))
    )


def values(url: str, query: str) -> list[Any]:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


def is_waiting(url: str) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    return values(url, query) == [(1,)]


def wait_until(holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if holds():
            return
        Event().wait(0.01)
    raise AssertionError("it did not come to pass")


class BatchError(Exception):
    """What ends a batch."""


def beside(
    index: RunIndex, places: list[LogId], work: Callable[[Any], Any]
) -> tuple[ThreadPoolExecutor, "Future[Any]"]:
    """Begin a transaction in another thread."""

    def run() -> Any:
        with index.transaction(places) as transaction:
            return work(transaction)

    pool = ThreadPoolExecutor(1)
    return pool, pool.submit(run)


@pytest.mark.parametrize("is_new", [True, False])
def test_two_that_believe_to_own_a_partition_take_turns(
    url: str, index: RunIndex, is_new: bool
) -> None:
    if not is_new:
        _advance(index, {(TOPIC, 0): 1})
    with index.transaction([place(0)]) as transaction:
        pool, later = beside(index, [place(1), place(0)], lambda t: t.connection)
        wait_until(lambda: is_waiting(url))
        transaction.advance(1, {(TOPIC, 0): 5})
        # Another partition waits for nobody.
        with index.transaction([place(2)]) as other:
            other.advance(1, {(TOPIC, 2): 1})
        assert not later.done()
    later.result(timeout=60)
    pool.shutdown()
    assert index.positions(1) == {(TOPIC, 0): 5, (TOPIC, 2): 1}


def test_who_waited_for_a_partition_sees_what_the_other_has_added(
    url: str, index: RunIndex
) -> None:
    with index.transaction([place(0)]) as transaction:
        transaction.advance(1, {(TOPIC, 0): 1})

    def look(transaction: Any) -> int:
        query = "SELECT count(*) FROM runs"
        return int(transaction.connection.exec_driver_sql(query).scalar_one())

    with index.transaction([place(0)]) as transaction:
        pool, later = beside(index, [place(0)], look)
        wait_until(lambda: is_waiting(url))
        transaction.add_runs([row("run_1")])
    assert later.result(timeout=60) == 1
    pool.shutdown()


def test_a_position_that_was_made_only_to_be_locked_is_none(url: str, index: RunIndex) -> None:
    with index.transaction([place(0), place(1)]) as transaction:
        transaction.advance(1, {(TOPIC, 1): 3})
    assert index.positions(1) == {(TOPIC, 1): 3}
    assert values(url, "SELECT partition FROM positions") == [(1,)]


@pytest.mark.parametrize("commits", [True, False])
def test_a_rival_with_the_same_run_waits_and_is_first_only_if_the_other_gives_up(
    url: str, index: RunIndex, commits: bool
) -> None:
    rows = [row("run_1", 0), row("run_2", 1)]
    rivals = [row("run_2", 0, partition=1), row("run_3", 1, partition=1)]
    failed = BatchError()
    with suppress(BatchError), index.transaction([place(0)]) as transaction:
        assert transaction.add_runs(rows) == []
        pool, later = beside(index, [place(1)], lambda t: t.add_runs(rivals))
        wait_until(lambda: is_waiting(url))
        if not commits:
            raise failed
    assert later.result(timeout=60) == (["run_2"] if commits else [])
    pool.shutdown()
    first = index.find("run_2")
    assert first is not None
    assert first.source == (source(1) if commits else source(0, partition=1))
    assert index.count() == (3 if commits else 2)


def test_a_run_that_is_not_first_brings_no_attachments(url: str, index: RunIndex) -> None:
    first = structs.replace(row("run_1"), attachments=[("run_1", 0, "a" * 64, "gcode")])
    other = structs.replace(first, attachments=[("run_1", 0, "b" * 64, "gcode")])
    for each in (first, other):
        with index.transaction([place(0)]) as transaction:
            transaction.add_runs([each])
    assert values(url, "SELECT sha256 FROM attachments") == [("a" * 64,)]


@given(st.lists(st.text(alphabet="\x00\x01\x02ab")))
def test_texts_are_kept_in_their_order_and_one_is_still_the_beginning_of_another(
    texts: list[str],
) -> None:
    assert "\x00" not in "".join(map(kept, texts))
    assert sorted(texts) == sorted(texts, key=kept)
    for a in texts:
        assert [b.startswith(a) for b in texts] == [kept(b).startswith(kept(a)) for b in texts]


def test_runs_are_in_the_order_of_their_bytes(index: RunIndex) -> None:
    names = ["run_B", "run_a", "run_C", "run_-", "run_Z", "run_.", "run_b"]
    with index.transaction() as transaction:
        transaction.add_runs(map(row, names))
    assert [run.run_id for run in index.all_runs()] == sorted(names)


def test_the_scripts_make_the_tables_that_the_queries_are_about(url: str, index: RunIndex) -> None:
    found = inspect(index.database.engine)  # type: ignore[attr-defined]
    assert set(found.get_table_names()) == {*SCHEMA.metadata.tables, "store", "scripts"}
    kinds = {BigInteger: "BIGINT", Boolean: "BOOLEAN", Float: "DOUBLE_PRECISION"}
    for name, table in SCHEMA.metadata.tables.items():
        columns = [
            (column["name"], type(column["type"]).__name__, column["nullable"])
            for column in found.get_columns(name)
        ]
        assert columns == [
            (
                column.name,
                kinds.get(type(column.type), type(column.type).__name__.upper()).replace(
                    "STRING", "TEXT"
                ),
                column.nullable,
            )
            for column in table.columns
        ]
        assert found.get_pk_constraint(name)["constrained_columns"] == [
            column.name for column in table.primary_key
        ]
        assert {each["name"] for each in found.get_indexes(name)} == {
            each.name for each in table.indexes
        }
    query = """SELECT DISTINCT collation_name FROM information_schema.columns
        WHERE table_schema = 'public' AND data_type = 'text'"""
    assert values(url, query) == [("C",)]


def test_scripts_run_once_all_or_none(server: Server) -> None:
    url = server.new_database()
    known = scripts()
    assert [script.number for script in known] == list(range(1, len(known) + 1))
    assert all(script.what.endswith(".") for script in known)
    assert missing_scripts(url) == known
    assert values(url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]
    with pytest.raises(StoreNotReadyError, match=r"lacks the scripts 1 .* run rmos store upgrade"):
        open_postgres_index(url, IDENTITY, None)
    assert run_scripts(url) == known
    assert run_scripts(url) == []
    assert missing_scripts(url) == []


def test_a_database_of_a_newer_version_is_refused(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO scripts VALUES (1000)")
    with pytest.raises(StoreNotReadyError, match="has run the script 1000"):
        open_postgres_index(url, IDENTITY, None)


@pytest.mark.parametrize("setting", ["fsync", "synchronous_commit"])
def test_a_server_that_may_lose_what_it_committed_is_refused(
    servers: Servers, setting: str
) -> None:
    programs = servers.get("18").programs
    with running("18") as server:
        assert server.programs == programs
        url = with_tables(server)
        open_postgres_index(url, IDENTITY, None).close()
        server.stop("fast")
        server.start(f"-c {setting}=off")
        with pytest.raises(StoreNotReadyError, match=f"has {setting} off"):
            open_postgres_index(url, IDENTITY, None)


def test_the_database_of_another_store_is_refused_by_what_differs(url: str) -> None:
    changes: dict[str, Any] = {
        "store_id": "1" * 32,
        "cluster_id": "cluster-2",
        "prefix": "other",
        "epoch": 2,
    }
    for name, value in changes.items():
        other = replace(IDENTITY, **{name: value})
        with pytest.raises(StoreNotReadyError, match=f"to have the {name} {value} of this store"):
            open_postgres_index(url, other, None)
        with pytest.raises(StoreNotReadyError, match=name):
            make_row(url, store_row(other, None))
    with pytest.raises(StoreNotReadyError, match="to have the key a-key of this store, found None"):
        open_postgres_index(url, IDENTITY, "a-key")


def test_a_database_of_no_store_is_refused(server: Server) -> None:
    url = server.new_database()
    run_scripts(url)
    with pytest.raises(StoreNotReadyError, match="belongs to no store yet"):
        open_postgres_index(url, IDENTITY, None)


@pytest.mark.parametrize("change", ["epoch = 2", "key = 'another'"])
def test_a_worker_does_not_go_on_with_the_epoch_or_key_of_before(
    url: str, index: RunIndex, change: str
) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(f"UPDATE store SET {change}")
    with pytest.raises(StoreError, match="was changed meanwhile"), index.transaction([place(0)]):
        raise AssertionError


def test_a_server_that_went_away_is_waited_for_and_then_used_again() -> None:
    with running("18") as server:
        url = with_tables(server)
        with closing(open_postgres_index(url, IDENTITY, None)) as index:
            uses: list[Callable[[], object]] = [
                lambda: index.find("run_1"),
                index.count,
                lambda: _advance(index, {(TOPIC, 0): 1}),
            ]
            for use in uses:
                use()
            server.stop()
            for use in uses:
                with pytest.raises(StoreAwayError, match="nothing was acknowledged"):
                    use()
            server.start()
            for use in uses:
                use()
            assert index.positions(1) == {(TOPIC, 0): 1}


def _advance(index: RunIndex, offsets: dict[Partition, int]) -> None:
    with index.transaction([place(0)]) as transaction:
        transaction.advance(1, offsets)


def test_an_epoch_or_key_is_changed_between_batches_and_ends_those_that_had_the_old(
    url: str, index: RunIndex
) -> None:
    new = store_row(replace(IDENTITY, epoch=2, cluster_id="cluster-2"), None)
    with ThreadPoolExecutor(1) as pool:
        with index.transaction([place(0)]) as transaction:
            changing = pool.submit(change_row, url, new)
            wait_until(lambda: is_waiting(url))
            transaction.advance(1, {(TOPIC, 0): 1})
        changing.result(timeout=60)
    with pytest.raises(StoreError, match="was changed meanwhile"):
        _advance(index, {(TOPIC, 0): 2})
    lock = PostgresLock(url)
    with lock.alone():
        lock.put_in_force("a-key")
    following = replace(IDENTITY, epoch=2, cluster_id="cluster-2")
    with closing(open_postgres_index(url, following, "a-key")) as later:
        assert later.positions(1) == {(TOPIC, 0): 1}
    with pytest.raises(StoreNotReadyError, match="run rmos store new-epoch again"):
        open_postgres_index(url, IDENTITY, "a-key")
    with pytest.raises(StoreNotReadyError, match="store_id"):
        change_row(url, replace(new, store_id="1" * 32))


def with_options(url: str, options: str) -> str:
    return f"{url}&options={quote(options)}"


def test_a_wait_for_a_partition_ends_and_is_begun_again(url: str, index: RunIndex) -> None:
    patient = open_postgres_index(with_options(url, "-c lock_timeout=200ms"), IDENTITY, None)
    with closing(patient), index.transaction([place(0)]) as transaction:
        transaction.advance(1, {(TOPIC, 0): 1})
        with pytest.raises(StoreAwayError, match="lock timeout"):
            _advance(patient, {(TOPIC, 0): 2})
    with closing(open_postgres_index(url, IDENTITY, None)) as later:
        _advance(later, {(TOPIC, 0): 3})
    assert index.positions(1) == {(TOPIC, 0): 3}


def test_a_host_that_was_halted_holds_a_partition_for_no_longer_than_a_minute(
    url: str, index: RunIndex
) -> None:
    options = "-c idle_in_transaction_session_timeout=200ms"
    with closing(open_postgres_index(with_options(url, options), IDENTITY, None)) as halted:

        def advance_too_late() -> None:
            with halted.transaction([place(0)]) as transaction:
                transaction.advance(1, {(TOPIC, 0): 1})
                # The other waits until the server has ended this one.
                _advance(index, {(TOPIC, 0): 2})
                transaction.advance(1, {(TOPIC, 0): 9})

        with pytest.raises(StoreAwayError):
            advance_too_late()
    assert index.positions(1) == {(TOPIC, 0): 2}
    query = "SHOW idle_in_transaction_session_timeout"
    with index.reading() as connection:
        assert connection.exec_driver_sql(query).scalar_one() == "1min"


def test_a_commit_that_is_cut_leaves_nothing_or_all_and_says_so(url: str, index: RunIndex) -> None:
    def advance_and_be_cut() -> None:
        with index.transaction([place(0)]) as transaction:
            transaction.advance(1, {(TOPIC, 0): 1})
            pid = transaction.connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
            values(url, f"SELECT pg_terminate_backend({pid}, 5000)")

    with pytest.raises(StoreAwayError):
        advance_and_be_cut()
    assert index.positions(1) == {}
    _advance(index, {(TOPIC, 0): 2})


def test_a_refusal_names_the_database_without_its_password(server: Server) -> None:
    url = f"postgresql://rmos:secret@/nothing?host={server.folder}"
    with pytest.raises(StoreAwayError, match='"nothing" does not exist') as caught:
        open_postgres_index(url, IDENTITY, None)
    assert "secret" not in str(caught.value)
    assert name_of("postgresql://u:secret@a,b:5/x") == "postgresql://a,b:5/x"
    assert re.fullmatch(r"postgresql://[^@]*", name_of(url))


def test_ports_for_some_of_the_hosts_are_refused() -> None:
    assert name_of("host=a,b port=5 dbname=x") == "postgresql://a:5,b:5/x"
    with pytest.raises(InputError, match="found 2 ports for 3 hosts"):
        name_of("host=a,b,c port=1,2 dbname=x")


def test_who_is_alone_waits_for_batches_and_none_begins_meanwhile(
    url: str, index: RunIndex
) -> None:
    def alone() -> None:
        with PostgresLock(url).alone():
            is_alone.set()
            may_go.wait(60)

    is_alone, may_go = Event(), Event()
    with ThreadPoolExecutor(2) as pool:
        with index.transaction([place(0)]) as transaction:
            waiting = pool.submit(alone)
            wait_until(lambda: is_waiting(url))
            assert not is_alone.is_set()
            transaction.advance(1, {(TOPIC, 0): 1})
        assert is_alone.wait(60)
        batch = pool.submit(_advance, index, {(TOPIC, 0): 2})
        wait_until(lambda: is_waiting(url))
        # No transaction: the server would end one in which nothing is asked for a minute.
        states = "SELECT state FROM pg_stat_activity WHERE query LIKE '%pg_advisory_lock(%'"
        assert values(url, f"{states} AND pid <> pg_backend_pid()") == [("idle",)]
        assert index.positions(1) == {(TOPIC, 0): 1}
        may_go.set()
        waiting.result(timeout=60)
        batch.result(timeout=60)
    assert index.positions(1) == {(TOPIC, 0): 2}


def test_who_was_not_alone_to_the_end_is_told(url: str) -> None:
    ended = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
    with pytest.raises(StoreAwayError), PostgresLock(url).between_batches():
        values(url, ended)


def test_who_lost_the_lock_and_not_the_connection_is_told_before_a_key_changes(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a pooler in transaction mode, whose next statement is another session's."""
    opened: list[Any] = []
    connect = store_row_module.connect
    monkeypatch.setattr(
        store_row_module, "connect", lambda url: opened.append(connect(url)) or opened[-1]
    )
    lock = PostgresLock(url)

    def change_the_key() -> None:
        with lock.alone():
            opened[0].execute("SELECT pg_advisory_unlock_all()")
            with pytest.raises(StoreAwayError, match="no pooler in transaction mode"):
                lock.put_in_force("a-key")
            assert lock.key_in_force() is None

    with pytest.raises(StoreAwayError, match="let go of the lock"):
        change_the_key()
