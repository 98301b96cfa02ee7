"""Parts of the services that need no broker."""

import asyncio
import resource

import pytest

from pipeline.app import http, process
from pipeline.app.http import BrokerProbe
from pipeline.errors import BrokerError


async def test_all_who_ask_at_a_time_ask_the_broker_once() -> None:
    asked = 0

    async def check_broker() -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)

    probe = BrokerProbe(check_broker)
    assert await asyncio.gather(*(probe.answers() for _ in range(100))) == [True] * 100
    assert asked == 1


async def test_a_broker_that_is_away_is_asked_again_after_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "_KNOWN_FOR_SECONDS", 0.0)
    is_away = True

    async def check_broker() -> None:
        if is_away:
            raise BrokerError("No broker.")

    probe = BrokerProbe(check_broker)
    assert not await probe.answers()
    is_away = False
    assert await probe.answers()


def test_a_service_may_have_more_files_open_than_is_usual() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[0] // 2, before[1]))
    try:
        process.raise_open_files()
        limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert limit == min(most, process.OPEN_FILES)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
