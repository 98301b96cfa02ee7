"""An advise worker that signals itself at one step: of a batch, or of a claim.

Run as a program: `advise_stopped_at.py SIGNAL STEP [STEP ...]`, as `worker_stopped_at`.
"""

import asyncio
import os
import signal
import sys

from pipeline.app.advise import app
from pipeline.app.process import run_service
from pipeline.broker.sending import batches as sender
from pipeline.broker.sending.batches import BatchSender
from pipeline.consumers.engine.batches import BatchWorker
from pipeline.consumers.engine.in_flight import InFlight
from pipeline.disk.durable_files import DurableFiles
from pipeline.disk.log_store import LockedDiskLogs
from pipeline.disk.system_calls import SystemCalls
from pipeline.ledger.writer import LedgerBatch
from pipeline.logs import configure_logging
from pipeline.settings import read_settings
from pipeline.storage import batch_store
from pipeline.storage.advisory_store import AdvisoryStore
from pipeline.storage.index.claims import ClaimQueue
from pipeline.storage.index.queries import IndexTransaction
from tests.builders import advisory_request, record
from tests.e2e.advisories import run_of
from tests.e2e.kafka_reading import Sending, produce
from tests.e2e.worker_stopped_at import AFTER, BEFORE, Step, small_chunks, stop_at

LINKED_OF_A_STEP = 6
CHUNK_RECORDS = 3
"""So that a batch is four chunks."""

STEPS: dict[str, Step] = {
    "polled": (InFlight, "put", 1, BEFORE),
    "judged": (BatchWorker, "_judge", 1, AFTER),
    "locked": (AdvisoryStore, "_claim", 1, BEFORE),
    "rows inserted": (IndexTransaction, "add_advisories", 1, AFTER),
    "planned": (batch_store, "check_reject_limit", 1, AFTER),
    "file written": (SystemCalls, "write", 3, AFTER),
    "some linked": (SystemCalls, "link_unnamed", 2, AFTER),
    "all linked": (DurableFiles, "link", 1, AFTER),
    "checkpoints written": (LockedDiskLogs, "_write_checkpoints", 1, AFTER),
    "checkpoints in place": (LockedDiskLogs, "_publish_checkpoints", 1, AFTER),
    "ledger written": (LedgerBatch, "publish", 1, AFTER),
    "positions noted": (IndexTransaction, "advance", 1, AFTER),
    "index committed": (AdvisoryStore, "commit", 1, AFTER),
    "to be published": (BatchWorker, "_store", 1, AFTER),
    "some published": (sender, "send_partition", 3, AFTER),
    "published": (BatchSender, "send", 1, AFTER),
    "second stored": (AdvisoryStore, "commit", 2, AFTER),
    "second to be published": (BatchSender, "send", 2, BEFORE),
    "to be committed": (InFlight, "_commit", 1, BEFORE),
    "offsets committed": (InFlight, "_commit", 1, AFTER),
    "claims found": (ClaimQueue, "due", 1, AFTER),
    "claims in hand": (ClaimQueue, "take", 1, AFTER),
    "claims linked": (AdvisoryStore, "retry_links", 1, AFTER),
    "claims released": (ClaimQueue, "release", 1, AFTER),
    "claims reported": (ClaimQueue, "note_reported", 1, BEFORE),
    "claims noted": (ClaimQueue, "note_reported", 1, AFTER),
}


def records_of(step: str) -> list[Sending]:
    """Return advisories of a run that is there and of one that is not, and what is none."""
    name = step.replace(" ", "-")
    linked = [
        advisory_request(run_id="run_1", advisory_id=f"{name}-{number}", content_text=name)
        for number in range(LINKED_OF_A_STEP)
    ]
    early = advisory_request(run_id=f"run_{name}")
    return [
        *(Sending(*record(request)) for request in linked),
        Sending(*record(linked[0])),
        Sending(*record(linked[1] | {"kind": "note"})),
        Sending(*record(early)),
        Sending(*record(early)),
        Sending(b"run_1", b"{"),
    ]


def work_until(step: str, number: signal.Signals) -> None:
    settings = read_settings(instance="stopped")
    topic = settings.topics.advisory_requests
    asyncio.run(produce(settings, records_of(step), topic=topic))
    if step == "claims in hand":
        # The claims of the first step wait by now; a persist worker stores their run meanwhile.
        asyncio.run(produce(settings, [run_of("run_polled")]))
    configure_logging(settings)
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
