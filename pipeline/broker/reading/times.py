"""Offsets by broker time: the first at a given moment, and the times of a range's ends."""

import asyncio
from contextlib import aclosing

from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.broker.admin.topics import OffsetRange
from pipeline.broker.connection import ANSWER_TIMEOUT_SECONDS, reader
from pipeline.broker.reading.ranges import Ranges, polls, record_reader
from pipeline.core.record import Partition
from pipeline.settings import Settings

_LOOKED_BACK = (1, 2, 16, 256)
"""Offsets before the end at which a last record is looked for: marks of transactions are none."""


async def record_times(settings: Settings, ranges: Ranges) -> dict[Partition, tuple[int, int]]:
    """Return the times in ms since 1970 of the first and the last record of each range.

    A range without records is left out, and one whose last 256 offsets hold none.
    """
    times = {}
    # The least that a broker sends: one batch of records.
    async with record_reader(settings, max_partition_fetch_bytes=1) as consumer:
        for partition, offsets in sorted(ranges.items()):
            found = await _times(settings, consumer, TopicPartition(*partition), offsets)
            if found is not None:
                times[partition] = found
    return times


async def _times(
    settings: Settings, consumer: AIOKafkaConsumer, partition: TopicPartition, offsets: OffsetRange
) -> tuple[int, int] | None:
    if offsets.beginning >= offsets.end:
        return None

    async def from_offset(start: int, most: int | None = None) -> list[int]:
        consumer.seek(partition, start)
        times: list[int] = []
        async with aclosing(polls(settings, consumer, partition, offsets.end, most)) as found:
            async for records in found:
                times += [each.timestamp for each in records if each.offset < offsets.end]
                if not records or (most is not None and len(times) >= most):
                    break
        return times

    consumer.assign([partition])
    first = await from_offset(offsets.beginning, most=1)
    if not first:
        return None
    for back in _LOOKED_BACK:
        last = await from_offset(max(offsets.end - back, offsets.beginning))
        if last:
            return first[0], last[-1]
    return None


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
    """
    if not ranges:
        return {}
    async with (
        reader(settings, isolation_level="read_uncommitted") as consumer,
        asyncio.timeout(ANSWER_TIMEOUT_SECONDS),
    ):
        found = await consumer.offsets_for_times(
            {TopicPartition(*partition): since_ms for partition in ranges}
        )
    firsts = {(each.topic, each.partition): first.offset for each, first in found.items() if first}
    return {
        partition: OffsetRange(min(firsts.get(partition, offsets.end), offsets.end), offsets.end)
        for partition, offsets in ranges.items()
    }
