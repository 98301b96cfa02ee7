"""The one way of a batch: judge, store, publish; only then may its offsets be committed.

A batch from the poll is cut into chunks of bounded size. While one chunk is stored, the next ones
are judged. The states of a chunk, and what happens if the process dies there:

| state | if the process dies here |
|---|---|
| polled, judged | nothing happened; it is delivered again |
| stored | delivered again, with the same outcomes |
| published: events and dead letters confirmed | delivered again, published again, same event_ids |
| offsets committed | done |
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeAlias, TypeVar

from aiokafka import ConsumerRecord

from pipeline import metrics
from pipeline.broker.sending.batches import BatchSender, Message
from pipeline.consumers.engine.judging import Judging, judged_records
from pipeline.consumers.engine.outbox import CountedOutcome, Outbox, Request, request_of
from pipeline.core.dead_letters.carried_record import held_bytes
from pipeline.core.envelope import Rejected
from pipeline.errors import thread_faults
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.batch_store import BatchResult, RejectLimit

CHUNK_RECORDS = 512
"""Most records of one transaction of the index."""

CHUNKS_AHEAD = 3
"""Most chunks that are judged or wait to be stored. With one, the judging process and the disk
waited for each other: measured, a fifth of the records a second."""

CHUNK_BYTES = 16 * 1024 * 1024
"""Most bytes of records of one chunk; a single larger record is a chunk of its own."""

Verdict = TypeVar("Verdict")
Outcome = TypeVar("Outcome", bound=CountedOutcome)

Record: TypeAlias = ConsumerRecord


class BatchDeferred(Exception):  # noqa: N818 - not an error of its own: its cause is
    """A batch was put off: its offsets must not be committed, and it is delivered again."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How a consumer waits after a fault of the broker.

    Attributes:
        pause_seconds: The shortest pause; jitter makes it up to twice as long.
    """

    pause_seconds: float

    async def rest(self) -> None:
        """Wait, each worker a time of its own, so that not all come back at once."""
        await asyncio.sleep(self.pause_seconds * random.uniform(1, 2))  # noqa: S311


@dataclass(frozen=True, slots=True)
class Steps(Generic[Verdict, Outcome]):
    """What one kind of worker does with records; the engine calls the three in this order.

    Attributes:
        judge: Judges records, each alone, without touching the disk.
        store: Stores judged records durably, in the worker's one thread, and returns what became
            of each.
        publish: Returns the messages that report the outcome of one request.
    """

    judge: Judging[Verdict | Rejected]
    store: Callable[[Sequence[JudgedRecord[Verdict | Rejected]], RejectLimit], BatchResult[Outcome]]
    publish: Callable[[Request, Outcome], Iterable[Message]]


@dataclass(frozen=True, slots=True)
class _Chunk(Generic[Verdict]):
    requests: Sequence[Request]
    judged: Sequence[JudgedRecord[Verdict | Rejected]]


class BatchWorker(Generic[Verdict, Outcome]):
    """Takes batches of records through the three steps.

    Attributes:
        steps: Its three functions.
        outbox: Counts outcomes; knows the consumer group.
        executor: One thread, which does all that waits for the disk.
    """

    def __init__(
        self,
        steps: Steps[Verdict, Outcome],
        outbox: Outbox,
        sender: BatchSender,
        *,
        epoch: int,
        executor: Executor,
        accepted_rejects: int = 0,
        turns: asyncio.Lock | None = None,
    ) -> None:
        """Make a worker.

        Args:
            steps: Its three functions.
            outbox: Counts outcomes; knows the consumer group.
            sender: Where events and dead letters go.
            epoch: That of the store.
            executor: One thread, which does all that waits for the disk.
            accepted_rejects: Failures that do not count against the reject limit.
            turns: Held from storing a chunk until it is published; its own by default.
        """
        self.steps = steps
        self.outbox = outbox
        self.executor = executor
        self._sender = sender
        self._epoch = epoch
        self._accepted_rejects = accepted_rejects
        self._turns = turns or asyncio.Lock()

    @property
    def group(self) -> str:
        """Its consumer group."""
        return self.outbox.group

    def with_steps(self, steps: Steps[Verdict, Outcome]) -> "BatchWorker[Verdict, Outcome]":
        """Return a worker that does `steps` and has all else in common with this one."""
        return BatchWorker(
            steps,
            self.outbox,
            self._sender,
            epoch=self._epoch,
            executor=self.executor,
            turns=self._turns,
        )

    async def process(self, records: Sequence[Record]) -> None:
        """Judge, store and publish one batch; return when the broker has confirmed all of it.

        Raises:
            BrokerError: The broker failed; what is stored stays, and the batch may be tried again.
            RejectLimitError: Too many records fail; nothing of the chunk was written.
            StoreError: The disk failed; nothing may be acknowledged.
        """
        metrics.BATCH_RECORDS.labels(self.group).observe(len(records))
        with thread_faults():
            await self._process(records)
        oldest_ms = min(record.timestamp for record in records)
        age_seconds = max(0.0, time.time() - oldest_ms / 1000)
        metrics.RECORD_AGE_SECONDS.labels(self.group).observe(age_seconds)

    async def _process(self, records: Sequence[Record]) -> None:
        chunks = chunks_of(records)
        judging: deque[asyncio.Task[_Chunk[Verdict]]] = deque()
        try:
            self._judge_ahead(chunks, judging)
            while judging:
                chunk = await judging[0]
                judging.popleft()
                self._judge_ahead(chunks, judging)
                # Else a claim stored here could be reported as linked before it is as waiting.
                async with self._turns:
                    outcomes = await self._store(chunk)
                    await self._publish(chunk, outcomes)
        finally:
            await drop(judging)

    def _judge_ahead(
        self, chunks: Iterator[Sequence[Record]], judging: deque[asyncio.Task[_Chunk[Verdict]]]
    ) -> None:
        """Begin to judge the next chunks, so that judging never waits for the disk."""
        for chunk in islice(chunks, CHUNKS_AHEAD - len(judging)):
            judging.append(asyncio.create_task(self._judge(chunk)))

    async def _judge(self, records: Sequence[Record]) -> _Chunk[Verdict]:
        with metrics.STAGE_SECONDS.labels(self.group, "judge").time():
            requests = [request_of(record, self._epoch) for record in records]
            return _Chunk(requests, await judged_records(self.steps.judge, requests))

    async def _store(self, chunk: _Chunk[Verdict]) -> list[Outcome]:
        with metrics.STAGE_SECONDS.labels(self.group, "store").time():
            limit = RejectLimit(self.group, self._accepted_rejects)
            result = await asyncio.get_running_loop().run_in_executor(
                self.executor, self.steps.store, chunk.judged, limit
            )
            self._accepted_rejects -= result.accepted_rejects
        self.outbox.count(chunk.requests, result.outcomes)
        return result.outcomes

    async def _publish(self, chunk: _Chunk[Verdict], outcomes: Sequence[Outcome]) -> None:
        with metrics.STAGE_SECONDS.labels(self.group, "publish").time():
            reported = zip(chunk.requests, outcomes, strict=True)
            await self._sender.send(
                [each for pair in reported for each in self.steps.publish(*pair)]
            )


async def drop(judging: Collection[asyncio.Task[Any]]) -> None:
    """End what is still being judged when another chunk failed; its verdicts are dropped."""
    for task in judging:
        task.cancel()
    if judging:
        await asyncio.wait(judging)
    for task in judging:
        if not task.cancelled():
            # Its chunk is judged again with the whole batch; one failure was reported already.
            task.exception()


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
