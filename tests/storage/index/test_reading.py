"""The index for readers: beside writers, behind killed ones, in copies, without rights to write.

What a reader gets is compared with what was committed; what it leaves, with what was there.
"""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from pipeline.disk.sqlite.reading import Files, Way, open_nothing, open_to_read
from pipeline.disk.volume import INDEX_NAME
from pipeline.errors import StoreError
from pipeline.storage.index.run_index import RunIndex, open_index_to_read
from pipeline.storage.index.schema import SCHEMA
from pipeline.storage.reader import RunReader, open_reader
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import open_store_to_write
from schemas.run_filter import RunFilter
from tests.builders import run_request
from tests.disk.mounts import mounted, why_not
from tests.storage.stores import fold_log, in_child, index_at, judged_record, make_store

USER = 54_321
NO_MOUNT = why_not()


@pytest.fixture
def root() -> Iterator[Path]:
    """Return a store that any user can get to, with nothing in it."""
    folder = Path(tempfile.mkdtemp(prefix="rmos-reading-"))
    folder.chmod(0o755)
    (folder / "store").mkdir()
    make_store(folder / "store")
    yield folder / "store"
    shutil.rmtree(folder)


def add(store: RunStore, number: int) -> None:
    request = run_request(run_id=f"run_{number}")
    store.commit([judged_record(request, offset=number)])


def run_ids(reader: RunReader) -> set[str]:
    """Return what a reader finds by each of its two ways, which must be the same."""
    listed = {item["run_id"] for item in reader.list_runs(RunFilter()).items}
    assert listed == set(reader.run_ids())
    for run_id in listed:
        assert reader.find(run_id).run.run_id == run_id
    return listed


def left(root: Path) -> dict[str, tuple[int, int, int]]:
    """Return each file and folder with its inode, size and time."""
    return {
        path.relative_to(root).as_posix(): (state.st_ino, state.st_size, state.st_mtime_ns)
        for path in [root, *root.rglob("*")]
        if (state := path.stat())
    }


def killed(root: Path, *numbers: int) -> None:
    """Let a writer store runs and die with its log beside the index."""

    def write() -> bytes:
        store = RunStore(open_store_to_write(root))
        for number in numbers:
            add(store, number)
        os._exit(9)

    status, _ = in_child(write)
    assert os.waitstatus_to_exitcode(status) == 9
    assert Files.of(root / INDEX_NAME).way is Way.SHARED


def stopped(root: Path, *numbers: int) -> None:
    with closing(RunStore(open_store_to_write(root))) as store:
        for number in numbers:
            add(store, number)
    assert Files.of(root / INDEX_NAME).way is Way.STILL


def copied(root: Path, *numbers: int) -> None:
    """Leave what a copy has that was made without the shared memory."""
    killed(root, *numbers)
    (root / f"{INDEX_NAME}-shm").unlink()
    assert Files.of(root / INDEX_NAME).way is Way.LOG_ALONE


STORES: dict[str, Callable[..., None]] = {"killed": killed, "stopped": stopped, "copied": copied}
in_each_state = pytest.mark.parametrize("state", STORES)


@in_each_state
def test_a_reader_finds_all_and_leaves_everything_as_it_is(root: Path, state: str) -> None:
    STORES[state](root, 0, 1)
    before = left(root)
    with closing(open_reader(root)) as reader:
        assert run_ids(reader) == {"run_0", "run_1"}
    after = left(root)
    # SQLite notes its readers in the shared memory of a writer that was killed.
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} <= {f"{INDEX_NAME}-shm"}


def test_a_store_without_an_index_has_nothing_and_gets_none(root: Path) -> None:
    before = left(root)
    with closing(open_reader(root)) as reader:
        assert run_ids(reader) == set()
        assert left(root) == before
        with closing(RunStore(open_store_to_write(root))) as store:
            add(store, 0)
            # As soon as there is one it is read.
            assert run_ids(reader) == {"run_0"}


@in_each_state
def test_what_a_writer_stores_later_is_seen_at_once(root: Path, state: str) -> None:
    STORES[state](root, 0)
    with closing(open_reader(root)) as reader:
        assert run_ids(reader) == {"run_0"}
        with closing(RunStore(open_store_to_write(root))) as store:
            for number in (1, 2):
                add(store, number)
                assert len(run_ids(reader)) == number + 1
        assert len(run_ids(reader)) == 3


