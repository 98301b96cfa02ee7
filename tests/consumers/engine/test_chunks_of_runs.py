"""Chunks in flight over a real store: what a full disk, a flood and a broker that is away leave."""

import asyncio
import errno
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from pipeline.broker.sending.batches import Message
from pipeline.consumers.engine import batches, in_flight
from pipeline.consumers.engine.batches import BatchWorker, Record, Steps
from pipeline.consumers.engine.in_flight import InFlight
from pipeline.consumers.engine.judging import Judging
from pipeline.consumers.engine.outbox import Outbox
from pipeline.consumers.engine.readiness import Backoff, PutOff, Standing
from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.runs.event import run_event, run_event_headers
from pipeline.core.runs.outcome import Outcome
from pipeline.core.runs.verdict import judge_run_record
from pipeline.disk.durable_files import WrittenFiles
from pipeline.errors import BrokerError, RejectLimitError, StoreError
from pipeline.storage.batch_store import BatchResult
from pipeline.storage.run_store import RunRecord, RunStore
from tests.builders import record, run_request
from tests.consumers.engine.chunks import STEPS, Consumer, Halted, place, records, until
from tests.ledger.ledgers import LOG, WatchedLogCalls, check_whole, ledger
from tests.storage.stores import files, make_store, opened, rows

CHUNK = 4
TILES = 2
"""Of each chunk: its leaves, and their hashes."""


class Shop:
    """A persist worker without a broker.

    Attributes:
        steps: To halt and to fail, each by the number of the first run of its chunk.
        sent: The run_id of each event, in order.
    """

    def __init__(
        self, store: RunStore, executor: ThreadPoolExecutor, writer: ThreadPoolExecutor
    ) -> None:
        self.steps = Halted()
        self.consumer = Consumer(self.steps)
        self.sent: list[str] = []
        self.faults: list[BaseException] = []
        self._runs = store
        self._judging = Judging(judge_run_record, in_child=False)
        outbox = Outbox("rmos.persist", "events", "letters")
        self.worker: BatchWorker[Any, Any] = BatchWorker(
            Steps(
                cast("Any", self),
                self._store,
                partial(outbox.messages, run_event, run_event_headers),
                self._write,
            ),
            outbox,
            cast("Any", self),
            epoch=1,
            executor=executor,
            writer=writer,
        )
        self.flight = InFlight(
            self.worker,
            lambda: cast("Any", self.consumer),
            put_off=PutOff(Standing("group")),
            backoff=Backoff(1e-9),
            give_up=self.faults.append,
        )

    async def judge(self, bodies: Sequence[Any]) -> list[Any]:
        await self.steps.pass_soon("judge", _number(bodies[0][0]))
        return await self._judging.judge(bodies)

    def _write(self, judged: Sequence[RunRecord]) -> WrittenFiles:
        self.steps.pass_now("write", judged[0].source.id.offset)
        return self._runs.write(judged)

    def _store(self, judged: Sequence[RunRecord], *arguments: Any) -> BatchResult[Outcome]:
        self.steps.pass_now("store", judged[0].source.id.offset)
        return self._runs.commit(judged, *arguments)

    async def send(self, messages: Sequence[Message]) -> None:
        keys = [each.key.decode() for each in messages if each.key]
        await self.steps.pass_soon("publish", _number(keys[0].encode()))
        self.sent += keys

    async def put(self, offsets: range) -> None:
        await self.flight.put([run_at(offset) for offset in offsets], {place(): offsets.stop})

    async def settle(self) -> None:
        await until(lambda: not self.worker.in_flight)

    @property
    def committed(self) -> int:
        return max((offsets[place()] for offsets in self.consumer.committed), default=0)


def _number(run_id: bytes) -> int:
    return int(run_id.removeprefix(b"run_"))


def run_at(offset: int) -> Record:
    key, value = record(run_request(run_id=f"run_{offset}"))
    (made,) = records([offset])
    made.key, made.value = key, value
    return made


def bad_at(offset: int) -> Record:
    made = run_at(offset)
    made.value = b"{"
    return made


