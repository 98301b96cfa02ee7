"""How long the server takes for a page, in a store of 1,000,000 runs.

    python -m tests.bench.pages

The application is asked in this process, without a socket: what is measured is what the server
does between a request and the last byte of its answer. CPU is that of the whole process, threads
included. 1,000 runs have files; the rows of the others repeat theirs under ids and hashes of their
own.
"""

import argparse
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median

import uvloop
from rich.console import Console
from rich.table import Table

from pipeline.api.application import create_api
from pipeline.logs import configure_logging
from pipeline.page.pages import pages
from pipeline.settings import read_settings
from pipeline.storage.index.run_index import INDEX_FILE
from pipeline.storage.index.tables import runs as runs_table
from pipeline.storage.reader import open_reader
from tests.api.conftest import api_dependencies
from tests.bench.api import READ_RUNS, _fill
from tests.e2e.prepared_store import prepare_store

_NAMES = tuple(runs_table.c.keys())


async def _ask(app: Callable[..., object], path: str) -> int:
    """Ask once; return the number of bytes."""
    name, _, query = path.partition("?")
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": name,
        "raw_path": name.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8080),
        "headers": [(b"host", b"127.0.0.1"), (b"accept", b"text/html")],
    }
    status, size = 0, 0

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        nonlocal status, size
        if message["type"] == "http.response.start":
            status = int(str(message["status"]))
        else:
            size += len(bytes(message["body"]))  # type: ignore[call-overload]

    await app(scope, receive, send)  # type: ignore[misc]
    assert status in {200, 303, 404}, (path, status)
    return size


async def _measure(root: Path, ids: list[str], count: int, rounds: int) -> None:
    settings = read_settings(data_dir=root)
    deps = api_dependencies(settings, open_reader(root))
    app = create_api(deps, None, pages())
    rows = deps.reader.find(ids[len(ids) // 2])
    paths = {
        "runs, 50": lambda _: "/",
        "runs, BLOCKED": lambda _: "/?status=BLOCKED",
        "runs, tool begins with": lambda _: "/?tool_id_prefix=adaptive:endmill_6",
        "one run": lambda number: f"/run/{ids[number * 7919 % len(ids)]}",
        "compare": lambda number: f"/compare?a={ids[0]}&b={ids[number * 7919 % len(ids)]}",
        "file, known to no run": lambda _: f"/file?sha256={'0' * 64}",
        "search, an artifact": lambda _: f"/search?q={rows.run.artifact_sha256}",
        "search, nothing": lambda _: f"/search?q={'0' * 64}",
    }
    found: dict[str, list[tuple[float, float, int]]] = {what: [] for what in paths}
    # In turns, so that all meet the same neighbours.
    for number in range(rounds):
        for what, path in paths.items():
            cpu, begin = time.process_time(), time.perf_counter()
            size = await _ask(app, path(number))
            found[what].append((time.perf_counter() - begin, time.process_time() - cpu, size))
    table = Table("page", "runs", "CPU ms", "least ms", "median ms", "bytes", box=None)
    for what, all_of in found.items():
        seconds, cpus, sizes = zip(*all_of, strict=True)
        shown = (median(cpus), min(seconds), median(seconds))
        numbers = (f"{each * 1000:.1f}" for each in shown)
        table.add_row(what, f"{count:,}", *numbers, f"{int(median(sizes)):,}")
    Console().print(table)
    deps.lookup.close()
    deps.transfer.close()
    deps.reader.close()
    deps.drawings.close()


def _multiply(index: Path, times: int) -> None:
    """Add each row of a run so many times more; the indexes are made anew, which is quicker."""
    columns = {name: name for name in _NAMES} | {
        "run_id": "run_id || '_' || number",
        "created_at_us": "created_at_us - 1000 * number",
        "artifact_sha256": "lower(hex(randomblob(32)))",
        "source_offset": f"source_offset + {READ_RUNS} * number",
    }
    indexes = "SELECT name, sql FROM sqlite_master WHERE tbl_name = 'runs' AND sql LIKE '% INDEX %'"
    numbers = "WITH RECURSIVE numbers(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers"
    with closing(sqlite3.connect(index, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        made = connection.execute(indexes).fetchall()
        for name, _ in made:
            connection.execute(f"DROP INDEX {name}")
        connection.execute(
            f"{numbers} WHERE number < ?) INSERT INTO runs ({', '.join(columns)}) "
            f"SELECT {', '.join(columns.values())} FROM numbers CROSS JOIN runs",
            (times,),
        )
        for _, sql in made:
            connection.execute(sql)
        connection.execute("COMMIT")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="Where the store is made; a temporary one.")
    options = parser.parse_args()
    configure_logging(read_settings(log_level="error"))
    folder = Path(tempfile.mkdtemp(prefix="rmos-bench-pages-", dir=options.folder))
    try:
        settings = read_settings(data_dir=folder / "store")
        prepare_store(settings, "cluster-1")
        ids = _fill(settings.data_dir, READ_RUNS)
        _multiply(settings.data_dir / INDEX_FILE, options.runs // READ_RUNS - 1)
        uvloop.run(_measure(settings.data_dir, ids, options.runs, options.rounds))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
