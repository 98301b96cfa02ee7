"""Stores to test on: what is in them, and system calls that can be watched, failed or killed."""

import json
import os
import sqlite3
import stat
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from pipeline.core.record import RecordId, RecordSource
from pipeline.core.runs.event import run_event
from pipeline.core.runs.verdict import judge_run_record
from pipeline.core.store.identity import StoreIdentity
from pipeline.disk.sqlite.database import SqliteDatabase
from pipeline.disk.store_identity import create_store
from pipeline.disk.system_calls import SystemCalls
from pipeline.ledger.writer import Ledger
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.batch_store import BatchResult
from pipeline.storage.index.run_index import INDEX_FILE, RunIndex
from pipeline.storage.index.schema import SCHEMA
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import open_store_to_write
from tests.builders import record

TOPIC = "rmos.runs.requests"
TIMESTAMP_MS = 1_766_066_602_123
# All but what is made of others.
CALL_NAMES = tuple(
    name for name in vars(SystemCalls) if not name.startswith("_") and name != "write_all"
)
_TABLES = (
    *("runs", "attachments", "withheld_blobs", "withheld_payloads", "advisories"),
    *("positions", "flood_windows"),
)
_DERIVED = {INDEX_FILE, f"{INDEX_FILE}-wal", f"{INDEX_FILE}-shm", "index.lock", "store.json"}


def make_store(root: Path) -> StoreIdentity:
    """Make an empty store at `root`."""
    return create_store(root, cluster_id="cluster-1", prefix="rmos", store_id="0" * 32)


@contextmanager
def opened(
    root: Path, calls: SystemCalls | None = None, *, ledger: Ledger | None = None
) -> Iterator[RunStore]:
    """Open the store at `root`, made where there is none."""
    if not (root / "store.json").exists():
        make_store(root)
    store = RunStore(open_store_to_write(root, calls), ledger=ledger)
    try:
        yield store
    finally:
        store.close()


def source(offset: int, *, partition: int = 0, epoch: int = 1) -> RecordSource:
    """Return a place in the request topic."""
    return RecordSource(epoch, RecordId(TOPIC, partition, offset))


def judged_record(
    request: dict[str, Any], offset: int = 0, *, partition: int = 0, epoch: int = 1
) -> JudgedRecord:
    """Return the judged record that carries `request` at `offset`."""
    place = source(offset, partition=partition, epoch=epoch)
    key, value = record(request)
    return JudgedRecord.of(place, judge_run_record(key, value), value, TIMESTAMP_MS)


def tombstone(offset: int, *, partition: int = 0) -> JudgedRecord:
    """Return a record that can never make a run."""
    place = source(offset, partition=partition)
    return JudgedRecord.of(place, judge_run_record(b"k", None), None, TIMESTAMP_MS)


def kinds(result: BatchResult) -> list[str]:
    """Return what became of each record, in one word each."""
    return [outcome.code or outcome.kind for outcome in result.outcomes]


def events(records: Iterable[JudgedRecord], result: BatchResult) -> list[bytes]:
    """Return the event of each record."""
    pairs = zip(result.outcomes, records, strict=True)
    return [run_event(outcome, record.source) for outcome, record in pairs]


def files(root: Path) -> dict[str, bytes]:
    """Return every file of the store but its identity and its index, by path."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if name not in _DERIVED and stat.S_ISREG(path.lstat().st_mode):
            found[name] = path.read_bytes()
    return found


def rows(root: Path) -> dict[str, list[dict[str, Any]]]:
    """Return every row of the index, read by SQLite itself."""
    with closing(sqlite3.connect(root / INDEX_FILE)) as connection:
        connection.row_factory = sqlite3.Row
        return {
            table: sorted(
                (dict(row) for row in connection.execute(f"SELECT * FROM {table}")),
                key=lambda row: json.dumps(row, sort_keys=True),
            )
            for table in _TABLES
        }


def index_at(path: Path, *, may_be_new: bool = True) -> RunIndex:
    """Open the index in the file at `path`, wherever it is."""
    return RunIndex(SqliteDatabase(path, SCHEMA, may_be_new=may_be_new))


def fold_log(index: RunIndex) -> None:
    """Move the write-ahead log into the file."""
    assert isinstance(index.database, SqliteDatabase)
    index.database.fold_log()


def row_of(root: Path, run_id: str) -> dict[str, Any]:
    """Return the row of one run."""
    (found,) = [row for row in rows(root)["runs"] if row["run_id"] == run_id]
    return found


def change_index(root: Path, statement: str, *values: object) -> None:
    """Change the index behind the program's back."""
    with closing(sqlite3.connect(root / INDEX_FILE)) as connection, connection:
        connection.execute(statement, values)


def open_descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


Hook = Callable[[str, tuple[Any, ...]], None]


class WatchedCalls(SystemCalls):
    """System calls that tell `before` and `after` of each call; what those raise is its result."""

    def __init__(self) -> None:
        self.before: Hook | None = None
        self.after: Hook | None = None


class NamedCalls(WatchedCalls):
    """Those of a file system without O_TMPFILE, where every file needs a temporary name."""


def watched(calls: type[SystemCalls], name: str) -> Callable[..., Any]:
    """Return the method `name` of `calls`, told before and after."""
    real = getattr(calls, name)

    def call(self: WatchedCalls, *arguments: Any) -> Any:
        if name == "close" and self.before is not None:
            # The kernel closes a descriptor whatever it reports (close(2)).
            real(self, *arguments)
            self.before(name, arguments)
            return None
        if self.before is not None:
            self.before(name, arguments)
        result = real(self, *arguments)
        if self.after is not None:
            try:
                self.after(name, arguments)
            except OSError:
                if name.startswith("open_"):
                    os.close(result)
                raise
        return result

    return call


for _name in CALL_NAMES:
    setattr(WatchedCalls, _name, watched(SystemCalls, _name))


def open_unnamed_unsupported(self: SystemCalls, folder: int) -> int:
    """Refuse as a file system without O_TMPFILE does."""
    del self, folder
    raise OSError(95, "Operation not supported")


NamedCalls.open_unnamed = open_unnamed_unsupported  # type: ignore[method-assign]


def in_child(work: Callable[[], bytes]) -> tuple[int, bytes]:
    """Do `work` in a forked child; return its wait status and what it returned."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            os.write(writing, work())
            os._exit(0)
        except BaseException:  # noqa: BLE001  # the child may not go on as a second test run
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    return status, answer


def in_children(works: Iterable[Callable[[], None]]) -> list[int]:
    """Do each of `works` in a forked child, all at once; return their wait statuses."""
    children = []
    for work in works:
        child = os.fork()
        if child == 0:
            try:
                work()
                os._exit(0)
            except BaseException:  # noqa: BLE001  # the child may not go on as a second test run
                traceback.print_exc(file=sys.__stderr__)
            finally:
                os._exit(1)
        children.append(child)
    return [os.waitpid(child, 0)[1] for child in children]
