"""Partitions that move while a poll is under way: what failed before is delivered again.

The subscription, its check, what is in flight and aiokafka's state of partitions are the real ones;
the log and the network are not.
"""

import asyncio
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError

from pipeline.consumers.engine import batches, in_flight, offset_range_check
from pipeline.consumers.engine.subscription import Subscription, _AtRebalance
from pipeline.consumers.start.checks import Start, StartOffset
from pipeline.errors import BrokerError, StoreError
from pipeline.settings import Settings
from tests.consumers.engine.chunks import TOPIC, Engine, engine, place, records, until

CHUNK = 4
HERE, THERE = place(0), place(1)


class Shop:
    """A member of a group that holds partitions of a log.

    Attributes:
        fetched: How many records of each partition the next poll brings.
        confirming: Set once a poll waits to be confirmed.
        confirmed: Confirms it; an error says that it cannot be.
    """

    def __init__(self, made: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps = made.steps
        self.worker = made.worker
        self.fetched: dict[TopicPartition, int] = {}
        self.committed: dict[TopicPartition, int] = {}
        self.confirming = asyncio.Event()
        self.confirmed: asyncio.Future[None] | None = None
        start = Start({0: StartOffset(0, None), 1: StartOffset(0, None)}, None, frozenset(), None)
        settings = Settings(broker_pause_seconds=1e-9)
        self.subscription = Subscription(settings, made.worker, topic=TOPIC, start=start)
        monkeypatch.setattr(self.subscription._watch, "confirm_topic", self._confirm_topic)
        monkeypatch.setattr(AIOKafkaConsumer, "getmany", self._getmany)
        monkeypatch.setattr(AIOKafkaConsumer, "commit", self._commit)
        monkeypatch.setattr(AIOKafkaConsumer, "seek", self._seek)
        self.consumer = self.subscription.build_consumer(
            group_id="group", auto_offset_reset="none", enable_auto_commit=False
        )
        self.listener = _AtRebalance(self.subscription)
        self.state = self.consumer._subscription
        self.state.subscribe({TOPIC}, self.listener)

    async def _confirm_topic(self) -> None:
        if self.confirmed is not None:
            self.confirming.set()
            await self.confirmed

    async def _getmany(self, *_places: Any, **_options: Any) -> Any:
        polled, fetched, self.fetched = {}, self.fetched, {}
        for where, count in fetched.items():
            state = self.state.subscription.assignment.state_value(where)
            polled[where] = records(range(state.position, state.position + count), where.partition)
            state.consumed_to(state.position + count)
        return polled

    async def _commit(self, offsets: dict[TopicPartition, int]) -> None:
        if not offsets.keys() <= self.consumer.assignment():
            raise IllegalStateError
        await self.steps.pass_soon("commit", max(offsets.values()))
        self.committed |= offsets

    def _seek(self, where: TopicPartition, offset: int) -> None:
        self.state.seek(where, offset)

    async def poll(self, **counts: int) -> list[Any]:
        """Poll so many records of partitions `here` and `there` and hand them over."""
        self.fetched = {{"here": HERE, "there": THERE}[name]: n for name, n in counts.items()}
        polled = await self.consumer.getmany()
        found = [record for each in polled.values() for record in each]
        if found:
            await self.subscription.deliver(found)
        return [(each.partition, each.offset) for each in found]

    async def leave(self) -> None:
        """Begin a rebalance, as aiokafka's coordinator does."""
        before = self.state.subscription.assignment
        self.state.begin_reassignment()
        await self.listener.on_partitions_revoked(set(before.tps) if before else set())

    async def join(self) -> None:
        """Get both partitions; their places are not known yet."""
        self.state.assign_from_subscribed([HERE, THERE])
        await self.listener.on_partitions_assigned({HERE, THERE})

    def place(self) -> None:
        """Begin each partition where the group is, unless it has a place already."""
        assignment = self.state.subscription.assignment
        for where in assignment.tps:
            state = assignment.state_value(where)
            if not state.has_valid_position:
                state.reset_to(self.committed.get(where, 0))

    async def settle(self) -> None:
        await until(lambda: not self.worker.in_flight)
        await asyncio.sleep(0)

    def position(self) -> int:
        return cast("int", self.state.subscription.assignment.state_value(HERE).position)


@pytest.fixture
async def shop(monkeypatch: pytest.MonkeyPatch) -> Any:
    for module in (batches, in_flight):
        monkeypatch.setattr(module, "CHUNK_RECORDS", CHUNK)
    monkeypatch.setattr(batches, "SMALL_BATCH_RECORDS", 2)
    monkeypatch.setattr(offset_range_check, "_REST_SECONDS", 0)
    with engine() as made:
        shop = Shop(made, monkeypatch)
        await shop.join()
        shop.place()
        yield shop
        await shop.consumer.stop()


@pytest.mark.parametrize("error", [None, BrokerError("No answer.")])
async def test_a_poll_that_outlasts_a_rebalance_moves_no_partition_past_what_failed(
    shop: Shop, error: Exception | None
) -> None:
    shop.steps.halt("publish", 0)
    shop.steps.faults["publish", 0] = BrokerError("Away.")
    await shop.poll(here=CHUNK)
    await shop.steps.wait_for("publish", 0, began=True)
    shop.confirmed = confirmed = asyncio.get_running_loop().create_future()
    polling = asyncio.create_task(shop.poll(here=CHUNK))
    await shop.confirming.wait()
    leaving = asyncio.create_task(shop.leave())
    shop.steps.go("publish", 0)
    await leaving
    await shop.join()
    if error is None:
        confirmed.set_result(None)
    else:
        confirmed.set_exception(error)
    assert await polling == []
    shop.confirmed = None
    shop.place()
    assert shop.committed == {}
    assert await shop.poll(here=CHUNK) == [(0, offset) for offset in range(CHUNK)]
    await shop.settle()
    assert shop.committed == {HERE: CHUNK}


async def test_the_end_of_a_poll_that_was_sought_back_is_committed_by_no_other(
    shop: Shop,
) -> None:
    """A chunk of what was polled before must not be committed behind what was not given out."""
    shop.steps.halt("store", 0)
    await shop.poll(here=1)
    await shop.poll(here=CHUNK - 1)
    shop.confirmed = asyncio.get_running_loop().create_future()
    shop.confirmed.set_exception(BrokerError("No answer."))
    assert await shop.poll(here=CHUNK) == []
    assert shop.position() == CHUNK
    shop.confirmed = None
    await shop.poll(there=1)
    shop.steps.go("store", 0)
    await shop.settle()
    assert shop.committed == {HERE: CHUNK, THERE: 1}
    await shop.poll(here=CHUNK)
    await shop.settle()
    assert shop.committed == {HERE: 2 * CHUNK, THERE: 1}


async def test_a_chunk_of_an_earlier_assignment_that_fails_moves_no_partition_back(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker has taken its records through all steps meanwhile."""
    shop.steps.halt("publish", 0)
    shop.steps.faults["publish", 0] = BrokerError("Away.")
    await shop.poll(here=CHUNK)
    await shop.steps.wait_for("publish", 0, began=True)
    await shop.subscription._in_flight.finish(1e-9)
    await shop.join()
    shop.committed = {HERE: 100}
    shop.place()
    await shop.poll(here=1)
    shop.steps.go("publish", 0)
    await shop.settle()
    await shop.poll()
    assert shop.position() == 100
    assert await shop.poll(here=1) == [(0, 100)]
    await shop.settle()
    assert shop.committed == {HERE: 101}


@pytest.mark.parametrize("why", ["fault of the disk", "fault of the watch", "stop"])
async def test_once_the_worker_stops_nothing_begins_any_more_not_even_after_a_rebalance(
    shop: Shop, why: str
) -> None:
    """Nothing may be stored after what the worker stops for: another may have gone on."""
    shop.steps.halt("store", 0)
    await shop.poll(here=1)
    await shop.steps.wait_for("store", 0, began=True)
    await shop.poll(here=2)
    fault, ended = StoreError("Full."), None
    if why == "fault of the disk":
        shop.steps.faults["store", 0] = fault
    elif why == "fault of the watch":
        shop.subscription.fault.set_exception(fault)
    else:
        ended = asyncio.create_task(shop.subscription.end())
    await asyncio.sleep(0)
    shop.steps.go("store", 0)
    await shop.settle()
    await shop.leave()
    await shop.join()
    shop.place()
    # As of a poll that was confirmed before.
    await shop.subscription.deliver(records(range(1, 1 + CHUNK)))
    await shop.settle()
    assert {first for step, first in shop.steps.began if step == "store"} == {0}
    assert shop.committed == ({} if why == "fault of the disk" else {HERE: 1})
    if ended is None:
        assert shop.subscription.fault.exception() is fault
    else:
        await ended


async def test_what_a_poll_brings_at_the_moment_of_a_fault_does_not_begin(shop: Shop) -> None:
    shop.subscription.fault.set_exception(StoreError("Made again."))
    await shop.subscription.deliver(records(range(CHUNK)))
    assert shop.worker.in_flight == 0
    assert shop.subscription.fault.exception()
