"""Claims whose run has come: linked by reading their request again, whatever the retries say.

So a link exists exactly where its run does. At the start and every minute the index is asked;
each request is read at its source offset, by a consumer without a group that commits nothing.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from itertools import groupby
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from faststream.exceptions import NackMessage

from pipeline.broker.connection import (
    ANSWER_TIMEOUT_SECONDS,
    broker_errors,
    client_options,
    close_consumer,
)
from pipeline.broker.sending.batches import Message
from pipeline.consumers.advisories.requests import AdvisoryChunk, AdvisoryDesk
from pipeline.consumers.engine.batches import CHUNK_RECORDS, BatchConsumer
from pipeline.consumers.engine.outbox import Delivery, delivery_of
from pipeline.consumers.engine.put_off import PutOff, record_at
from pipeline.consumers.engine.subscription import Record
from pipeline.core.advisories.outcome import AdvisoryOutcome
from pipeline.core.record import RecordId
from pipeline.errors import BrokerError
from pipeline.settings import Settings

SCAN_SECONDS = 60.0
NEAR_OFFSETS = 500
"""Up to so many records are read over rather than asked for anew."""

_BEFORE_ALL = (-1, -1)
_POLL_MS = 1000
_PATIENCE_POLLS = 30
"""Polls without an answer until a partition is left for the next scan."""

_log = structlog.get_logger(__name__)


class AdvisoryClaimJudge:
    """Judges requests of claims whose run has come."""

    def __init__(self, desk: AdvisoryDesk) -> None:
        self._desk = desk

    async def __call__(self, records: Sequence[Record]) -> AdvisoryChunk:
        """Judge `records`, without touching the disk."""
        deliveries = [delivery_of(record, self._desk.epoch) for record in records]
        return await self._desk.judge(deliveries, self._desk.retry_links, _tell_nothing)


def _tell_nothing(delivery: Delivery, outcome: AdvisoryOutcome) -> Iterator[Message]:
    """Tell nothing of a claim that still waits: its record is not the one that made it."""
    del delivery, outcome
    return iter(())


class AdvisoryClaims:
    """Links, now and then, every claim whose run has come."""

    def __init__(self, settings: Settings, desk: AdvisoryDesk, handler: BatchConsumer) -> None:
        """Prepare.

        Args:
            settings: The broker.
            desk: Its store knows the claims.
            handler: Judges, stores and tells.
        """
        self._settings = settings
        self._desk = desk
        self._handler = handler
        self._topic = settings.topics.advisory_requests
        self._put_off = PutOff(handler.standing, "claims")

    async def run(self) -> None:
        """Look at the start and every minute until cancelled, or until the handler gives up."""
        while not self._handler.fault.done():
            await self.link_claims()
            await asyncio.sleep(SCAN_SECONDS)

    async def link_claims(self) -> None:
        """Link every claim whose run is there; what cannot be read now waits for the next time."""
        after = _BEFORE_ALL
        unread: list[RecordId] = []
        why = "the broker has not given them out."
        while page := await self._page(after):
            after = page[-1]
            try:
                unread += await self._link(page)
            except BrokerError as error:
                _log.warning("claims put off", why=str(error))
                unread, why = [RecordId(self._topic, *page[0])], str(error)
                break
        if unread:
            self._put_off.note(unread, why)
        else:
            self._put_off.forget_all()
        if after == _BEFORE_ALL:
            # No claim waits: what was put off here was linked by another worker.
            self._handler.keep_only(())

    async def _link(self, page: list[tuple[int, int]]) -> list[RecordId]:
        """Link the claims of `page`; return where their requests cannot be read.

        Raises:
            BrokerError: None can be read; what is linked by then stays.
        """
        unread: list[RecordId] = []
        async with _reader(self._settings) as consumer:
            for partition, places in groupby(page, key=lambda place: place[0]):
                wanted = deque(offset for _, offset in places)
                place = TopicPartition(self._topic, partition)
                async with aclosing(_records_at(consumer, place, wanted)) as found:
                    async for records in found:
                        await self._handle(records)
                unread += [record_at(place, offset) for offset in wanted]
        return unread

    async def _page(self, after: tuple[int, int]) -> list[tuple[int, int]]:
        found = await asyncio.get_running_loop().run_in_executor(
            self._desk.executor,
            self._desk.store.claims_to_link,
            self._topic,
            after,
            CHUNK_RECORDS,
        )
        return [(source.id.partition, source.id.offset) for source in found]

    async def _handle(self, records: list[Record]) -> None:
        try:
            await self._handler.handle(records)
        except NackMessage:
            return  # the claims stay, and the handler has paused already


@asynccontextmanager
async def _reader(settings: Settings) -> AsyncIterator[Any]:
    consumer = AIOKafkaConsumer(
        **client_options(settings),
        enable_auto_commit=False,
        # An offset that the log does not hold must not lead to another record.
        auto_offset_reset="none",
        isolation_level="read_committed",
        request_timeout_ms=int(ANSWER_TIMEOUT_SECONDS * 1000),
    )
    async with broker_errors(settings):
        try:
            await consumer.start()
            yield consumer
        finally:
            await close_consumer(consumer)


async def _records_at(
    consumer: Any,  # noqa: ANN401 - aiokafka has no types
    place: TopicPartition,
    wanted: deque[int],
) -> AsyncGenerator[list[Record]]:
    """Read the records of `place` at the offsets `wanted`, which are sorted and get used up."""
    consumer.assign([place])
    begin = (await consumer.beginning_offsets([place]))[place]
    end = (await consumer.end_offsets([place]))[place]
    _drop_removed(place, wanted, begin, end)
    position: int | None = None
    patience = _PATIENCE_POLLS
    while wanted and patience:
        if position is None or not 0 <= wanted[0] - position <= NEAR_OFFSETS:
            consumer.seek(place, wanted[0])
        fetched = await consumer.getmany(place, timeout_ms=_POLL_MS)
        records = [each for each in fetched.get(place, []) if each.offset in wanted]
        position = await consumer.position(place)
        patience = _PATIENCE_POLLS if place in fetched else patience - 1
        while wanted and wanted[0] < position:
            wanted.popleft()
        if records:
            yield records
    if wanted:
        # The others must not wait for it; the next scan asks again.
        _log.warning("claims that cannot be read", partition=place.partition, count=len(wanted))


def _drop_removed(place: TopicPartition, wanted: deque[int], begin: int, end: int) -> None:
    there = [offset for offset in wanted if begin <= offset < end]
    if len(there) < len(wanted):
        _log.warning(
            "claims whose request the log has no more",
            topic=place.topic,
            partition=place.partition,
            count=len(wanted) - len(there),
        )
    wanted.clear()
    wanted.extend(there)
