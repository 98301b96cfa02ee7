"""Where a batch is judged: here where that is quick, else in the child process."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from msgspec import structs

from pipeline.consumers.engine import judging
from pipeline.consumers.engine.judging import SMALL_BATCH_BYTES, SMALL_BATCH_RECORDS, Body, Judging
from pipeline.core.advisories.verdict import judge_advisory_record
from pipeline.core.dead_letters.carried_record import LeftAtSource, ReadContent
from pipeline.core.runs.verdict import JudgedRun, Rejected, judge_run_record
from pipeline.errors import ExecutorError
from pipeline.legacy.record import judge_legacy_record
from tests.builders import (
    advisory_request,
    attachment,
    incomplete_request,
    judged,
    record,
    red_request,
    rosette_request,
    run_request,
)


@pytest.fixture(scope="module")
def with_helper() -> Iterator[Judging]:
    with Judging(judge_run_record, in_child=True) as running:
        yield running


@pytest.fixture
def judged_here(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Give an entry for each batch that this process judges."""
    batches: list[int] = []
    original = judging._judge_all

    # A child process looks the function up by name in a module of its own: the original.
    def _judge_all(*args: Any) -> Any:
        batches.append(os.getpid())
        return original(*args)

    _judge_all.__module__, _judge_all.__qualname__ = original.__module__, original.__qualname__
    monkeypatch.setattr(judging, "_judge_all", _judge_all)
    return batches


def test_the_child_process_imports_nothing_of_the_store_the_broker_or_the_loop() -> None:
    """Each of these would be some 3 to 30 MB of a second process."""
    names = "pipeline.consumers.engine.judging, pipeline.core.runs.verdict"
    program = f"import sys, {names}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    loaded = set(done.stdout.decode().split())
    assert {"pydantic", "msgspec"} <= loaded
    heavy = {"sqlalchemy", "aiokafka", "faststream", "structlog", "prometheus_client", "asyncio"}
    assert not heavy & loaded


def bodies(count: int, gcode_bytes: int = 0) -> list[Body]:
    outputs = {"gcode_text": "G" * gcode_bytes}
    return [record(run_request(run_id=f"run_{n}", outputs=outputs)) for n in range(count)]


