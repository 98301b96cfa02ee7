"""The chain of chunks: each step behind that of the chunk before, and what a fault leaves."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from pipeline.consumers.engine import batches
from pipeline.consumers.engine.batches import BatchDeferred, Chunk, Delivery, Record
from pipeline.errors import BrokerError, RejectLimitError, StoreAwayError, StoreError
from tests.consumers.engine.chunks import (
    PATIENCE_SECONDS,
    Engine,
    engine,
    records,
    uncollected,
    until,
)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr(batches, "SMALL_BATCH_RECORDS", 1)
    with engine() as made:
        yield made


def begun(made: Engine, *offsets: int) -> list[Chunk]:
    """Begin with a chunk of one record at each offset."""

    def commit(offset: int) -> Any:
        async def committed() -> None:
            await made.steps.pass_soon("commit", offset)

        return committed

    return [
        made.worker.begin(Delivery(records([offset]), commit(offset), failed(made, offset)))
        for offset in offsets
    ]


def failed(made: Engine, offset: int) -> Any:
    return lambda error: made.steps.log.append((type(error).__name__, offset))


async def ended(chunks: list[Chunk]) -> list[Any]:
    return await asyncio.gather(*(chunk.task for chunk in chunks), return_exceptions=True)


async def test_the_steps_of_chunks_overlap_and_each_keeps_its_order(made: Engine) -> None:
    """Five chunks: one in each step, and none goes past the one before it."""
    steps = made.steps
    for step, offset in (("commit", 1), ("publish", 2), ("store", 3), ("write", 4)):
        steps.halt(step, offset)
    chunks = begun(made, 1, 2, 3, 4, 5)
    for step, offset in (("commit", 1), ("publish", 2), ("store", 3), ("write", 4)):
        await steps.wait_for(step, offset, began=True)
    assert made.worker.in_flight == 5
    assert made.worker.unstored == 3
    assert steps.done("store") == [1, 2]
    assert steps.done("publish") == [1]
    assert steps.done("commit") == []
    for step, offset in (("write", 4), ("store", 3), ("publish", 2)):
        steps.go(step, offset)
    await steps.wait_for("publish", 5)
    assert steps.done("commit") == []
    steps.go("commit", 1)
    assert await ended(chunks) == [None] * 5
    for step in ("write", "store", "publish", "commit"):
        assert steps.done(step) == [1, 2, 3, 4, 5]
    assert made.worker.in_flight == 0


async def test_one_chunk_is_written_ahead_of_the_one_that_is_stored_and_no_more(
    made: Engine,
) -> None:
    made.steps.halt("store", 1)
    chunks = begun(made, 1, 2, 3)
    await made.steps.wait_for("write", 2)
    # A chunk more would double the files that are open.
    assert not await_step(made, ("write", 3))
    made.steps.go("store", 1)
    assert await ended(chunks) == [None] * 3
    assert all(each.is_closed for each in made.written.values())


def await_step(made: Engine, step: tuple[str, int]) -> bool:
    return step in made.steps.began


async def test_a_small_chunk_that_nothing_is_before_is_not_written_ahead(
    made: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "SMALL_BATCH_RECORDS", 64)
    made.steps.halt("store", 1)
    chunks = begun(made, 1, 2)
    await made.steps.wait_for("write", 2)
    made.steps.go("store", 1)
    await ended(chunks)
    assert made.steps.done("write") == [2]


@pytest.mark.parametrize("error", [BrokerError("Away."), StoreError("Full."), ValueError("?")])
@pytest.mark.parametrize("step", ["write", "store", "publish", "commit"])
async def test_where_a_chunk_fails_those_before_it_go_on_and_those_behind_it_are_dropped(
    made: Engine, step: str, error: Exception
) -> None:
    made.steps.halt("commit", 1)
    made.steps.faults[step, 2] = error
    chunks = begun(made, 1, 2, 3, 4)
    await made.steps.wait_for("commit", 1, began=True)
    made.steps.go("commit", 1)
    first, second, *others = await ended(chunks)
    assert first is None
    assert second is error
    assert [type(each) for each in others] == [BatchDeferred] * 2
    assert [each.fault for each in others] == [error] * 2
    assert made.steps.done("commit") == [1]
    assert step == "commit" or made.steps.done("publish") == [1]
    assert all(each.is_closed for each in made.written.values())
    assert made.worker.in_flight == 0


async def test_a_chunk_begins_anew_once_nothing_that_failed_is_in_flight(made: Engine) -> None:
    made.steps.faults["store", 1] = BrokerError("Away.")
    await ended(begun(made, 1, 2))
    assert await ended(begun(made, 1)) == [None]
    assert made.steps.done("commit") == [1]


async def test_a_fault_of_a_chunk_is_reported_before_another_can_begin(
    made: Engine,
) -> None:
    """Else a record would be stored before the one that failed is given out again."""
    seen = []
    made.steps.faults["store", 1] = BrokerError("Away.")
    chunk = made.worker.begin(
        Delivery(records([1]), failed=lambda _: seen.append(made.worker.in_flight))
    )
    await ended([chunk])
    assert seen == [1]


async def test_nothing_behind_a_chunk_goes_on_where_the_report_of_its_fault_fails(
    made: Engine,
) -> None:
    """As where memory is short: it would be committed although the chunk before it is not."""

    def fail(_error: BaseException) -> None:
        raise MemoryError

    fault = MemoryError()
    made.steps.faults["store", 1] = fault
    chunk = made.worker.begin(Delivery(records([1]), failed=fail))
    _, behind = await ended([chunk, *begun(made, 2)])
    assert isinstance(behind, BatchDeferred)
    assert behind.fault is fault
    assert made.steps.done("commit") == []


@pytest.mark.parametrize("step", ["write", "store", "publish", "commit"])
@pytest.mark.parametrize("fault", [BrokerError, StoreAwayError])
async def test_records_of_chunks_that_failed_are_let_go_without_the_collector(
    made: Engine, step: str, fault: type[Exception]
) -> None:
    """It looks at old objects seldom, while a broker that is away fails chunk after chunk."""
    with uncollected() as note:
        for _ in range(10):
            made.steps.faults[step, 1] = fault("Away.")
            note(await failing(made, fault))


async def failing(made: Engine, fault: type[Exception]) -> list[Record]:
    """Return the records of a chunk that fails, and of one behind it."""
    polled = records([1, 2])
    commits = [partial(made.steps.pass_soon, "commit", each.offset) for each in polled]
    chunks = [
        made.worker.begin(Delivery([each], commit))
        for each, commit in zip(polled, commits, strict=True)
    ]
    assert [type(each) for each in await ended(chunks)] == [fault, BatchDeferred]
    return polled


async def test_records_of_a_batch_that_failed_are_let_go_without_the_collector(
    made: Engine,
) -> None:
    """Claims are processed, and tried again, once a second."""
    with uncollected() as note:
        for _ in range(10):
            made.steps.faults["publish", 1] = BrokerError("Away.")
            polled = records([1])
            note(polled)
            with suppress(BrokerError):
                await made.worker.process(polled)
            del polled
            await asyncio.sleep(0)  # Until here the loop itself has the results.


async def test_a_batch_that_is_processed_ends_with_its_first_fault(
    made: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "CHUNK_RECORDS", 2)
    made.steps.faults["store", 3] = RejectLimitError("Too many.")
    with pytest.raises(RejectLimitError):
        await made.worker.process(records(range(1, 40)))
    assert made.steps.done("publish") == [1]
    await made.worker.process(records(range(1, 20)))
    assert made.steps.done("publish") == [1, *range(1, 20, 2)]


async def test_a_cut_off_chunk_leaves_nothing_open_and_those_behind_it_are_dropped(
    made: Engine,
) -> None:
    made.steps.halt("publish", 1)
    made.steps.halt("store", 2)
    chunks = begun(made, 1, 2, 3)
    await made.steps.wait_for("write", 3)
    # Its work is in the thread; before that it would never begin.
    await made.steps.wait_for("store", 2, began=True)
    chunks[1].task.cancel()
    made.steps.go("publish", 1)
    made.steps.go("store", 2)
    first, second, third = await ended(chunks)
    assert first is None
    assert isinstance(second, asyncio.CancelledError)
    assert isinstance(third, BatchDeferred)
    await made.steps.wait_for("store", 2)
    await asyncio.to_thread(lambda: None)
    assert made.written[3].is_closed
    assert made.steps.done("commit") == [1]


async def test_what_was_written_for_a_store_that_is_cut_off_before_it_began_is_closed(
    made: Engine,
) -> None:
    """The one thread for the disk has other work: the look of the claims."""
    begin = threading.Event()
    other = made.worker.executor.submit(begin.wait, PATIENCE_SECONDS)
    (chunk,) = begun(made, 1)
    await made.steps.wait_for("write", 1)
    await until(chunk.storing.done)
    chunk.task.cancel()
    (error,) = await ended([chunk])
    assert isinstance(error, asyncio.CancelledError)
    begin.set()
    await asyncio.wrap_future(other)
    assert made.steps.done("store") == []
    assert made.written[1].is_closed


async def test_a_batch_that_is_processed_begins_with_nothing_behind_a_chunk_that_was_cut_off(
    made: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "CHUNK_RECORDS", 1)
    made.steps.halt("publish", 1)
    processing = asyncio.create_task(made.worker.process(records(range(1, 10))))
    await made.steps.wait_for("publish", 1, began=True)
    await until(lambda: made.worker.in_flight == batches.CHUNKS_IN_FLIGHT)
    made.worker._chunks[0].task.cancel()
    (error,) = await asyncio.gather(processing, return_exceptions=True)
    assert isinstance(error, asyncio.CancelledError)
    assert made.worker.in_flight == 0
    made.steps.go("publish", 1)
    assert made.steps.done("publish") == []
