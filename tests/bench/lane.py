"""One lane of the race: topics and a store of its own, and a start line.

The records are in the topic before the clock starts, inside an open transaction, so nobody sees
them. Every consumer reads committed records only. So it can connect, join its group, handle a few
records to warm up, and wait; then the transaction is committed, and all records are there at once.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from pipeline.broker.admin.topics import partition_offsets
from pipeline.broker.connection import admin_client
from pipeline.broker.local.broker import LocalBroker
from pipeline.settings import Settings, read_settings
from pipeline.storage.store import create, init_key
from pipeline.topics import topic_table
from tests.bench.contender import START_SECONDS, BenchError, Contender
from tests.bench.requests import encoded_requests
from tests.e2e.prepared_store import prepare_store

TRANSACTION_LIMIT_MS = 900_000
"""The longest that a broker allows by default."""

POLL_SECONDS = 0.1
SILENCE_SECONDS = 60.0
SAID_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Lane:
    """Where one contender runs once.

    Attributes:
        records: How many are timed.
        warm: How many come before them, so that everything has been used once.
    """

    settings: Settings
    records: int
    warm: int = 0

    @staticmethod
    def inherited_environment() -> dict[str, str]:
        """Return our own environment without any setting."""
        return {
            name: value
            for name, value in os.environ.items()
            # A path of modules would hide the checkout of a worker that is compared.
            if "RMOS_" not in name and name != "PYTHONPATH"
        }

    def environment(self, **changes: str) -> dict[str, str]:
        """Return the environment of the contender."""
        store = {"RMOS_DATA_DIR": str(self.settings.data_dir)}
        if self.settings.store_url is not None and self.settings.index_url is not None:
            index_url = self.settings.index_url.get_secret_value()
            store = {"RMOS_STORE_URL": self.settings.store_url, "RMOS_INDEX_URL": index_url}
        return {
            **self.inherited_environment(),
            **store,
            "RMOS_BOOTSTRAP_SERVERS": self.settings.bootstrap_servers,
            "RMOS_PREFIX": self.settings.prefix,
            "RMOS_LEDGER_KEY_FILE": str(self.settings.ledger_key_file),
            **changes,
        }


async def make_lane(
    broker: LocalBroker,
    folder: Path,
    name: str,
    records: int,
    warm: int = 0,
    place: Mapping[str, Any] | None = None,
) -> Lane:
    """Make the topics and the store of a lane; `place` are the settings of one that is shared."""
    settings = read_settings(
        bootstrap_servers=broker.bootstrap_servers,
        prefix=name,
        data_dir=folder / name,
        ledger_key_file=folder / f"{name}.pem",
    )
    await _create_topics(settings)
    if place is None:
        prepare_store(settings, broker.cluster_id)
    else:
        settings = settings.model_copy(update=dict(place))
        create(settings, cluster_id=broker.cluster_id)
        init_key(settings)
    return Lane(settings, records, warm)


async def _create_topics(settings: Settings) -> None:
    # Only those that a persist worker needs: the others would fill the broker's small heap.
    names = settings.topics
    needed = {names.run_requests, names.run_events, names.run_dead_letters}
    wanted = [topic for topic in topic_table(settings.prefix) if topic.name in needed]
    new = [NewTopic(each.name, each.partitions, 1, topic_configs=each.configs) for each in wanted]
    async with admin_client(settings) as admin:
        await admin.create_topics(new)
        # The broker that we ask hears from its controller of the new topics a little later.
        while needed - {topic["topic"] for topic in await admin.describe_topics()}:  # noqa: ASYNC110
            await asyncio.sleep(POLL_SECONDS)


@asynccontextmanager
async def start_line(
    lane: Lane, records: Iterable[tuple[bytes, bytes]]
) -> AsyncIterator[AIOKafkaProducer]:
    """Fill the topic; the records are seen once the given producer commits its transaction."""
    producer = AIOKafkaProducer(
        bootstrap_servers=lane.settings.bootstrap_servers,
        transactional_id=f"{lane.settings.prefix}-bench",
        transaction_timeout_ms=TRANSACTION_LIMIT_MS,
        compression_type="lz4",
        max_batch_size=256 * 1024,
        linger_ms=20,
    )
    await producer.start()
    try:
        async with producer.transaction():
            await _send(producer, lane, encoded_requests(lane.warm, "warm"))
        await send_unseen(producer, lane, records)
        yield producer
    finally:
        await producer.stop()


async def send_unseen(
    producer: AIOKafkaProducer, lane: Lane, records: Iterable[tuple[bytes, bytes]]
) -> None:
    """Send records that nobody sees until the producer commits its transaction."""
    await producer.begin_transaction()
    await _send(producer, lane, records)


async def _send(
    producer: AIOKafkaProducer, lane: Lane, records: Iterable[tuple[bytes, bytes]]
) -> None:
    for key, value in records:
        await producer.send(lane.settings.topics.run_requests, value, key=key)
    await producer.flush()


async def wait_until_joined(lane: Lane, contender: Contender, members: int = 1) -> None:
    """Wait until the group of the lane is stable, with members that hold partitions."""
    deadline = time.monotonic() + START_SECONDS
    async with admin_client(lane.settings) as admin:
        while not await _is_stable(admin, lane.settings.topics.persist_group, members):
            contender.check()
            if time.monotonic() > deadline:
                raise BenchError(f"{contender.log.name} did not join: {contender.text[-2000:]}")
            await asyncio.sleep(POLL_SECONDS)


async def _is_stable(admin: AIOKafkaAdminClient, group: str, members: int) -> bool:
    try:
        (response,) = await admin.describe_consumer_groups([group])
    except KafkaError as error:
        # The first question about any group makes the broker create its offsets topic.
        if not error.retriable:
            raise
        return False
    _, _, state, _, _, found, *_ = response.groups[0]
    return bool(state == "Stable" and len(found) >= members)


class SaidCounter:
    """Counts the records of a contender that says after each commit how many it has, and when."""

    def __init__(self) -> None:
        self._seconds = 0.0

    async def wait_for(self, wanted: int, contender: Contender) -> None:
        """Wait until it has said `wanted`."""
        deadline, count = time.monotonic() + SAID_SECONDS, 0
        while count < wanted:
            contender.check()
            if time.monotonic() > deadline:
                raise BenchError(f"{contender.log.name}: {count} of {wanted} records")
            await asyncio.sleep(POLL_SECONDS)
            if lines := contender.text.rpartition("\n")[0].splitlines():
                count, self._seconds = int(lines[-1].split()[0]), float(lines[-1].split()[1])

    async def last_event_seconds(self) -> float:
        """Return when it said so last."""
        return self._seconds


class EventCounter:
    """Counts a lane's events from outside, by the ends of the partitions alone."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._topic = lane.settings.topics.run_events
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=lane.settings.bootstrap_servers, enable_auto_commit=False
        )
        self._places: list[TopicPartition] = []

    async def __aenter__(self) -> "EventCounter":
        offsets = await partition_offsets(self._lane.settings, [self._topic])
        self._places = [TopicPartition(topic, number) for topic, number in offsets]
        await self._consumer.start()
        self._consumer.assign(self._places)
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self._consumer.stop()

    async def count(self) -> int:
        """Return the number of events so far."""
        return sum((await self._consumer.end_offsets(self._places)).values())

    async def wait_for(self, wanted: int, contender: Contender) -> None:
        """Wait until there are `wanted` events.

        Raises:
            BenchError: There are more, or no new one for a minute.
        """
        seen, since = 0, time.monotonic()
        while (now := await self.count()) < wanted:
            contender.check()
            if now > seen:
                seen, since = now, time.monotonic()
            if time.monotonic() - since > SILENCE_SECONDS:
                raise BenchError(f"{contender.log.name}: {now} of {wanted} events, then silence")
            await asyncio.sleep(POLL_SECONDS)
        if now > wanted:
            raise BenchError(f"{contender.log.name}: {now} events of {wanted} records")

    async def last_event_seconds(self) -> float:
        """Return the time at which the last event was made, by its producer's clock."""
        ends = await self._consumer.end_offsets(self._places)
        filled = {place: end for place, end in ends.items() if end}
        for place in self._places:
            self._consumer.seek(place, max(0, ends[place] - 1))
        latest: dict[TopicPartition, int] = {}
        while len(latest) < len(filled):
            for place, records in (await self._consumer.getmany(timeout_ms=1000)).items():
                latest[place] = max(record.timestamp for record in records)
        return max(latest.values()) / 1000
