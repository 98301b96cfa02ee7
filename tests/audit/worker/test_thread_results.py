"""What a thread hands over comes out in order, whole, and never more than the loop takes."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.audit.worker.run import WAITING_LIMIT, StoppedError, ThreadResults


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


async def test_everything_comes_out_in_order_and_then_the_result(
    executor: ThreadPoolExecutor,
) -> None:
    def work(hand: Callable[[int], None]) -> str:
        for number in range(5 * WAITING_LIMIT):
            hand(number)
        return "done"

    found: list[int] = []
    async with ThreadResults(executor, work) as results:
        async for items in results.lists():
            assert len(items) <= WAITING_LIMIT
            found += items
        assert await results.result() == "done"
    assert found == list(range(5 * WAITING_LIMIT))


async def test_what_was_handed_over_before_a_failure_still_comes_out(
    executor: ThreadPoolExecutor,
) -> None:
    def work(hand: Callable[[int], None]) -> None:
        hand(1)
        raise ZeroDivisionError

    found = []
    async with ThreadResults(executor, work) as results:
        async for items in results.lists():
            found += items
        with pytest.raises(ZeroDivisionError):
            await results.result()
    assert found == [1]


async def test_a_block_that_ends_stops_the_function(executor: ThreadPoolExecutor) -> None:
    stopped = threading.Event()

    def work(hand: Callable[[int], None]) -> None:
        try:
            while True:
                hand(0)
        except StoppedError:
            stopped.set()
            raise

    async with ThreadResults(executor, work) as results:
        async for _ in results.lists():
            break
    assert stopped.is_set()


async def test_a_function_may_ask_the_loop(executor: ThreadPoolExecutor) -> None:
    async def answer(number: int) -> int:
        await asyncio.sleep(0)
        return number + 1

    def work(hand: Callable[[int], None]) -> int:
        return results.ask(answer(1))

    results: ThreadResults[int, int] = ThreadResults(executor, work)
    async with results:
        assert [items async for items in results.lists()] == []
        assert await results.result() == 2


async def test_a_question_without_an_answer_ends_with_the_block(
    executor: ThreadPoolExecutor,
) -> None:
    asked = asyncio.Event()

    async def never() -> int:
        asked.set()
        await asyncio.Event().wait()
        return 0

    def work(hand: Callable[[int], None]) -> int:
        return results.ask(never())

    results: ThreadResults[int, int] = ThreadResults(executor, work)
    async with results:
        await asked.wait()
    with pytest.raises(StoppedError):
        await results.result()
