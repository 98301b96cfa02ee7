"""How fast a store is verified and restored from its topics, beside the worker that made it.

    python -m tests.bench.replay --records 20000

The worker is timed as in the race, from a start line to its last event. The replays are processes
of their own over the same topics; what one takes that reads nothing is their start, and is taken
off. Only ratios within one run mean something.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.broker.admin.topics import apply_topics
from pipeline.broker.local.broker import LocalBroker
from pipeline.disk.store_identity import read_store
from pipeline.logs import mute_client_logging
from pipeline.settings import Settings, read_settings
from tests.bench.race import WORKER, race
from tests.e2e.migrations import environment
from tests.e2e.prepared_store import prepare_store
from tests.e2e.worker_processes import REPOSITORY, RMOS

LANE = "worker-1"
PATIENCE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One way through the records.

    Attributes:
        records: How many it judged.
        seconds: Without its start.
        cpu_seconds: Its own and its child process's, without those of its start.
        peak_mb: The largest resident set of one of both.
    """

    name: str
    records: int
    seconds: float
    cpu_seconds: float
    peak_mb: float

    @property
    def rate(self) -> float:
        """Records a second."""
        return self.records / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU microseconds a record, user and system."""
        return self.cpu_seconds / self.records * 1e6


def main() -> None:
    """Let a worker make a store, then verify it, restore it, and restore it again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, help="where the one temporary folder is made")
    options = parser.parse_args()
    mute_client_logging()
    with tempfile.TemporaryDirectory(prefix="rmos-bench-", dir=options.folder) as name:
        folder = Path(name)
        with LocalBroker(folder / "kafka", port=0) as broker:
            found = [_persist(broker, folder, options.records), *_replays(broker, folder)]
    _report(found)


def _persist(broker: LocalBroker, folder: Path, records: int) -> Measured:
    (result,) = asyncio.run(
        race(
            broker,
            folder,
            [WORKER],
            rounds=1,
            records=records,
            patience_seconds=PATIENCE_SECONDS,
            tell=lambda text: print(text, file=sys.stderr),
        )
    )
    cpu = result.cpu.total
    return Measured("worker persist", records, result.seconds, cpu, result.peak_rss_mb)


def _replays(broker: LocalBroker, folder: Path) -> list[Measured]:
    settings = read_settings(
        bootstrap_servers=broker.bootstrap_servers,
        prefix=LANE,
        data_dir=folder / LANE,
        ledger_key_file=folder / f"{LANE}.pem",
    )
    asyncio.run(apply_topics(settings))
    empty = settings.model_copy(update={"data_dir": folder / "restored"})
    identity = read_store(settings.data_dir)
    prepare_store(empty, identity.cluster_id, store_id=identity.store_id)
    nothing = f"{settings.topics.run_requests}/0:0-0"
    start = _run(settings, "start", Measured("", 0, 0, 0, 0), "verify", "--range", nothing)
    return [
        _run(settings, "verify", start, "verify"),
        _run(empty, "restore, all is lost", start, "restore"),
        _run(empty, "restore, nothing is", start, "restore"),
    ]


def _run(settings: Settings, name: str, start: Measured, *words: str) -> Measured:
    started = time.perf_counter()
    process = subprocess.Popen(
        [str(RMOS), "replay", *words, "--json"],
        env=environment(settings),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"rmos replay {' '.join(words)} ended with {process.returncode}")
    records = json.loads(said.splitlines()[-1])["summary"]["records"]
    cpu = usage.ru_utime + usage.ru_stime - start.cpu_seconds
    return Measured(name, records, seconds - start.seconds, cpu, usage.ru_maxrss / 1024)


def _report(found: list[Measured]) -> None:
    worker = found[0]
    table = Table()
    for column in ("", "records/s", "ratio", "CPU us/record", "ratio", "peak RSS MB"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for each in found:
        table.add_row(
            each.name,
            f"{each.rate:,.0f}",
            f"{each.rate / worker.rate:.2f}",
            f"{each.cpu_us:,.0f}",
            f"{each.cpu_us / worker.cpu_us:.2f}",
            f"{each.peak_mb:,.0f}",
        )
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
