"""The records of one subscription, from their poll to the commit of their offsets.

What a poll brings waits here until a chunk of it may begin: a full one while others are on their
way, any number as soon as nothing else waits for the disk. So a chunk holds what came while the one
before it was stored, and the flushes of a busy worker serve many records.

Offsets are committed chunk by chunk, in order, and never beyond what is durable and published.
Where a chunk fails, each partition goes back to its first record that was not committed: once, when
everything in flight has ended, and before the next poll.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError

from pipeline import metrics
from pipeline.consumers.engine.batches import (
    CHUNK_BYTES,
    CHUNK_RECORDS,
    CHUNKS_IN_FLIGHT,
    BatchDeferred,
    BatchWorker,
    Chunk,
    Delivery,
    Record,
    chunks_of,
)
from pipeline.consumers.engine.group_consumer import PolledConsumer
from pipeline.consumers.engine.readiness import Backoff, PutOff, record_at
from pipeline.core.dead_letters.carried_record import held_bytes
from pipeline.errors import BrokerError, StoreAwayError

CHUNKS_UNSTORED = 3
"""Most chunks that are not stored yet: one is judged, one is written ahead, one is stored."""

BYTES_IN_FLIGHT = CHUNK_BYTES
"""No chunk begins beside so many bytes of records: each is held some three times on its way.

Five chunks of records of 3.7 KB have 9.5 MB."""

COMMIT_SECONDS = 5.0
"""Longest wait for the coordinator of the group, which aiokafka asks for ever.

