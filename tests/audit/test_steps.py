"""Steps of an audit in processes of their own: in order, few at a time, and never without end."""

import errno
import multiprocessing
import os
import select
from collections.abc import Iterator
from concurrent.futures.process import _ExecutorManagerThread
from contextlib import nullcontext
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.audit.rules.parts import Extent
from pipeline.audit.steps import MANY_WAITING, AuditContext, AuditReader, Step, StepPool
from pipeline.consumers.engine import child_process
from pipeline.errors import ExecutorError
from schemas.audit_request import AuditScope


def no_store() -> Any:
    return SimpleNamespace(faults=nullcontext, let_go=lambda: None)


CONTEXT = AuditContext(no_store, "/nowhere/plan", "a", "names", 0.0, Extent(AuditScope(all=True)))


def double(reader: AuditReader, number: int) -> tuple[str, int]:
    return reader.context.audit_id, number * 2


def fail(reader: AuditReader) -> None:
    del reader
    raise ValueError("expected something else")


def die(reader: AuditReader) -> None:
    del reader
    os._exit(9)


def where(reader: AuditReader) -> int:
    del reader
    return os.getpid()


def until_a_child_process_works(pool: StepPool) -> list[int]:
    """Return where steps ran up to the first one that ran in a child process."""
    ran = list[int]()
    for _, process in pool.run(repeat(Step("part", where))):
        ran.append(process)
        if process != os.getpid():
            break
    return ran


@pytest.mark.parametrize("processes", [0, 2])
def test_results_come_in_the_order_of_the_steps(processes: int) -> None:
    with StepPool(processes, CONTEXT) as pool:
        if processes:
            until_a_child_process_works(pool)
        found = [(step.part, result) for step, result in pool.run(_steps(20))]
    assert found == [(str(number), ("a", number * 2)) for number in range(20)]


def _steps(count: int) -> Iterator[Step]:
    return (Step(str(number), double, (number,)) for number in range(count))


def test_only_a_few_steps_are_made_ahead_of_what_is_taken() -> None:
    made: list[int] = []

    def steps() -> Iterator[Step]:
        for number in range(1_000):
            made.append(number)
            yield Step("part", double, (number,))

    with StepPool(1, CONTEXT) as pool:
        until_a_child_process_works(pool)
        results = pool.run(steps())
        for taken in range(1, 50):
            next(results)
            assert len(made) < taken + 7
        results.close()


def test_steps_run_here_while_the_child_processes_start() -> None:
    with StepPool(1, CONTEXT) as pool:
        ran = until_a_child_process_works(pool)
    # More than may be under way: none of them waited for the child process.
    assert len(ran) > 7
    assert set(ran[:-1]) == {os.getpid()}


def read_when_written(reader: AuditReader, pipe: str) -> bytes:
    del reader
    descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    readable, _, _ = select.select([descriptor], [], [], 60)
    return os.read(descriptor, 10) if readable else b"nothing"


def test_steps_go_on_here_beside_a_long_one_of_a_child_process(tmp_path: Path) -> None:
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)

    def steps() -> Iterator[Step]:
        yield Step("long", read_when_written, (pipe,))
        yield from _steps(20)
        Path(pipe).write_bytes(b"go on")

    with StepPool(1, CONTEXT) as pool:
        until_a_child_process_works(pool)
        results = [result for _, result in pool.run(steps(), MANY_WAITING)]
    assert results == [b"go on", *(("a", number * 2) for number in range(20))]


@pytest.mark.parametrize("processes", [0, 1])
def test_an_error_of_a_step_is_that_of_the_run(processes: int) -> None:
    with StepPool(processes, CONTEXT) as pool:
        if processes:
            until_a_child_process_works(pool)
        with pytest.raises(ValueError, match="expected something else"):
            list(pool.run([Step("part", fail)]))


def test_what_was_found_before_an_error_comes_before_it() -> None:
    with StepPool(1, CONTEXT) as pool:
        until_a_child_process_works(pool)
        results = pool.run([*_steps(3), Step("fails", fail)])
        assert [next(results)[0].part for _ in range(3)] == ["0", "1", "2"]
        with pytest.raises(ValueError, match="expected something else"):
            next(results)


def test_a_process_that_is_killed_ends_the_run_with_a_sentence() -> None:
    with StepPool(1, CONTEXT) as pool:
        until_a_child_process_works(pool)
        with pytest.raises(MemoryError, match="start the audit again"):
            list(pool.run([Step("part", die), *_steps(5)]))


def test_a_machine_without_room_for_child_processes_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_room(*_arguments: Any, **_options: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(child_process, "ProcessPoolExecutor", no_room)
    with pytest.raises(ExecutorError, match=r"Permission denied.*/dev/shm.*RMOS_AUDIT_PROCESSES=0"):
        StepPool(1, CONTEXT)


def test_a_pool_without_memory_for_its_thread_is_one_sentence_and_leaves_no_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_thread(*_arguments: object) -> None:
        message = "can't start new thread"  # as Python words it
        raise RuntimeError(message)

    there = set(multiprocessing.active_children())
    monkeypatch.setattr(_ExecutorManagerThread, "start", no_thread)
    with pytest.raises(ExecutorError, match=r"can't start .*nothing was acknowledged") as caught:
        StepPool(1, CONTEXT)
    for child in set(multiprocessing.active_children()) - there:
        child.join(60)
        assert not child.is_alive()
    # Its traceback holds the pool: else the child process would end as that is freed.
    del caught
