"""How fast the API reads and publishes, beside a bare route of the same size, in one run.

    python -m tests.bench.api

Reads: a store of 10,000 and of 1,000,000 runs, asked by as many connections at once. The bare
route is FastAPI with nothing of ours, in the same process, which returns a constant of the size
of the run. Only ratios within one run mean something on a shared machine.
"""

import argparse
import asyncio
import json
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median, quantiles

import httpx
import uvloop
from fastapi import FastAPI
from rich.console import Console
from rich.table import Table
from starlette.responses import Response

from pipeline.api.http.server import address_of, listen, serving
from pipeline.app.advise import advise_worker
from pipeline.app.http import api_server
from pipeline.app.persist import persist_worker
from pipeline.broker.admin.topics import apply_topics
from pipeline.broker.local.broker import LocalBroker
from pipeline.core.json.canonical import canonical_json
from pipeline.core.layout import artifact_path
from pipeline.core.record import RecordId, RecordSource
from pipeline.core.runs.verdict import judge_run_record
from pipeline.logs import configure_logging
from pipeline.settings import Settings, read_settings
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.index.queries import KnownRows, NewRows
from pipeline.storage.index.tables import IndexedRun
from pipeline.storage.index.tables import runs as runs_table
from pipeline.storage.reader import open_reader
from pipeline.storage.run_store import RunRecord, RunStore
from pipeline.storage.store import open_store_to_write
from schemas.timestamps import microseconds_since_epoch, parse_timestamp
from tests.bench.contender import Cpu, cpu_of
from tests.bench.requests import DISTINCT, arrival_time, encoded_requests
from tests.e2e.prepared_store import prepare_store

RUNS = "/api/rmos/runs"
JSON = {"content-type": "application/json"}
BATCH = 2000
BARE = "bare route"
TARGETS = {
    "GET by id": "≥ 0.30",
    "list of 50": "≥ 0.15",
    "list of 50, status=BLOCKED": "≥ 0.15",
    "list of 50, tool_id_prefix": "≥ 0.15",
}
READ_RUNS = 1000
"""So many runs have files, those that are read one by one; lists read rows alone."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One thing asked many times.

    Attributes:
        rate: Answers a second.
        cpu_us: CPU of the process of both servers for one answer.
        p50_ms: Of one answer.
        p99_ms: Likewise.
    """

    what: str
    runs: int
    rate: float
    cpu_us: float
    p50_ms: float
    p99_ms: float


