"""An engine whose steps a test halts, lets go and fails, one by one; and its consumer."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError

from pipeline.broker.sending.batches import Message
from pipeline.consumers.engine.batches import BatchWorker, Record, Steps
from pipeline.consumers.engine.outbox import Outbox
from pipeline.consumers.engine.subscription import Subscription
from pipeline.settings import Settings
from pipeline.storage.batch_store import BatchResult

TOPIC = "rmos.runs.requests"
PATIENCE_SECONDS = 60.0
STEPS = ("judge", "write", "store", "publish", "commit")


class Polled(SimpleNamespace):
    """A record, to which there may be weak references."""


def place(partition: int = 0) -> TopicPartition:
    """Return a partition of the topic."""
    return TopicPartition(TOPIC, partition)


def records(offsets: Iterable[int], partition: int = 0) -> list[Record]:
    """Return records at `offsets`."""
    return [
        cast(
            "Any",
            Polled(
                topic=TOPIC,
                partition=partition,
                offset=offset,
                timestamp=0,
                key=None,
                value=b"{}",
                headers=(),
            ),
        )
        for offset in offsets
    ]


@contextmanager
def uncollected() -> Iterator[Callable[[Iterable[Record]], None]]:
    """Give what notes records, while the collector is off; at the end none may live any more."""
    held: list[Any] = []

    def note(records: Iterable[Record]) -> None:
        held.extend(map(weakref.ref, records))

    gc.collect()
    gc.disable()
    try:
        yield note
        assert [each().offset for each in held if each() is not None] == []
    finally:
        gc.enable()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that threads may bring about."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


class Written:
    """Contents that were written ahead."""

    def __init__(self) -> None:
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


class Halted:
    """The steps that a test halts or fails, each by its name and the first offset of its chunk."""

    def __init__(self) -> None:
        self.log: list[tuple[str, int]] = []
        self.began: list[tuple[str, int]] = []
        self.faults: dict[tuple[str, int], BaseException] = {}
        self._gates: dict[tuple[str, int], threading.Event] = {}

    def halt(self, step: str, offset: int) -> None:
        """Let a step of a chunk wait for `go`."""
        self._gates[step, offset] = threading.Event()

    def go(self, step: str, offset: int) -> None:
        """Let it go on."""
        self._gates[step, offset].set()

    def pass_now(self, step: str, offset: int) -> None:
        """Pass a step in a thread."""
        self.began.append((step, offset))
        gate = self._gates.get((step, offset))
        if gate is not None and not gate.wait(PATIENCE_SECONDS):
            raise TimeoutError(step, offset)
        self._end(step, offset)

    async def pass_soon(self, step: str, offset: int) -> None:
        """Pass a step in the event loop."""
        self.began.append((step, offset))
        gate = self._gates.get((step, offset))
        if gate is not None:
            await until(gate.is_set)
        self._end(step, offset)

    def _end(self, step: str, offset: int) -> None:
        if (step, offset) in self.faults:
            # By no name: a frame that holds the fault which it raises is never let go.
            raise self.faults.pop((step, offset))
        self.log.append((step, offset))

    def done(self, step: str) -> list[int]:
        """Return the first offset of each chunk that has done a step, in order."""
        return [offset for each, offset in self.log if each == step]

    async def wait_for(self, step: str, offset: int, *, began: bool = False) -> None:
        """Wait until a chunk has done, or begun, a step."""
        seen = self.began if began else self.log
        await until(lambda: (step, offset) in seen)


class Consumer:
    """What is used of aiokafka's consumer."""

    def __init__(self, steps: Halted) -> None:
        self.steps = steps
        self.ends: dict[TopicPartition, int] = {}
        self.assigned = {place(number) for number in range(4)}
        self.committed: list[dict[TopicPartition, int]] = []
        self.sought: dict[TopicPartition, int] = {}

    def assignment(self) -> set[TopicPartition]:
        return self.assigned

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        if not offsets.keys() <= self.assigned:
            raise IllegalStateError
        await self.steps.pass_soon("commit", max(offsets.values()))
        self.committed.append(dict(offsets))

    def seek(self, where: TopicPartition, offset: int) -> None:
        if where not in self.assigned:
            raise IllegalStateError
        self.sought[where] = offset


class _Judging:
    def __init__(self, steps: Halted) -> None:
        self._steps = steps
        self._next: list[int] = []

    async def judge(self, bodies: Sequence[Any]) -> list[Any]:
        await self._steps.pass_soon("judge", -1)
        return [None] * len(bodies)


class _Sender:
    def __init__(self, steps: Halted) -> None:
        self._steps = steps

    async def send(self, messages: Sequence[Message]) -> None:
        await self._steps.pass_soon("publish", cast("Any", messages[0]))


class Engine:
    """A worker of batches over steps that can be halted.

    Attributes:
        steps: To halt and to fail.
        written: What was written ahead, by the first offset of its chunk.
        consumer: What commits.
    """

    def __init__(self, executor: ThreadPoolExecutor, writer: ThreadPoolExecutor) -> None:
        self.steps = Halted()
        self.written: dict[int, Written] = {}
        self.consumer = Consumer(self.steps)
        self.worker: BatchWorker[Any, Any] = BatchWorker(
            Steps(cast("Any", _Judging(self.steps)), self._store, self._publish, self._write),
            Outbox("group", "events", "letters"),
            cast("Any", _Sender(self.steps)),
            epoch=1,
            executor=executor,
            writer=writer,
        )

    def _write(self, judged: Sequence[Any]) -> Any:
        first = judged[0].source.id.offset
        self.steps.pass_now("write", first)
        written = self.written[first] = Written()
        return written

    def _store(self, judged: Sequence[Any], _limit: Any, written: Any = None) -> BatchResult[Any]:
        try:
            self.steps.pass_now("store", judged[0].source.id.offset)
        finally:
            if written is not None:
                written.close()
        outcome = SimpleNamespace(code=None, kind="persisted", drifted=False, run_id="run_a")
        return BatchResult([outcome] * len(judged), 0)

    def _publish(self, request: Any, _outcome: Any) -> Iterator[Any]:
        yield request.source.id.offset


def subscription_of(worker: BatchWorker[Any, Any]) -> Subscription:
    """Return a subscription that feeds a worker and knows no place in its topic."""
    start = cast("Any", SimpleNamespace(places={}))
    return Subscription(Settings(broker_pause_seconds=1e-9), worker, topic=TOPIC, start=start)


@contextmanager
def engine() -> Iterator[Engine]:
    """Give an engine whose threads end with the block."""
    with ThreadPoolExecutor(1) as executor, ThreadPoolExecutor(1) as writer:
        yield Engine(executor, writer)
