"""Reads the events topic, from its end or a time on, for all requests of one publisher.

Pairs events with the offsets that wait for them, in whatever order both become known.
"""

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from aiokafka import ConsumerRecord, TopicPartition

from pipeline.broker.connection import (
    ANSWER_TIMEOUT_MS,
    ANSWER_TIMEOUT_SECONDS,
    broker_error,
    reader,
)
from pipeline.core.record import RecordId
from pipeline.errors import BrokerError
from pipeline.settings import Settings

EARLY_EVENTS_LIMIT = 100_000
"""Most events that are kept for requests whose offset is not known yet; about 100 MB."""

INTERIM_OUTCOME = "waiting"
"""An event with this outcome is not the last one of its request."""


class EventFuture(asyncio.Future[bytes]):
    """The last event about one request.

    Attributes:
        interim: The event before the last, where there is one.
    """

    interim: bytes | None = None

    def take(self, value: bytes, *, is_interim: bool) -> None:
        """Take an event about the request."""
        if is_interim:
            self.interim = value
        elif not self.done():
            self.set_result(value)

    def fail(self, error: Exception) -> None:
        """Fail with `error`, unless the last event is there."""
        if not self.done():
            self.set_exception(error)
            # Read once, so that an exception without a waiter is not logged.
            self.exception()


class EventMatcher:
    """Gives each event to the request that it is about.

    An event may be read before the offset of its request is known: while any request that
    was under way at that time still is, the event is kept. Later it is dropped, so a
    publisher that runs for months keeps nothing.
    """

    def __init__(self) -> None:
        # Weak: the entry goes with the client that gave up waiting.
        self._waiting: WeakValueDictionary[RecordId, EventFuture] = WeakValueDictionary()
        # Tickets of requests under way, oldest first.
        self._under_way: dict[int, None] = {}
        self._last_ticket = 0
        # With the youngest ticket when each was read first: in order, as tickets never decrease.
        self._early: dict[RecordId, tuple[int, EventFuture]] = {}
        self._failure: Exception | None = None

    @property
    def early_count(self) -> int:
        """How many events are kept for requests whose offset is not known yet."""
        return len(self._early)

    def announce(self) -> int:
        """Register a request before it is sent, so that its event is kept; return its ticket."""
        self._last_ticket += 1
        self._under_way[self._last_ticket] = None
        return self._last_ticket

    def expect(self, ticket: int, record: RecordId, event: EventFuture) -> None:
        """Let `event` have the value of the event about `record`, now or when it is read."""
        _, early = self._early.pop(record, (0, EventFuture()))
        event.interim = early.interim
        if early.done():
            event.take(early.result(), is_interim=False)
        elif self._failure is not None:
            event.fail(self._failure)
        else:
            self._waiting[record] = event
        self.withdraw(ticket)

    def withdraw(self, ticket: int) -> None:
        """Unregister the request with this ticket, which is no longer under way."""
        self._under_way.pop(ticket, None)
        oldest = next(iter(self._under_way), self._last_ticket + 1)
        while self._early:
            record, (read_at, _) = next(iter(self._early.items()))
            if read_at >= oldest:
                break
            del self._early[record]

    def take(self, value: bytes) -> None:
        """Give the event `value` to its request; drop it where there can be none."""
        if not self._waiting and not self._under_way:
            return
        found = peek_event(value)
        if found is None:
            return
        record, is_interim = found
        event = self._waiting.get(record) or self._kept(record)
        if event is not None:
            event.take(value, is_interim=is_interim)
        if not is_interim:
            self._waiting.pop(record, None)

    def fail(self, error: Exception) -> None:
        """Let all that wait, and all to come, fail with `error`: nothing will be read any more."""
        self._failure = error
        for event in list(self._waiting.values()):
            event.fail(error)
        self._waiting.clear()

    def _kept(self, record: RecordId) -> EventFuture | None:
        """Return what keeps the events about `record` for a request that is under way."""
        if not self._under_way:
            return None
        # Under its first ticket: its request was under way by then, and order stays.
        _, event = self._early.setdefault(record, (self._last_ticket, EventFuture()))
        if len(self._early) > EARLY_EVENTS_LIMIT:
            # The request of this event waits until its time is up, and its error names the retry.
            del self._early[next(iter(self._early))]
        return event


def peek_event(value: bytes) -> tuple[RecordId, bool] | None:
    """Return the record that the event `value` is about, and whether another event is to come.

    A whole event is validated for its one request alone. None where it is no such event.
    """
    try:
        event = json.loads(value)
        source = event["source"]
        record = RecordId(source["topic"], source["partition"], source["offset"])
        hash(record)
        return record, event.get("outcome") == INTERIM_OUTCOME
    # Any client that may write the topic decides its content; RecursionError is a deep nesting.
    except (ValueError, TypeError, LookupError, RecursionError, AttributeError):
        return None


POLL_SECONDS = 1.0
SILENCE_LIMIT_SECONDS = 60.0
"""Longest time without any answer from the broker; a fetch is answered twice a second."""


