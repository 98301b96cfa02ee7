"""A fault at every step of a batch: nothing is acknowledged, nothing half done is left.

Each fault is followed by what a restart does: the store is opened again and given the same
records. Then files, rows and events must be those of a store that never failed.
"""

import errno
import itertools
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from pipeline.disk.faults import store_faults
from pipeline.errors import StoreError
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.batch_store import RejectLimit
from tests.builders import attachment, incomplete_request, red_request, run_request
from tests.disk.mounts import mounted, why_not
from tests.storage.stores import (
    CALL_NAMES,
    NamedCalls,
    WatchedCalls,
    events,
    files,
    in_child,
    judged_record,
    kinds,
    make_store,
    opened,
    rows,
    tombstone,
)

LIMIT = RejectLimit("rmos.persist")
WRITERS = {"group commit": WatchedCalls, "fallback": NamedCalls}
_OF_BOTH = {"open_folder", "make_folder", "write", "close"}
ALL_CALLS = {
    "group commit": {*_OF_BOTH, "open_unnamed", "mode_of", "syncfs", "link_unnamed"},
    "fallback": {*_OF_BOTH, "open_new", "set_mode", "fsync", "link_named", "unlink"},
}
"""Those that creating new files needs; comparing with old ones opens them too."""


@cache
def batch() -> tuple[JudgedRecord, ...]:
    """Return a batch with every kind of file and of record."""
    whole = run_request(run_id="run_a", attachments=[attachment(b"part")])
    return (
        judged_record(whole, 0),
        judged_record(red_request(run_id="run_b"), 1),
        tombstone(2),
        judged_record(whole, 3),
        judged_record(run_request(run_id="run_a", notes="changed"), 4),
        judged_record(incomplete_request(run_id="run_c", created_at_utc="2026-01-01T00:00:00Z"), 5),
    )


OUTCOMES = ["persisted", "persisted", "TOMBSTONE", "duplicate", "RUN_CONFLICT", "persisted"]


class Expected:
    """What a store that never failed holds and tells."""

    def __init__(self, root: Path, calls: WatchedCalls) -> None:
        with opened(root, calls) as store:
            result = store.commit(batch(), LIMIT)
        assert kinds(result) == OUTCOMES
        self.events = events(batch(), result)
        self.files = files(root)
        self.rows = rows(root)

    def check_after_restart(self, root: Path, calls: WatchedCalls, fault: str) -> None:
        with opened(root, calls) as store:
            result = store.commit(batch(), LIMIT)
        assert kinds(result) == OUTCOMES, fault
        assert events(batch(), result) == self.events, fault
        assert files(root) == self.files, fault
        assert rows(root) == self.rows, fault


@pytest.fixture(params=WRITERS)
def writer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def expected(tmp_path: Path, writer: str) -> Expected:
    return Expected(tmp_path / "never_failed", WRITERS[writer]())


@pytest.fixture
def new_root(tmp_path: Path) -> Callable[[], Path]:
    """Give empty stores, each a copy of one."""
    template = tmp_path / "template"
    with opened(template):
        pass
    numbers = itertools.count()
    return lambda: shutil.copytree(template, tmp_path / f"store_{next(numbers)}")


class Fault:
    """Fails one call: the `nth` of one name, or of all; counts what is called afterwards."""

    def __init__(self, nth: int, name: str | None, number: int = errno.EIO) -> None:
        self.nth = nth
        self.name = name
        self.number = number
        self.seen = 0
        self.called_afterwards: list[str] = []

    def __call__(self, name: str, arguments: tuple[Any, ...]) -> None:
        if self.seen > self.nth:
            self.called_afterwards.append(name)
        elif self.name in {name, None}:
            self.seen += 1
            if self.seen > self.nth:
                raise OSError(self.number, os.strerror(self.number))


def calls_of_batch(root: Path, calls: WatchedCalls, moment: str = "before") -> list[str]:
    """Return the names of all calls that the batch makes."""
    made: list[str] = []
    with opened(root, calls) as store:
        setattr(calls, moment, lambda name, arguments: made.append(name))
        store.commit(batch(), LIMIT)
        setattr(calls, moment, None)
    return made


