"""The guard between a consumer and its polls, where the client does not know where to go on."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from pipeline.broker.admin import OffsetRange
from pipeline.consumers import log_guard
from pipeline.consumers.log_guard import LogGuard
from pipeline.consumers.start_checks import StartingPlace
from pipeline.errors import BrokerError, StoreNotReadyError
from pipeline.settings import Settings

TOPIC = "rmos.runs.requests"
PLACES = [TopicPartition(TOPIC, number) for number in range(3)]


class Consumer:
    """What the guard uses of aiokafka's consumer."""

    def __init__(self, *assigned: TopicPartition) -> None:
        self.assigned = set(assigned)
        self.sought: dict[TopicPartition, int] = {}
        self.committed: dict[TopicPartition, int] = {}

    def assignment(self) -> set[TopicPartition]:
        return self.assigned

    def seek(self, place: TopicPartition, offset: int) -> None:
        self.sought[place] = offset

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        self.committed |= offsets


def guard_of(consumer: Consumer) -> LogGuard:
    places = {0: StartingPlace(4, 2), 1: StartingPlace(0, None), 2: StartingPlace(7, None)}
    fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    return LogGuard(
        Settings(), consumer, group="rmos.persist", topic=TOPIC, starts=places, fault=fault
    )


def raising(error: KafkaError) -> Callable[[], Awaitable[Any]]:
    async def ask() -> Any:
        raise error

    return ask


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the broker answers; an error is raised."""
    answers: dict[str, Any] = {
        "committed_offsets": {},
        "partition_offsets": {place: OffsetRange(4, 9) for place in PLACES},
    }

    def answer(name: str) -> Callable[..., Awaitable[Any]]:
        async def answered(*_: Any) -> Any:
            if isinstance(answers[name], Exception):
                raise answers[name]
            return answers[name]

        return answered

    for name in answers:
        monkeypatch.setattr(log_guard, name, answer(name))
    return answers


async def test_what_is_polled_goes_through(broker: dict[str, Any]) -> None:
    async def ask() -> Any:
        return {PLACES[0]: ["record"]}

    assert await guard_of(Consumer()).poll(ask) == {PLACES[0]: ["record"]}


async def test_a_group_without_offsets_begins_where_the_start_check_said(
    broker: dict[str, Any],
) -> None:
    consumer = Consumer(*PLACES[1:])
    guard = guard_of(consumer)
    assert await guard.poll(raising(NoOffsetForPartitionError(PLACES[1]))) == {}
    assert consumer.sought == {PLACES[1]: 0, PLACES[2]: 7}
    # The others are consuming by now: only the one that asks is placed again.
    consumer.sought.clear()
    await guard.poll(raising(NoOffsetForPartitionError(PLACES[1])))
    assert consumer.sought == {PLACES[1]: 0}


async def test_a_coordinator_that_was_loading_is_asked_again(broker: dict[str, Any]) -> None:
    consumer = Consumer(*PLACES[1:])
    guard = guard_of(consumer)
    broker["committed_offsets"] = BrokerError("it is loading")
    assert await guard.poll(raising(NoOffsetForPartitionError(PLACES[1]))) == {}
    assert consumer.sought == {}
    broker["committed_offsets"] = {PLACES[1]: 5, PLACES[2]: 8}
    await guard.poll(raising(NoOffsetForPartitionError(PLACES[1])))
    assert consumer.sought == {PLACES[1]: 5}


@pytest.mark.parametrize(
    ("position", "says"),
    [
        (3, "Offsets 3 to 3 of rmos.runs.requests, partition 1 were removed by retention"),
        (10, "The group has committed offset 10 of rmos.runs.requests, partition 1, the log ends"),
    ],
)
async def test_an_offset_outside_of_the_log_stops_the_worker_and_polls_no_more(
    broker: dict[str, Any], monkeypatch: pytest.MonkeyPatch, position: int, says: str
) -> None:
    monkeypatch.setattr(log_guard, "_REST_SECONDS", 0)
    consumer = Consumer(*PLACES)
    guard = guard_of(consumer)
    assert await guard.poll(raising(OffsetOutOfRangeError({PLACES[1]: position}))) == {}
    with pytest.raises(StoreNotReadyError, match=says):
        guard.fault.result()
    assert await guard.poll(raising(KafkaError("not asked"))) == {}
    assert (consumer.sought, consumer.committed) == ({}, {})


async def test_an_offset_that_is_there_again_is_no_loss(broker: dict[str, Any]) -> None:
    guard = guard_of(Consumer(*PLACES))
    for position in (4, 9):
        assert await guard.poll(raising(OffsetOutOfRangeError({PLACES[1]: position}))) == {}
    assert not guard.fault.done()


async def test_a_broker_that_does_not_answer_is_no_loss(broker: dict[str, Any]) -> None:
    guard = guard_of(Consumer(*PLACES))
    broker["partition_offsets"] = BrokerError("no broker answers")
    assert await guard.poll(raising(OffsetOutOfRangeError({PLACES[1]: 3}))) == {}
    assert not guard.fault.done()


async def test_a_partition_that_was_given_away_is_left_to_others(broker: dict[str, Any]) -> None:
    guard = guard_of(Consumer(PLACES[0]))
    assert await guard.poll(raising(OffsetOutOfRangeError({PLACES[1]: 3}))) == {}
    assert not guard.fault.done()


async def test_the_offset_that_was_given_up_goes_on_at_the_start_of_the_log(
    broker: dict[str, Any],
) -> None:
    consumer = Consumer(*PLACES)
    guard = guard_of(consumer)
    assert await guard.poll(raising(OffsetOutOfRangeError({PLACES[0]: 2}))) == {}
    assert consumer.sought == consumer.committed == {PLACES[0]: 4}
    await guard.poll(raising(OffsetOutOfRangeError({PLACES[0]: 3})))
    assert guard.fault.done()
    guard.fault.exception()
