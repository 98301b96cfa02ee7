"""The check between a consumer and its polls, where the client does not know where to go on."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from pipeline.broker.admin.topics import OffsetRange
from pipeline.consumers.engine import offset_range_check
from pipeline.consumers.engine.offset_range_check import OffsetRangeCheck
from pipeline.consumers.engine.topic_watch import TopicWatch
from pipeline.consumers.start.checks import StartOffset
from pipeline.errors import BrokerError, StoreAwayError, StoreNotReadyError
from pipeline.settings import Settings

TOPIC = "rmos.runs.requests"
PLACES = [TopicPartition(TOPIC, number) for number in range(3)]


class Watch:
    """What the check asks of the watch; an error is raised."""

    def __init__(self) -> None:
        self.topic: Exception | None = None
        self.group: Exception | None = None
        self.asked: list[str] = []

    async def confirm_topic(self) -> None:
        self.asked.append("topic")
        if self.topic is not None:
            raise self.topic

    async def confirm_group(self, partitions: Iterable[int]) -> None:
        self.asked.append(f"group {sorted(partitions)}")
        if self.group is not None:
            raise self.group


class Consumer:
    """What the check uses of aiokafka's consumer."""

    def __init__(self, *assigned: TopicPartition) -> None:
        self.assigned = set(assigned)
        self.sought: dict[TopicPartition, int] = {}
        self.committed: dict[TopicPartition, int] = {}
        self.at_rest: set[TopicPartition] = set()

    def assignment(self) -> set[TopicPartition]:
        return self.assigned

    def pause(self, place: TopicPartition) -> None:
        self.at_rest.add(place)

    def paused(self) -> set[TopicPartition]:
        return self.at_rest

    def seek(self, place: TopicPartition, offset: int) -> None:
        self.sought[place] = offset

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        self.committed |= offsets


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offset_range_check, "_REST_SECONDS", 0)


def check_of(consumer: Consumer, watch: Watch | None = None) -> OffsetRangeCheck:
    places = {0: StartOffset(4, 2), 1: StartOffset(0, None), 2: StartOffset(7, None)}
    fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    return OffsetRangeCheck(
        Settings(),
        consumer,
        group="rmos.persist",
        topic=TOPIC,
        starts=places,
        watch=cast("TopicWatch", watch or Watch()),
        fault=fault,
    )


def polling(*records: int) -> Callable[[], Awaitable[Any]]:
    """Poll records of these offsets."""

    async def ask() -> Any:
        return {PLACES[0]: [SimpleNamespace(offset=offset) for offset in records]}

    return ask


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
        monkeypatch.setattr(offset_range_check, name, answer(name))
    return answers


async def test_what_is_polled_goes_through_once_topic_and_group_are_confirmed() -> None:
    watch = Watch()
    check = check_of(Consumer(*PLACES), watch)
    assert len((await check.poll(polling(5, 6)))[PLACES[0]]) == 2
    assert watch.asked == ["group [0, 1, 2]", "topic"]
    await check.poll(polling(7))
    assert watch.asked[2:] == ["topic"]
    check.forget_places()
    await check.poll(polling(8))
    assert watch.asked[3:] == ["group [0, 1, 2]", "topic"]


@pytest.mark.parametrize("what", ["topic", "group"])
async def test_what_does_not_fit_is_not_given_out_and_stops_the_worker(what: str) -> None:
    watch, consumer = Watch(), Consumer(*PLACES)
    setattr(watch, what, StoreNotReadyError("made again"))
    check = check_of(consumer, watch)
    assert await check.poll(polling(5, 6)) == {}
    with pytest.raises(StoreNotReadyError, match="made again"):
        check.fault.result()


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("topic", BrokerError("no broker answers")),
        ("group", BrokerError("no broker answers")),
        ("group", StoreAwayError("the index is away")),
    ],
)
async def test_what_nobody_can_confirm_now_is_polled_again(what: str, error: Exception) -> None:
    watch, consumer = Watch(), Consumer(*PLACES)
    setattr(watch, what, error)
    check = check_of(consumer, watch)
    assert await check.poll(polling(5, 6)) == {}
    assert consumer.sought == {PLACES[0]: 5}
    assert not check.fault.done()
    setattr(watch, what, None)
    assert len((await check.poll(polling(5, 6)))[PLACES[0]]) == 2


async def test_a_client_that_asks_for_a_place_rests_where_nobody_can_confirm_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rests: list[float] = []

    async def rest(seconds: float) -> None:
        rests.append(seconds)

    monkeypatch.setattr(offset_range_check, "asyncio", SimpleNamespace(sleep=rest))
    watch = Watch()
    watch.topic = BrokerError("the topic is missing")
    check = check_of(Consumer(*PLACES), watch)
    assert await check.poll(raising(NoOffsetForPartitionError(PLACES[0]))) == {}
    assert rests == [0]