def unnamed_files(root: Path) -> list[str]:
    """Return the files of a store without a name that this process has open."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(str(descriptor.readlink()))
    return [path for path in found if path.startswith(f"{root}/#")]


def stored_runs(root: Path) -> set[str]:
    """Return the runs that have a file; each must have its row, and the other way round."""
    found = {Path(path).stem for path in files(root) if path.startswith("runs/")}
    assert found == {row["run_id"] for row in rows(root)["runs"]}
    return found


def covered_offsets(root: Path) -> set[int]:
    """Return the offsets that the checkpoint covers; of each run its file must be there."""
    if not (root / LOG.path / "checkpoint").exists():
        return set()
    found = list(check_whole(root).leaves())
    stored = files(root)
    for leaf in found:
        assert leaf.path is None or sha256_of_bytes(stored[leaf.path]) == leaf.sha256
    return {leaf.offset for leaf in found}


@pytest.fixture
def calls() -> WatchedLogCalls:
    return WatchedLogCalls()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def shop(root: Path, calls: WatchedLogCalls, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    for module in (batches, in_flight):
        monkeypatch.setattr(module, "CHUNK_RECORDS", CHUNK)
    monkeypatch.setattr(batches, "SMALL_BATCH_RECORDS", 1)
    make_store(root)
    with (
        opened(root, calls, ledger=ledger(root, calls)) as store,
        ThreadPoolExecutor(1, thread_name_prefix="store") as executor,
        ThreadPoolExecutor(1, thread_name_prefix="write") as writer,
    ):
        shop = Shop(store, executor, writer)
        yield shop
        assert unnamed_files(root) == []
        assert covered_offsets(root) >= set(range(shop.committed))


def runs(count: int) -> set[str]:
    return {f"run_{number}" for number in range(count)}


async def test_chunks_that_overlap_are_each_flushed_named_flushed_and_then_published(
    shop: Shop, calls: WatchedLogCalls
) -> None:
    """What the next chunk writes meanwhile has a flush of its own before it gets a name.

    The checkpoint covers it once its name is durable, and has its own name before it is told.
    """
    log: list[Any] = shop.steps.log

    def note(name: str, arguments: tuple[Any, ...]) -> None:
        # A descriptor's number is given again: a write is known by the run that it writes.
        about = run_in(arguments[1]) if name in {"write", "link_unnamed"} else None
        log.append((f"disk.{name}", about, threading.current_thread().name[:5]))

    await shop.put(range(CHUNK))  # It makes the log.
    await shop.settle()
    calls.after = note
    await shop.put(range(CHUNK, 4 * CHUNK))
    await shop.settle()
    disk = [entry for entry in log if entry[0].startswith("disk.")]
    assert {entry[2] for entry in disk if entry[0] == "disk.write" and entry[1]} == {"write"}
    steps = {"disk.syncfs", "disk.link_unnamed", "disk.replace"}
    stored = [entry[0] for entry in disk if entry[2] == "store" and entry[0] in steps]
    links = ["disk.link_unnamed"] * (CHUNK + TILES)
    assert stored == 3 * [
        *("disk.syncfs", *links, "disk.syncfs"),
        *("disk.replace", "disk.syncfs"),
    ]

    flushes = [place for place, entry in enumerate(log) if entry[0] == "disk.syncfs"]
    for number in range(3):
        contents, names, checkpoint = flushes[3 * number : 3 * number + 3]
        first = (number + 1) * CHUNK
        for run in range(first, first + CHUNK):
            (written,) = places_of(log, "disk.write", f"run_{run}")
            (linked,) = places_of(log, "disk.link_unnamed", f"run_{run}")
            assert written < contents < linked < names
        assert checkpoint < log.index(("publish", first)) < log.index(("commit", first + CHUNK))


def run_in(written: Any) -> str | None:
    """Return the run that a path or the bytes of an artifact name; tiles name many."""
    text = written if isinstance(written, str) else bytes(written).decode("latin-1")
    found = re.match(r"run_[0-9]+|\{.*?(?P<run>run_[0-9]+)", text, re.DOTALL)
    return found and (found["run"] or found[0])


def places_of(log: Sequence[tuple[Any, ...]], step: str, run: str) -> list[int]:
    return [place for place, entry in enumerate(log) if entry[:2] == (step, run)]


async def test_a_disk_that_is_full_while_a_chunk_is_written_ahead_takes_nothing_of_it(
    root: Path, shop: Shop, calls: WatchedLogCalls
) -> None:
    written = 0

    def fill(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal written
        if name == "write" and run_in(arguments[1]):
            written += 1
            if written == CHUNK + 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    calls.before = fill
    shop.steps.halt("publish", 0)
    await shop.put(range(3 * CHUNK))
    await until(lambda: bool(shop.faults))
    shop.steps.go("publish", 0)
    await shop.flight.finish(10)
    (fault,) = shop.faults
    assert isinstance(fault, StoreError)
    assert "free some space" in str(fault)
    assert stored_runs(root) == runs(CHUNK)
    assert shop.committed == CHUNK
    assert shop.sent == [f"run_{number}" for number in range(CHUNK)]


async def test_nothing_is_visible_of_the_chunk_that_reaches_the_reject_limit_nor_of_those_behind(
    root: Path, shop: Shop, calls: WatchedLogCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = set()

    def note(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "write" and not shop.faults:
            written.add(run_in(arguments[1]))

    calls.after = note
    for module in (batches, in_flight):
        monkeypatch.setattr(module, "CHUNK_RECORDS", 499)
    await shop.flight.put([bad_at(offset) for offset in range(499)], {place(): 499})
    await shop.settle()
    assert shop.committed == 499
    for module in (batches, in_flight):
        monkeypatch.setattr(module, "CHUNK_RECORDS", CHUNK)
    await shop.flight.put([run_at(499), bad_at(500), run_at(501), run_at(502)], {place(): 503})
    await shop.put(range(503, 503 + 2 * CHUNK))
    await shop.settle()
    (fault,) = shop.faults
    assert isinstance(fault, RejectLimitError)
    assert written >= {"run_499", "run_501", "run_502"}
    assert stored_runs(root) == set()
    assert covered_offsets(root) == set(range(499))
    assert shop.committed == 499


async def test_a_broker_that_fails_behind_chunks_that_are_durable_loses_and_doubles_nothing(
    root: Path, shop: Shop
) -> None:
    """The chunk of the fault, and two behind it that are stored, are delivered again."""
    shop.steps.halt("publish", CHUNK)
    shop.steps.faults["publish", CHUNK] = BrokerError("Away.")
    await shop.put(range(4 * CHUNK))
    await until(lambda: len(rows(root)["runs"]) == 4 * CHUNK)
    shop.steps.go("publish", CHUNK)
    await shop.settle()
    assert shop.committed == CHUNK
    before = files(root)
    await shop.flight.go_back()
    assert shop.consumer.sought == {place(): CHUNK}
    await shop.put(range(CHUNK, 4 * CHUNK))
    await shop.settle()
    assert shop.committed == 4 * CHUNK
    assert shop.sent == [f"run_{number}" for number in range(4 * CHUNK)]
    assert files(root) == before
    assert stored_runs(root) == runs(4 * CHUNK)


IN_FLIGHT = [(step, number * CHUNK) for step in STEPS for number in range(3)]


async def halted(shop: Shop, step: str, first: int) -> Callable[[], None]:
    """Put three chunks in flight, one halted in `step`; return what lets it go on."""
    gate = step, first + CHUNK if step == "commit" else first
    shop.steps.halt(*gate)
    await shop.put(range(3 * CHUNK))
    await shop.steps.wait_for(*gate, began=True)
    return partial(shop.steps.go, *gate)


@pytest.mark.parametrize(("step", "first"), IN_FLIGHT)
async def test_partitions_are_given_away_once_the_chunks_in_each_step_are_committed(
    root: Path, shop: Shop, step: str, first: int
) -> None:
    go_on = await halted(shop, step, first)
    giving_away = asyncio.create_task(shop.flight.finish(10))
    await asyncio.sleep(0.01)
    assert not giving_away.done()
    go_on()
    await giving_away
    assert shop.committed >= first + CHUNK
    assert stored_runs(root) == runs(shop.committed)
    assert shop.sent == [f"run_{number}" for number in range(shop.committed)]
    assert shop.faults == []


@pytest.mark.parametrize(("step", "first"), IN_FLIGHT)
async def test_what_outlasts_a_rebalance_commits_nothing_and_is_the_same_for_the_next_owner(
    root: Path, shop: Shop, step: str, first: int
) -> None:
    go_on = await halted(shop, step, first)
    await shop.flight.finish(0.01)
    shop.consumer.assigned = set()
    shop.flight.reopen()
    committed = shop.committed
    if step == "commit":
        # It ends without its answer.
        await shop.settle()
    go_on()
    await shop.settle()
    assert shop.committed == committed <= first
    before = files(root)

    shop.consumer.assigned = {place()}
    shop.flight.reopen()
    await shop.put(range(shop.committed, 3 * CHUNK))
    await shop.settle()
    assert shop.committed == 3 * CHUNK
    assert stored_runs(root) == runs(3 * CHUNK)
    assert before.items() <= files(root).items()
    assert set(shop.sent) == runs(3 * CHUNK)
    assert shop.faults == []
