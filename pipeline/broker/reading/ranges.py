"""Read ranges of a topic outside any consumer group: a replay, a rebuild, a list.

Positions of consumer groups are never read or moved. The end of a range is fixed by the caller,
so a topic that grows meanwhile is read to where it ended.

Read single records of topics by their offsets, without reading all that lies between.
"""

from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Mapping
from contextlib import aclosing
from itertools import zip_longest

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from pipeline.broker.admin.offsets import OffsetRange, partition_offsets
from pipeline.broker.aiokafka_fixes.tolerant_records import install_tolerant_records
from pipeline.broker.connection import broker_errors, client_options, close_consumer
from pipeline.core.record import Partition
from pipeline.settings import Settings

Ranges = Mapping[Partition, OffsetRange]
"""What to read of each topic and partition."""

_POLL_MS = 500
_WAIT_MS = 10
"""Longest wait of the broker for more records. With aiokafka's 500, the question that was under
way at the end of one partition held up the first one about the next: a third of a second each."""

_SILENT_POLLS = 10
"""Polls in which nothing comes until the broker is asked whether it is there: aiokafka waits for
one that is gone without a word, for ever."""


async def read_topic(settings: Settings, topic: str) -> AsyncGenerator[ConsumerRecord, None]:
    """Yield the records of `topic` from its start to where it ends now; see `read_ranges`.

    Raises:
        TopicsError: The topic is missing.
        BrokerError: The broker cannot be reached.
    """
    ranges = await partition_offsets(settings, [topic])
    async with aclosing(read_ranges(settings, ranges)) as records:
        async for record in records:
            yield record


async def read_ranges(settings: Settings, ranges: Ranges) -> AsyncGenerator[ConsumerRecord, None]:
    """Yield the committed records of `ranges`, one partition after the other, each in order.

    A range ends early before a transaction that is still open: what it holds is no record yet.
    What retention has removed is left out; the offsets of the records show it.

    Raises:
        TopicsError: A topic is not there any more.
        BrokerError: The broker cannot be reached, or is not any more.
    """
    wanted = {
        TopicPartition(topic, partition): offsets
        for (topic, partition), offsets in ranges.items()
        if offsets.end > offsets.beginning
    }
    if not wanted:
        return
    install_tolerant_records()
    consumer = AIOKafkaConsumer(
        **client_options(settings),
        enable_auto_commit=False,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        fetch_max_wait_ms=_WAIT_MS,
    )
    async with broker_errors(settings):
        try:
            await consumer.start()
            for place in sorted(wanted):
                found = _read_partition(settings, consumer, place, wanted[place])
                async with aclosing(found) as records:
                    async for record in records:
                        yield record
        finally:
            await close_consumer(consumer)


async def _read_partition(
    settings: Settings, consumer: AIOKafkaConsumer, place: TopicPartition, offsets: OffsetRange
) -> AsyncGenerator[ConsumerRecord, None]:
    consumer.assign([place])
    consumer.seek(place, offsets.beginning)
    silent_polls = 0
    while (position := await consumer.position(place)) < offsets.end:
        batches = await consumer.getmany(place, timeout_ms=_POLL_MS)
        for record in batches.get(place, []):
            # Where the range begins beyond the log's end, Kafka's client begins at the log's start.
            if offsets.beginning <= record.offset < offsets.end:
                yield record
        if not batches and waits_for_transaction(consumer, place, position):
            return
        silent_polls = 0 if batches else silent_polls + 1
        if silent_polls == _SILENT_POLLS:
            silent_polls = 0
            await partition_offsets(settings, [place.topic])


def waits_for_transaction(consumer: AIOKafkaConsumer, place: TopicPartition, position: int) -> bool:
    """Tell whether what lies at `position` belongs to a transaction that is still open."""
    stable = consumer.last_stable_offset(place)
    return stable is not None and 0 <= stable <= position


_NEAR_OFFSETS = 10_000
"""Records that are read faster than a place further on is found."""


async def read_offsets(
    settings: Settings, wanted: Mapping[Partition, Collection[int]]
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
