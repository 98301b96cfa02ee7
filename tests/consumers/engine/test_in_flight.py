"""Records between their poll and their commit: never beyond what is done, never past a fault."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError
from faststream import ContextRepo
from faststream.kafka import KafkaBroker
from structlog.testing import capture_logs

from pipeline.consumers.engine import batches, in_flight
from pipeline.consumers.engine.batches import Record, Steps
from pipeline.consumers.engine.group_consumer import PolledConsumer
from pipeline.consumers.engine.in_flight import InFlight
from pipeline.consumers.engine.readiness import PUT_OFF_LIMIT, Backoff, PutOff, Standing
from pipeline.consumers.engine.subscription import WorkerBroker
from pipeline.errors import BrokerError, StoreAwayError, StoreError
from pipeline.settings import Settings
from tests.consumers.engine.chunks import (
    PATIENCE_SECONDS,
    Consumer,
    Engine,
    Halted,
    engine,
    place,
    records,
    uncollected,
    until,
)

CHUNK = 4


class Shop:
    """What is in flight of a subscription over halted steps."""

    def __init__(self, made: Engine) -> None:
        self.steps: Halted = made.steps
        self.consumer: Consumer = made.consumer
        self.worker = made.worker
        self.faults: list[BaseException] = []
        self.standing = Standing("group")
        self.flight = InFlight(
            made.worker,
            lambda: cast("Any", made.consumer),
            put_off=PutOff(self.standing),
            backoff=Backoff(1e-9),
            give_up=self.faults.append,
        )

    async def put(self, offsets: range, partition: int = 0, end: int | None = None) -> None:
        ends = {place(partition): offsets.stop if end is None else end}
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.flight.put(records(offsets, partition), ends)

    async def settle(self) -> None:
        await until(lambda: not self.worker.in_flight)
        await asyncio.sleep(0)

    @property
    def committed(self) -> dict[int, int]:
        """The offset that was committed last, by partition."""
        return {
            where.partition: offset
            for offsets in self.consumer.committed
            for where, offset in offsets.items()
        }


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    for module in (batches, in_flight):
        monkeypatch.setattr(module, "CHUNK_RECORDS", CHUNK)
    monkeypatch.setattr(batches, "SMALL_BATCH_RECORDS", 2)
    with engine() as made:
        yield made


@pytest.fixture
def shop(made: Engine) -> Shop:
    return Shop(made)


async def test_a_chunk_holds_what_came_while_the_one_before_was_stored(shop: Shop) -> None:
    shop.steps.halt("store", 0)
    await shop.put(range(1))
    for offset in (1, 2, 3):
        await shop.put(range(offset, offset + 1))
    assert shop.worker.in_flight == 1
    shop.steps.go("store", 0)
    await shop.steps.wait_for("store", 1)
    await shop.settle()
    assert shop.steps.done("store") == [0, 1]
    assert shop.committed == {0: 4}


async def test_polls_go_on_until_enough_waits(shop: Shop) -> None:
    """Three chunks that are not stored, and one that waits: then the next poll waits too."""
    shop.steps.halt("store", 0)
    for first in range(0, 3 * CHUNK, CHUNK):
        await shop.put(range(first, first + CHUNK))
    assert shop.worker.unstored == in_flight.CHUNKS_UNSTORED
    waiting = asyncio.create_task(shop.put(range(3 * CHUNK, 4 * CHUNK)))
    await shop.steps.wait_for("write", CHUNK)
    assert not waiting.done()
    assert shop.worker.in_flight == 3
    shop.steps.go("store", 0)
    await waiting
    await shop.settle()
    assert shop.steps.done("commit") == [CHUNK, 2 * CHUNK, 3 * CHUNK, 4 * CHUNK]


async def test_no_more_chunks_are_in_flight_than_there_are_steps(shop: Shop) -> None:
    shop.steps.halt("commit", CHUNK)
    total = batches.CHUNKS_IN_FLIGHT + 1
    waiting = asyncio.create_task(shop.put(range(total * CHUNK)))
    await shop.steps.wait_for("publish", (total - 2) * CHUNK)
    assert shop.worker.in_flight == batches.CHUNKS_IN_FLIGHT
    assert not waiting.done()
    shop.steps.go("commit", CHUNK)
    await waiting
    await shop.settle()
    assert shop.committed == {0: total * CHUNK}


async def test_no_more_bytes_are_in_flight_than_the_memory_has_room_for(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = sum(map(in_flight.held_bytes, records(range(CHUNK))))
    monkeypatch.setattr(in_flight, "BYTES_IN_FLIGHT", 2 * each)
    shop.steps.halt("commit", CHUNK)
    waiting = asyncio.create_task(shop.put(range(4 * CHUNK)))
    await shop.steps.wait_for("publish", CHUNK)
    assert shop.worker.in_flight == 2
    assert not waiting.done()
    shop.steps.go("commit", CHUNK)
    await waiting
    await shop.settle()
    assert shop.committed == {0: 4 * CHUNK}


async def test_offsets_are_committed_only_behind_what_is_published(shop: Shop) -> None:
    shop.steps.halt("publish", CHUNK)
    await shop.put(range(3 * CHUNK))
    await shop.steps.wait_for("store", 2 * CHUNK)
    await shop.steps.wait_for("commit", CHUNK)
    assert shop.committed == {0: CHUNK}
    shop.steps.go("publish", CHUNK)
    await shop.settle()
    assert shop.committed == {0: 3 * CHUNK}


async def test_what_is_no_record_is_passed_behind_the_last_record_of_a_poll(shop: Shop) -> None:
    """The mark of a transaction has an offset; without it the group would lag behind for ever."""
    shop.steps.halt("store", 0)
    await shop.put(range(2 * CHUNK), end=2 * CHUNK + 3)
    shop.steps.go("store", 0)
    await shop.settle()
    assert [each[place()] for each in shop.consumer.committed] == [CHUNK, 2 * CHUNK + 3]


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        ("write", BrokerError("Away.")),
        ("store", BrokerError("Away.")),
        ("store", StoreAwayError("Away.")),
        ("publish", BrokerError("Away.")),
    ],
    ids=["write", "store", "store of another host", "publish"],
)
async def test_after_a_fault_of_the_network_each_partition_goes_back_to_what_is_uncommitted(
    shop: Shop, step: str, fault: Exception
) -> None:
    shop.steps.halt("store", 0)
    shop.steps.faults[step, CHUNK] = fault
    await shop.put(range(CHUNK))
    await shop.put(range(CHUNK, 2 * CHUNK))
    await shop.put(range(7, 7 + CHUNK), partition=1)
    with capture_logs() as logged:
        shop.steps.go("store", 0)
        await shop.settle()
        # It was polled before the fault was known: it must not be stored before what failed.
        await shop.put(range(40, 42), partition=2)
        await shop.put(range(2 * CHUNK, 3 * CHUNK))
        assert shop.flight.must_go_back
        assert shop.worker.in_flight == 0
        await shop.flight.go_back()
    assert shop.consumer.sought == {place(0): CHUNK, place(1): 7, place(2): 40}
    assert shop.committed == {0: CHUNK}
    assert [each["event"] for each in logged if each["log_level"] == "warning"] == ["batch put off"]
    assert shop.faults == []
    await shop.put(range(CHUNK, 3 * CHUNK))
    await shop.settle()
    assert shop.committed == {0: 3 * CHUNK}


async def test_a_poll_that_waits_for_room_goes_on_when_a_chunk_fails(shop: Shop) -> None:
    shop.steps.halt("store", 0)
    shop.steps.faults["store", 0] = BrokerError("Away.")
    waiting = asyncio.create_task(shop.put(range(6 * CHUNK)))
    await shop.steps.wait_for("write", CHUNK)
    assert not waiting.done()
    shop.steps.go("store", 0)
    await waiting
    await shop.flight.go_back()
    assert shop.consumer.sought == {place(): 0}
    assert shop.steps.done("store") == []


async def test_going_back_waits_until_nothing_is_in_flight(shop: Shop) -> None:
    shop.steps.halt("commit", CHUNK)
    shop.steps.faults["store", CHUNK] = BrokerError("Away.")
    await shop.put(range(2 * CHUNK))
    await shop.steps.wait_for("commit", CHUNK, began=True)
    await until(lambda: shop.flight.must_go_back)
    going = asyncio.create_task(shop.flight.go_back())
    await asyncio.sleep(0)
    assert shop.consumer.sought == {}
    shop.steps.go("commit", CHUNK)
    await going
    assert shop.committed == {0: CHUNK}
    assert shop.consumer.sought == {place(): CHUNK}


async def test_a_fault_of_the_disk_ends_the_worker_and_what_is_before_it_is_committed(
    shop: Shop,
) -> None:
    shop.steps.halt("publish", 0)
    fault = StoreError("Full.")
    shop.steps.faults["write", CHUNK] = fault
    await shop.put(range(3 * CHUNK))
    await shop.steps.wait_for("write", CHUNK, began=True)
    finishing = asyncio.create_task(shop.flight.finish(PATIENCE_SECONDS))
    shop.steps.go("publish", 0)
    await finishing
    assert shop.faults == [fault]
    assert shop.committed == {0: CHUNK}
    assert shop.steps.done("store") == [0]
    # Also a rebalance while the worker stops begins with nothing.
    shop.flight.reopen()
    await shop.put(range(CHUNK, 2 * CHUNK))
    assert shop.worker.in_flight == 0


async def test_before_partitions_are_given_away_everything_in_flight_is_committed(
    shop: Shop,
) -> None:
    shop.steps.halt("write", CHUNK)
    await shop.put(range(2 * CHUNK + 1))
    await shop.steps.wait_for("write", CHUNK, began=True)
    giving_away = asyncio.create_task(shop.flight.finish(PATIENCE_SECONDS))
    await asyncio.sleep(0)
    await shop.put(range(2 * CHUNK + 1, 3 * CHUNK))
    assert not giving_away.done()
    shop.steps.go("write", CHUNK)
    await giving_away
    # What has not begun is the next owner's.
    assert shop.committed == {0: 2 * CHUNK}
    assert shop.worker.in_flight == 0
    shop.flight.reopen()
    await shop.put(range(2 * CHUNK, 3 * CHUNK))
    await shop.settle()
    assert shop.committed == {0: 3 * CHUNK}


@pytest.mark.parametrize("halted", [("publish", 0), ("commit", CHUNK)])
async def test_what_was_not_finished_in_time_commits_nothing_any_more(
    shop: Shop, halted: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker may have gone on behind it meanwhile."""
    monkeypatch.setattr(in_flight, "COMMIT_SECONDS", 10 * PATIENCE_SECONDS)
    shop.steps.halt(*halted)
    await shop.put(range(CHUNK))
    await shop.steps.wait_for(*halted, began=True)
    with capture_logs() as logged:
        await shop.flight.finish(0.001)
        if halted[0] == "commit":
            # It ends without its answer: aiokafka would ask again as a member of the next time.
            async with asyncio.timeout(PATIENCE_SECONDS / 2):
                await shop.settle()
    assert logged[0]["event"] == "batch not finished"
    shop.steps.go(*halted)
    await shop.settle()
    assert shop.consumer.committed == []
    shop.flight.reopen()
    await shop.put(range(CHUNK))
    await shop.settle()
    assert shop.committed == {0: CHUNK}


