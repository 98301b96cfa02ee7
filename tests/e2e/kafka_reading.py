"""Topics and groups with bare aiokafka, so that nothing under test tells about itself."""

import asyncio
import time
import uuid
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass
from inspect import isawaitable
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import NewTopic
from aiokafka.structs import RecordMetadata

from pipeline.broker.admin.topics import partition_offsets, wait_for_controller
from pipeline.broker.connection import admin_client
from pipeline.broker.local.broker import LocalBroker
from pipeline.settings import Settings, read_settings
from pipeline.topics import Topic, topic_table
from tests.builders import record
from tests.e2e.prepared_store import prepare_store

POLL_SECONDS = 0.05
PATIENCE_SECONDS = 90.0
"""Far more than anything takes; a test that waits this long fails."""

SHORT_WAITS = {"group.min.session.timeout.ms": "500", "log.cleaner.backoff.ms": "1000"}
"""Properties of a tests' broker; Kafka's own are 6 s, and 15 s between looks of compaction."""
QUIET = {"metadata.max.idle.interval.ms": "0"}
"""Keeps an idle broker from writing twice a second, as a measure of lag for other nodes."""
NO_FLUSHES = {"log.flush.interval.messages": str(2**63 - 1)}
"""Kafka's own, where no test ends the machine: what was written outlives a process."""
SHORT_SESSION_MS = 1000
"""Session of a member that a test lets die, halt or wait longer than that."""

Headers = Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Sending:
    """One record to send; without `partition` the key decides, as for any producer."""

    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int | None = None
    timestamp_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Place:
    partition: int
    offset: int


def sending(
    request: dict[str, Any], headers: Headers = (), partition: int | None = None
) -> Sending:
    return Sending(*record(request), headers, partition)


def new_settings(broker: LocalBroker, data_dir: Path, **changes: Any) -> Settings:
    """Return settings with a prefix that nobody else uses."""
    return read_settings(
        **{
            "prefix": f"t{uuid.uuid4().hex[:12]}",
            "bootstrap_servers": broker.bootstrap_servers,
            "data_dir": data_dir,
            **changes,
        }
    )


RUN_TOPICS = ("runs.requests", "runs.events", "runs.dead-letters")
"""What a persist worker reads and writes: 27 partitions."""
ADVISORY_TOPICS = tuple(
    each.name.removeprefix("rmos.")
    for each in topic_table()
    if each.name.startswith("rmos.advisories.")
)
EVERY_TOPIC = None


@asynccontextmanager
async def topics_of(
    settings: Settings,
    needed: Collection[str] | None = EVERY_TOPIC,
    *,
    of_requests: Mapping[str, str] | None = None,
) -> AsyncIterator[None]:
    """Make the topics `needed` for the length of a block, named without their prefix.

    A broker takes some milliseconds of a processor to make and to delete a partition.

    Args:
        settings: Which broker and prefix.
        needed: Which of them.
        of_requests: Settings of the topics of requests that are not as they must be.
    """

    def configs(topic: Topic) -> dict[str, str]:
        changes = of_requests if topic.name.endswith(".requests") else None
        return {**topic.configs, **(changes or {})}

    wanted = [
        NewTopic(each.name, each.partitions, 1, topic_configs=configs(each))
        for each in topic_table(settings.prefix, request_retention_ms=settings.request_retention_ms)
        if needed is None or each.name.removeprefix(f"{settings.prefix}.") in needed
    ]
    names = {each.name for each in wanted}
    assert needed is None or len(names) == len(needed), needed
    async with admin_client(settings) as admin:
        await wait_for_controller(admin)
        answer = await admin.create_topics(wanted)
        assert all(each[1] == 0 for each in answer.topic_errors), answer

        async def are_there() -> bool:
            return names <= set(await admin.list_topics())

        await wait_until(are_there, "the topics are there")
    try:
        yield
    finally:
        # They would otherwise fill the broker's heap, and every answer about all topics.
        async with admin_client(settings) as admin:
            await wait_for_controller(admin)
            await admin.delete_topics(list(names))


@asynccontextmanager
async def topics_and_store(
    broker: LocalBroker, settings: Settings, needed: Collection[str] | None = EVERY_TOPIC
) -> AsyncIterator[Settings]:
    """Make topics and store for the length of a block; the topics are deleted afterwards."""
    async with topics_of(settings, needed):
        prepare_store(settings, broker.cluster_id)
        yield settings


@asynccontextmanager
async def producer_of(
    settings: Settings, *, compression: str | None = None
) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap_servers,
        acks="all",
        # A duplicate that the client makes by itself would spoil what the tests count.
        enable_idempotence=True,
        max_request_size=16 * 1024 * 1024,
        compression_type=compression,
        max_batch_size=1024 * 1024,
        linger_ms=5,
    )
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def produce(
    settings: Settings,
    records: Iterable[Sending],
    *,
    topic: str | None = None,
    compression: str | None = None,
) -> list[Place]:
    """Send records to the request topic, or to `topic`, in order; return where they are."""
    async with producer_of(settings, compression=compression) as producer:
        name = topic or settings.topics.run_requests
        futures = [await _send(producer, name, each) for each in records]
        confirmed = await asyncio.gather(*futures)
    return [Place(each.partition, each.offset) for each in confirmed]


