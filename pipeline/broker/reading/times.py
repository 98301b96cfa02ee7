"""The broker times of the first and the last record of ranges, without reading what is between.

Which offset a moment falls on, as the broker's own index of times says.
"""

import asyncio

from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.broker.admin.offsets import OffsetRange
from pipeline.broker.aiokafka_fixes.tolerant_records import install_tolerant_records
from pipeline.broker.connection import (
    ANSWER_TIMEOUT_SECONDS,
    broker_errors,
    client_options,
    close_consumer,
)
from pipeline.broker.reading.ranges import Ranges
from pipeline.core.record import Partition
from pipeline.settings import Settings

_POLL_MS = 500
_LOOKED_BACK = (1, 2, 16, 256)
"""Offsets before the end at which a last record is looked for: marks of transactions are none."""


async def record_times(settings: Settings, ranges: Ranges) -> dict[Partition, tuple[int, int]]:
    """Return the times in ms since 1970 of the first and the last record of each range.

    A range without records is left out, and one whose last 256 offsets hold none.

    Raises:
        BrokerError: The broker cannot be reached.
    """
    install_tolerant_records()
    consumer = AIOKafkaConsumer(
        **client_options(settings),
        enable_auto_commit=False,
        isolation_level="read_committed",
        # The least that a broker sends: one batch of records.
        max_partition_fetch_bytes=1,
    )
    times = {}
    async with broker_errors(settings):
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
                await consumer.start()
            for place, offsets in sorted(ranges.items()):
                found = await _times(consumer, TopicPartition(*place), offsets)
                if found is not None:
                    times[place] = found
        finally:
            await close_consumer(consumer)
    return times


async def _times(
    consumer: AIOKafkaConsumer, place: TopicPartition, offsets: OffsetRange
) -> tuple[int, int] | None:
    if offsets.beginning >= offsets.end:
        return None
    consumer.assign([place])
    first = await _record_times_from(consumer, place, offsets.beginning, offsets.end, most=1)
    if not first:
        return None
    for back in _LOOKED_BACK:
        start = max(offsets.end - back, offsets.beginning)
        last = await _record_times_from(consumer, place, start, offsets.end)
        if last:
            return first[0], last[-1]
    return None


async def _record_times_from(
    consumer: AIOKafkaConsumer,
    place: TopicPartition,
    start: int,
    end: int,
    most: int | None = None,
) -> list[int]:
    consumer.seek(place, start)
    times: list[int] = []
    while await consumer.position(place) < end and (most is None or len(times) < most):
        fetched = await consumer.getmany(place, timeout_ms=_POLL_MS, max_records=most)
        if not fetched:
            break  # before a transaction that is still open
        times += [each.timestamp for each in fetched[place] if each.offset < end]
    return times


async def ranges_since(
    settings: Settings, ranges: Ranges, since_ms: int
) -> dict[Partition, OffsetRange]:
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
