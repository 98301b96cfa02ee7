"""The skeleton of every batch consumer: settle, tell, and only then let the offsets be committed.

One batch from the poll is cut into chunks of bounded size. While one chunk is being stored, the
next ones are judged. The states of a chunk, and what happens if the process dies there:

| state | if the process dies here |
|---|---|
| polled, judged | nothing happened; it is delivered again |
| stored | delivered again, with the same outcomes |
| told: events and dead letters confirmed | delivered again, told again with the same event_ids |
| offsets committed | done |
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import structlog
from aiokafka import TopicPartition
from faststream.exceptions import NackMessage

from pipeline import metrics
from pipeline.broker.sending.batches import BatchSender, Message
from pipeline.consumers.engine.put_off import PutOff
from pipeline.consumers.engine.standing import Standing
from pipeline.consumers.engine.subscription import Record
from pipeline.core.dead_letters.carried_record import held_bytes
from pipeline.errors import BrokerError, RmosError, StoreError, thread_faults

CHUNK_RECORDS = 512
"""Most records of one transaction of the index."""

CHUNKS_AHEAD = 3
"""Most chunks that are judged or wait to be stored. With one, the judging process and the disk
waited for each other: measured, a fifth of the records a second."""

CHUNK_BYTES = 16 * 1024 * 1024
"""Most bytes of records of one chunk; a single larger record is a chunk of its own."""

_log = structlog.get_logger(__name__)


class Chunk(Protocol):
    """Records that have been judged and wait to be stored."""

    async def store(self) -> Sequence[Message]:
        """Store them durably; return what is to be told."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How a consumer waits after a fault of the broker.

    Attributes:
        pause_seconds: The shortest pause; jitter makes it up to twice as long.
    """

    pause_seconds: float

    async def rest(self) -> None:
        """Wait, each worker a time of its own, so that not all come back at once."""
        await asyncio.sleep(self.pause_seconds * random.uniform(1, 2))  # noqa: S311


class BatchConsumer:
    """Takes batches of records and gives back nothing, or raises so that nothing is committed.

    A fault of the broker puts the batch off. Any other fault ends the worker: `fault` tells it.

    Attributes:
        standing: Why it is not ready although it polls.
    """

    def __init__(
        self,
        group: str,
        judge: Callable[[Sequence[Record]], Awaitable[Chunk]],
        sender: BatchSender,
        pace: Pace,
    ) -> None:
        """Make a consumer.

        Args:
            group: Its consumer group, for metrics and logs.
            judge: Judges the records of one chunk, one by one.
            sender: Where events and dead letters go.
            pace: How to wait after a fault of the broker.
        """
        self.group = group
        self.standing = Standing(group)
        self.fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._judge = judge
        self._sender = sender
        self._pace = pace
        self._put_off = PutOff(self.standing)

    async def handle(self, records: list[Record]) -> None:
        """Handle one batch from the poll.

        Raises:
            NackMessage: Its offsets must not be committed; it is delivered again.
        """
        if self.fault.done():
            # The worker is stopping; this batch was polled in between.
            await self._pace.rest()
            raise NackMessage
        try:
            with thread_faults():
                await self._settle(records)
        except BrokerError as error:
            metrics.FAULTS.labels(self.group, "broker").inc()
            _log.warning("batch put off", group=self.group, records=len(records), why=str(error))
            self._put_off.note(records, str(error))
            await self._pace.rest()
            raise NackMessage from error
        except Exception as error:
            self._give_up(error)
            raise NackMessage from error
        self._put_off.forget(records)

    def keep_only(self, assigned: Collection[TopicPartition]) -> None:
        """Take note that what was put off of all other partitions is another worker's."""
        self._put_off.keep_only(assigned)

    def _give_up(self, error: Exception) -> None:
        if isinstance(error, StoreError):
            metrics.FAULTS.labels(self.group, "store").inc()
        if not isinstance(error, RmosError | MemoryError):
            _log.error("batch failed", group=self.group, exc_info=error)
        if not self.fault.done():
            self.fault.set_exception(error)

    async def _settle(self, records: Sequence[Record]) -> None:
        metrics.BATCH_RECORDS.labels(self.group).observe(len(records))
        chunks = chunks_of(records)
        judging: deque[asyncio.Task[Chunk]] = deque()
        try:
            self._judge_ahead(chunks, judging)
            while judging:
                judged = await judging[0]
                judging.popleft()
                self._judge_ahead(chunks, judging)
                await self._store_and_tell(judged)
        finally:
            await drop(judging)
        self._observe_age(records)

    def _judge_ahead(
        self, chunks: Iterator[Sequence[Record]], judging: deque[asyncio.Task[Chunk]]
    ) -> None:
        """Begin to judge the next chunks, so that who judges never waits for who stores."""
        for chunk in islice(chunks, CHUNKS_AHEAD - len(judging)):
            judging.append(asyncio.create_task(self._judged(chunk)))

    async def _judged(self, chunk: Sequence[Record]) -> Chunk:
        with metrics.STAGE_SECONDS.labels(self.group, "judge").time():
            return await self._judge(chunk)

    async def _store_and_tell(self, chunk: Chunk) -> None:
        with metrics.STAGE_SECONDS.labels(self.group, "store").time():
            messages = await chunk.store()
        with metrics.STAGE_SECONDS.labels(self.group, "publish").time():
            await self._sender.send(messages)

    def _observe_age(self, records: Sequence[Record]) -> None:
        oldest_ms = min(record.timestamp for record in records)
        metrics.RECORD_AGE_SECONDS.labels(self.group).observe(
            max(0.0, time.time() - oldest_ms / 1000)
        )


async def drop(judging: Collection[asyncio.Task[Any]]) -> None:
    """End what is still being judged when another chunk failed; its verdicts are dropped."""
    for task in judging:
        task.cancel()
    if judging:
        await asyncio.wait(judging)
    for task in judging:
        if not task.cancelled():
            # Its chunk is judged again with the whole batch; one failure was told already.
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
