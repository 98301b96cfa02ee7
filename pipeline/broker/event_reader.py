"""Reads the events topic from its end on, for all requests of one publisher.

Pairs events with the offsets that wait for them, in whatever order both become known.
"""

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from aiokafka import TopicPartition

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
"""An event that says so is not the last word about its request."""


class EventFuture(asyncio.Future[bytes]):
    """The last event about one request.

    Attributes:
        interim: The word before the last, where there is one.
    """

    interim: bytes | None = None


@dataclass(frozen=True, slots=True)
class EventRef:
    """What is looked at of every event; a whole one is validated for its one request alone.

    Attributes:
        place: The record that it is about.
        is_interim: Whether another event about the same record is to come.
    """

    place: RecordId
    is_interim: bool


@dataclass(slots=True)
class _EarlyEvent:
    """An event that was read before its request's offset was known.

    Attributes:
        ticket: The youngest when it was read.
    """

    ticket: int
    value: bytes
    is_interim: bool


class EventMatcher:
    """Gives each event to the request that it is about.

    An event may be read before we hear which offset its request got: while any request that
    was under way at that time still is, the event is kept. What nobody can want any more is
    dropped, so a publisher that runs for months keeps nothing.
    """

    def __init__(self) -> None:
        # Weak: whoever gave up waiting takes the entry along, without having to say so.
        self._waiting: WeakValueDictionary[RecordId, EventFuture] = WeakValueDictionary()
        # Tickets of requests under way, oldest first.
        self._under_way: dict[int, None] = {}
        self._last_ticket = 0
        # In the order of their tickets, which never decrease.
        self._early: dict[RecordId, _EarlyEvent] = {}
        self._failure: Exception | None = None

    @property
    def early_count(self) -> int:
        """How many events are kept for requests whose offset is not known yet."""
        return len(self._early)

    def announce(self) -> int:
        """Say, before a request is sent, that its event is wanted; return its ticket."""
        self._last_ticket += 1
        self._under_way[self._last_ticket] = None
        return self._last_ticket

    def expect(self, ticket: int, place: RecordId, event: EventFuture) -> None:
        """Let `event` have the value of the event about `place`, now or when it is read."""
        early = self._early.pop(place, None)
        if early is not None and not early.is_interim:
            event.set_result(early.value)
        else:
            if early is not None:
                event.interim = early.value
            self._wait(place, event)
        self.withdraw(ticket)

    def _wait(self, place: RecordId, event: EventFuture) -> None:
        if self._failure is not None:
            _fail(event, self._failure)
        else:
            self._waiting[place] = event

    def withdraw(self, ticket: int) -> None:
        """Say that the request with this ticket is under way no longer."""
        self._under_way.pop(ticket, None)
        oldest = next(iter(self._under_way), self._last_ticket + 1)
        while self._early:
            place, early = next(iter(self._early.items()))
            if early.ticket >= oldest:
                break
            del self._early[place]

    def take(self, value: bytes) -> None:
        """Give the event `value` to its request; drop it where there can be none."""
        if not self._waiting and not self._under_way:
            return
        ref = peek_event(value)
        if ref is None:
            return
        event = self._waiting.get(ref.place)
        if event is None:
            self._keep(ref, value)
        elif ref.is_interim:
            event.interim = value
        else:
            del self._waiting[ref.place]
            if not event.done():
                event.set_result(value)

    def fail(self, error: Exception) -> None:
        """Let all that wait, and all to come, fail with `error`: nothing will be read any more."""
        self._failure = error
        for event in list(self._waiting.values()):
            _fail(event, error)
        self._waiting.clear()

    def _keep(self, ref: "EventRef", value: bytes) -> None:
        if not self._under_way:
            return
        known = self._early.get(ref.place)
        if known is None:
            known = _EarlyEvent(self._last_ticket, value, ref.is_interim)
            self._early[ref.place] = known
        elif known.is_interim and not ref.is_interim:
            # Under its first ticket: its request was under way by then, and order stays.
            known.value, known.is_interim = value, False
        if len(self._early) > EARLY_EVENTS_LIMIT:
            # Whose event this was waits until its time is up, and is told how to retry.
            del self._early[next(iter(self._early))]


def _fail(event: EventFuture, error: Exception) -> None:
    if not event.done():
        event.set_exception(error)
        # Read once, so that nobody is told of an exception that nobody waited for.
        event.exception()


def peek_event(value: bytes) -> EventRef | None:
    """Return what the event `value` is about; None where it is no such event."""
    try:
        event = json.loads(value)
        source = event["source"]
        place = RecordId(source["topic"], source["partition"], source["offset"])
        hash(place)
        return EventRef(place, event.get("outcome") == INTERIM_OUTCOME)
    # Whoever may write the topic decides what is in it; RecursionError is a deep nesting.
    except (ValueError, TypeError, LookupError, RecursionError, AttributeError):
        return None


POLL_SECONDS = 1.0
SILENCE_LIMIT_SECONDS = 60.0
"""Longest time without any answer from the broker; a fetch is answered twice a second."""


class EventReader:
    """One consumer without a group, which reads every partition and commits nothing.

    It outlives a broker that restarts. Once it cannot go on, all that wait for an event are
    told, `is_alive` is false, and another reader has to be made.
    """

    def __init__(self, settings: Settings, topic: str, partitions: Sequence[int]) -> None:
        self.matcher = EventMatcher()
        self._settings = settings
        self._partitions = [TopicPartition(topic, number) for number in partitions]
        self._task: asyncio.Task[None] | None = None

    @property
    def is_alive(self) -> bool:
        """Whether events are being read."""
        return self._task is not None and not self._task.done()

    async def start(self) -> None:
        """Stand at the end of every partition: from now on no event is missed.

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
            await self._stand_at_end(consumer)
            reading = self._read(consumer, stack.pop_all())
        self._task = asyncio.create_task(reading, name="rmos event reader")
        self._task.add_done_callback(self._tell_end)

    async def stop(self) -> None:
        """Read no more; all that still wait are told."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _stand_at_end(self, consumer: Any) -> None:  # noqa: ANN401 - aiokafka has no types
        async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
            ends = await consumer.end_offsets(self._partitions)
        # No pause between these two, or the consumer would look for positions by itself.
        consumer.assign(self._partitions)
        for partition, offset in ends.items():
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
                # One that is too large to be held is no event of ours.
                if isinstance(record.value, bytes):
                    self.matcher.take(record.value)

    def _last_answer(self, consumer: Any) -> int:  # noqa: ANN401 - aiokafka has no types
        return max(consumer.last_poll_timestamp(each) or 0 for each in self._partitions)

    def _tell_end(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            error: BaseException | None = BrokerError("The publisher was stopped.")
        else:
            error = task.exception()
        assert isinstance(error, Exception)
        self.matcher.fail(error)