def test_the_batch_makes_every_call(writer: str, new_root: Callable[[], Path]) -> None:
    made = calls_of_batch(new_root(), WRITERS[writer]())
    assert set(made) == ALL_CALLS[writer]
    assert set().union(*ALL_CALLS.values()) == set(CALL_NAMES) - {"open_existing"}


@pytest.mark.parametrize(
    ("moment", "number"),
    [("before", errno.EIO), ("before", errno.ENOSPC), ("after", errno.EIO)],
)
def test_after_a_fault_of_any_call_a_restart_does_it_all(
    expected: Expected, writer: str, new_root: Callable[[], Path], moment: str, number: int
) -> None:
    """Fail the n-th call before the kernel does it, or report a failure of what it did."""
    total = len(calls_of_batch(new_root(), WRITERS[writer](), moment))
    advice = {errno.EIO: "check the disk", errno.ENOSPC: "free some space"}[number]
    for nth in range(total):
        root = new_root()
        calls = WRITERS[writer]()
        fault = Fault(nth, None, number)
        with opened(root, calls) as store:
            setattr(calls, moment, fault)
            with pytest.raises(StoreError, match=f"nothing was acknowledged; {advice}"):
                store.commit(batch(), LIMIT)
        # What is open is closed, a temporary name removed; nothing else, and no second try.
        assert set(fault.called_afterwards) <= {"close", "unlink"}, nth
        assert all(not found for found in rows(root).values()), nth
        expected.check_after_restart(root, WRITERS[writer](), f"call {nth}")


@pytest.mark.slow
def test_killed_before_any_call_a_restart_does_it_all(
    expected: Expected, writer: str, new_root: Callable[[], Path]
) -> None:
    total = len(calls_of_batch(new_root(), WRITERS[writer]()))
    for nth in range(total):
        root = new_root()

        def commit_and_die(root: Path = root, nth: int = nth) -> bytes:
            calls = WRITERS[writer]()
            countdown = iter(range(nth, -1, -1))

            def die(name: str, arguments: tuple[Any, ...]) -> None:
                if next(countdown) == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

            with opened(root, calls) as store:
                calls.before = die
                store.commit(batch(), LIMIT)
            return b"alive"

        status, answer = in_child(commit_and_die)
        assert (os.WTERMSIG(status), answer) == (signal.SIGKILL, b""), nth
        assert not any(rows(root).values()), nth
        expected.check_after_restart(root, WRITERS[writer](), f"killed before call {nth}")


STATEMENTS = ("BEGIN", "SELECT", "INSERT INTO runs", "INSERT INTO positions", "COMMIT")


@contextmanager
def at_statement(moment: str, start: str, act: Callable[[], None]) -> Iterator[None]:
    """Act before or after the first statement that starts so."""

    def listen(connection: object, cursor: object, statement: str, *rest: object) -> None:
        if statement.startswith(start):
            act()

    name = f"{moment}_cursor_execute"
    event.listen(Engine, name, listen)
    try:
        yield
    finally:
        event.remove(Engine, name, listen)


@pytest.mark.parametrize("name", ["open_existing", "fsync", "syncfs", "close"])
def test_after_a_fault_while_files_are_compared_a_restart_does_it_all(
    expected: Expected, writer: str, new_root: Callable[[], Path], name: str
) -> None:
    """All files are there without a row, as after a death between link and commit."""

    def fail() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    root = new_root()
    with (
        opened(root, WRITERS[writer]()) as store,
        at_statement("before", "COMMIT", fail),
        pytest.raises(StoreError),
    ):
        store.commit(batch(), LIMIT)
    assert (files(root), rows(root)["runs"]) == (expected.files, [])
    if name in ALL_CALLS[writer] | {"open_existing"}:
        calls = WRITERS[writer]()
        with opened(root, calls) as store:
            calls.before = fault = Fault(0, name)
            with pytest.raises(StoreError, match="check the disk"):
                store.commit(batch(), LIMIT)
        assert set(fault.called_afterwards) <= {"close", "unlink"}
    expected.check_after_restart(root, WRITERS[writer](), name)