async def _send(producer: AIOKafkaProducer, topic: str, each: Sending) -> Awaitable[RecordMetadata]:
    headers = list(each.headers)
    if each.key is None and each.value is None:
        # aiokafka sends neither alone; other clients do.
        batch = producer.create_batch()
        appended = batch.append(timestamp=each.timestamp_ms, key=None, value=None, headers=headers)
        assert appended
        batch.close()
        return await producer.send_batch(batch, topic, partition=each.partition)
    return await producer.send(
        topic,
        key=each.key,
        value=each.value,
        headers=headers,
        partition=each.partition,
        timestamp_ms=each.timestamp_ms,
    )


async def read_topic(settings: Settings, topic: str) -> list[ConsumerRecord]:
    """Return every record of `topic`, in offset order within each partition.

    The broker ends a transaction in each partition by itself, some time after its producer has
    heard that it is committed; that is waited for.
    """
    open_ends = await partition_offsets(settings, [topic])
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap_servers,
        enable_auto_commit=False,
        isolation_level="read_committed",
        max_partition_fetch_bytes=8 * 1024 * 1024,
    )
    await consumer.start()
    try:
        partitions = partitions_of(settings, topic)
        consumer.assign(partitions)
        begin = await consumer.beginning_offsets(partitions)
        ends = {each: open_ends[each.topic, each.partition].end for each in partitions}
        found: list[ConsumerRecord] = []
        for each in partitions:
            consumer.seek(each, begin[each])
        while missing := [p for p in partitions if await consumer.position(p) < ends[p]]:
            batches = await consumer.getmany(*missing, timeout_ms=1000)
            found.extend(each for batch in batches.values() for each in batch)
    finally:
        await consumer.stop()
    return sorted(found, key=lambda each: (each.partition, each.offset))


async def wait_for_records(
    settings: Settings,
    topic: str,
    condition: Callable[[list[ConsumerRecord]], bool],
    what: str,
    *,
    seconds: float = PATIENCE_SECONDS,
) -> list[ConsumerRecord]:
    """Follow `topic` from its start until `condition` holds of what was read; return that.

    One client reads each record once, whatever the number of looks.

    Args:
        settings: Where the topic is.
        topic: What to follow.
        condition: Asked whenever some came, with all so far, in the order of their arrival.
        what: What is waited for, in a few words.
        seconds: Longest wait.
    """
    async with AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap_servers,
        enable_auto_commit=False,
        isolation_level="read_committed",
        max_partition_fetch_bytes=8 * 1024 * 1024,
        auto_offset_reset="earliest",
    ) as consumer:
        consumer.assign(partitions_of(settings, topic))
        await consumer.seek_to_beginning()
        found: list[ConsumerRecord] = []

        async def holds() -> bool:
            batches = await consumer.getmany(timeout_ms=20)
            found.extend(each for batch in batches.values() for each in batch)
            return bool(batches) and condition(found)

        await wait_until(holds, what, seconds=seconds)
    return found


def partitions_of(settings: Settings, topic: str) -> list[TopicPartition]:
    (number,) = [each.partitions for each in topic_table(settings.prefix) if each.name == topic]
    return [TopicPartition(topic, partition) for partition in range(number)]


@asynccontextmanager
async def group_consumer(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    """Give a client that asks for the persist group's offsets and never joins it."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap_servers,
        group_id=settings.topics.persist_group,
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def wait_until(
    condition: Callable[[], bool | Awaitable[bool]],
    what: str,
    *,
    seconds: float = PATIENCE_SECONDS,
) -> None:
    """Wait until `condition` holds; fail with `what` when it takes too long."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if await found if isawaitable(found) else found:
            return
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(POLL_SECONDS)


async def wait_until_consumed(
    settings: Settings,
    *,
    check: Callable[[], None] = lambda: None,
    seconds: float = PATIENCE_SECONDS,
) -> None:
    """Wait until the persist group has committed the end of every partition of its topic.

    Args:
        settings: Which topic and group.
        check: Called at every look; raises where waiting has no sense any more.
        seconds: Longest wait.
    """
    async with group_consumer(settings) as consumer:
        partitions = partitions_of(settings, settings.topics.run_requests)
        open_ends = await consumer.end_offsets(partitions)

        async def is_consumed() -> bool:
            check()
            while open_ends:
                place, end = next(iter(open_ends.items()))
                if end and (await consumer.committed(place) or 0) < end:
                    return False
                del open_ends[place]
            return True

        await wait_until(is_consumed, f"consumed to {open_ends}", seconds=seconds)


async def committed(settings: Settings) -> dict[int, int]:
    """Return what the persist group committed of each partition, where it did."""
    found = {}
    async with group_consumer(settings) as consumer:
        for place in partitions_of(settings, settings.topics.run_requests):
            offset = await consumer.committed(place)
            if offset is not None:
                found[place.partition] = offset
    return found


async def commit(settings: Settings, offsets: dict[int, int]) -> None:
    """Commit offsets in the name of the persist group, which must have no members."""
    topic = settings.topics.run_requests
    async with group_consumer(settings) as consumer:
        places = {TopicPartition(topic, number): offset for number, offset in offsets.items()}
        consumer.assign(list(places))
        await consumer.commit(places)


def header_dict(each: ConsumerRecord) -> dict[str, bytes | None]:
    """Return the headers of a record; of two with one name the last counts."""
    return dict(each.headers)
