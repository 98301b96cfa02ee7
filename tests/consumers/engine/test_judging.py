"""Where a batch is judged: here where that is quick, else in the child process."""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures.process import _ExecutorManagerThread
from typing import Any

import pytest

from pipeline.consumers.engine import judging
from pipeline.consumers.engine.judging import SMALL_BATCH_BYTES, SMALL_BATCH_RECORDS, Body, Judging
from pipeline.core.runs.verdict import JudgedRun, judge_run_record
from pipeline.errors import ExecutorError
from tests.builders import record, run_request


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


async def test_without_a_child_process_all_is_judged_here(judged_here: list[int]) -> None:
    with Judging(judge_run_record, in_child=False) as alone:
        await alone.judge(bodies(SMALL_BATCH_RECORDS, SMALL_BATCH_BYTES // 16))
    assert judged_here


async def test_a_child_process_for_which_no_memory_is_left_is_one_sentence_and_leaves_no_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_thread(*_arguments: object) -> None:
        message = "can't start new thread"  # as Python words it
        raise RuntimeError(message)

    there = set(multiprocessing.active_children())
    monkeypatch.setattr(_ExecutorManagerThread, "start", no_thread)
    with (
        pytest.raises(ExecutorError, match=r"can't start new thread.*nothing was acknowledged"),
        Judging(judge_run_record, in_child=True) as running,
    ):
        await running.judge(bodies(SMALL_BATCH_RECORDS))
    for child in set(multiprocessing.active_children()) - there:
        child.join(5)
        assert not child.is_alive()