@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_a_statement_of_the_index_a_restart_does_it_all(
    expected: Expected, writer: str, new_root: Callable[[], Path], statement: str, moment: str
) -> None:
    root = new_root()

    def commit_and_die() -> bytes:
        with (
            opened(root, WRITERS[writer]()) as store,
            at_statement(moment, statement, lambda: os.kill(os.getpid(), signal.SIGKILL)),
        ):
            store.commit(batch(), LIMIT)
        return b"alive"

    status, answer = in_child(commit_and_die)
    assert (os.WTERMSIG(status), answer) == (signal.SIGKILL, b"")
    expected.check_after_restart(root, WRITERS[writer](), statement)


def test_an_index_that_cannot_grow_acknowledges_nothing(
    expected: Expected, writer: str, new_root: Callable[[], Path]
) -> None:
    """A full disk as SQLite reports it: the index may not have one page more."""
    root = new_root()
    many = [
        judged_record(run_request(run_id=f"run_{n}", notes="n", machine_id="m" * 200), n + 10)
        for n in range(40)
    ]

    def limit(connection: sqlite3.Connection, record: object) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages + 1}")

    event.listen(Engine, "connect", limit)
    try:
        with (
            opened(root, WRITERS[writer]()) as store,
            pytest.raises(StoreError, match=r"No space left.*nothing was acknowledged; free some"),
        ):
            store.commit([*batch(), *many], LIMIT)
    finally:
        event.remove(Engine, "connect", limit)
    assert not any(rows(root).values())
    # Rows come first, so nothing was made for them to lead to.
    assert files(root) == {}
    with opened(root, WRITERS[writer]()) as store:
        assert set(kinds(store.commit([*batch(), *many], None))) >= {"persisted"}
    assert expected.files.items() <= files(root).items()


@pytest.mark.parametrize("spare", [0, 1, 4000, 9000, 20_000])
def test_a_commit_that_fails_on_the_disk_reports_the_disks_fault(
    expected: Expected, writer: str, new_root: Callable[[], Path], spare: int
) -> None:
    """The log of the index may not grow: SQLite's own write fails, and it rolls back by itself."""
    root = new_root()

    def commit_without_room() -> bytes:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with opened(root, WRITERS[writer]()) as store:
            # Opening has not written to the log, so the first write of the commit starts it.
            limit = len(max(expected.files.values(), key=len)) + spare
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            try:
                store.commit(batch(), LIMIT)
            except StoreError as error:
                return str(error).encode()
        return b"committed"

    status, answer = in_child(commit_without_room)
    assert status == 0
    if answer != b"committed":
        assert b"disk I/O error" in answer or b"disk is full" in answer
        assert b"nothing was acknowledged" in answer
        assert not any(rows(root).values())
    else:
        assert spare > 9000, "the limit was meant to be met"
    expected.check_after_restart(root, WRITERS[writer](), f"limit {spare}")


def test_a_process_with_256_descriptors_says_what_to_raise_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    root = tmp_path / "store"
    make_store(root)
    records = [
        judged_record(run_request(run_id=f"run_{n}", attachments=[attachment(b"%d" % n)]), n)
        for n in range(300)
    ]

    def commit_with_few_descriptors() -> bytes:
        with opened(root) as store:
            resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(3):
                with pytest.raises(StoreError, match=r"Too many open files.*ulimit -n"):
                    store.commit(records)
            assert len(os.listdir("/proc/self/fd")) == before
            # A smaller batch still goes through.
            assert kinds(store.commit(records[:20])) == ["persisted"] * 20
        return b"done"

    assert in_child(commit_with_few_descriptors) == (0, b"done")
    assert len([name for name in files(root) if name.startswith("runs/")]) == 20