@dataclass(frozen=True, slots=True)
class TailEvent:
    """An event as it was read.

    Attributes:
        place: Where it is.
        timestamp_ms: When it was written.
        value: Its bytes; none of one that is too large to be an event of ours.
    """

    place: RecordId
    timestamp_ms: int
    value: bytes


class EventTail:
    """The last events that readers have read, for people: bounded in number and in bytes."""

    MOST = 50
    EVENT_LIMIT_BYTES = 16 * 1024
    """Far above what a worker writes: no field of an event is longer than a label or a reason."""

    def __init__(self) -> None:
        self._events: deque[TailEvent] = deque(maxlen=self.MOST)

    def add(self, record: ConsumerRecord) -> None:
        """Take the next event; the oldest one goes."""
        value = record.value if isinstance(record.value, bytes) else b""
        if len(value) > self.EVENT_LIMIT_BYTES:
            value = b""
        self._events.append(TailEvent(RecordId.of(record), record.timestamp, value))

    def newest_first(self) -> list[TailEvent]:
        """Return them by time; those of one partition in its order."""
        return sorted(
            self._events, key=lambda each: (each.timestamp_ms, each.place.offset), reverse=True
        )


_BEFORE = 5
"""So many offsets of each partition are read for a tail before it begins."""


class EventReader:
    """One consumer without a group, which reads every partition and commits nothing.

    It outlives a broker that restarts. Once it cannot go on, all that wait for an event get
    the error, `is_alive` is false, and another reader has to be made.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        partitions: Sequence[int],
        tail: EventTail | None = None,
    ) -> None:
        """Prepare; nothing is read.

        Args:
            settings: How to reach the broker.
            topic: Of events.
            partitions: All that it has.
            tail: Takes every event too, from a few before the end on; None for none.
        """
        self._tail = tail
        self.matcher = EventMatcher()
        self._settings = settings
        self._partitions = [TopicPartition(topic, number) for number in partitions]
        self._task: asyncio.Task[None] | None = None

    @property
    def is_alive(self) -> bool:
        """Whether events are being read."""
        return self._task is not None and not self._task.done()

    async def start(self, since_ms: int | None = None) -> None:
        """Stand at the end of every partition: from now on no event is missed.

        Args:
            since_ms: A time, ms since 1970, to stand at the first event since in place of the end.

        Raises:
            BrokerError: No broker answers, or it refuses.
        """
        async with AsyncExitStack() as stack:
            consumer = await stack.enter_async_context(
                reader(
                    self._settings,
                    # A position that the log does not hold means that events were missed: fail.
                    auto_offset_reset="none",
                    request_timeout_ms=ANSWER_TIMEOUT_MS,
                )
            )
            await self._stand(consumer, since_ms)
            reading = self._read(consumer, stack.pop_all())
        self._task = asyncio.create_task(reading, name="rmos event reader")
        self._task.add_done_callback(self._end)

    async def stop(self) -> None:
        """Read no more; all that still wait get an error."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _stand(
        self,
        consumer: Any,  # noqa: ANN401 - aiokafka has no types
        since_ms: int | None,
    ) -> None:
        async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
            positions = await consumer.end_offsets(self._partitions)
            if self._tail is not None:
                begins = await consumer.beginning_offsets(self._partitions)
                positions = {
                    each: max(begins[each], end - _BEFORE) for each, end in positions.items()
                }
            if since_ms is not None:
                times = dict.fromkeys(self._partitions, since_ms)
                found = await consumer.offsets_for_times(times)
                positions |= {each: at.offset for each, at in found.items() if at is not None}
        # No pause between these two, or the consumer would look for positions by itself.
        consumer.assign(self._partitions)
        for partition, offset in positions.items():
            consumer.seek(partition, offset)

    async def _read(self, consumer: Any, connection: AsyncExitStack) -> None:  # noqa: ANN401
        loop = asyncio.get_running_loop()
        last_answer, answered_at = None, loop.time()
        async with connection:
            while True:
                fetched = await consumer.getmany(timeout_ms=int(POLL_SECONDS * 1000))
                self._match(fetched)
                answer = self._last_answer(consumer)
                if answer != last_answer:
                    last_answer, answered_at = answer, loop.time()
                elif loop.time() - answered_at > SILENCE_LIMIT_SECONDS:
                    # Also the only sign of a fetcher that died inside aiokafka.
                    raise await broker_error(self._settings)

    def _match(self, fetched: dict[TopicPartition, list[Any]]) -> None:
        for records in fetched.values():
            for record in records:
                if self._tail is not None:
                    self._tail.add(record)
                # One that is too large to be held is no event of ours.
                if isinstance(record.value, bytes):
                    self.matcher.take(record.value)

    def _last_answer(self, consumer: Any) -> int:  # noqa: ANN401 - aiokafka has no types
        return max(consumer.last_poll_timestamp(each) or 0 for each in self._partitions)

    def _end(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            error: BaseException | None = BrokerError("The publisher was stopped.")
        else:
            error = task.exception()
        assert isinstance(error, Exception)
        self.matcher.fail(error)
