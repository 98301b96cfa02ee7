"""A replay takes no more records a second than it may, and only those of the run it is about."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from aiokafka import ConsumerRecord

from pipeline.recovery.replay.reading import limited


def record(number: int, key: bytes | None = b"run_a") -> ConsumerRecord:
    return ConsumerRecord("topic", 0, number, 0, 1, key, b"", None, 5, 0, headers=())


async def source(count: int, key: bytes | None = b"run_a") -> AsyncGenerator[ConsumerRecord, None]:
    for number in range(count):
        yield record(number, key)


async def test_records_come_no_faster_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "time", lambda: 100.0 + sum(slept), raising=False)
    monkeypatch.setattr("pipeline.recovery.replay.reading.asyncio.sleep", sleep)
    assert [each.offset async for each in limited(source(20), 10.0, None)] == list(range(20))
    assert sum(slept) == pytest.approx(2.0)


async def test_without_a_limit_nobody_waits() -> None:
    assert len([each async for each in limited(source(100), None, None)]) == 100


async def test_only_records_of_the_run_come() -> None:
    async def mixed() -> AsyncGenerator[ConsumerRecord, None]:
        for key in (b"run_a", None, b"run_b", b"run_a"):
            yield record(0, key)

    assert [each.key async for each in limited(mixed(), None, "run_a")] == [b"run_a", b"run_a"]
    assert len([each async for each in limited(mixed(), None, None)]) == 4
