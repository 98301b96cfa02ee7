"""The system calls of chunks, in the order that the promise rests on, as the kernel saw them."""

import re
import shutil
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from pipeline.settings import Settings
from tests.builders import red_request, run_request
from tests.e2e.kafka_reading import produce, sending, wait_until_consumed
from tests.e2e.store_audit import audit_store
from tests.e2e.worker_processes import WorkerPool

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace here"),
]

CALLS = "write,writev,sendto,sendmsg,pwrite64,syncfs,linkat,renameat,renameat2,fsync,fdatasync"
TILES = 2
"""New tiles of a log in a chunk, at least: leaves and their hashes."""
RUNS = 2500
"""Polls grow from 64 to 512 records: then chunks of 512 follow each other."""
PRODUCE, OFFSET_COMMIT = 0, 8
TOLD = "tell", "commit offsets"

# With -y a descriptor is followed by what it is, with -xx every text is in hex.
_CALL = re.compile(r"^\d+ +(?P<name>\w+)\(\d+<(?P<what>[^>]*)>")
_BYTES = re.compile(r'"((?:\\x[0-9a-f]{2})+)"')

Step = tuple[str, str]
"""What it is, and the file."""


def steps_of(log: Path, store: Path) -> Iterator[Step]:
    """Name each call that is a step of a chunk; leave out the others."""
    for line in log.read_text(encoding="ascii").splitlines():
        found = _CALL.match(line)
        if found is None:
            continue
        what = unhexed(found["what"])
        step = step_of(found["name"], what, line, str(store))
        if step:
            yield step, what


def unhexed(text: str) -> str:
    return re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), text)


def step_of(name: str, what: str, line: str, store: str) -> str | None:
    if name in {"fsync", "fdatasync"}:
        return "flush index" if what == f"{store}/index.sqlite3-wal" else None
    if name == "syncfs":
        return "syncfs" if what == store else None
    if name == "linkat":
        return "link" if what.startswith(f"{store}/#") else None
    if name.startswith("rename"):
        return "replace checkpoint"
    if what.startswith(f"{store}/#"):
        return "write file"
    if what.endswith("/.checkpoint.new"):
        return "write checkpoint"
    if what == f"{store}/index.sqlite3-wal":
        return "write index"
    if what.startswith(("socket:", "TCP:")):
        return {PRODUCE: "tell", OFFSET_COMMIT: "commit offsets"}.get(api_key(line))
    return None


def api_key(line: str) -> int | None:
    """Return the API key of a Kafka request: after its size, 4 bytes, in its first 2.

    What is sent to the child process that judges is a pickle, which begins with another byte.
    """
    found = _BYTES.search(line)
    data = bytes.fromhex(found[1].replace("\\x", "")) if found else b""
    return int.from_bytes(data[4:6], "big") if len(data) >= 8 and data[0] == data[4] == 0 else None


class Chunk:
    """Where the steps of one chunk are in the log.

    Attributes:
        written: Of each file that it names, the write of its bytes.
        links: The names.
        flushes: Of the contents, of the names, of the name of the checkpoint.
        checkpoint: Its bytes, and its name.
        rows: Its writes to the index.
        indexed: The flush of the index.
    """

    def __init__(self) -> None:
        self.written: list[int] = []
        self.links: list[int] = []
        self.flushes: list[int] = []
        self.checkpoint: list[int] = []
        self.rows: list[int] = []
        self.indexed = 0


def chunks_of(steps: list[Step]) -> Iterator[Chunk]:
    """Give the chunks: one thread stores them, one by one, and others write, tell and commit."""
    chunk = Chunk()
    contents: dict[str, int] = {}
    for place, (step, what) in enumerate(steps):
        if step == "write file":
            contents[what] = place
        elif step == "link":
            chunk.written.append(contents.pop(what))
            chunk.links.append(place)
        elif step == "syncfs":
            chunk.flushes.append(place)
        elif step in {"write checkpoint", "replace checkpoint"}:
            chunk.checkpoint.append(place)
        elif step == "write index" and chunk.checkpoint:
            chunk.rows.append(place)
        elif step == "flush index" and chunk.rows:
            chunk.indexed = place
            yield chunk
            chunk = Chunk()


async def test_each_chunk_is_written_flushed_linked_flushed_logged_indexed_told_and_then_committed(
    store_settings: Settings, workers: WorkerPool, tmp_path: Path
) -> None:
    """Chunks overlap: while one is stored, the contents of the next one are written."""
    settings, log = store_settings, tmp_path / "calls.log"
    wrapper = ["strace", "-f", "-y", "-xx", "-s", "16", "-e", f"trace={CALLS}", "-o", str(log)]
    worker = workers.start(settings, wrapper=wrapper)
    await worker.wait_until_started()
    # The first chunk makes the log.
    await produce(settings, [sending(run_request(run_id="run_first"), partition=1)])
    await wait_until_consumed(settings, check=worker.check)
    requests = [
        red_request(run_id="run_red"),
        *(run_request(run_id=f"run_{n}") for n in range(RUNS - 1)),
    ]
    await produce(settings, (sending(each, partition=1) for each in requests))
    await wait_until_consumed(settings, check=worker.check)
    traced = psutil.Process(worker.pid).children()[0]
    traced.send_signal(signal.SIGTERM)
    assert await worker.ended() == 0

    steps = list(steps_of(log, settings.data_dir))
    _, *chunks = chunks_of(steps)
    assert len(chunks) >= 3
    for chunk in chunks:
        # One flush for the contents of files and tiles, one for their names and the bytes of the
        # checkpoint, one for its name, and one for the index, whatever their number.
        contents, named, replaced = chunk.flushes
        written, renamed = chunk.checkpoint
        assert max(chunk.written) < contents < min(chunk.links)
        assert max(chunk.links) < written < named < renamed < replaced
        assert replaced < min(chunk.rows) <= max(chunk.rows) < chunk.indexed
    told, committed = ([n for n, (s, _) in enumerate(steps) if s == step] for step in TOLD)
    # The start commits as well.
    told, committed = told[-len(chunks) :], committed[-len(chunks) :]
    for chunk, tell, commit in zip(chunks, told, committed, strict=True):
        assert chunk.indexed < tell < commit
    # Each is written by a thread of its own, while the one before is not indexed yet.
    assert any(min(after.written) < before.indexed for before, after in pairwise(chunks))
    # Every run's file, the quarantined request of the red one, and the tiles of each chunk.
    links = sum(len(chunk.links) for chunk in chunks)
    assert links >= RUNS + 1 + TILES * len(chunks)
    (await audit_store(settings)).assert_whole()
