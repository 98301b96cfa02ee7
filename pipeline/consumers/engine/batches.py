"""The one way of a chunk of records: judge, write, store, publish, commit its offsets.

Several chunks are on their way at once, each in another step: while one is stored, the next one is
written and others are judged, the one before is published, and offsets of the one before that are
committed. A step begins once the chunk before has done it, so everything is done in order. Where a
chunk fails, those before it go on and those behind it are dropped. The states of a chunk:

| state | if the process dies here |
|---|---|
| polled, judged | nothing happened; it is delivered again |
| written: its contents, none with a name | the same; the kernel frees them |
| stored | delivered again, with the same outcomes |
| published: events and dead letters confirmed | delivered again, published again, same event_ids |
| offsets committed | done |
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

from aiokafka import ConsumerRecord

from pipeline import metrics
from pipeline.broker.sending.batches import BatchSender, Message
from pipeline.consumers.engine.judging import SMALL_BATCH_RECORDS, Judging
from pipeline.consumers.engine.outbox import CountedOutcome, Outbox, Request, request_of
from pipeline.consumers.engine.traces import Traces
from pipeline.core.dead_letters.carried_record import held_bytes
from pipeline.core.envelope import Rejected
from pipeline.core.store.files import WrittenAhead
from pipeline.errors import RmosError, thread_faults
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.batch_store import BatchResult, RejectLimit

CHUNK_RECORDS = 512
"""Most records of one transaction of the index. With 1,024, up to five chunks in flight took 50 MB
more for 2 % more records a second."""

CHUNKS_IN_FLIGHT = 5
"""Most chunks on their way, one in each step."""

CHUNK_BYTES = 16 * 1024 * 1024
"""Most bytes of records of one chunk; a single larger record is a chunk of its own."""

Verdict = TypeVar("Verdict")
Outcome = TypeVar("Outcome", bound=CountedOutcome)

Record: TypeAlias = ConsumerRecord
Step: TypeAlias = asyncio.Future[BaseException | None]


class BatchDeferred(Exception):  # noqa: N818 - not an error of its own: its cause is
    """A chunk was dropped as one before it failed: nothing of it may be committed.

    Attributes:
        fault: That of the chunk that failed.
    """

    def __init__(self, fault: BaseException) -> None:
        """Name the fault."""
        super().__init__(f"A batch before it failed: {str(fault) or type(fault).__name__}")
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Steps(Generic[Verdict, Outcome]):
    """What one kind of worker does with records; the engine calls them in this order.

    Attributes:
        judge: Judges records, each alone, without touching the disk.
        store: Stores judged records durably, in the worker's one thread for that, and returns what
            became of each. Gets what `write` returned, if that was called, and closes it.
        publish: Returns the messages that report the outcome of one request.
        write: Writes ahead what `store` is likely to need, in a thread of its own; nothing of it is
            visible. None where there is nothing.
    """

    judge: Judging[Verdict | Rejected]
    store: Callable[..., BatchResult[Outcome]]
    publish: Callable[[Request, Outcome], Iterable[Message]]
    write: Callable[[Sequence[JudgedRecord[Verdict | Rejected]]], WrittenAhead] | None = None


class Chunk:
    """Which steps of a chunk are done: each holds None then, or the fault if it never will be.

    Attributes:
        storing: All before it is stored, and it is being stored.
        task: Ends with its last step, or with the fault.
    """

    __slots__ = ("committed", "published", "stored", "storing", "task")
    task: asyncio.Task[None]

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.storing: Step = loop.create_future()
        self.stored: Step = loop.create_future()
        self.published: Step = loop.create_future()
        self.committed: Step = loop.create_future()

    def settle(self, fault: BaseException | None = None) -> "Chunk":
        """Let every step that is open be done, or never to be done."""
        for step in (self.storing, self.stored, self.published, self.committed):
            if not step.done():
                step.set_result(fault)
        return self


async def _nothing() -> None:
    """Commit nothing: the caller does it."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """The records of a chunk, and what is called at its end.

    Attributes:
        records: In offset order within each partition.
        commit: The last step: commits their offsets.
        failed: Called if the chunk fails or is dropped, before another can begin in its place.
    """

    records: Sequence[Record]
    commit: Callable[[], Awaitable[None]] = _nothing
    failed: Callable[[BaseException], None] = lambda _: None


class BatchWorker(Generic[Verdict, Outcome]):
    """Takes chunks of records through the steps.

    Attributes:
        steps: Those of its requests.
        outbox: Counts outcomes; knows the consumer group.
        executor: One thread, which does all that waits for the disk, but for writing ahead.
        traces: Where batches are reported as spans.
    """

    def __init__(
        self,
        steps: Steps[Verdict, Outcome],
        outbox: Outbox,
        sender: BatchSender,
        *,
        epoch: int,
        executor: Executor,
        writer: Executor,
        accepted_rejects: int = 0,
        traces: Traces | None = None,
    ) -> None:
        """Make a worker.

        Args:
            steps: Those of its requests.
            outbox: Counts outcomes; knows the consumer group.
            sender: Where events and dead letters go.
            epoch: That of the store.
            executor: One thread, which does all that waits for the disk, but for writing ahead.
            writer: One thread, which writes ahead.
            accepted_rejects: Failures that do not count against the reject limit.
            traces: Where batches are reported as spans; nowhere by default.
        """
        self.steps = steps
        self.outbox = outbox
        self.executor = executor
        self._writer = writer
        self._sender = sender
        self._epoch = epoch
        self._accepted_rejects = accepted_rejects
        self.traces = traces or Traces()
        self._chunks: list[Chunk] = []
        self._room_noted: list[Callable[[object], None]] = []

    @property
    def group(self) -> str:
        """Its consumer group."""
        return self.outbox.group

    @property
    def in_flight(self) -> int:
        """Number of chunks on their way."""
        return len(self._chunks)

    @property
    def unstored(self) -> int:
        """Number of chunks that are not stored yet."""
        return sum(not chunk.stored.done() for chunk in self._chunks)

    def call_at_room(self, call: Callable[[object], None]) -> None:
        """Let `call` be called once any chunk is stored, and once it has ended."""
        self._room_noted.append(call)

    async def process(
        self, records: Sequence[Record], steps: Steps[Verdict, Outcome] | None = None
    ) -> None:
        """Take one batch through all steps but the last; return when all of it is confirmed.

        Args:
            records: In offset order within each partition.
            steps: Those to take, if not the usual.

        Raises:
            BatchDeferred: Another chunk failed, before it; the batch may be tried again.
            BrokerError: The broker failed; what is stored stays, and the batch may be tried again.
            RejectLimitError: Too many records fail; nothing of the chunk was written.
            StoreError: The disk failed; nothing may be acknowledged.
        """
        begun: list[asyncio.Task[None]] = []
        for part in chunks_of(records):
            while self.in_flight >= CHUNKS_IN_FLIGHT:
                await asyncio.wait([self._chunks[0].task])
            if any(task.done() and (task.cancelled() or task.exception()) for task in begun):
                break
            begun.append(self.begin(Delivery(part), steps).task)
        results = await asyncio.gather(*begun, return_exceptions=True)
        faults = [each for each in results if each is not None]
        try:
            if faults:
                # Others may have been dropped because of it.
                raise next((e for e in faults if not isinstance(e, BatchDeferred)), faults[0])
        finally:
            # The fault's traceback holds this frame, so the frame must not hold the fault.
            del begun, results, faults

    def begin(self, delivery: Delivery, steps: Steps[Verdict, Outcome] | None = None) -> Chunk:
        """Begin with a chunk, behind those that are on their way."""
        before = self._chunks[-1] if self._chunks else Chunk().settle()
        chunk = Chunk()
        self._chunks.append(chunk)
        chunk.task = asyncio.create_task(self._take(delivery, steps or self.steps, chunk, before))
        chunk.task.add_done_callback(_let_go)
        for call in self._room_noted:
            chunk.stored.add_done_callback(call)
            chunk.task.add_done_callback(call)
        return chunk

    async def _take(
        self, delivery: Delivery, steps: Steps[Verdict, Outcome], chunk: Chunk, before: Chunk
    ) -> None:
        """Take a chunk through the steps, each behind that of the chunk before it."""
        writing: Future[WrittenAhead] | None = None
        try:
            with thread_faults(), self.traces.batch(self.group, delivery.records) as report:
                requests, judged = await self._judge(steps, delivery.records)
                await _reached(before.storing)
                if steps.write is not None and _is_worth_a_thread(judged, before):
                    with self._stage("write"):
                        writing = self._writer.submit(steps.write, judged)
                        await asyncio.shield(asyncio.wrap_future(writing))
                await _reached(before.stored)
                chunk.storing.set_result(None)
                storing, writing = self._store(steps, judged, writing), None
                outcomes = await storing
                del judged  # Most of the memory of a chunk.
                self.outbox.count(requests, outcomes)
                chunk.stored.set_result(None)
                await _reached(before.published)
                await self._publish(steps, requests, outcomes)
                chunk.published.set_result(None)
                await _reached(before.committed)
                await delivery.commit()
                report(outcomes)
                chunk.committed.set_result(None)
        except BaseException as error:
            # First: whatever becomes of the call, nothing behind the chunk may go on.
            chunk.settle(error.fault if isinstance(error, BatchDeferred) else error)
            delivery.failed(error)
            raise
        finally:
            if writing is not None:
                # It was not stored: what was written for it is gone with its last descriptor.
                writing.add_done_callback(_close)
            self._chunks.remove(chunk)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Measure a stage of the chunk that this task takes."""
        begin = time.perf_counter()
        with self.traces.stage(name):
            try:
                yield
            finally:
                seconds = time.perf_counter() - begin
                stage = metrics.STAGE_SECONDS.labels(self.group, name)
                stage.observe(seconds, self.traces.exemplar())

    async def _judge(
        self, steps: Steps[Verdict, Outcome], records: Sequence[Record]
    ) -> tuple[list[Request], list[JudgedRecord[Verdict | Rejected]]]:
        with self._stage("judge"):
            requests = [request_of(record, self._epoch) for record in records]
            return requests, await judged_records(steps.judge, requests)

    async def _store(
        self,
        steps: Steps[Verdict, Outcome],
        judged: Sequence[JudgedRecord[Verdict | Rejected]],
        writing: "Future[WrittenAhead] | None",
    ) -> list[Outcome]:
        with self._stage("store"):
            limit = RejectLimit(self.group, self._accepted_rejects)
            written = () if writing is None else (writing.result(),)
            storing = self.executor.submit(steps.store, judged, limit, *written)
            if writing is not None:
                storing.add_done_callback(partial(_close_unused, writing))
            result = await asyncio.wrap_future(storing)
            self._accepted_rejects -= result.accepted_rejects
        return result.outcomes

    async def _publish(
        self,
        steps: Steps[Verdict, Outcome],
        requests: Sequence[Request],
        outcomes: Sequence[Outcome],
    ) -> None:
        with self._stage("publish"):
            reported = zip(requests, outcomes, strict=True)
            await self._sender.send([each for pair in reported for each in steps.publish(*pair)])


