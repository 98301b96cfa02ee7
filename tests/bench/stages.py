"""Where the time of a record goes, step by step, in one thread and without a broker.

    python -m tests.bench.stages

Every step is timed with the CPU clock of the thread, which others on the machine hardly disturb,
and with the wall clock, which also counts what the disk takes. A step inside another counts only
once, and what the clocks themselves cost is taken off.
"""

import argparse
import gc
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

import msgspec
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection

from pipeline.broker.aiokafka_fixes.installed import install
from pipeline.consumers.engine import judging
from pipeline.core.record import RecordId, RecordSource
from pipeline.core.runs import verdict
from pipeline.core.runs.event import run_event, run_event_headers
from pipeline.core.runs.outcome import Outcome
from pipeline.core.runs.verdict import JudgedRun, Rejected, judge_run_record
from pipeline.disk.durable_files import DurableFiles
from pipeline.disk.sqlite.database import SqliteTransaction
from pipeline.disk.store_identity import create_store
from pipeline.disk.system_calls import SystemCalls
from pipeline.storage import batch_store, run_store
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.batch_store import RejectLimit
from pipeline.storage.index.queries import IndexTransaction
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import open_store_to_write
from tests.bench.requests import encoded_requests

PARTITIONS = 12
_CALIBRATION_CALLS = 50_000
SYSTEM_CALLS = (
    "open_unnamed",
    "write",
    "set_mode",
    "link_unnamed",
    "close",
    "syncfs",
    "open_folder",
    "make_folder",
)
FUNCTIONS: tuple[tuple[Any, str, str], ...] = (
    (verdict, "_decode", "parse, types, lengths: msgspec"),
    (verdict, "written", "canonical JSON of parts, body, artifact"),
    (verdict, "may_lack_members", "checks: fields"),
    (verdict, "has_small_number", "checks: numbers"),
    (verdict, "is_deep", "checks: levels"),
    (verdict, "is_shown_whole", "checks: secrets"),
    (verdict, "judge_safety", "safety policy"),
    (verdict, "sha256_of_bytes", "hash parts, body, artifact"),
    (verdict, "index_fields_of", "index fields"),
    (run_store, "indexed_run", "rows of the index"),
    (run_store, "resolve_run", "outcomes"),
    (run_store, "_files_of", "list of files"),
    (batch_store, "check_reject_limit", "reject window"),
    (run_store.RunStore, "_claim", "plan"),
    (DurableFiles, "create", "files: our own Python"),
    (SqliteTransaction, "__init__", "SQL: look up"),
    (IndexTransaction, "add_runs", "SQL: insert"),
    (IndexTransaction, "advance", "SQL: positions"),
)


@dataclass(slots=True)
class Spent:
    """Seconds, and how often the clocks were read for them."""

    cpu: float = 0.0
    wall: float = 0.0
    calls: int = 0
    inner_calls: int = 0


@dataclass(slots=True)
class Stopwatch:
    """Sums the time of named steps; what a step inside takes is not counted outside."""

    steps: dict[str, Spent] = field(default_factory=dict)
    _inner: list[Spent] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a block."""
        self._inner.append(Spent())
        cpu, wall = time.thread_time(), time.perf_counter()
        try:
            yield
        finally:
            self._note(name, time.thread_time() - cpu, time.perf_counter() - wall)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function`, timed."""

        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(Spent())
            cpu, wall = time.thread_time(), time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self._note(name, time.thread_time() - cpu, time.perf_counter() - wall)

        return run

    def net(self) -> dict[str, tuple[float, float]]:
        """Return CPU and wall seconds of each step, without what the clocks cost."""
        own, outer = _clock_cost()
        return {
            name: (
                spent.cpu - spent.calls * own.cpu - spent.inner_calls * outer.cpu,
                spent.wall - spent.calls * own.wall - spent.inner_calls * outer.wall,
            )
            for name, spent in self.steps.items()
        }

    def _note(self, name: str, cpu: float, wall: float) -> None:
        inner = self._inner.pop()
        spent = self.steps.setdefault(name, Spent())
        spent.cpu += cpu - inner.cpu
        spent.wall += wall - inner.wall
        spent.calls += 1
        spent.inner_calls += inner.calls
        if self._inner:
            outer = self._inner[-1]
            outer.cpu += cpu
            outer.wall += wall
            outer.calls += 1


def _clock_cost() -> tuple[Spent, Spent]:
    """Return what one timed call adds to itself and to the step around it."""
    watch = Stopwatch()
    nothing = watch.timed("own", lambda: None)
    with watch.step("outer"):
        for _ in range(_CALIBRATION_CALLS):
            nothing()
    per_call = (
        Spent(spent.cpu / _CALIBRATION_CALLS, spent.wall / _CALIBRATION_CALLS)
        for spent in (watch.steps["own"], watch.steps["outer"])
    )
    return next(per_call), next(per_call)