Five chunks wait for less than a stop does.
"""

_log = structlog.get_logger(__name__)

Offsets = dict[TopicPartition, int]


class InFlight:
    """The records of one subscription that are not committed yet."""

    def __init__(
        self,
        worker: BatchWorker[Any, Any],
        consumer: Callable[[], PolledConsumer | None],
        *,
        put_off: PutOff,
        backoff: Backoff,
        give_up: Callable[[BaseException], None],
        pause_seconds: float = 0.02,
    ) -> None:
        """Begin with none.

        Args:
            worker: Takes chunks of them through its steps.
            consumer: Returns the consumer that polled them.
            put_off: Notes which are tried again and again.
            backoff: Rests after a fault of the broker.
            give_up: Gets any other fault.
            pause_seconds: Longest time to the next poll while records wait and more may.
        """
        self._worker = worker
        self._consumer = consumer
        self._put_off = put_off
        self._backoff = backoff
        self._give_up = give_up
        self._pause_seconds = pause_seconds
        self._waiting: list[Record] = []
        self._waiting_bytes = 0
        self._ends: Offsets = {}
        self._chunks: set[Chunk] = set()
        self._flying_bytes = 0
        self._uncommitted: Offsets = {}
        self._first_failed: Offsets = {}
        self._why = ""
        self._committing: asyncio.Timeout | None = None
        self._is_closed = False
        self._is_stopping = False
        # One more with each rebalance, and where it does not wait any longer: records of an
        # earlier one may be done by another worker.
        self._assignment = 0
        self._changed = asyncio.Event()
        self._context = copy_context()
        # Also chunks of others take room: those of claims.
        worker.call_at_room(self._go_on)

    @property
    def must_go_back(self) -> bool:
        """Whether a chunk has failed, so that nothing behind it may be given out."""
        return bool(self._first_failed)

    async def put(self, records: Sequence[Record], ends: Mapping[TopicPartition, int]) -> None:
        """Take what a poll brought; return when there is room for the next.

        Args:
            records: In offset order within each partition.
            ends: Where each of their partitions goes on behind them; others are left alone.
        """
        if self._is_closed:
            return
        metrics.BATCH_RECORDS.labels(self._worker.group).observe(len(records))
        self._waiting += records
        self._waiting_bytes += sum(map(held_bytes, records))
        polled = {(each.topic, each.partition) for each in records}
        # The consumer also knows the end of a poll that was not given out.
        self._ends |= {place: end for place, end in ends.items() if place in polled}
        self._fill()
        # While records wait, a poll for each that comes would cost more than it brings.
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pause_seconds):
                await self._until(lambda: not self._waiting)
        await self._until(lambda: not self._is_full)

    async def go_back(self) -> None:
        """Go back to the first record of each partition that was not committed, and rest."""
        await self._ended(None)
        self._note_failed(self._waiting)
        self._drop_waiting()
        first, self._first_failed = self._first_failed, {}
        consumer = self._consumer()
        for place, offset in first.items():
            # One that was given away in between is another worker's.
            with suppress(IllegalStateError):
                # While partitions move: each will begin at its committed offset.
                if consumer is not None and not self._is_closed:
                    consumer.seek(place, offset)
        self._put_off.note([record_at(*place) for place in first.items()], self._why)
        self._why = ""
        await self._backoff.rest()

    async def finish(self, seconds: float) -> None:
        """Take nothing more until `reopen`; wait for what is in flight, at most so many seconds."""
        self._close()
        if not await self._ended(seconds):
            _log.warning("batch not finished", seconds=seconds)
            # What is sent after the rebalance would pass for a commit of the new owner.
            self._assignment += 1
            if self._committing is not None and not self._committing.expired():
                self._committing.reschedule(0)

    def stop(self) -> None:
        """Begin with nothing more, also after a rebalance; what is in flight goes on."""
        self._is_stopping = True
        self._close()

    def reopen(self) -> None:
        """Take records of partitions that were given out anew, each from its committed offset."""
        self._drop_waiting()
        self._first_failed = {}
        self._why = ""
        self._uncommitted = {}
        self._assignment += 1
        self._is_closed = self._is_stopping

    @property
    def _is_full(self) -> bool:
        return len(self._waiting) >= CHUNK_RECORDS or self._waiting_bytes >= CHUNK_BYTES

    async def _until(self, has_room: Callable[[], bool]) -> None:
        while not (has_room() or self._is_closed or self._first_failed):
            self._changed.clear()
            await self._changed.wait()

    def _fill(self) -> None:
        """Begin with as many chunks as may begin now."""
        while self._waiting and not (self._is_closed or self._first_failed):
            most = CHUNKS_UNSTORED if self._is_full else 1
            if (
                self._worker.unstored >= most
                or self._worker.in_flight >= CHUNKS_IN_FLIGHT
                or self._flying_bytes >= BYTES_IN_FLIGHT
            ):
                return
            # A task keeps the context that it begins in, and so do those that it leads to: that of
            # the handler has all records of its poll.
            self._context.copy().run(self._begin, next(chunks_of(self._waiting)))

    def _begin(self, records: Sequence[Record]) -> None:
        del self._waiting[: len(records)]
        size = sum(map(held_bytes, records))
        self._waiting_bytes -= size
        self._flying_bytes += size
        commit = partial(self._commit, records, self._offsets_behind(records), self._assignment)
        failed = partial(self._fail, records, self._assignment)
        chunk = self._worker.begin(Delivery(records, commit, failed))
        self._chunks.add(chunk)
        chunk.task.add_done_callback(partial(self._end, chunk, size))

    def _offsets_behind(self, records: Sequence[Record]) -> Offsets:
        """Return where each partition goes on behind `records`.

        Behind the last record that was polled of it there may be marks of transactions, which are
        no records: then it goes on behind those.
        """
        behind = {TopicPartition(each.topic, each.partition): each.offset + 1 for each in records}
        waiting = {(each.topic, each.partition) for each in self._waiting}
        return {
            place: offset if place in waiting else max(offset, self._ends.get(place, 0))
            for place, offset in behind.items()
        }

    async def _commit(self, records: Sequence[Record], behind: Offsets, assignment: int) -> None:
        """Commit the offsets of a chunk, and those that could not be committed before."""
        self._put_off.forget(records)
        oldest_ms = min(record.timestamp for record in records)
        age_seconds = max(0.0, time.time() - oldest_ms / 1000)
        metrics.RECORD_AGE_SECONDS.labels(self._worker.group).observe(
            age_seconds, self._worker.traces.exemplar()
        )
        consumer = self._consumer()
        if consumer is None or assignment != self._assignment:
            return
        self._uncommitted |= behind
        mine = consumer.assignment()
        offsets = {place: at for place, at in self._uncommitted.items() if place in mine}
        try:
            if offsets:
                async with asyncio.timeout(COMMIT_SECONDS) as self._committing:
                    await consumer.commit(offsets)
        except (KafkaError, TimeoutError) as error:
            # Nothing is lost: they are committed with the next, or the records delivered again.
            _log.warning("offsets not committed", group=self._worker.group, why=repr(error))
        else:
            self._uncommitted = {}
        finally:
            self._committing = None

    def _fail(self, records: Sequence[Record], assignment: int, error: BaseException) -> None:
        """Take note that a chunk failed, or was dropped.

        Where that fails itself, as it may while memory is short, the worker ends: it would go back
        to a record behind those that failed.
        """
        try:
            self._note(records, assignment, error)
        except BaseException as fault:
            self.stop()
            self._give_up(fault)
            raise

    def _note(self, records: Sequence[Record], assignment: int, error: BaseException) -> None:
        if assignment == self._assignment:
            self._note_failed(records)
            self._why = self._why or str(error)
        if isinstance(error, BrokerError | StoreAwayError):
            side = "broker" if isinstance(error, BrokerError) else "store"
            metrics.FAULTS.labels(self._worker.group, side).inc()
            _log.warning(
                "batch put off", group=self._worker.group, records=len(records), why=str(error)
            )
        elif not isinstance(error, BatchDeferred | asyncio.CancelledError):
            self.stop()
            self._give_up(error)
        self._changed.set()

    def _note_failed(self, records: Sequence[Record]) -> None:
        for record in records:
            place = TopicPartition(record.topic, record.partition)
            first = self._first_failed.get(place, record.offset)
            self._first_failed[place] = min(first, record.offset)

    def _close(self) -> None:
        self._is_closed = True
        self._drop_waiting()
        self._changed.set()

    def _drop_waiting(self) -> None:
        self._waiting, self._waiting_bytes, self._ends = [], 0, {}

    def _go_on(self, _done: object) -> None:
        self._fill()
        self._changed.set()

    def _end(self, chunk: Chunk, size: int, task: "asyncio.Task[None]") -> None:
        self._chunks.discard(chunk)
        self._flying_bytes -= size
        if not task.cancelled():
            task.exception()  # `_fail` has got it.
        self._go_on(chunk.stored)

    async def _ended(self, seconds: float | None) -> bool:
        """Wait for the chunks in flight; return whether all have ended."""
        tasks = [chunk.task for chunk in self._chunks]
        return not tasks or not (await asyncio.wait(tasks, timeout=seconds))[1]
