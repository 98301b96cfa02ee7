"""The system calls of one batch, in the order that the promise rests on, as the kernel saw them."""

import re
import shutil
import signal
from collections.abc import Iterator
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
"""New tiles of a log in a batch: the leaves and their hashes, as long as they fit one tile."""
PRODUCE, OFFSET_COMMIT = 0, 8

# With -y a descriptor is followed by what it is, with -xx every text is in hex.
_CALL = re.compile(r"^\d+ +(?P<name>\w+)\(\d+<(?P<what>[^>]*)>")
_BYTES = re.compile(r'"((?:\\x[0-9a-f]{2})+)"')


def steps_of(log: Path, store: Path) -> Iterator[str]:
    """Name each call that is a step of a batch; leave out the others."""
    for line in log.read_text(encoding="ascii").splitlines():
        found = _CALL.match(line)
        if found is None:
            continue
        step = step_of(found["name"], unhexed(found["what"]), line, str(store))
        if step:
            yield step


def unhexed(text: str) -> str:
    return re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), text)


def step_of(name: str, what: str, line: str, store: str) -> str | None:
    if name in {"fsync", "fdatasync"}:
        return "flush index" if what == f"{store}/index.sqlite3-wal" else None
    if name == "syncfs":
        return "syncfs" if what == store else None
    if name == "linkat":
        return "link"
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
    """Return the API key of a Kafka request: after its size, 4 bytes, in its first 2."""
    found = _BYTES.search(line)
    data = bytes.fromhex(found[1].replace("\\x", "")) if found else b""
    return int.from_bytes(data[4:6], "big") if len(data) >= 8 and data[4] == 0 else None


def batches_of(steps: list[str]) -> Iterator[list[str]]:
    """Cut the steps after each commit; what comes before the first file belongs to the start."""
    rest = steps[steps.index("write file") :]
    while "commit offsets" in rest:
        end = rest.index("commit offsets") + 1
        yield rest[:end]
        rest = rest[end:]


def first(steps: list[str], step: str) -> int:
    return steps.index(step)


def last(steps: list[str], step: str) -> int:
    return len(steps) - 1 - steps[::-1].index(step)


async def test_a_batch_is_written_flushed_linked_flushed_logged_indexed_told_and_then_committed(
    store_settings: Settings, workers: WorkerPool, tmp_path: Path
) -> None:
    settings, log = store_settings, tmp_path / "calls.log"
    wrapper = ["strace", "-f", "-y", "-xx", "-s", "16", "-e", f"trace={CALLS}", "-o", str(log)]
    worker = workers.start(settings, wrapper=wrapper)
    await worker.wait_until_started()
    # The first batch makes the log.
    await produce(settings, [sending(run_request(run_id="run_first"), partition=1)])
    await wait_until_consumed(settings, check=worker.check)
    requests = [*(run_request(run_id=f"run_{n}") for n in range(20)), red_request(run_id="run_red")]
    await produce(settings, (sending(each, partition=1) for each in requests))
    await wait_until_consumed(settings, check=worker.check)
    traced = psutil.Process(worker.pid).children()[0]
    traced.send_signal(signal.SIGTERM)
    assert await worker.ended() == 0

    steps = list(steps_of(log, settings.data_dir))
    _, *batches = batches_of(steps)
    for batch in batches:
        # One flush for the contents of files and tiles, one for their names and the bytes of the
        # checkpoint, one for its name, and one for the index, whatever their number.
        assert batch.count("syncfs") == 3, batch
        assert batch.count("flush index") == 1
        assert batch.count("link") == batch.count("write file") > TILES
        contents, named, replaced = (n for n, s in enumerate(batch) if s == "syncfs")
        assert last(batch, "write file") < contents < first(batch, "link")
        assert last(batch, "link") < first(batch, "write checkpoint")
        assert last(batch, "write checkpoint") < named < first(batch, "replace checkpoint")
        assert last(batch, "replace checkpoint") < replaced < first(batch, "write index")
        assert last(batch, "write index") < last(batch, "flush index") < first(batch, "tell")
        assert last(batch, "tell") < first(batch, "commit offsets")
    # Every run's file, the quarantined request of the red one, and the tiles of a batch.
    links = sum(batch.count("link") for batch in batches)
    assert links == len(requests) + 1 + TILES * len(batches)
    (await audit_store(settings)).assert_whole()