@pytest.mark.parametrize("look", [RunIndex.looking_up, RunIndex.reading])
@pytest.mark.parametrize("state", ["stopped", "copied"])
def test_what_is_read_while_a_writer_begins_is_refused(
    root: Path, state: str, look: Callable[[RunIndex], AbstractContextManager[object]]
) -> None:
    STORES[state](root, 0)
    with closing(open_index_to_read(root)) as index, ExitStack() as stack:
        with pytest.raises(StoreError, match=r"began to write .* ask again"), look(index):
            store = stack.enter_context(closing(RunStore(open_store_to_write(root))))
        add(store, 1)
        with look(index):
            assert index.count() == 2


def test_nothing_is_an_index_with_every_table(root: Path) -> None:
    stopped(root, 0)
    names = "SELECT name FROM sqlite_master ORDER BY name"
    with (
        closing(open_nothing(SCHEMA.metadata)) as nothing,
        closing(open_to_read(root / INDEX_NAME)) as whole,
    ):
        assert nothing.execute(names).fetchall() == whole.execute(names).fetchall()
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            whole.execute("DELETE FROM runs")


def obey(root: Path, line: Callable[[], str], answer: Callable[[bytes], object]) -> None:
    """Be a worker that does what it is told, line by line."""
    store: RunStore | None = None
    while words := line().split():
        store = store or RunStore(open_store_to_write(root))
        if words[0] == "add":
            add(store, int(words[1]))
        elif words[0] == "fold":
            fold_log(store.index)
        else:
            store.close()
            store = None
        answer(b".")


@contextmanager
def worker(root: Path) -> Iterator[Callable[[str], None]]:
    """Give what tells a worker in a process of its own what to do, and waits until it is done.

    SQLite shares what it knows of a file among the connections of a process, and so who may write.
    """
    (orders, ordered), (answers, answered) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ordered)
        try:
            with os.fdopen(orders) as lines:
                obey(root, lines.readline, lambda done: os.write(answered, done))
        finally:
            os._exit(0)
    os.close(answered)
    os.close(orders)

    def told(order: str) -> None:
        os.write(ordered, f"{order}\n".encode())
        assert os.read(answers, 1) == b"."

    try:
        yield told
    finally:
        os.close(ordered)
        os.waitpid(child, 0)
        os.close(answers)


@contextmanager
def read_only_mount(root: Path) -> Iterator[Path]:
    with mounted(root.parent / "mount", "--bind", str(root)) as mount:
        os.system(f"mount -o remount,ro,bind {mount}")  # a path of ours
        with pytest.raises(OSError, match="Read-only"):
            (mount / "probe").touch()
        yield mount


@pytest.mark.skipif(NO_MOUNT is not None, reason=NO_MOUNT or "")
@in_each_state
def test_a_volume_that_is_mounted_read_only_is_read_beside_its_worker(
    root: Path, state: str
) -> None:
    STORES[state](root, 0)
    with (
        worker(root) as told,
        read_only_mount(root) as mount,
        closing(open_reader(mount)) as reader,
    ):
        assert run_ids(reader) == {"run_0"}
        for number in range(1, 5):
            told(f"add {number}")
            assert len(run_ids(reader)) == number + 1
            told("fold")
            assert len(run_ids(reader)) == number + 1
        told("stop")
        assert len(run_ids(reader)) == 5


@pytest.mark.skipif(NO_MOUNT is not None, reason=NO_MOUNT or "")
def test_an_empty_store_on_a_read_only_volume_has_nothing(root: Path) -> None:
    with (
        worker(root) as told,
        read_only_mount(root) as mount,
        closing(open_reader(mount)) as reader,
    ):
        assert run_ids(reader) == set()
        told("add 0")
        assert run_ids(reader) == {"run_0"}


def as_user(work: Callable[[], bytes]) -> bytes:
    def do() -> bytes:
        os.setgroups([])
        os.setgid(USER)
        os.setuid(USER)
        return work()

    status, said = in_child(do)
    assert status == 0
    return said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
@in_each_state
def test_another_user_reads_beside_the_worker(root: Path, state: str) -> None:
    STORES[state](root, 0)
    for path in root.rglob("*"):
        path.chmod(path.stat().st_mode | 0o044)

    def read() -> bytes:
        with pytest.raises(PermissionError):
            (root / "probe").touch()
        with closing(open_reader(root)) as reader:
            return ",".join(sorted(run_ids(reader))).encode()

    assert as_user(read) == b"run_0"
    with closing(RunStore(open_store_to_write(root))) as store:
        add(store, 1)
        assert as_user(read) == b"run_0,run_1"
        add(store, 2)
        assert as_user(read) == b"run_0,run_1,run_2"


def test_a_writer_looks_up_in_its_own_files(root: Path) -> None:
    stopped(root, 0)
    with closing(index_at(root / INDEX_NAME)) as index:
        assert index.find("run_0") is not None
