"""Rows are added to a v1 store by whole files: nothing is lost, half written or overwritten."""

import errno
import json
import os
import signal
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import StoreError
from pipeline.legacy.v1.file import V1Store
from tests.ledger.ledgers import WatchedLogCalls
from tests.storage.stores import in_child, in_children

OLD = {"run_old": {"run_id": "run_old", "status": "OK", "notes": "Ahorn ä", "score": 75.0}}
NEW = {"run_a": {"run_id": "run_a"}, "run_z": {"run_id": "run_z", "errors": ["x"]}}
ALL_CALLS = {"open_folder", "open_new", "write", "set_mode", "fsync", "close", "replace"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "runs.json"
    file.write_text(json.dumps(OLD, indent=2, sort_keys=True))
    return file


def add(path: Path, rows: dict[str, Any] = NEW, calls: WatchedLogCalls | None = None) -> None:
    add_to(V1Store(path, calls), rows)


def add_to(store: V1Store, rows: dict[str, Any]) -> None:
    with store.transaction() as transaction:
        for run_id, row in rows.items():
            transaction.add(run_id, row)


def check_only_the_file_is_there(path: Path) -> None:
    assert sorted(os.listdir(path.parent)) == ["runs.json", "runs.json.lock"]


def test_the_file_is_that_which_v1_would_have_written(path: Path) -> None:
    add(path)
    assert path.read_text() == json.dumps({**OLD, **NEW}, indent=2, sort_keys=True)
    check_only_the_file_is_there(path)


def test_a_file_without_rows_is_made_only_where_there_is_none(path: Path) -> None:
    before = path.read_bytes()
    V1Store(path).make()
    assert path.read_bytes() == before
    path.unlink()
    V1Store(path).make()
    assert path.read_text() == "{}"
    check_only_the_file_is_there(path)


def test_a_new_file_may_be_read_by_all_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "runs.json"
    add(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    path.chmod(0o640)
    add(path, {"run_b": {}})
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path, path: Path) -> None:
    link = tmp_path / "elsewhere" / "v1.json"
    link.parent.mkdir()
    link.symlink_to(path)
    add(link)
    assert link.is_symlink()
    assert set(json.loads(path.read_text())) == {*OLD, *NEW}


def test_a_row_is_never_overwritten(path: Path) -> None:
    with pytest.raises(ValueError, match="run_old in the v1 store"):
        add(path, {"run_new": {}, "run_old": {}})
    assert json.loads(path.read_text()) == OLD


def test_nothing_to_add_touches_nothing(path: Path) -> None:
    calls = WatchedLogCalls()
    made: list[str] = []
    calls.before = lambda name, arguments: made.append(name)
    add(path, {}, calls)
    assert made == []


def test_what_others_have_written_meanwhile_is_seen(path: Path) -> None:
    store = V1Store(path)
    assert set(store.texts()) == {"run_old"}
    add(path)
    assert set(store.texts()) == {*OLD, *NEW}
    path.write_text("{}")
    assert store.texts() == {}
    path.unlink()
    assert (store.texts(), store.exists()) == ({}, False)


def test_a_damaged_file_is_reported_and_not_replaced(path: Path) -> None:
    path.write_text('{"run_old": {')
    with pytest.raises(StoreError, match=r"line 1, byte 13; nothing was acknowledged; put back"):
        add(path)
    assert path.read_text() == '{"run_old": {'


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """An unmounted volume must not become a new store."""
    with pytest.raises(StoreError, match=r"No such file or directory.*nothing was acknowledged"):
        add(tmp_path / "volume" / "runs.json")


def calls_of_a_write(path: Path, moment: str) -> list[str]:
    calls = WatchedLogCalls()
    made: list[str] = []
    setattr(calls, moment, lambda name, arguments: made.append(name))
    add(path, calls=calls)
    return made


def each_call(path: Path, moment: str = "before") -> Iterator[int]:
    """Yield the number of each call of a write, over the old file each time."""
    before = path.read_bytes()
    total = len(calls_of_a_write(path, moment))
    for nth in range(total):
        path.write_bytes(before)
        yield nth


def test_a_write_makes_every_call(path: Path) -> None:
    assert set(calls_of_a_write(path, "before")) == ALL_CALLS


@pytest.mark.parametrize(
    ("moment", "number"),
    [("before", errno.EIO), ("before", errno.ENOSPC), ("after", errno.EIO)],
)
def test_after_a_fault_of_any_call_the_file_is_whole(path: Path, moment: str, number: int) -> None:
    for nth in each_call(path, moment):
        calls = WatchedLogCalls()
        made: list[str] = []

        def fail(
            name: str, _arguments: tuple[Any, ...], nth: int = nth, made: list[str] = made
        ) -> None:
            made.append(name)
            if len(made) == nth + 1:
                raise OSError(number, os.strerror(number))

        setattr(calls, moment, fail)
        store = V1Store(path, calls)
        with pytest.raises(StoreError, match="nothing was acknowledged"):
            add_to(store, NEW)
        # No second try in place; what the store tells next is what the file says.
        assert set(made[nth + 1 :]) <= {"close", "unlink"}, nth
        assert json.loads(path.read_text()) in (OLD, {**OLD, **NEW}), nth
        assert set(store.texts()) == set(json.loads(path.read_text())), nth
        check_only_the_file_is_there(path)
        add(path, {"run_next": {}})
        assert set(OLD) | {"run_next"} <= set(json.loads(path.read_text())), nth


def test_killed_before_any_call_the_file_is_whole(path: Path) -> None:
    for nth in each_call(path):

        def write_and_die(nth: int = nth) -> bytes:
            calls = WatchedLogCalls()
            countdown = iter(range(nth, -1, -1))

            def die(_name: str, _arguments: tuple[Any, ...]) -> None:
                if next(countdown) == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

            calls.before = die
            add(path, calls=calls)
            return b"alive"

        status, answer = in_child(write_and_die)
        assert (os.WTERMSIG(status), answer) == (signal.SIGKILL, b""), nth
        assert json.loads(path.read_text()) in (OLD, {**OLD, **NEW}), nth
        add(path, {"run_next": {}})
        assert set(OLD) | {"run_next"} <= set(json.loads(path.read_text())), nth
        check_only_the_file_is_there(path)


def test_the_new_file_is_flushed_before_it_gets_the_name_and_the_folder_after(path: Path) -> None:
    made = calls_of_a_write(path, "before")
    assert made.index("fsync") < made.index("replace")
    assert "fsync" in made[made.index("replace") :]


def test_two_processes_that_add_at_once_lose_no_row(path: Path) -> None:
    def add_ten(worker: int) -> None:
        for number in range(10):
            add(path, {f"run_{worker}_{number}": {}})

    assert in_children(partial(add_ten, worker) for worker in range(4)) == [0] * 4
    assert len(json.loads(path.read_text())) == 1 + 40