def main() -> None:
    options = _options()
    install(hold_partitions=True)  # as `pipeline.app.worker`
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)  # as `pipeline.app.run_service`
    watch = Stopwatch()
    folder = Path(tempfile.mkdtemp(prefix="rmos-stages-", dir=options.folder))
    try:
        create_store(folder, cluster_id="bench", prefix="bench")
        _instrument(watch)
        store = RunStore(open_store_to_write(folder, _timed_calls(watch)))
        records = list(encoded_requests(options.records))
        for start in range(0, len(records), options.chunk):
            _handle(watch, store, records[start : start + options.chunk], start)
        store.close()
    finally:
        shutil.rmtree(folder)
    _print(watch, options.records)


def _instrument(watch: Stopwatch) -> None:
    for owner, name, title in FUNCTIONS:
        setattr(owner, name, watch.timed(title, getattr(owner, name)))
    execute = Connection.exec_driver_sql

    def exec_driver_sql(self: Connection, statement: str, *args: Any, **kwargs: Any) -> Any:
        with watch.step(f"SQL: {statement.split(maxsplit=1)[0].lower()}"):
            return execute(self, statement, *args, **kwargs)

    Connection.exec_driver_sql = exec_driver_sql  # type: ignore[method-assign]


def _timed_calls(watch: Stopwatch) -> SystemCalls:
    calls = SystemCalls()
    for name in SYSTEM_CALLS:
        setattr(calls, name, watch.timed(f"files: {name}", getattr(calls, name)))
    return calls


def _handle(
    watch: Stopwatch, store: RunStore, records: Sequence[tuple[bytes, bytes]], first: int
) -> None:
    """Take one chunk through every step that a worker takes."""
    records = _fetched(watch, records)
    with watch.step("judge: the rest"):
        verdicts = [judge_run_record(key, value) for key, value in records]
    verdicts = _carried(watch, records, verdicts)
    with watch.step("judged records"):
        judged = [
            JudgedRecord.of(
                RecordSource(1, RecordId("bench.runs.requests", each % PARTITIONS, first + each)),
                verdict,
                value,
                first,
            )
            for each, (verdict, (_, value)) in enumerate(zip(verdicts, records, strict=True))
        ]
    with watch.step("commit: the rest"):
        result = store.commit(judged, RejectLimit("bench.persist"))
    _told(watch, judged, result.outcomes)


def _fetched(watch: Stopwatch, records: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the records as they come out of a batch of the broker's."""
    builder = BatchBuilder(16 * 1024 * 1024, 3)
    for key, value in records:
        builder.append(timestamp=None, key=key, value=value)
    content = bytes(builder._build())
    with watch.step("fetch: decode batches"):
        batch = MemoryRecords(content).next_batch()
        return [(record.key, record.value) for record in batch]


def _carried(
    watch: Stopwatch,
    records: Sequence[tuple[bytes, bytes]],
    verdicts: list[JudgedRun | Rejected],
) -> list[JudgedRun | Rejected]:
    """Return the verdicts as they come back from the child process."""
    with watch.step("child: bodies out (worker)"):
        sent = msgspec.msgpack.encode(records)
    with watch.step("child: bodies in (child process)"):
        judging._unpack_bodies(sent)
    with watch.step("child: verdicts out (child process)"):
        answered = msgspec.msgpack.encode(verdicts)
    with watch.step("child: verdicts in (worker)"):
        return judging._unpack(answered)


def _told(watch: Stopwatch, judged: Sequence[JudgedRecord], outcomes: Sequence[Outcome]) -> None:
    with watch.step("event: value"):
        values = [
            run_event(outcome, each.source) for outcome, each in zip(outcomes, judged, strict=True)
        ]
    with watch.step("event: headers"):
        headers = [
            run_event_headers(outcome, each.source, 1_770_000_000_000)
            for outcome, each in zip(outcomes, judged, strict=True)
        ]
    with watch.step("event: batches, lz4"):
        for partition in range(PARTITIONS):
            builder = BatchBuilder(1024 * 1024, 3)
            for value, each in zip(
                values[partition::PARTITIONS], headers[partition::PARTITIONS], strict=True
            ):
                builder.append(timestamp=None, key=b"k" * 36, value=value, headers=each)
            builder._build()


def _print(watch: Stopwatch, records: int) -> None:
    table = Table(title=f"us a record, over {records:,} records")
    table.add_column("step")
    for column in ("CPU", "wall"):
        table.add_column(column, justify="right")
    net = watch.net()
    net["all"] = (sum(cpu for cpu, _ in net.values()), sum(wall for _, wall in net.values()))
    for name, (cpu, wall) in net.items():
        table.add_row(name, f"{cpu / records * 1e6:.1f}", f"{wall / records * 1e6:.1f}")
    Console().print(table)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.stages")
    parser.add_argument("--records", type=int, default=10_240)
    parser.add_argument("--chunk", type=int, default=512, help="records of one transaction")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    return parser.parse_args()


if __name__ == "__main__":
    main()