def main() -> None:
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="rmos-bench-api-", dir=options.folder))
    configure_logging(read_settings(log_level="error"))
    try:
        with LocalBroker(folder / "kafka", port=0, on_progress=_tell) as broker:
            found = asyncio.run(_measure_all(options, broker, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _print(found)
    if options.json:
        options.json.write_text(json.dumps([asdict(each) for each in found], indent=1) + "\n")


async def _measure_all(
    options: argparse.Namespace, broker: LocalBroker, folder: Path
) -> list[Measured]:
    found: list[Measured] = []
    for runs in options.runs:
        settings = _settings(broker, folder / f"store-{runs}", f"bench{runs}")
        prepare_store(settings, broker.cluster_id)
        ids = await asyncio.to_thread(_fill, settings.data_dir, runs)
        _tell(f"{runs:,} runs are there")
        found += await _measure_reads(settings, runs, ids, options)
    settings = _settings(broker, folder / "store-post", "benchpost")
    await apply_topics(settings)
    prepare_store(settings, broker.cluster_id)
    found.append(await _measure_posts(settings, options.posts))
    return found


def _settings(broker: LocalBroker, data_dir: Path, prefix: str) -> Settings:
    return read_settings(
        data_dir=data_dir,
        bootstrap_servers=broker.bootstrap_servers,
        prefix=prefix,
        api_port=0,
    )


def _fill(root: Path, count: int) -> list[str]:
    """Make the rows of `count` runs, and the files of those that are read; return their ids."""
    store = RunStore(open_store_to_write(root))
    requests = enumerate(encoded_requests(count))
    models = _rows_of_bodies(store)
    read = max(1, count // READ_RUNS)
    ids: list[str] = []
    while batch := list(islice(requests, BATCH)):
        whole = [each for each in batch if each[0] % read == 0]
        store.commit([_judged(number, *record) for number, record in whole])
        ids += [key.decode() for _, (key, _) in whole]
        rows = [
            _row_of(number, key.decode(), models[number % DISTINCT])
            for number, (key, _) in batch
            if number % read
        ]
        with store.index.transaction() as transaction:
            transaction.add_rows(NewRows(runs=rows))
    store.close()
    return ids


def _judged(number: int, key: bytes, value: bytes) -> RunRecord:
    source = RecordSource(1, RecordId("bench.runs.requests", 0, number))
    return JudgedRecord.of(source, judge_run_record(key, value), value, number)


def _rows_of_bodies(store: RunStore) -> list[IndexedRun]:
    requests = enumerate(encoded_requests(DISTINCT))
    records = [_judged(number, *record) for number, record in requests]
    return list(store.plan_batch(records, KnownRows({}, {})).rows.runs)


def _row_of(number: int, run_id: str, model: IndexedRun) -> IndexedRun:
    """Return the row of a run by that of the request whose body it repeats."""
    created = arrival_time(number)
    row = dict(zip(runs_table.c.keys(), model.row, strict=True)) | {
        "run_id": run_id,
        "created_at_utc": created,
        "created_at_us": microseconds_since_epoch(parse_timestamp(created)),
        "workflow_session_id": f"ws_{number // 40}",
        "artifact_path": artifact_path(created, run_id),
        "source_offset": number,
    }
    payloads = [(sha256, run_id) for sha256, _ in model.withheld_payloads or ()]
    return IndexedRun(tuple(row.values()), [], [], payloads)


async def _measure_reads(
    settings: Settings, runs: int, ids: list[str], options: argparse.Namespace
) -> list[Measured]:
    found = []

    async def ask(what: str, address: str, path: Callable[[int], str]) -> None:
        found.append(await _asked(what, runs, options, pid, address, path))

    def run(number: int) -> str:
        return f"{RUNS}/{ids[number * 7919 % len(ids)]}"

    prefix = f"{RUNS}?tool_id_prefix=adaptive:endmill_6"
    with _servers(settings, ids[0]) as (pid, api, bare):
        # In turns, so that all meet the same neighbours.
        for _ in range(options.rounds):
            await ask(BARE, bare, lambda _: "/constant")
            await ask("GET by id", api, run)
            await ask("list of 50", api, lambda _: RUNS)
            await ask("list of 50, status=BLOCKED", api, lambda _: f"{RUNS}?status=BLOCKED")
            await ask("list of 50, tool_id_prefix", api, lambda _: prefix)
    return found


@contextmanager
def _servers(settings: Settings, run_id: str) -> Iterator[tuple[int, str, str]]:
    """Run the API and the bare route in a process of their own; give its id and their addresses."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(settings, run_id, theirs))
    process.start()
    try:
        api, bare = ours.recv()
        yield process.pid or 0, api, bare
    finally:
        ours.send(None)
        process.join()


def _serve(settings: Settings, run_id: str, pipe: Connection) -> None:
    configure_logging(read_settings(log_level="error"))

    async def serve() -> None:
        found = open_reader(settings.data_dir).find(run_id)
        async with (
            api_server(settings) as server,
            _bare(len(canonical_json(found.view()))) as bare,
        ):
            pipe.send((server.address, bare))
            await asyncio.to_thread(pipe.recv)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


async def _asked(
    what: str,
    runs: int,
    options: argparse.Namespace,
    pid: int,
    address: str,
    path: Callable[[int], str],
) -> Measured:
    """Ask for some seconds, over all connections at once, by a client that does nothing else."""
    seconds: list[float] = []
    end = time.perf_counter() + options.seconds
    numbers = iter(range(10**9))

    async def client() -> None:
        host, port = address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        while (begin := time.perf_counter()) < end:
            writer.write(f"GET {path(next(numbers))} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 "), head
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
            await reader.readexactly(int(length))
            seconds.append(time.perf_counter() - begin)
        writer.close()

    begin, before = time.perf_counter(), cpu_of(pid)
    await asyncio.gather(*(client() for _ in range(options.connections)))
    cpu = cpu_of(pid) - before
    measured = _measured(what, runs, seconds, time.perf_counter() - begin, cpu)
    _tell(f"{what} at {runs:,}: {measured.rate:,.0f}/s, {measured.cpu_us:,.0f} us CPU")
    return measured


async def _measure_posts(settings: Settings, count: int) -> Measured:
    """POST one request after another; each waits for its event."""
    seconds = []
    async with (
        persist_worker(settings),
        advise_worker(settings),
        api_server(settings) as server,
        httpx.AsyncClient(base_url=f"http://{server.address}", timeout=60) as http,
    ):
        begin = time.perf_counter()
        for number, (_key, value) in enumerate(encoded_requests(count + 20, "post")):
            sent = time.perf_counter()
            answer = await http.post(RUNS, content=value, headers=JSON)
            assert answer.status_code in {201, 409}, answer.text
            if number >= 20:
                seconds.append(time.perf_counter() - sent)
        elapsed = time.perf_counter() - begin
        # The servers are in this process, with the workers and the client.
        return _measured("POST to answer", count, seconds, elapsed, Cpu(0, 0))


def _measured(what: str, runs: int, seconds: list[float], elapsed: float, cpu: Cpu) -> Measured:
    p99 = quantiles(seconds, n=100)[98] if len(seconds) > 1 else seconds[0]
    rate = len(seconds) / elapsed
    cpu_us = cpu.total / len(seconds) * 1e6
    return Measured(what, runs, rate, cpu_us, median(seconds) * 1000, p99 * 1000)


@asynccontextmanager
async def _bare(size_bytes: int) -> AsyncIterator[str]:
    """Serve a route that returns a constant, by the same server."""
    app = FastAPI(openapi_url=None)
    content = b"x" * size_bytes

    @app.get("/constant")
    async def constant() -> Response:
        return Response(content, media_type="application/json")

    listening = listen("127.0.0.1", 0)
    async with serving(app, listening, stop_seconds=5):
        yield address_of(listening)


def _print(found: list[Measured]) -> None:
    console = Console(width=110)
    table = Table(
        title="Asked over HTTP on keep-alive connections, servers in one process, client in "
        "another; medians over the rounds"
    )
    for column in ("", "runs", "answers/s", "to bare", "target", "CPU us", "p50 ms", "p99 ms"):
        table.add_column(column, justify="left" if not column else "right")
    for what, runs in dict.fromkeys((each.what, each.runs) for each in found):
        own = [each for each in found if (each.what, each.runs) == (what, runs)]
        bare = [each.rate for each in found if (each.what, each.runs) == (BARE, runs)]
        # Each to the bare route of its own round.
        ratios = [each.rate / rate for each, rate in zip(own, bare, strict=False)]
        table.add_row(
            what,
            f"{runs:,}",
            f"{median(each.rate for each in own):,.0f}",
            f"{median(ratios):.2f}" if ratios else "-",
            TARGETS.get(what, "-"),
            f"{median(each.cpu_us for each in own):,.0f}" if bare else "-",
            f"{median(each.p50_ms for each in own):.2f}",
            f"{median(each.p99_ms for each in own):.2f}",
        )
    console.print(table)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.api", description="Measure the HTTP API."
    )
    parser.add_argument("--runs", type=int, nargs="*", default=[10_000, 1_000_000])
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="everything in turns")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--posts", type=int, default=300)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every number here")
    parser.add_argument("--folder", type=Path, help="where the one temporary folder is made")
    return parser.parse_args()


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
