"""The retry topics: advisories whose run was not there, each looked at again after a delay.

A bare aiokafka loop, as a batch consumer would have to wait inside its handler. A partition
whose next record is not due yet is paused, with what was fetched of it kept here, so the poll
goes on for the others and a long delay never holds up a short one. The states of a record, and
what happens if the process dies there:

| state | if the process dies here |
|---|---|
| fetched, waiting | it is fetched again |
| due, stored | handled again, with the same outcome |
| told: event, dead letter or next retry confirmed | told again |
| offset committed | done |
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from itertools import islice, takewhile

import structlog
from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError
from faststream.exceptions import NackMessage

from pipeline.broker.connection import broker_errors, close_consumer
from pipeline.broker.sending.batches import Message
from pipeline.consumers.advisories.requests import AdvisoryChunk, AdvisoryDesk
from pipeline.consumers.engine.batches import CHUNK_RECORDS, BatchConsumer
from pipeline.consumers.engine.group_consumer import group_member
from pipeline.consumers.engine.liveness import READY_POLL_AGE_SECONDS, Pulse
from pipeline.consumers.engine.outbox import Delivery
from pipeline.consumers.engine.put_off import PutOff, record_at
from pipeline.consumers.engine.refusals import Refusals
from pipeline.consumers.engine.subscription import Record
from pipeline.core.advisories.retry import read_retry_headers
from pipeline.core.record import RecordId, RecordSource
from pipeline.settings import Settings

POLL_SECONDS = 1.0
"""Longest wait of one poll; a record that is due ends it earlier."""

SHORTEST_POLL_SECONDS = 0.01
FETCHED_RECORDS = 500
"""Most records of one poll. Of a partition no more are kept than one poll brought."""

_log = structlog.get_logger(__name__)


class AdvisoryRetryJudge:
    """Judges requests that come by a retry topic."""

    def __init__(self, desk: AdvisoryDesk) -> None:
        self._desk = desk

    async def __call__(self, records: Sequence[Record]) -> AdvisoryChunk:
        """Judge `records`, without touching the disk."""
        deliveries: list[Delivery] = []
        strays: list[Message] = []
        for record in records:
            delivery = self._delivery(record)
            if delivery is None:
                strays.append(self._stray(record))
            else:
                deliveries.append(delivery)
        desk = self._desk
        return await desk.judge(deliveries, desk.retry_links, desk.tell_to_retry, strays)

    def _delivery(self, record: Record) -> Delivery | None:
        topic = self._desk.topics.advisory_requests
        request = read_retry_headers(record.headers, request_topic=topic)
        if request is None:
            return None
        return Delivery(
            request.source,
            request.timestamp_ms,
            record.key,
            record.value,
            request.headers,
            record.topic,
            request.all_headers,
        )

    def _stray(self, record: Record) -> Message:
        """Return the dead letter of what nobody of us put into a retry topic."""
        delivery = Delivery(
            RecordSource(self._desk.epoch, RecordId.of(record)),
            record.timestamp,
            record.key,
            record.value,
            record.headers,
            record.topic,
        )
        message = "Expected headers that name a record of the request topic, found others."
        return self._desk.telling.dead_letter(delivery, "INVALID_ADVISORY", message)


class AdvisoryRetries:
    """Reads the retry topics in one consumer group, each record once its delay is over."""

    def __init__(self, settings: Settings, handler: BatchConsumer) -> None:
        """Prepare; nothing is consumed before `start`.

        Args:
            settings: The broker, the group and the delays.
            handler: Judges, stores and tells what is due.
        """
        topics = settings.topics
        self._settings = settings
        self._handler = handler
        self._refusals = Refusals(settings, handler.standing)
        self._uncommitted = PutOff(handler.standing, "commit")
        self._delays = dict(
            zip(topics.advisory_retries, settings.advisory_retry_seconds, strict=True)
        )
        self._waiting: dict[TopicPartition, deque[Record]] = {}
        self._handled: dict[TopicPartition, int] = {}
        # Held while records are handled: partitions are given away only after their commit.
        self._busy = asyncio.Lock()
        self._pulse = Pulse()
        # No guard as for requests: a retry that retention took is no lost record. Its request
        # and its claim stay, and the claim is linked when the run comes.
        self._consumer = group_member(settings, topics.advise_retry_group)
        self._consumer.subscribe(
            list(topics.advisory_retries),
            listener=_AtRebalance(self._forget, handler.keep_only),
        )

    async def start(self) -> None:
        """Join the group.

        Raises:
            BrokerError: No broker answers.
        """
        async with broker_errors(self._settings):
            await self._consumer.start()
        self._pulse.beat()

    async def stop(self) -> None:
        """Leave the group; what waits is fetched again by whoever comes next."""
        with suppress(KafkaError):
            await close_consumer(self._consumer)

    @property
    def is_ready(self) -> bool:
        """Whether it asks for records."""
        return self._pulse.age_seconds < READY_POLL_AGE_SECONDS

    async def run(self) -> None:
        """Fetch, wait and handle until cancelled, or until the handler gives up.

        The next retry, event or dead letter of a record is confirmed before its offset is
        committed, each partition on its own.
        """
        while not self._handler.fault.done():
            await self._handle_due()
            self._pulse.beat()
            self._keep(await self._fetched())

    async def _fetched(self) -> dict[TopicPartition, list[Record]]:
        timeout_ms = int(self._seconds_to_next() * 1000)
        try:
            fetched: dict[TopicPartition, list[Record]] = await self._consumer.getmany(
                timeout_ms=timeout_ms, max_records=FETCHED_RECORDS
            )
        except KafkaError as error:
            # The client tries for ever by itself; this one it leaves to us, so not too fast.
            _log.warning("retries cannot be read", why=str(error))
            await self._refusals.note(error)
            await asyncio.sleep(POLL_SECONDS)
            return {}
        self._refusals.note_poll(brought=bool(fetched))
        return fetched

    def _seconds_to_next(self) -> float:
        """Return how long to poll: until the next record is due, within bounds."""
        now = time.time()
        waits = [self._due_at(queue[0]) - now for queue in self._waiting.values()]
        return min([POLL_SECONDS, *(max(SHORTEST_POLL_SECONDS, wait) for wait in waits)])

    def _due_at(self, record: Record) -> float:
        due_at: float = record.timestamp / 1000 + self._delays[record.topic]
        return due_at

    def _keep(self, fetched: dict[TopicPartition, list[Record]]) -> None:
        """Keep what was fetched, and fetch no more of those partitions until it is handled."""
        assigned = self._consumer.assignment()
        for place, records in fetched.items():
            # One that was given away in between is another worker's.
            if place in assigned:
                self._waiting.setdefault(place, deque()).extend(records)
                self._consumer.pause(place)

    async def _handle_due(self) -> None:
        """Handle what is due, of every partition from its front."""
        async with self._busy:
            due = self._due()
            if due:
                try:
                    await self._handler.handle([each for part in due.values() for each in part])
                except NackMessage:
                    return  # they stay in front; the handler has paused already
                self._note_handled(due)
            if self._handled:
                await self._commit()

    def _due(self) -> dict[TopicPartition, list[Record]]:
        """Return what is due from the front of each partition, the longest due first."""
        now = time.time()
        due: dict[TopicPartition, list[Record]] = {}
        left = CHUNK_RECORDS
        for place, queue in sorted(
            self._waiting.items(), key=lambda each: self._due_at(each[1][0])
        ):
            # Within a partition broker times do not decrease, so the first that waits ends it.
            ready = list(takewhile(lambda each: self._due_at(each) <= now, islice(queue, left)))
            if not ready:
                break
            due[place] = ready
            left -= len(ready)
        return due

    def _note_handled(self, due: dict[TopicPartition, list[Record]]) -> None:
        for place, records in due.items():
            queue = self._waiting[place]
            for _ in records:
                queue.popleft()
            self._handled[place] = records[-1].offset + 1
            if not queue:
                del self._waiting[place]
                with suppress(IllegalStateError):  # given away meanwhile
                    self._consumer.resume(place)

    async def _commit(self) -> None:
        """Commit what is handled; a fault of the broker leaves it for the next time."""
        handled = dict(self._handled)
        try:
            await self._consumer.commit(handled)
        except (KafkaError, IllegalStateError) as error:
            _log.warning("retries not committed yet", why=str(error))
            places = [record_at(place, offset - 1) for place, offset in handled.items()]
            self._uncommitted.note(places, f"not committed: {error}")
            return
        self._uncommitted.forget_all()
        for place in handled:
            self._handled.pop(place, None)

    async def _forget(self, revoked: Iterable[TopicPartition]) -> None:
        async with self._busy:
            for place in revoked:
                self._waiting.pop(place, None)
                self._handled.pop(place, None)
            if not self._handled:
                self._uncommitted.forget_all()


class _AtRebalance(ConsumerRebalanceListener):  # type: ignore[misc]
    """Drops what waits here of partitions that go to another worker, which fetches it again."""

    def __init__(
        self,
        forget: Callable[[Iterable[TopicPartition]], Awaitable[None]],
        keep_only: Callable[[Collection[TopicPartition]], None],
    ) -> None:
        self._forget = forget
        self._keep_only = keep_only

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        await self._forget(revoked)

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Take note of them; the position is the committed offset, nothing else."""
        self._keep_only(assigned)
