"""Whether ranges of the log hold records: offsets also go to what no consumer is given."""

import asyncio
from collections.abc import Iterable

from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.broker.connection import (
    ANSWER_TIMEOUT_SECONDS,
    broker_errors,
    client_options,
    close_consumer,
)
from pipeline.settings import Settings

_POLL_MS = 200
_SILENT_POLLS = 20
"""Polls in which nothing comes and nothing moves until what is there counts as unreadable."""


async def holds_records(
    settings: Settings, topic: str, partition: int, begin: int, end: int
) -> bool:
    """Tell whether there is a record from `begin` to before `end`; see `first_record`.

    Raises:
        BrokerError: No broker answers.
    """
    return await first_record(settings, topic, partition, [(begin, end)]) is not None


async def first_record(
    settings: Settings, topic: str, partition: int, ranges: Iterable[tuple[int, int]]
) -> int | None:
    """Return the first offset in `ranges` at which a consumer of committed records is given one.

    The marks that end a transaction, and the records of one that was aborted, have offsets too.
    What cannot be read is taken for a record: nobody can tell that it is none.

    Args:
        settings: Which broker.
        topic: Which topic.
        partition: Which of its partitions.
        ranges: First offset of each, which the log must still hold, and the one after its last.

    Returns:
        None where there is no record in any of them.

    Raises:
        BrokerError: No broker answers.
    """
    wanted = [(begin, end) for begin, end in ranges if begin < end]
    if not wanted:
        return None
    consumer = AIOKafkaConsumer(
        **client_options(settings), enable_auto_commit=False, isolation_level="read_committed"
    )
    async with broker_errors(settings):
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
                await consumer.start()
                place = TopicPartition(topic, partition)
                consumer.assign([place])
                for begin, end in wanted:
                    consumer.seek(place, begin)
                    found = await _first_before(consumer, place, end)
                    if found is not None:
                        return found
                return None
        finally:
            await close_consumer(consumer)


async def _first_before(consumer: AIOKafkaConsumer, place: TopicPartition, end: int) -> int | None:
    reached, silent = -1, 0
    while (position := int(await consumer.position(place))) < end:
        silent = silent + 1 if position == reached else 0
        if silent == _SILENT_POLLS:
            return position
        reached = position
        batches = await consumer.getmany(place, timeout_ms=_POLL_MS, max_records=1)
        for record in batches.get(place, []):
            return int(record.offset) if record.offset < end else None
    return None