@pytest.mark.parametrize("calls", ["pwrite64", "fdatasync,fsync"])
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_killed_at_any_write_or_flush_of_sqlite_a_restart_does_it_all(
    tmp_path: Path, new_root: Callable[[], Path], calls: str
) -> None:
    expected = Expected(tmp_path / "never_failed", WatchedCalls())
    for nth in range(1, 100):
        root = new_root()
        if not kill_at_call_of_sqlite(root, calls, nth):
            break
        expected.check_after_restart(root, WatchedCalls(), f"{calls} {nth}")
    assert nth > (3 if calls == "pwrite64" else 1)


def kill_at_call_of_sqlite(root: Path, calls: str, nth: int) -> bool:
    """Commit in a child that strace kills at its n-th such call; tell whether it came to that."""
    child = os.fork()
    if child == 0:
        try:
            with opened(root) as store:
                os.kill(os.getpid(), signal.SIGSTOP)
                store.commit(batch(), LIMIT)
                os._exit(0)
        finally:
            os._exit(1)
    os.waitpid(child, os.WUNTRACED)
    trace = [
        *("strace", "-f", "-e", f"trace={calls}"),
        *("-e", f"inject={calls}:signal=SIGKILL:when={nth}", "-p", str(child)),
    ]
    with subprocess.Popen(trace, stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        attached = strace.stderr.readline()
        assert "attached" in attached, attached
        os.kill(child, signal.SIGCONT)
        strace.stderr.read()
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        return False
    return True


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system with room for one store, or say why there can be none."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with ExitStack() as stack:
        try:
            disk = mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=400k", "tmpfs")
            folder = stack.enter_context(disk)
        except OSError as error:
            pytest.skip(f"no file system can be mounted here: {error}")
        yield folder


def test_a_disk_that_is_really_full_says_so_and_goes_on_after_space_is_freed(
    small_disk: Path,
) -> None:
    ballast = small_disk / "ballast"
    root = small_disk / "store"
    with opened(root) as store:
        with pytest.raises(OSError, match="No space left"):
            ballast.write_bytes(bytes(1 << 20))
        with pytest.raises(StoreError, match=r"No space left on device.*free some space"):
            store.commit(batch(), LIMIT)
        assert files(root) == {}
        ballast.unlink()
        assert kinds(store.commit(batch(), LIMIT)) == OUTCOMES


def test_the_sentence_names_the_file_that_could_not_be_linked(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        shutil.rmtree(tmp_path / "store/runs", ignore_errors=True)
        (tmp_path / "store/runs").write_bytes(b"")
        with pytest.raises(StoreError, match="Not a directory at runs; nothing was acknowledged"):
            store.commit(batch(), LIMIT)


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some space, then start again"),
        (errno.EDQUOT, "raise the quota"),
        (errno.EROFS, "mount the volume for writing"),
        (errno.EIO, "check the disk before you start again"),
        (errno.EACCES, "give this user the rights"),
        (errno.EXDEV, "keep all of the store on one file system"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENXIO, "check the disk"),
    ],
)
def test_each_fault_says_what_to_do(tmp_path: Path, number: int, advice: str) -> None:
    with pytest.raises(StoreError, match=advice) as caught, store_faults(tmp_path):
        raise OSError(number, os.strerror(number), "/proc/self/fd/3", None, "a.json")
    assert f"{os.strerror(number)} at a.json" in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_fault_without_a_number_is_reported_by_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="the cable is out"), store_faults(tmp_path):
        raise OSError("the cable is out")


class _NoMemoryInSqlite(sqlite3.OperationalError):
    sqlite_errorcode = sqlite3.SQLITE_NOMEM


def _sqlite_without_memory() -> OperationalError:
    cause = _NoMemoryInSqlite("out of memory")
    error = OperationalError("INSERT", {}, cause)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "fault",
    [OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), _sqlite_without_memory()],
    ids=["kernel", "sqlite"],
)
def test_memory_that_is_short_is_no_fault_of_the_disk(tmp_path: Path, fault: Exception) -> None:
    with pytest.raises(MemoryError, match="No memory is left") as caught, store_faults(tmp_path):
        raise fault
    assert "disk" not in str(caught.value)