@pytest.mark.parametrize("error", [None, BrokerError("no broker answers")])
async def test_what_is_polled_while_partitions_move_is_dropped_and_places_none_of_them(
    error: Exception | None,
) -> None:
    """The new assignment begins where the group is, which may be before what was polled."""
    watch, consumer = Watch(), Consumer(*PLACES)
    watch.topic = error
    check = check_of(consumer, watch)

    async def move(partitions: Iterable[int]) -> None:
        del partitions
        check.forget_places()

    confirm, watch.confirm_group = watch.confirm_group, move  # type: ignore[method-assign]
    assert await check.poll(polling(5, 6)) == {}
    assert consumer.sought == {}
    # The group is asked again, for the partitions that it has now.
    watch.confirm_group, watch.topic = confirm, None  # type: ignore[method-assign]
    assert len((await check.poll(polling(5, 6)))[PLACES[0]]) == 2
    assert watch.asked[-2:] == ["group [0, 1, 2]", "topic"]


async def test_a_place_that_was_looked_up_while_partitions_move_is_not_taken(
    broker: dict[str, Any],
) -> None:
    watch, consumer = Watch(), Consumer(*PLACES)
    check = check_of(consumer, watch)
    broker["committed_offsets"] = {PLACES[1]: 5}

    async def move() -> None:
        check.forget_places()

    watch.confirm_topic = move  # type: ignore[method-assign]
    assert await check.poll(raising(NoOffsetForPartitionError(PLACES[1]))) == {}
    assert consumer.sought == {}


async def test_partitions_that_were_added_are_left_alone(broker: dict[str, Any]) -> None:
    added = TopicPartition(TOPIC, 17)
    consumer = Consumer(*PLACES, added)
    check = check_of(consumer)
    assert await check.poll(raising(NoOffsetForPartitionError(added))) == {}
    assert consumer.at_rest == {added}
    assert consumer.sought[added] == 0
    assert not check.fault.done()


async def test_a_group_without_offsets_begins_where_the_start_check_said(
    broker: dict[str, Any],
) -> None:
    consumer = Consumer(*PLACES[1:])
    check = check_of(consumer)
    assert await check.poll(raising(NoOffsetForPartitionError(PLACES[1]))) == {}
    assert consumer.sought == {PLACES[1]: 0, PLACES[2]: 7}
    # The others are consuming by now: only the one that asks is placed again.
    consumer.sought.clear()
    await check.poll(raising(NoOffsetForPartitionError(PLACES[1])))
    assert consumer.sought == {PLACES[1]: 0}


async def test_a_coordinator_that_was_loading_is_asked_again(broker: dict[str, Any]) -> None:
    consumer = Consumer(*PLACES[1:])
    check = check_of(consumer)
    broker["committed_offsets"] = BrokerError("it is loading")
    assert await check.poll(raising(NoOffsetForPartitionError(PLACES[1]))) == {}
    assert consumer.sought == {}
    broker["committed_offsets"] = {PLACES[1]: 5, PLACES[2]: 8}
    await check.poll(raising(NoOffsetForPartitionError(PLACES[1])))
    assert consumer.sought == {PLACES[1]: 5}


@pytest.mark.parametrize(
    ("position", "says"),
    [
        (3, "Offsets 3 to 3 of rmos.runs.requests, partition 1 were removed by retention"),
        (10, "The group has committed offset 10 of rmos.runs.requests, partition 1, the log ends"),
    ],
)
async def test_an_offset_outside_of_the_log_stops_the_worker_and_polls_no_more(
    broker: dict[str, Any], position: int, says: str
) -> None:
    consumer = Consumer(*PLACES)
    check = check_of(consumer)
    assert await check.poll(raising(OffsetOutOfRangeError({PLACES[1]: position}))) == {}
    with pytest.raises(StoreNotReadyError, match=says):
        check.fault.result()
    assert await check.poll(raising(KafkaError("not asked"))) == {}
    assert (consumer.sought, consumer.committed) == ({}, {})


async def test_an_offset_that_is_there_again_is_no_loss(broker: dict[str, Any]) -> None:
    check = check_of(Consumer(*PLACES))
    for position in (4, 9):
        assert await check.poll(raising(OffsetOutOfRangeError({PLACES[1]: position}))) == {}
    assert not check.fault.done()


async def test_a_broker_that_does_not_answer_is_no_loss(broker: dict[str, Any]) -> None:
    check = check_of(Consumer(*PLACES))
    broker["partition_offsets"] = BrokerError("no broker answers")
    assert await check.poll(raising(OffsetOutOfRangeError({PLACES[1]: 3}))) == {}
    assert not check.fault.done()


async def test_a_partition_that_was_given_away_is_left_to_others(broker: dict[str, Any]) -> None:
    check = check_of(Consumer(PLACES[0]))
    assert await check.poll(raising(OffsetOutOfRangeError({PLACES[1]: 3}))) == {}
    assert not check.fault.done()


async def test_the_offset_that_was_given_up_goes_on_at_the_start_of_the_log(
    broker: dict[str, Any],
) -> None:
    consumer = Consumer(*PLACES)
    check = check_of(consumer)
    assert await check.poll(raising(OffsetOutOfRangeError({PLACES[0]: 2}))) == {}
    assert consumer.sought == consumer.committed == {PLACES[0]: 4}
    await check.poll(raising(OffsetOutOfRangeError({PLACES[0]: 3})))
    assert check.fault.done()
    check.fault.exception()
