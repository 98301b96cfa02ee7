"""Partitions that move while chunks fail and a poll waits, over the real broker."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.app.persist import persist_worker
from pipeline.app.worker import Worker
from pipeline.broker.sending.batches import BatchSender, Message
from pipeline.consumers.engine import batches, in_flight
from pipeline.consumers.engine.subscription import Subscription
from pipeline.consumers.engine.topic_watch import TopicWatch
from pipeline.errors import BrokerError
from pipeline.settings import Settings
from tests.builders import run_request
from tests.e2e.kafka_reading import (
    Sending,
    group_consumer,
    partitions_of,
    produce,
    sending,
    wait_until,
    wait_until_consumed,
)
from tests.e2e.store_audit import audit_store

pytestmark = pytest.mark.e2e

CHUNK = 8


def runs(start: int, count: int, partition: int | None = None) -> list[Sending]:
    numbers = range(start, start + count)
    return [sending(run_request(run_id=f"run_{n}"), partition=partition) for n in numbers]


class Rebalance:
    """Lets a publish fail and a poll wait while partitions move.

    Attributes:
        publishing: A chunk is being published; it fails once partitions are given away.
        polled: Records were polled behind it; they are confirmed once partitions are back.
        leaving: Partitions are being given away.
        joined: They were given out anew.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.publishing, self.polled = asyncio.Event(), asyncio.Event()
        self.leaving, self.joined = asyncio.Event(), asyncio.Event()
        send, confirm = BatchSender.send, TopicWatch.confirm_topic
        give_away = Subscription.give_away

        async def failing(sender: BatchSender, messages: list[Message]) -> None:
            if not self.publishing.is_set():
                self.publishing.set()
                await self.leaving.wait()
                raise BrokerError("The broker is away.")
            await send(sender, messages)

        async def waiting(watch: TopicWatch) -> None:
            if self.publishing.is_set() and not self.joined.is_set():
                self.polled.set()
                await self.joined.wait()
            await confirm(watch)

        async def leaving(subscription: Subscription) -> None:
            self.leaving.set()
            await give_away(subscription)

        monkeypatch.setattr(BatchSender, "send", failing)
        monkeypatch.setattr(TopicWatch, "confirm_topic", waiting)
        monkeypatch.setattr(Subscription, "give_away", leaving)


@asynccontextmanager
async def looks_at_offsets(settings: Settings) -> AsyncIterator[list[str]]:
    """Look while a block works; give a list of where the group was beyond the store."""
    beyond: list[str] = []
    looks = 0

    async def look() -> None:
        nonlocal looks
        async with group_consumer(settings) as consumer:
            while True:
                for place in partitions_of(settings, settings.topics.run_requests):
                    # In this order: a worker that goes on makes only the second larger.
                    offset = await consumer.committed(place) or 0
                    stored = stored_to(settings.data_dir).get(place.partition, 0)
                    if offset > stored:
                        beyond.append(f"partition {place.partition}: {offset}, stored {stored}")
                    looks += 1

    task = asyncio.create_task(look())
    try:
        yield beyond
    finally:
        task.cancel()
        (ended,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError)
        assert looks


def stored_to(root: Path) -> dict[int, int]:
    """Return where the store's records of each partition end."""
    connection = sqlite3.connect(root / "index.sqlite3")
    try:
        return dict(connection.execute("SELECT partition, next_offset FROM positions"))
    finally:
        connection.close()


def has(worker: Worker, count: int) -> Any:
    return lambda: len(worker.subscription.assigned) == count


async def test_a_worker_that_joins_while_a_chunk_fails_and_a_poll_waits_loses_and_doubles_nothing(
    store_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (batches, in_flight):
        monkeypatch.setattr(module, "CHUNK_RECORDS", CHUNK)

    def member(name: str) -> Settings:
        # The assignor gives the first partition to the member whose name is first.
        return store_settings.model_copy(update={"instance": name})

    async with persist_worker(member("a")) as first, looks_at_offsets(store_settings) as beyond:
        await wait_until(has(first, 12), "all partitions")
        await produce(store_settings, runs(0, CHUNK))
        await wait_until_consumed(store_settings)
        rebalance = Rebalance(monkeypatch)
        await produce(store_settings, runs(CHUNK, 2 * CHUNK, partition=0))
        await wait_until(rebalance.publishing.is_set, "a chunk is published")
        await produce(store_settings, runs(3 * CHUNK, 2 * CHUNK, partition=0))
        await wait_until(rebalance.polled.is_set, "a poll waits")
        async with persist_worker(member("b")) as second:
            await wait_until(lambda: has(first, 6)() and has(second, 6)(), "six partitions each")
            assert 0 in {place.partition for place in first.subscription.assigned}
            rebalance.joined.set()
            await produce(store_settings, runs(5 * CHUNK, 20 * CHUNK))
            await wait_until_consumed(store_settings)
            assert not any(fault.done() for each in (first, second) for fault in each.faults)
    assert beyond == []
    audit = await audit_store(store_settings)
    audit.assert_whole()
    assert audit.outcomes() == {"persisted": 25 * CHUNK}
    assert len({audit.event(place)["event_id"] for place in audit.events}) == 25 * CHUNK