@pytest.mark.parametrize(
    ("count", "gcode_bytes", "is_here"),
    [
        (1, 0, True),
        (SMALL_BATCH_RECORDS - 1, 0, True),
        (SMALL_BATCH_RECORDS, 0, False),
        (1, SMALL_BATCH_BYTES, False),
        (4, SMALL_BATCH_BYTES // 3, False),
    ],
)
async def test_what_is_many_or_large_is_judged_in_the_child_process(
    with_helper: Judging, judged_here: list[int], count: int, gcode_bytes: int, *, is_here: bool
) -> None:
    verdicts = await with_helper.judge(bodies(count, gcode_bytes))
    assert [type(verdict) for verdict in verdicts] == [JudgedRun] * count
    assert bool(judged_here) is is_here


KINDS: list[Body] = [
    *map(record, (run_request(), rosette_request(), incomplete_request(), red_request())),
    record(red_request(attachments=[attachment(b"why", kind="debug")])),
    record(run_request(outputs={"gcode_text": "G" * 300_000, "gcode_path": "/a.nc"})),
    record(run_request(feasibility={"risk_level": "GREEN", "score": 1e-300})),
    record(run_request(feasibility={"risk_level": "GREEN", "score": -0.0})),
    record(run_request(feasibility={"risk_level": "GREEN", "score": 7})),
    (b"key", b'{"a":1}'),
    (b"key", None),
    (b"other", record(run_request())[1]),
    (None, record(run_request())[1]),
    (b"key", LeftAtSource(900_000_000, "a" * 64)),
    (LeftAtSource(2_000_000, "b" * 64), record(run_request())[1]),
]


async def test_verdicts_come_back_from_the_child_process_as_they_are(with_helper: Judging) -> None:
    sent = KINDS * (SMALL_BATCH_RECORDS // len(KINDS) + 1)
    verdicts = await with_helper.judge(sent)
    assert verdicts == [judge_run_record(*each) for each in sent]
    for found, each in zip(verdicts, KINDS, strict=False):
        expected = judge_run_record(*each)
        assert type(found) is type(expected)
        if isinstance(expected, JudgedRun):
            # 1 == 1.0 in Python: bytes tell values apart, equality does not.
            assert repr(found.built.index_fields) == repr(expected.built.index_fields)
            assert type(found.built) is type(expected.built)
            assert type(found.built.quarantined) is type(expected.built.quarantined)


async def test_verdicts_on_advisories_come_back_as_they_are() -> None:
    sent = [record(advisory_request(advisory_id=f"a_{n}")) for n in range(SMALL_BATCH_RECORDS)]
    with Judging(judge_advisory_record, in_child=True) as running:
        assert await running.judge(sent) == [judge_advisory_record(*each) for each in sent]


def judge_as_a_row_of_any_digits(
    key: ReadContent | None, value: ReadContent | None
) -> JudgedRun | Rejected:
    run = judged(run_request())
    fields = structs.replace(run.built.index_fields, score=10**30)
    return structs.replace(run, built=structs.replace(run.built, index_fields=fields))


async def test_a_value_that_messagepack_has_not_comes_back_all_the_same() -> None:
    with Judging(judge_as_a_row_of_any_digits, in_child=True) as running:
        verdicts = await running.judge(bodies(SMALL_BATCH_RECORDS))
    assert verdicts == [judge_as_a_row_of_any_digits(None, None)] * SMALL_BATCH_RECORDS


@pytest.mark.parametrize("judge", [judge_run_record, judge_legacy_record])
def test_verdicts_on_runs_are_packed(judge: Any) -> None:
    assert judging._judges_runs(judge)
    assert judging._packed([judge(*each) for each in KINDS])[0] == judging._PACKED


async def test_without_a_child_process_all_is_judged_here(judged_here: list[int]) -> None:
    with Judging(judge_run_record, in_child=False) as alone:
        await alone.judge(bodies(SMALL_BATCH_RECORDS, SMALL_BATCH_BYTES // 16))
    assert judged_here


def fail_or_wait(key: ReadContent | None, value: ReadContent | None) -> str:
    """Judge a record by its value: raise, wait for ever, or give it back."""
    del key
    match value:
        case b"full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        case b"wait":
            time.sleep(60)
    return str(value)


def alike(value: bytes) -> list[Body]:
    return [(None, value)] * SMALL_BATCH_RECORDS


def child_of(running: Judging[Any]) -> subprocess.Popen[bytes]:
    assert running._child is not None
    return running._child._process


async def test_a_fault_of_the_machine_is_raised_here_and_the_child_process_goes_on() -> None:
    with Judging(fail_or_wait, in_child=True) as running:
        with pytest.raises(OSError, match="No space left"):
            await running.judge(alike(b"full"))
        assert await running.judge(alike(b"a")) == ["b'a'"] * SMALL_BATCH_RECORDS


async def test_chunks_larger_than_any_pipe_go_both_ways_at_once_and_come_back_in_order() -> None:
    values = [bytes([each]) * 50_000 for each in range(65, 73)]
    done: list[int] = []

    async def judge(number: int) -> None:
        verdicts = await running.judge(alike(values[number]))
        assert verdicts == [str(values[number])] * SMALL_BATCH_RECORDS
        done.append(number)

    with Judging(fail_or_wait, in_child=True) as running:
        async with asyncio.timeout(30):
            await asyncio.gather(*map(judge, range(len(values))))
    assert done == list(range(len(values)))


async def test_a_judging_that_is_cancelled_takes_no_verdict_of_another() -> None:
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    with Judging(fail_or_wait, in_child=True) as running:
        await running.judge(alike(b"first"))
        before = os.listdir("/proc/self/fd")
        dropped = [asyncio.create_task(running.judge(alike(b"dropped"))) for _ in range(2)]
        kept = asyncio.create_task(running.judge(alike(b"kept")))
        await asyncio.sleep(0)
        for each in dropped:
            each.cancel()
        assert await kept == ["b'kept'"] * SMALL_BATCH_RECORDS
        assert await running.judge(alike(b"last")) == ["b'last'"] * SMALL_BATCH_RECORDS
        assert all(each.cancelled() for each in dropped)
        assert not faults
        assert os.listdir("/proc/self/fd") == before


async def test_a_child_process_that_is_killed_is_named_to_all_that_wait_and_come_later() -> None:
    with Judging(fail_or_wait, in_child=True) as running:
        await running.judge(alike(b"first"))
        waiting = [asyncio.create_task(running.judge(alike(b"wait"))) for _ in range(2)]
        await asyncio.sleep(0)
        child_of(running).kill()
        for each in [*waiting, running.judge(alike(b"later"))]:
            with pytest.raises(MemoryError, match="was killed, most likely for want of memory"):
                await each


async def test_signals_to_the_whole_group_leave_the_child_process_at_work() -> None:
    with Judging(fail_or_wait, in_child=True) as running:
        await running.judge(alike(b"first"))
        for number in (signal.SIGINT, signal.SIGTERM):
            child_of(running).send_signal(number)
        assert await running.judge(alike(b"a")) == ["b'a'"] * SMALL_BATCH_RECORDS


async def test_the_end_of_the_judging_ends_the_child_process_and_what_waits_for_it() -> None:
    with Judging(fail_or_wait, in_child=True) as running:
        waiting = asyncio.create_task(running.judge(alike(b"wait")))
        await asyncio.sleep(0)
        started = time.monotonic()
    assert child_of(running).returncode == -signal.SIGKILL
    assert time.monotonic() - started < 30
    with pytest.raises(asyncio.CancelledError):
        await waiting


WORKER = f"""
import asyncio, sys
from pipeline.consumers.engine.judging import Judging
from {__name__} import alike, child_of, fail_or_wait

async def work():
    with Judging(fail_or_wait, in_child=True) as running:
        await running.judge(alike(b"first"))
        print(child_of(running).pid, flush=True)
        await running.judge(alike(sys.argv[1].encode()))
        await asyncio.sleep(60)

asyncio.run(work())
"""


@pytest.mark.parametrize("value", ["wait", "done"])
def test_a_child_process_ends_with_its_worker_at_work_and_idle(value: str) -> None:
    command = [sys.executable, "-c", WORKER, value]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        child = psutil.Process(int(worker.stdout.readline()))
        worker.kill()
    _, alive = psutil.wait_procs([child], 10)
    assert not alive


async def test_a_child_process_that_cannot_be_started_is_one_sentence_and_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_process(*_arguments: object, **_options: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(subprocess, "Popen", no_process)
    before = os.listdir("/proc/self/fd")
    with (
        pytest.raises(ExecutorError, match=r"No child process.*unavailable.*nothing was ack"),
        Judging(judge_run_record, in_child=True) as running,
    ):
        await running.judge(bodies(SMALL_BATCH_RECORDS))
    assert os.listdir("/proc/self/fd") == before
