"""What a thread hands over comes out in order, whole, and never more than the loop takes."""

import asyncio
import threading
from collections.abc import Callable

import pytest
from anyio import from_thread

from pipeline.audit.worker.run import WAITING_LIMIT, handed_over

Hand = Callable[[int], None]


async def test_everything_comes_out_in_order() -> None:
    handed: list[int] = []

    def work(hand: Hand) -> None:
        for number in range(2 * WAITING_LIMIT):
            hand(number)
            handed.append(number)

    found: list[int] = []
    async with handed_over(work) as received:
        async for item in received:
            assert len(handed) <= len(found) + WAITING_LIMIT + 2
            found.append(item)
    assert found == list(range(2 * WAITING_LIMIT))


async def test_what_was_handed_over_before_a_failure_still_comes_out() -> None:
    def work(hand: Hand) -> None:
        hand(1)
        raise ZeroDivisionError

    found = []
    with pytest.raises(ZeroDivisionError):
        async with handed_over(work) as received:
            found = [item async for item in received]
    assert found == [1]


@pytest.mark.parametrize("step", ["hand", "check", "ask"])
async def test_a_block_that_raises_stops_the_function_at_its_next_step(step: str) -> None:
    stopped, asked = threading.Event(), asyncio.Event()

    async def never() -> None:
        asked.set()
        await asyncio.Event().wait()

    def work(hand: Hand) -> None:
        steps = {
            "hand": lambda: hand(0),
            "check": from_thread.check_cancelled,
            "ask": lambda: from_thread.run(never),
        }
        try:
            hand(0)
            while True:
                steps[step]()
        finally:
            stopped.set()

    async def block() -> None:
        async with handed_over(work) as received:
            await received.receive()
            if step == "ask":
                await asked.wait()
            raise LookupError

    with pytest.raises(LookupError):
        await block()
    assert stopped.is_set()


async def test_a_task_that_is_cancelled_waits_for_the_end_of_the_function() -> None:
    begun, stopped = asyncio.Event(), threading.Event()

    def work(hand: Hand) -> None:
        from_thread.run_sync(begun.set)
        try:
            while True:
                from_thread.check_cancelled()
        finally:
            stopped.set()

    async def take() -> None:
        async with handed_over(work) as received:
            async for _ in received:
                pass

    taking = asyncio.create_task(take())
    await begun.wait()
    taking.cancel()
    await asyncio.wait([taking])
    assert taking.cancelled()
    assert stopped.is_set()


async def test_a_function_may_ask_the_loop() -> None:
    async def answer(number: int) -> int:
        await asyncio.sleep(0)
        return number + 1

    def work(hand: Hand) -> None:
        hand(from_thread.run(answer, 1))

    async with handed_over(work) as received:
        assert [item async for item in received] == [2]
