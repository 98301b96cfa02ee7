"""Looks at the broker are shared, kept for a moment, and never waited for without end."""

import asyncio

import pytest

from pipeline.broker.reading import looks
from pipeline.broker.reading.looks import Rates, SharedLook
from pipeline.errors import BrokerError


class Counted:
    """A look that counts how often it is taken, and ends when it is let."""

    def __init__(self) -> None:
        self.count = 0
        self.may_end = asyncio.Event()

    async def __call__(self) -> int:
        self.count += 1
        await self.may_end.wait()
        return self.count


async def test_all_who_ask_meanwhile_share_one_look() -> None:
    look = Counted()
    shared = SharedLook(look, 60.0)
    asked = [asyncio.create_task(shared.get()) for _ in range(20)]
    await asyncio.sleep(0)
    look.may_end.set()
    assert await asyncio.gather(*asked) == [1] * 20
    assert await shared.get() == 1


async def test_a_look_that_is_old_is_taken_again() -> None:
    look = Counted()
    look.may_end.set()
    shared = SharedLook(look, 0.0)
    assert [await shared.get(), await shared.get()] == [1, 2]


async def test_a_fault_is_shared_and_kept_too() -> None:
    count = 0

    async def away() -> None:
        nonlocal count
        count += 1
        raise BrokerError("away")

    shared = SharedLook(away, 60.0)
    for _ in range(3):
        with pytest.raises(BrokerError, match="away"):
            await shared.get()
    assert count == 1


async def test_nobody_waits_for_a_broker_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "WAIT_SECONDS", 0.01)
    look = Counted()
    shared = SharedLook(look, 60.0)
    with pytest.raises(BrokerError, match="has not answered"):
        await shared.get()
    # It went on, and who asks later has its result.
    look.may_end.set()
    await asyncio.sleep(0.01)
    assert await shared.get() == 1
    await shared.stop()


def test_a_rate_is_that_of_the_last_half_minute() -> None:
    rates = Rates()
    assert rates.per_second("x") is None
    for second in range(0, 100, 5):
        rates.note(second, {"x": second if second < 50 else 50 + 10 * (second - 50)})
    assert rates.per_second("x") == 10.0


def test_a_topic_that_was_made_again_has_no_rate_below_zero() -> None:
    rates = Rates()
    rates.note(0.0, {"x": 100})
    rates.note(10.0, {"x": 0})
    assert rates.per_second("x") == 0.0
