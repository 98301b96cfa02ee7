"""Read single records of topics by their offsets, without reading all that lies between."""

from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Mapping
from contextlib import aclosing
from itertools import zip_longest

from aiokafka import ConsumerRecord

from pipeline.broker.admin.topics import OffsetRange, partition_offsets
from pipeline.broker.reading.ranges import read_ranges
from pipeline.settings import Settings

_NEAR_OFFSETS = 10_000
"""Records that are read faster than a place further on is found."""

Place = tuple[str, int]
"""A topic and one of its partitions."""


async def read_offsets(
    settings: Settings, wanted: Mapping[Place, Collection[int]]
) -> AsyncGenerator[ConsumerRecord, None]:
    """Yield the records at `wanted` that the broker still has, by partition and offset.

    Raises:
        TopicsError: A topic is missing.
        BrokerError: The broker cannot be reached.
    """
    there = await partition_offsets(settings, {topic for topic, _ in wanted})
    spans = {
        place: list(_spans(offset for offset in sorted(offsets) if _holds(there[place], offset)))
        for place, offsets in wanted.items()
        if place in there
    }
    # Of each partition one span at a time, as a reader takes them.
    for turn in zip_longest(*spans.values()):
        ranges = {place: span for place, span in zip(spans, turn, strict=True) if span}
        async with aclosing(read_ranges(settings, ranges)) as records:
            async for record in records:
                if record.offset in wanted[record.topic, record.partition]:
                    yield record


def _holds(there: OffsetRange, offset: int) -> bool:
    return there.beginning <= offset < there.end


def _spans(offsets: Iterable[int]) -> Iterator[OffsetRange]:
    """Yield ranges that hold all of `offsets`, which are in order."""
    begin = end = -1
    for offset in offsets:
        if begin >= 0 and offset - end > _NEAR_OFFSETS:
            yield OffsetRange(begin, end)
            begin = -1
        begin = offset if begin < 0 else begin
        end = offset + 1
    if begin >= 0:
        yield OffsetRange(begin, end)
