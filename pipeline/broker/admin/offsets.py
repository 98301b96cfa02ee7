"""The offsets that the partitions of topics hold."""

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.broker.admin.topics import topic_partitions
from pipeline.broker.connection import ANSWER_TIMEOUT_MS, reader
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
    # One that reads committed records would be told where an open transaction begins.
    async with reader(
        settings, isolation_level="read_uncommitted", request_timeout_ms=ANSWER_TIMEOUT_MS
    ) as consumer:
        beginnings = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
    return {
        (each.topic, each.partition): OffsetRange(beginnings[each], ends[each])
        for each in partitions
    }
