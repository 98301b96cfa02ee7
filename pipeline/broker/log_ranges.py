"""Whether a range of the log holds records: offsets also go to what no consumer is given."""

import asyncio

from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.broker.connection import ANSWER_TIMEOUT_SECONDS, broker_errors, client_options
from pipeline.settings import Settings

_POLL_MS = 200


async def holds_records(
    settings: Settings, topic: str, partition: int, begin: int, end: int
) -> bool:
    """Tell whether a consumer of committed records is given any from `begin` to before `end`.

    The marks that end a transaction, and the records of one that was aborted, have offsets too.

    Raises:
        BrokerError: No broker answers.
    """
    consumer = AIOKafkaConsumer(
        **client_options(settings), enable_auto_commit=False, isolation_level="read_committed"
    )
    with broker_errors(settings):
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
                await consumer.start()
                place = TopicPartition(topic, partition)
                consumer.assign([place])
                consumer.seek(place, begin)
                return await _finds_one(consumer, place, end)
        finally:
            await consumer.stop()


async def _finds_one(consumer: AIOKafkaConsumer, place: TopicPartition, end: int) -> bool:
    while await consumer.position(place) < end:
        batches = await consumer.getmany(place, timeout_ms=_POLL_MS, max_records=1)
        for record in batches.get(place, []):
            return bool(record.offset < end)
    return False
