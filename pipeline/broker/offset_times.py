"""Which offset a moment falls on, as the broker's own index of times says."""

import asyncio

from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.broker.admin.topics import OffsetRange
from pipeline.broker.connection import (
    ANSWER_TIMEOUT_SECONDS,
    broker_errors,
    client_options,
    close_consumer,
)
from pipeline.broker.reading.ranges import Ranges
from pipeline.settings import Settings


async def ranges_since(
    settings: Settings, ranges: Ranges, since_ms: int
) -> dict[tuple[str, int], OffsetRange]:
    """Return `ranges`, each from its first record of `since_ms` or later.

    Every record of that time or later is in them. Where times do not increase with offsets,
    earlier ones are too. A range without such a record is empty, at its end.

    Args:
        settings: How to reach the broker.
        ranges: What the partitions hold.
        since_ms: A time, ms since 1970.

    Raises:
        BrokerError: The broker cannot be reached.
    """
    if not ranges:
        return {}
    consumer = AIOKafkaConsumer(**client_options(settings), enable_auto_commit=False)
    async with broker_errors(settings):
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
                await consumer.start()
                found = await consumer.offsets_for_times(
                    {TopicPartition(*place): since_ms for place in ranges}
                )
        finally:
            await close_consumer(consumer)
    firsts = {(place.topic, place.partition): first for place, first in found.items()}
    return {
        place: OffsetRange(
            min(firsts[place].offset if firsts[place] else offsets.end, offsets.end), offsets.end
        )
        for place, offsets in ranges.items()
    }
