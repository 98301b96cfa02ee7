"""An audit against one `sha256sum` over the same files: `python -m tests.bench.audit --files N`.

It makes a store of N runs, each with its leaf, then in each round reads all of it by `sha256sum`,
by an audit that only hashes, by a full audit and by a quick one. Each audit is a process of its
own, so that its peak of memory is its own; the ratio is that of times within one round.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from pipeline.audit.audited_store import audited_folder
from pipeline.audit.steps import PartDone
from pipeline.audit.store_audit import StoreAudit
from pipeline.core.record import RecordId, RecordSource
from pipeline.core.runs.verdict import JudgedRun, judge_run_record
from pipeline.disk.log_store import open_to_write
from pipeline.disk.store_identity import create_store
from pipeline.ledger.log_id import signer_name
from pipeline.ledger.writer import Ledger
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import open_store_to_write
from schemas.audit_request import AuditRequest, AuditScope
from schemas.timestamps import microseconds_since_epoch, parse_timestamp
from tests.bench.requests import encoded_requests
from tests.ledger.tlog.signers import signer

STORE_ID = "0" * 32
SIGNER = signer(signer_name(STORE_ID))
TOPIC = "rmos.runs.requests"
PARTITIONS = 12
BATCH = 512
AUDITS = {
    "hash-only": ("full", "bytes"),
    "full": ("full", "content"),
    "quick": ("quick", "content"),
}
# As under `rmos`, a child process imports what an audit needs and not the program of its parent.
_PROGRAM = "from tests.bench.audit import main; main()"
TARGETS = {"hash-only": "≤ 1.5", "full": "≤ 2.5", "quick": "-"}


def make_store(root: Path, count: int) -> None:
    """Make a store of `count` runs and their leaves."""
    create_store(root, cluster_id="bench", prefix="rmos", store_id=STORE_ID)
    store = RunStore(
        open_store_to_write(root), ledger=Ledger(*open_to_write(root), STORE_ID, [SIGNER])
    )
    offsets = [0] * PARTITIONS
    requests = encoded_requests(count)
    while batch := list(islice(requests, BATCH)):
        records = []
        for key, value in batch:
            partition = int(key[4:8], 16) % PARTITIONS
            source = RecordSource(1, RecordId(TOPIC, partition, offsets[partition]))
            offsets[partition] += 1
            verdict = judge_run_record(key, value)
            assert isinstance(verdict, JudgedRun)
            created = verdict.built.index_fields.created_at_utc
            broker_ms = microseconds_since_epoch(parse_timestamp(created)) // 1000 + 1000
            records.append(JudgedRecord.of(source, verdict, value, broker_ms))
        store.commit(records)
    store.close()


def audit_once(root: Path, name: str, processes: int | None) -> None:
    """Audit, and print the figures as JSON: this is what each process of its own does."""
    mode, depth = AUDITS[name]
    request = AuditRequest(audit_id="bench", scope=AuditScope(all=True), mode=mode)
    start = time.perf_counter()
    store = audited_folder(root)
    with StoreAudit(store, request, [SIGNER.key], depth=depth, processes=processes) as audit:
        # Not kept: a list of what was found would be the memory that is measured.
        found = sum(not isinstance(event, PartDone) for event in audit.run())
    seconds = time.perf_counter() - start
    figures = {
        "seconds": seconds,
        "findings": found,
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "child_rss_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
    }
    print(json.dumps(figures))


def sha256sum(root: Path) -> float:
    """Return how long `sha256sum` takes for every file of runs and blobs."""
    files = "find runs attachments quarantine -type f -print0 2>/dev/null"
    with tempfile.NamedTemporaryFile() as names:
        subprocess.run(f"{files} > {names.name}", shell=True, cwd=root, check=False)
        start = time.perf_counter()
        command = f"xargs -0 sha256sum < {names.name} > /dev/null"
        subprocess.run(command, shell=True, cwd=root, check=True)
        return time.perf_counter() - start


def measure(root: Path, rounds: int, processes: int | None) -> dict[str, list[dict[str, float]]]:
    """Return the figures of each round."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in AUDITS}
    sha256sum(root)  # So that all of them read from memory.
    for _ in range(rounds):
        yardstick = sha256sum(root)
        for name in AUDITS:
            command = [sys.executable, "-c", _PROGRAM, "--store", str(root), "--only", name]
            command += [] if processes is None else ["--processes", str(processes)]
            output = subprocess.run(command, check=True, capture_output=True).stdout
            figures = json.loads(output)
            results[name].append(figures | {"ratio": figures["seconds"] / yardstick})
            results[name][-1]["sha256sum"] = yardstick
    return results


def print_results(files: int, results: dict[str, list[dict[str, float]]]) -> None:
    """Print a line for each kind of audit."""
    table = Table(title=f"{files:,} runs; medians over the rounds")
    for column in ("audit", "us/run", "sha256sum us/run", "times sha256sum", "target"):
        table.add_column(column, justify="left" if column == "audit" else "right")
    table.add_column("RSS MB", justify="right")
    table.add_column("of a child process", justify="right")
    for name, rounds in results.items():
        table.add_row(
            name,
            f"{median(each['seconds'] for each in rounds) / files * 1e6:.1f}",
            f"{median(each['sha256sum'] for each in rounds) / files * 1e6:.1f}",
            f"{median(each['ratio'] for each in rounds):.2f}",
            TARGETS[name],
            f"{max(each['rss_mb'] for each in rounds):.0f}",
            f"{max(each['child_rss_mb'] for each in rounds):.0f}",
        )
    Console().print(table)
    assert not any(each["findings"] for rounds in results.values() for each in rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000, help="runs in the store")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int)
    parser.add_argument("--store", type=Path, help="a store to keep, made where there is none")
    parser.add_argument("--only", choices=AUDITS, help="audit --store once, print JSON")
    options = parser.parse_args()
    if options.only is not None:
        audit_once(options.store, options.only, options.processes)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = options.store or Path(folder) / "store"
        if not root.exists():
            make_store(root, options.files)
        print_results(options.files, measure(root, options.rounds, options.processes))


if __name__ == "__main__":
    main()
