"""Read records at given offsets, outside any consumer group: a range, single ones, or the first.

Positions of consumer groups are never read or moved. The end of a range is fixed by the caller,
so a topic that grows meanwhile is read to where it ended.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from itertools import zip_longest
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from pipeline.broker.admin.topics import OffsetRange, partition_offsets
from pipeline.broker.aiokafka_fixes.installed import install
from pipeline.broker.connection import reader
from pipeline.core.record import Partition
from pipeline.settings import Settings

Ranges = Mapping[Partition, OffsetRange]
"""What to read of each topic and partition."""

_POLL_MS = 500
_WAIT_MS = 10
"""Longest wait of the broker for more records. With aiokafka's 500, the question that was under
way at the end of one partition held up the first one about the next: a third of a second each."""

_SILENT_POLLS = 10
"""Polls in which nothing comes and nothing moves until the broker is asked whether it is there:
aiokafka waits for one that is gone without a word, for ever."""


@asynccontextmanager
async def record_reader(
    settings: Settings,
    **options: Any,  # noqa: ANN401 - aiokafka has no types
) -> AsyncIterator[AIOKafkaConsumer]:
    """Connect a `reader` of every record that the broker accepted, whatever its bytes."""
    install()
    async with reader(settings, **options) as consumer:
        yield consumer


async def read_topic(settings: Settings, topic: str) -> AsyncGenerator[ConsumerRecord, None]:
    """Yield the records of `topic` from its start to where it ends now; see `read_ranges`."""
    ranges = await partition_offsets(settings, [topic])
    async with aclosing(read_ranges(settings, ranges)) as records:
        async for record in records:
            yield record


async def read_ranges(settings: Settings, ranges: Ranges) -> AsyncGenerator[ConsumerRecord, None]:
    """Yield the committed records of `ranges`, one partition after the other, each in order.

    A range ends early before a transaction that is still open: what it holds is no record yet.
    What retention has removed is left out; the offsets of the records show it.
    """
    wanted = {partition: each for partition, each in ranges.items() if each.beginning < each.end}
    if not wanted:
        return
    async with record_reader(
        settings, auto_offset_reset="earliest", fetch_max_wait_ms=_WAIT_MS
    ) as consumer:
        for key in sorted(wanted):
            offsets, partition = wanted[key], TopicPartition(*key)
            consumer.assign([partition])
            consumer.seek(partition, offsets.beginning)
            async with aclosing(polls(settings, consumer, partition, offsets.end)) as found:
                async for records in found:
                    for record in records:
                        # Where the range begins beyond the log's end, aiokafka begins at its start.
                        if offsets.holds(record.offset):
                            yield record


async def polls(
    settings: Settings,
    consumer: AIOKafkaConsumer,
    partition: TopicPartition,
    end: int,
    max_records: int | None = None,
) -> AsyncGenerator[list[ConsumerRecord], None]:
    """Yield the records of each poll, from where `consumer` stands to `end` or beyond.

    It ends early before a transaction that is still open. An empty list means that nothing has
    come for five seconds, although the broker is there.
    """
    reached, silent = -1, 0
    while (position := int(await consumer.position(partition))) < end:
        found = await consumer.getmany(partition, timeout_ms=_POLL_MS, max_records=max_records)
        if found:
            yield found[partition]
        elif waits_for_transaction(consumer, partition, position):
            return
        silent = 0 if found or position != reached else silent + 1
        reached = position
        if silent == _SILENT_POLLS:
            silent = 0
            await partition_offsets(settings, [partition.topic])
            yield []


def waits_for_transaction(
    consumer: AIOKafkaConsumer, partition: TopicPartition, position: int
) -> bool:
    """Tell whether what lies at `position` belongs to a transaction that is still open."""
    stable = consumer.last_stable_offset(partition)
    return stable is not None and 0 <= stable <= position


async def holds_records(
    settings: Settings, topic: str, partition: int, begin: int, end: int
) -> bool:
    """Tell whether there is a record from `begin` to before `end`; see `first_record`."""
    return await first_record(settings, topic, partition, [(begin, end)]) is not None


async def first_record(
    settings: Settings, topic: str, partition: int, ranges: Iterable[tuple[int, int]]
) -> int | None:
    """Return the first offset in `ranges` at which a consumer of committed records is given one.

    The marks that end a transaction, and the records of one that was aborted, have offsets too.
    What cannot be read is taken for a record: it cannot be shown that it is none.

    Args:
        settings: Which broker.
        topic: Which topic.
        partition: Which of its partitions.
        ranges: First offset of each, which the log must still hold, and the one after its last.

    Returns:
        None where there is no record in any of them.
    """
    wanted = [(begin, end) for begin, end in ranges if begin < end]
    if not wanted:
        return None
    key = TopicPartition(topic, partition)
    async with record_reader(settings) as consumer:
        consumer.assign([key])
        for begin, end in wanted:
            consumer.seek(key, begin)
            found = await _first_before(settings, consumer, key, end)
            if found is not None:
                return found
    return None


async def _first_before(
    settings: Settings, consumer: AIOKafkaConsumer, partition: TopicPartition, end: int
) -> int | None:
    async with aclosing(polls(settings, consumer, partition, end, max_records=1)) as found:
        async for records in found:
            for record in records:
                return int(record.offset) if record.offset < end else None
            break
    position = int(await consumer.position(partition))
    return position if position < end else None


_NEAR_OFFSETS = 10_000
"""Records that are read faster than an offset further on is found."""


async def read_offsets(
    settings: Settings, wanted: Mapping[Partition, Collection[int]]
) -> AsyncGenerator[ConsumerRecord, None]:
    """Yield the records at `wanted` that the broker still has, by partition and offset."""
    there = await partition_offsets(settings, {topic for topic, _ in wanted})
    spans = {
        partition: list(_spans(filter(there[partition].holds, sorted(offsets))))
        for partition, offsets in wanted.items()
        if partition in there
    }
    # Of each partition one span at a time, as a reader takes them.
    for turn in zip_longest(*spans.values()):
        ranges = {partition: span for partition, span in zip(spans, turn, strict=True) if span}
        async with aclosing(read_ranges(settings, ranges)) as records:
            async for record in records:
                if record.offset in wanted[record.topic, record.partition]:
                    yield record


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
