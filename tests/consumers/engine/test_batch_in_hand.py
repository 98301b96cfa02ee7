"""Partitions are given away only when the batch in hand is committed, or put off and rewound."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError
from faststream.exceptions import NackMessage
from faststream.kafka import KafkaBroker

from pipeline.consumers.engine.group_consumer import PolledConsumer
from pipeline.consumers.engine.subscription import Subscription, WorkerBroker
from pipeline.errors import BrokerError
from pipeline.settings import Settings

TOPIC = "rmos.runs.requests"
PLACE = TopicPartition(TOPIC, 3)
RECORD = SimpleNamespace(topic=TOPIC, partition=3, offset=17, key=None, value=b"{}", headers=())
POLLED = {PLACE: [RECORD]}


async def nothing(*_arguments: Any, **_options: Any) -> None:
    """Return at once."""


@pytest.fixture(autouse=True)
def polls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the polls of aiokafka bring, one after the other; then nothing."""
    polls: list[Any] = []

    async def getmany(*_arguments: Any, **_options: Any) -> Any:
        return polls.pop(0) if polls else {}

    monkeypatch.setattr(AIOKafkaConsumer, "getmany", getmany)
    monkeypatch.setattr(AIOKafkaConsumer, "commit", nothing)
    return polls


@pytest.fixture
async def consumer() -> AsyncIterator[PolledConsumer]:
    async def attend(ask: Callable[..., Awaitable[Any]]) -> Any:
        return await ask(max_records=1)

    async with stopped(PolledConsumer(attend)) as consumer:
        yield consumer


@asynccontextmanager
async def stopped(consumer: PolledConsumer) -> AsyncIterator[PolledConsumer]:
    """Stop `consumer` at the end of a block."""
    try:
        yield consumer
    finally:
        await consumer.stop()


async def wait_ended(waiting: "asyncio.Task[None]") -> bool:
    """Return whether `waiting` ended once the loop had nothing else to do."""
    for _ in itertools.repeat(None, 5):
        await asyncio.sleep(0)
    return waiting.done()


async def test_a_batch_is_in_hand_from_its_poll_to_its_commit(
    consumer: PolledConsumer, polls: list[Any]
) -> None:
    await consumer.finish_batch(0)
    polls.append(POLLED)
    assert await consumer.getmany() == POLLED
    waiting = asyncio.create_task(consumer.finish_batch(60))
    assert not await wait_ended(waiting)
    await consumer.commit()
    assert await wait_ended(waiting)


async def test_a_batch_whose_commit_fails_or_that_is_polled_again_is_in_hand_no_longer(
    consumer: PolledConsumer, polls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_arguments: Any) -> None:
        raise CommitFailedError

    monkeypatch.setattr(AIOKafkaConsumer, "commit", fail)
    polls += [POLLED, POLLED]
    await consumer.getmany()
    with pytest.raises(CommitFailedError):
        await consumer.commit()
    assert await wait_ended(asyncio.create_task(consumer.finish_batch(60)))
    await consumer.getmany()
    await consumer.getmany()
    assert await wait_ended(asyncio.create_task(consumer.finish_batch(60)))


async def test_a_rebalance_waits_for_the_batch_until_it_is_put_off(polls: list[Any]) -> None:
    is_away = asyncio.Event()

    class Worker:
        group = "group"

        async def process(self, _records: Any) -> None:
            await is_away.wait()
            message = "No Kafka broker answers."
            raise BrokerError(message)

    subscription = Subscription(
        Settings(broker_pause_seconds=1e-9),
        cast("Any", Worker()),
        topic=TOPIC,
        start=cast("Any", SimpleNamespace(places={})),
    )
    consumer = subscription._built_consumer()
    check = cast("Any", subscription._offset_check)
    check._watch = SimpleNamespace(confirm_topic=nothing, confirm_group=nothing)
    consumer.assignment = set  # It is no member of a group.
    polls.append(POLLED)
    async with stopped(consumer):
        await consumer.getmany()
        handling = asyncio.create_task(subscription._handle(cast("Any", [RECORD])))
        giving_away = asyncio.create_task(subscription.give_away())
        assert not await wait_ended(giving_away)
        is_away.set()
        with pytest.raises(NackMessage):
            await handling
        assert await wait_ended(giving_away)


async def test_what_a_poll_asks_is_closed_only_when_nothing_polls_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []

    async def stop(*_arguments: Any) -> None:
        calls.append("stopped")

    async def ended() -> None:
        calls.append("closed")

    monkeypatch.setattr(KafkaBroker, "stop", stop)
    end = partial(calls.append, "tasks cancelled")
    await WorkerBroker(Settings(), "group", end=end, ended=ended).stop()
    assert calls == ["tasks cancelled", "stopped", "closed"]
