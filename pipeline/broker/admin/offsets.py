"""The offsets that the partitions of topics hold."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer

from pipeline.broker.admin.topics import topic_partitions
from pipeline.broker.connection import (
    ANSWER_TIMEOUT_SECONDS,
    broker_errors,
    client_options,
    close_consumer,
)
from pipeline.core.record import Partition
from pipeline.settings import Settings


@dataclass(frozen=True, slots=True)
class OffsetRange:
    """The offsets that a partition holds.

    Attributes:
        beginning: Offset of the first record that is still there.
        end: Offset of the next record to come; equal to `beginning` where there is none.
    """

    beginning: int
    end: int


async def partition_offsets(
    settings: Settings, topics: Iterable[str]
) -> dict[Partition, OffsetRange]:
    """Return the offsets that each partition of `topics` holds, open transactions included.

    Raises:
        TopicsError: A topic is missing.
        BrokerError: The broker cannot be reached.
    """
    partitions = await topic_partitions(settings, topics)
    async with _consumer(settings) as consumer:
        beginnings = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
    return {
        (each.topic, each.partition): OffsetRange(beginnings[each], ends[each])
        for each in partitions
    }


@asynccontextmanager
async def _consumer(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    """Connect a consumer that joins no group and reads no record."""
    consumer = AIOKafkaConsumer(
        **client_options(settings),
        enable_auto_commit=False,
        request_timeout_ms=int(ANSWER_TIMEOUT_SECONDS * 1000),
    )
    async with broker_errors(settings):
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
                await consumer.start()
            yield consumer
        finally:
            await close_consumer(consumer)