async def test_a_commit_without_an_answer_holds_up_nothing_and_is_made_with_the_next(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coordinator of the group is away, and aiokafka asks for it for ever."""
    monkeypatch.setattr(in_flight, "COMMIT_SECONDS", 0.01)
    shop.steps.halt("commit", 2)
    await shop.put(range(2), partition=1)
    await shop.settle()
    assert shop.committed == {}
    await shop.put(range(CHUNK), partition=0)
    await shop.flight.finish(PATIENCE_SECONDS)
    assert shop.committed == {0: CHUNK, 1: 2}


async def test_offsets_of_a_partition_that_was_taken_away_hold_up_no_others(shop: Shop) -> None:
    shop.consumer.assigned = {place(0)}
    await shop.put(range(2), partition=1)
    await shop.put(range(CHUNK), partition=0)
    await shop.settle()
    assert shop.committed == {0: CHUNK}


async def test_offsets_that_could_not_be_committed_are_committed_with_the_next(shop: Shop) -> None:
    shop.steps.faults["commit", 2] = CommitFailedError()
    await shop.put(range(2), partition=1)
    await shop.settle()
    assert shop.committed == {}
    await shop.put(range(CHUNK), partition=0)
    await shop.settle()
    assert shop.committed == {0: CHUNK, 1: 2}
    assert not shop.flight.must_go_back


async def test_records_of_a_poll_are_let_go_while_the_worker_goes_on(shop: Shop) -> None:
    """FastStream keeps all of them in the context of the handler, and chunks begin others."""
    context = ContextRepo()

    async def poll(offset: int) -> list[Record]:
        polled = records([offset])
        with context.scope("message", polled):
            await shop.flight.put(polled, {})
        return polled

    with uncollected() as note:
        for offset in range(5):
            shop.steps.halt("store", offset)
            polled = await poll(offset)
            if offset:
                # It waited, and begins with the end of the one before it.
                shop.steps.go("store", offset - 1)
                await shop.steps.wait_for("store", offset, began=True)
                await shop.steps.wait_for("commit", offset)
            if offset < 3:
                note(polled)
            del polled
    shop.steps.go("store", 4)
    await shop.settle()


async def test_a_poll_that_cannot_be_noted_as_failed_ends_the_worker(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would go back to what is behind it, and commit that."""
    short = MemoryError()
    monkeypatch.setattr(shop.flight, "_note_failed", Mock(side_effect=short))
    shop.steps.faults["store", 0] = BrokerError("Away.")
    await shop.put(range(3 * CHUNK))
    await shop.settle()
    assert shop.faults[0] is short
    assert shop.committed == {}
    assert shop.steps.done("store") == []


def others(made: Engine) -> Steps[Any, Any]:
    """Return the steps of chunks that are none of the subscription's, as those of claims."""
    return Steps(made.worker.steps.judge, made._store, made._publish)


async def test_a_record_begins_once_the_chunk_of_another_is_stored(
    shop: Shop, made: Engine
) -> None:
    """Nothing more may come: no poll begins with it later."""
    shop.steps.halt("store", 1000)
    claims = asyncio.create_task(shop.worker.process(records([1000]), others(made)))
    await shop.steps.wait_for("store", 1000, began=True)
    await shop.put(range(1))
    assert shop.worker.in_flight == 1
    shop.steps.go("store", 1000)
    await until(lambda: shop.committed == {0: 1})
    await claims


async def test_a_poll_that_waits_for_room_goes_on_once_the_chunks_of_others_have_ended(
    shop: Shop, made: Engine
) -> None:
    shop.steps.halt("store", 1000)
    filling = records(range(1000, 1000 + in_flight.CHUNKS_UNSTORED * CHUNK))
    claims = asyncio.create_task(shop.worker.process(filling, others(made)))
    await shop.steps.wait_for("store", 1000, began=True)
    waiting = asyncio.create_task(shop.put(range(CHUNK)))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    shop.steps.go("store", 1000)
    await waiting
    await until(lambda: shop.committed == {0: CHUNK})
    await claims


async def test_records_behind_the_chunk_of_another_that_fails_are_put_off_for_its_reason(
    shop: Shop, made: Engine
) -> None:
    for _ in range(PUT_OFF_LIMIT + 1):
        shop.steps.halt("publish", 1000)
        shop.steps.faults["publish", 1000] = BrokerError("The broker is away.")
        claims = asyncio.create_task(shop.worker.process(records([1000]), others(made)))
        await shop.steps.wait_for("publish", 1000, began=True)
        shop.steps.began.clear()
        await shop.put(range(CHUNK))
        shop.steps.go("publish", 1000)
        await asyncio.wait([claims])
        assert isinstance(claims.exception(), BrokerError)
        await shop.settle()
        await shop.flight.go_back()
    (reason,) = shop.standing.reasons
    assert reason.endswith("A batch before it failed: The broker is away.")


async def test_a_consumer_knows_where_a_poll_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    polled = {place(3): cast("Any", records([17], 3))}

    async def getmany(*_arguments: Any, **_options: Any) -> Any:
        return polled

    async def position(_self: Any, where: TopicPartition) -> int:
        return {place(3): 19}[where]

    async def attend(ask: Callable[..., Awaitable[Any]]) -> Any:
        return await ask(max_records=1)

    monkeypatch.setattr(AIOKafkaConsumer, "getmany", getmany)
    monkeypatch.setattr(AIOKafkaConsumer, "position", position)
    consumer = PolledConsumer(attend)
    try:
        assert await consumer.getmany() == polled
        assert consumer.ends == {place(3): 19}
    finally:
        await consumer.stop()


async def test_a_worker_stops_once_everything_in_flight_is_committed_and_nothing_polls_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []

    def noting(name: str) -> Callable[..., Awaitable[None]]:
        async def note(*_arguments: Any) -> None:
            calls.append(name)

        return note

    monkeypatch.setattr(KafkaBroker, "stop", noting("stopped"))
    subscription: Any = SimpleNamespace(end=noting("finished"), has_ended=noting("watch closed"))
    await WorkerBroker(Settings(), "group", subscription).stop()
    assert calls == ["finished", "stopped", "watch closed"]