async def _reached(step: Step) -> None:
    """Wait for a step of the chunk before.

    Raises:
        BatchDeferred: It will never be done.
    """
    # Shielded: a chunk that is cancelled while it waits must not cancel the step of another.
    fault = await asyncio.shield(step)
    if fault is not None:
        raise BatchDeferred(fault)


def _let_go(task: "asyncio.Task[None]") -> None:
    """Let go of the records of a chunk that failed.

    Its steps hold the fault, whose traceback holds the records and all that was made of them: a
    cycle. Only a fault that is none of ours is ever shown with its traceback, and ends the worker.
    """
    with suppress(BaseException):
        try:
            # Unlike `exception`, this lets go of the task's own reference to the traceback.
            task.result()
        except (RmosError, BatchDeferred) as error:
            fault: BaseException | None = error
            while fault is not None:
                fault = fault.with_traceback(None).__context__


def _is_worth_a_thread(judged: Sequence[object], before: Chunk) -> bool:
    """Return whether to write ahead: not a few files that can be stored at once."""
    return len(judged) >= SMALL_BATCH_RECORDS or not before.stored.done()


def _close_unused(writing: "Future[WrittenAhead]", storing: "Future[Any]") -> None:
    """Close what was written for a store that was cancelled before it began."""
    if storing.cancelled():
        _close(writing)


def _close(writing: "Future[WrittenAhead]") -> None:
    if not writing.cancelled() and writing.exception() is None:
        writing.result().close()


def chunks_of(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """Cut `records` into chunks of bounded number and size, in their order."""
    start = size = 0
    for end, record in enumerate(records):
        length = held_bytes(record)
        if end > start and (end - start == CHUNK_RECORDS or size + length > CHUNK_BYTES):
            yield records[start:end]
            start, size = end, 0
        size += length
    yield records[start:]


async def judged_records(
    judging: Judging[Verdict], requests: Sequence[Request]
) -> list[JudgedRecord[Verdict]]:
    """Return `requests` with their verdicts, in their order."""
    verdicts = await judging.judge([(each.key, each.value) for each in requests])
    return [
        JudgedRecord.of(request.source, verdict, request.value, request.timestamp_ms)
        for request, verdict in zip(requests, verdicts, strict=True)
    ]
