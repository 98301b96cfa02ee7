"""Parts of the services that need no broker."""

import asyncio
import errno
import resource
import threading
import time
from contextlib import AsyncExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from pipeline.api import dependencies
from pipeline.api.dependencies import OneByOne, ThreadPool
from pipeline.app import application, http, process
from pipeline.app.http import broker_answers
from pipeline.broker.reading.looks import SharedLook
from pipeline.errors import BrokerError, ExecutorError, IntegrityError
from pipeline.settings import Settings
from tests.consumers.engine.chunks import engine, records, subscription_of, until


async def test_a_broker_that_is_away_is_asked_again_after_a_moment() -> None:
    is_away = True

    async def check_broker() -> None:
        if is_away:
            raise BrokerError("No broker.")

    look = SharedLook(check_broker, 0.0)
    assert not await broker_answers(look)
    is_away = False
    assert await broker_answers(look)


def test_a_service_may_have_more_files_open_than_is_usual() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[0] // 2, before[1]))
    try:
        process.raise_open_files()
        limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert limit == min(most, process.OPEN_FILES)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _no_thread(_thread: threading.Thread) -> None:
    message = "can't start new thread"  # as Python words it
    raise RuntimeError(message)


async def test_an_answer_for_which_no_thread_can_be_started_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threading.Thread, "start", _no_thread)
    for threads in (ThreadPool(1, "transfer"), OneByOne(1, "lookup")):
        with pytest.raises(ExecutorError, match="No thread can be started"):
            await threads(int)


async def test_look_ups_run_one_by_one_and_none_waits_for_one_that_takes_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
    threads, gate, queued = OneByOne(4, "lookup"), threading.Event(), threading.Event()

    def this_one() -> int:
        time.sleep(0.001)  # another thread that may take the next call does
        return threading.get_ident()

    monkeypatch.setattr(dependencies, "_LONG_SECONDS", 0.001)
    monkeypatch.setattr(dependencies, "_HELD_SECONDS", 1e9)
    quick = asyncio.create_task(threads(queued.wait))
    *stuck, given_up = [asyncio.create_task(threads(gate.wait)) for _ in range(3)]
    await asyncio.sleep(0)
    queued.set()
    async with asyncio.timeout(60):
        assert await quick
        assert await threads(int) == 0
    given_up.cancel()
    gate.set()
    assert await asyncio.gather(*stuck) == [True, True]
    monkeypatch.setattr(dependencies, "_LONG_SECONDS", 600)
    calls = []
    for _ in range(20):
        calls.append(asyncio.create_task(threads(this_one)))
        await asyncio.sleep(0)
    assert len(set(await asyncio.gather(*calls))) == 1
    with pytest.raises(ZeroDivisionError):
        await threads(divmod, 1, 0)
    threads.close()
    assert faults == []


async def test_a_thread_that_waited_for_a_look_up_serves_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads, clock = OneByOne(4, "lookup"), count(step=10_000)
    monkeypatch.setattr(dependencies, "_LONG_SECONDS", 600)
    monkeypatch.setattr(dependencies, "monotonic", lambda: next(clock))
    serving = await threads(threading.current_thread)
    for _ in range(20):
        assert await threads(threading.current_thread) is serving
    threads.close()


async def test_nothing_is_looked_up_for_a_request_that_has_gone_nor_after_the_end() -> None:
    threads, gate, run = OneByOne(1, "lookup"), threading.Event(), list[str]()
    first = asyncio.create_task(threads(gate.wait))
    gone = asyncio.create_task(threads(run.append, "gone"))
    last = asyncio.create_task(threads(run.append, "last"))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(first, last)
    assert run == ["last"]
    threads.close()
    with pytest.raises(RuntimeError, match="after close"):
        await threads(int)


async def test_a_broker_that_is_back_is_found_though_a_question_of_before_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = 0

    async def check_broker() -> None:
        nonlocal questions
        questions += 1
        if questions == 1:
            await asyncio.Event().wait()

    monkeypatch.setattr(http, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(http, "_KNOWN_FOR_SECONDS", 0.0)
    async with AsyncExitStack() as stack:
        checks = http._api_checks(Settings(data_dir=tmp_path), [], check_broker, stack)
        assert (await checks())["broker answers"] is False
        assert (await checks())["broker answers"] is True


async def test_a_batch_for_which_no_thread_can_be_started_ends_the_worker_and_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with engine() as made:
        subscription = subscription_of(made.worker)
        monkeypatch.setattr(threading.Thread, "start", _no_thread)
        with capture_logs() as logged:
            await subscription._in_flight.put(records([1]), {})
            await until(subscription.fault.done)
    assert isinstance(subscription.fault.exception(), ExecutorError)
    assert logged == []


async def test_an_application_ends_with_the_status_of_the_command_whatever_the_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("prepare_process", "configure_logging"):
        monkeypatch.setattr(application, name, lambda *_: None)
    faults = [
        (OSError(errno.EMFILE, "Too many open files"), 6),
        (MemoryError(), 6),
        (asyncio.CancelledError(), 6),
        (IntegrityError("A file is not what was written."), 5),
    ]
    statuses = []
    for fault, _ in faults:
        with pytest.raises(SystemExit) as ended:
            await application.WorkerApplication(partial(_raise, fault)).run()
        statuses.append(ended.value.code)
    assert statuses == [status for _, status in faults]


def _raise(fault: BaseException, _settings: Settings) -> Any:
    raise fault
