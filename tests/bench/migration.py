"""Time and memory of carrying over a generated v1 store, on the real broker.

    python -m tests.bench.migration --rows 100000

A v1 store is one JSON file, so whoever reads it holds it in memory whole; what is measured says
how much that is. Each step is `rmos migrate` in a process of its own.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from subprocess import DEVNULL, Popen
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.broker.admin.topics import apply_topics
from pipeline.broker.local.broker import LocalBroker
from pipeline.legacy.v1.text import format_row, format_rows
from pipeline.settings import Settings, read_settings
from tests.e2e.migrations import environment
from tests.e2e.prepared_store import prepare_store
from tests.e2e.worker_processes import REPOSITORY, RMOS
from tests.legacy_rows import bare_row, unknown_row, v1_row

STEPS = (
    ("map only", ("run", "--dry-run")),
    ("run", ("run",)),
    ("run again", ("run",)),
    ("verify", ("verify",)),
    ("status", ("status",)),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One command.

    Attributes:
        seconds: From start to end.
        cpu_seconds: Its own and its child process's.
        peak_mb: The largest resident set of one of both.
    """

    name: str
    seconds: float
    cpu_seconds: float
    peak_mb: float


def generated_rows(count: int) -> bytes:
    """Return a v1 store of so many rows in the shapes of the shop's own, always the same."""
    random = Random(1)
    shapes = (v1_row, v1_row, unknown_row, bare_row)
    texts = {}
    for number in range(count):
        run_id = f"run_{random.getrandbits(64):016x}"
        texts[run_id] = format_row(_row(shapes[number % 4], run_id, random))
    return format_rows(texts)


def _row(shape: Any, run_id: str, random: Random) -> dict[str, Any]:
    day, second = random.randrange(1, 29), random.randrange(60)
    return shape(
        run_id=run_id,
        created_at_utc=f"2025-{random.randrange(1, 13):02}-{day:02}T10:00:{second:02}+00:00",
        request_hash=f"{random.getrandbits(256):064x}",
    )


def measure(settings: Settings, source: Path, name: str, words: tuple[str, ...]) -> Measured:
    """Run one command to its end; it must succeed."""
    started = time.perf_counter()
    process = Popen(
        [str(RMOS), "migrate", *words, "--from", str(source)],
        env=environment(settings),
        cwd=REPOSITORY,
        stdout=DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"rmos migrate {' '.join(words)} ended with {process.returncode}")
    return Measured(name, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def main() -> None:
    """Make the rows, a broker and a store; measure every step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rmos-bench-") as name:
        folder = Path(name)
        source = folder / "old" / "runs.json"
        source.parent.mkdir()
        source.write_bytes(generated_rows(arguments.rows))
        with LocalBroker(folder / "kafka", port=0) as broker:
            settings = _prepared(broker, folder)
            found = [measure(settings, source, title, words) for title, words in STEPS]
        size = source.stat().st_size
    _report(arguments.rows, size, found, as_json=arguments.json)


def _prepared(broker: LocalBroker, folder: Path) -> Settings:

    settings = read_settings(
        bootstrap_servers=broker.bootstrap_servers,
        data_dir=folder / "store",
        ledger_key_file=folder / "ledger.pem",
    )
    asyncio.run(apply_topics(settings))
    prepare_store(settings, broker.cluster_id)
    return settings


def _report(rows: int, size_bytes: int, found: list[Measured], *, as_json: bool) -> None:
    if as_json:
        steps = {each.name: [each.seconds, each.cpu_seconds, each.peak_mb] for each in found}
        print(json.dumps({"rows": rows, "size_bytes": size_bytes, "steps": steps}))
        return
    table = Table(title=f"{rows:,} rows, a v1 file of {size_bytes / 1e6:,.1f} MB")
    for column in ("step", "s", "rows/s", "CPU us/row", "peak RSS MB"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for each in found:
        table.add_row(
            each.name,
            f"{each.seconds:.1f}",
            f"{rows / each.seconds:,.0f}",
            f"{each.cpu_seconds / rows * 1e6:,.0f}",
            f"{each.peak_mb:,.0f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
