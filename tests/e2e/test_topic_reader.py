"""Ranges of a topic are read without a consumer group, on the real broker."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from pipeline.broker.admin.topics import OffsetRange, apply_topics, partition_offsets
from pipeline.broker.local.broker import LocalBroker
from pipeline.broker.reading.ranges import read_ranges, read_topic
from pipeline.errors import BrokerError
from pipeline.settings import Settings
from tests.e2e.kafka_reading import new_settings

pytestmark = pytest.mark.e2e


async def send(settings: Settings, counts: Mapping[int, int]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers)
    await producer.start()
    try:
        for partition, count in counts.items():
            for number in range(count):
                await producer.send_and_wait(
                    settings.topics.run_requests, b"%d" % number, partition=partition
                )
    finally:
        await producer.stop()


async def test_a_range_gives_its_own_records_alone(settings: Settings) -> None:
    await send(settings, {2: 6, 5: 4})
    topic = settings.topics.run_requests
    ranges = {(topic, 5): OffsetRange(0, 2), (topic, 2): OffsetRange(3, 5)}
    read = [(each.partition, each.offset) async for each in read_ranges(settings, ranges)]
    assert read == [(2, 3), (2, 4), (5, 0), (5, 1)]


async def test_a_range_beyond_the_end_of_the_log_gives_nothing(settings: Settings) -> None:
    await send(settings, {2: 3})
    ranges = {(settings.topics.run_requests, 2): OffsetRange(9, 10)}
    assert [each.offset async for each in read_ranges(settings, ranges)] == []


async def test_an_empty_topic_gives_nothing(settings: Settings) -> None:
    assert [each async for each in read_topic(settings, settings.topics.run_requests)] == []


async def test_a_consumer_that_is_asked_nothing_leaves_no_task_behind(settings: Settings) -> None:
    assert await partition_offsets(settings, []) == {}
    # aiokafka's tasks of a closed client end with the next step of the loop.
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_transaction_that_stays_open_ends_the_range(settings: Settings) -> None:
    await send(settings, {2: 3, 4: 1})
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap_servers, transactional_id=f"{settings.prefix}-open"
    )
    await producer.start()
    try:
        await producer.begin_transaction()
        await producer.send_and_wait(settings.topics.run_requests, b"later", partition=2)
        async with asyncio.timeout(30):
            topic = settings.topics.run_requests
            read = [(each.partition, each.offset) async for each in read_topic(settings, topic)]
        assert read == [(2, 0), (2, 1), (2, 2), (4, 0)]
        await producer.abort_transaction()
    finally:
        await producer.stop()


@pytest.mark.slow
async def test_a_broker_that_goes_while_it_is_read_is_reported_and_not_waited_for(
    mortal_broker: LocalBroker, tmp_path: Path
) -> None:
    settings = new_settings(mortal_broker, tmp_path / "store")
    assert await apply_topics(settings) == []
    await send(settings, {2: 1, 4: 1})
    async with aclosing(read_topic(settings, settings.topics.run_requests)) as records:
        assert (await anext(records)).partition == 2
        mortal_broker.stop()
        async with asyncio.timeout(60):
            with pytest.raises(BrokerError, match="No Kafka broker answers"):
                await anext(records)
