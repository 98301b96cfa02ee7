"""A service is at its end within its limit, and names what held it up."""

import asyncio
import os
import threading
from typing import NoReturn

import pytest
from structlog.testing import capture_logs

from pipeline.app import process
from pipeline.app.process import stop_on_signals, until_stopped
from pipeline.broker.local.loopback import HOST
from pipeline.errors import BrokerError, ExecutorError
from pipeline.settings import Settings, read_settings


@pytest.fixture
def settings() -> Settings:
    return read_settings(bootstrap_servers=f"{HOST}:1", stop_timeout_seconds=0.2)


@pytest.fixture
def cut_off(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Give the exit statuses with which the process would have been cut off."""
    statuses: list[int] = []
    monkeypatch.setattr(os, "_exit", statuses.append)
    return statuses


async def test_a_machine_without_room_for_a_thread_is_no_second_fault(
    settings: Settings, cut_off: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none_needed(_settings: Settings) -> None:
        return None

    def no_thread(_self: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    monkeypatch.setattr(process, "unreachable", none_needed)
    async with stop_on_signals(settings) as stop:
        monkeypatch.setattr(threading.Thread, "start", no_thread)
        stop.begin(MemoryError())
    assert cut_off == []


@pytest.mark.parametrize("cause", ["The broker hangs.", None])
async def test_a_broker_that_can_be_used_is_not_what_held_up_the_end(
    settings: Settings, cut_off: list[int], monkeypatch: pytest.MonkeyPatch, cause: str | None
) -> None:
    async def asked(_settings: Settings) -> BrokerError | None:
        return BrokerError(cause) if cause is not None else None

    monkeypatch.setattr(process, "unreachable", asked)
    with capture_logs() as logged:
        async with stop_on_signals(settings) as stop:
            stop.begin()
            async with asyncio.timeout(60):
                while not cut_off:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)  # what a thread does can only be asked
    assert cut_off == [6]
    (line,) = (each for each in logged if each["event"] == "cut off")
    assert line["why"].startswith(cause or "Stopping took longer than 0.2 s")


def die_of(error: BaseException) -> threading.Thread:
    """Start a thread that dies."""

    def work() -> NoReturn:
        raise error

    thread = threading.Thread(target=work, name="somebody's")
    thread.start()
    return thread


async def serve(settings: Settings, error: Exception, *, starting: bool = False) -> None:
    """Run a service in which a thread dies of `error`."""
    async with asyncio.timeout(60), stop_on_signals(settings) as stop:
        die_of(error)
        await (asyncio.Event().wait() if starting else until_stopped(stop))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            KeyError("what a producer wrote"),
            "The thread somebody's of this process died (KeyError)",
        ),
        (RuntimeError("can't start new thread"), "No thread can be started"),
    ],
)
@pytest.mark.parametrize("starting", [True, False])
async def test_a_thread_that_dies_ends_the_service(
    settings: Settings, error: Exception, said: str, *, starting: bool
) -> None:
    before = threading.excepthook
    with capture_logs() as logged, pytest.raises(ExecutorError) as caught:
        await serve(settings, error, starting=starting)
    assert str(caught.value).startswith(said)
    assert "a producer" not in str(caught.value)
    assert caught.value.exit_status == 6
    assert "thread died" in [line["event"] for line in logged]
    assert threading.excepthook is before


async def test_a_thread_that_dies_for_want_of_memory_names_it(settings: Settings) -> None:
    with pytest.raises(MemoryError, match="No memory is left"):
        await serve(settings, MemoryError())


async def test_a_thread_that_ends_by_itself_is_no_fault(settings: Settings) -> None:
    async with stop_on_signals(settings) as stop:
        die_of(SystemExit(1)).join()
        await asyncio.sleep(0)
        assert not stop.begun.is_set()
