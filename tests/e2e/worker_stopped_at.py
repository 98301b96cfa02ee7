"""A persist worker that signals itself at one step of its first batch, with chunks in flight.

Run as a program: `worker_stopped_at.py SIGNAL STEP [STEP ...]`. Each step gets a process of its
own, forked from one that has imported everything: it sends some records, works until the step,
and there SIGKILL ends it, or SIGSTOP halts it. It prints how many chunks were in flight then, and
how each of them ended.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from pipeline.app.persist import app
from pipeline.app.process import run_service
from pipeline.broker.sending import batches as sender
from pipeline.broker.sending.batches import BatchSender
from pipeline.consumers.engine import batches, in_flight
from pipeline.consumers.engine.batches import BatchWorker
from pipeline.consumers.engine.in_flight import InFlight
from pipeline.disk.durable_files import DurableFiles
from pipeline.disk.log_store import LockedDiskLogs
from pipeline.disk.system_calls import LogSystemCalls, SystemCalls
from pipeline.ledger.writer import Ledger, LedgerBatch
from pipeline.logs import configure_logging
from pipeline.settings import read_settings
from pipeline.storage import batch_store
from pipeline.storage.index.queries import IndexTransaction
from pipeline.storage.run_store import RunStore
from tests.builders import incomplete_request, red_request, run_request
from tests.e2e.kafka_reading import Sending, produce, sending

RECORDS_OF_A_STEP = 24
CHUNK_RECORDS = 8
"""So that a batch is four chunks."""

# A step is a function, the call of it that counts, and whether it stops before or after.
Step = tuple[Any, str, int, bool]
BEFORE, AFTER = True, False

STEPS: dict[str, Step] = {
    "polled": (InFlight, "put", 1, BEFORE),
    "judged": (BatchWorker, "_judge", 1, AFTER),
    "written ahead": (RunStore, "write", 1, AFTER),
    "locked": (RunStore, "_claim", 1, BEFORE),
    "rows inserted": (IndexTransaction, "add_runs", 1, AFTER),
    "planned": (batch_store, "check_reject_limit", 1, AFTER),
    "logs made": (Ledger, "_make_missing", 1, AFTER),
    "leaves appended": (Ledger, "_append", 1, AFTER),
    "file opened": (SystemCalls, "open_unnamed", 4, AFTER),
    "file written": (SystemCalls, "write", 5, AFTER),
    "contents flushed": (SystemCalls, "syncfs", 3, AFTER),
    "some linked": (SystemCalls, "link_unnamed", 7, AFTER),
    "all linked": (DurableFiles, "link", 1, AFTER),
    "tiles read back": (LedgerBatch, "_read_back", 2, AFTER),
    "checkpoints signed": (LockedDiskLogs, "_write_checkpoints", 1, BEFORE),
    "checkpoint written": (LockedDiskLogs, "_write_new", 2, AFTER),
    "names to be flushed": (SystemCalls, "syncfs", 4, BEFORE),
    "names flushed": (LockedDiskLogs, "_write_checkpoints", 1, AFTER),
    "some checkpoints in place": (LogSystemCalls, "replace", 2, AFTER),
    "checkpoints in place": (LockedDiskLogs, "_publish_checkpoints", 1, AFTER),
    "checkpoints flushed": (LockedDiskLogs, "_flush", 1, AFTER),
    "some old tiles removed": (LockedDiskLogs, "remove", 3, AFTER),
    "ledger written": (LedgerBatch, "publish", 1, AFTER),
    "positions noted": (IndexTransaction, "advance", 1, AFTER),
    "index committed": (RunStore, "commit", 1, AFTER),
    "to be published": (BatchWorker, "_store", 1, AFTER),
    "some published": (sender, "send_partition", 5, AFTER),
    "published": (BatchSender, "send", 1, AFTER),
    "second written ahead": (RunStore, "write", 2, AFTER),
    "second named": (DurableFiles, "link", 2, AFTER),
    "second stored": (RunStore, "commit", 2, AFTER),
    "second to be published": (BatchSender, "send", 2, BEFORE),
    "third stored": (RunStore, "commit", 3, AFTER),
    "second published": (BatchSender, "send", 2, AFTER),
    "to be committed": (InFlight, "_commit", 1, BEFORE),
    "offsets committed": (InFlight, "_commit", 1, AFTER),
    "second to be committed": (InFlight, "_commit", 2, BEFORE),
    "second offsets committed": (InFlight, "_commit", 2, AFTER),
}


_begun: list[batches.Chunk] = []


def small_chunks(count: int) -> None:
    """Cut batches into chunks of `count` records, and note each that begins."""
    batches.CHUNK_RECORDS = in_flight.CHUNK_RECORDS = count  # type: ignore[misc]
    begin = BatchWorker.begin

    def noting(self: BatchWorker[Any, Any], *args: Any) -> batches.Chunk:
        _begun.append(chunk := begin(self, *args))
        return chunk

    BatchWorker.begin = noting  # type: ignore[method-assign]


def stop_at(step: Step, number: signal.Signals) -> None:
    """Make this process signal itself at `step`, once."""
    owner, name, count, before = step
    original = getattr(owner, name)
    left = [count]

    def passing(now: bool) -> None:
        if now is before:
            left[0] -= 1
            if left[0] == 0:
                chunks = sum(not chunk.committed.done() for chunk in _begun)
                print(f"{chunks} chunks in flight", flush=True)
                os.kill(os.getpid(), number)

    setattr(owner, name, _stopping(original, passing))


def _stopping(original: Any, passing: Callable[[bool], None]) -> Any:
    if asyncio.iscoroutinefunction(original):

        async def awaited(*args: Any, **kwargs: Any) -> Any:
            passing(BEFORE)
            result = await original(*args, **kwargs)
            passing(AFTER)
            return result

        return awaited

    def called(*args: Any, **kwargs: Any) -> Any:
        passing(BEFORE)
        result = original(*args, **kwargs)
        passing(AFTER)
        return result

    return called


def records_of(step: str) -> list[Sending]:
    """Return runs of every kind, a duplicate, a conflict and what is no request at all."""
    name = step.replace(" ", "-")
    runs = [run_request(run_id=f"run_{name}_{number}") for number in range(RECORDS_OF_A_STEP)]
    return [
        *map(sending, runs),
        sending(red_request(run_id=f"run_{name}_red")),
        sending(incomplete_request(run_id=f"run_{name}_incomplete")),
        sending(runs[0]),
        sending(runs[1] | {"mode": "other"}),
        Sending(f"{name}_bad".encode(), b"{"),
        Sending(None, None, partition=2),
    ]


def work_until(step: str, number: signal.Signals) -> None:
    settings = read_settings(instance="stopped")
    asyncio.run(produce(settings, records_of(step)))
    configure_logging(settings)
    if number == signal.SIGKILL:
        # One that halts must not do so while another chunk of it holds the lock of the store.
        small_chunks(CHUNK_RECORDS)
    stop_at(STEPS[step], number)
    run_service(app.serve(settings))


def main() -> None:
    number, *steps = sys.argv[1:]
    for step in steps:
        child = os.fork()
        if child == 0:
            try:
                work_until(step, signal.Signals[number])
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        print(f"{step}: {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    main()
