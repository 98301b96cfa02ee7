"""Where a batch is judged: here where that is quick, else in the child process."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures.process import _ExecutorManagerThread
from typing import Any

import pytest

from pipeline.consumers.engine import judging
from pipeline.consumers.engine.judging import SMALL_BATCH_BYTES, SMALL_BATCH_RECORDS, Body, Judging
from pipeline.core.advisories.verdict import judge_advisory_record
from pipeline.core.dead_letters.carried_record import ReadContent
from pipeline.core.json.canonical import canonical_json
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


def test_the_child_process_imports_nothing_of_the_store_or_the_broker() -> None:
    """Each of these would be some 10 to 30 MB of a second process."""
    names = "pipeline.consumers.engine.judging, pipeline.core.runs.verdict"
    program = f"import sys, {names}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    loaded = set(done.stdout.decode().split())
    assert {"pydantic", "msgspec"} <= loaded
    assert not {"sqlalchemy", "aiokafka", "faststream", "structlog", "prometheus_client"} & loaded


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
            fields = (found.built.index_fields, expected.built.index_fields)
            assert canonical_json(fields[0]) == canonical_json(fields[1])
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
    fields = run.built.index_fields | {"meta": {"v1": {"hashes": 10**30}}}
    return run._replace(built=run.built._replace(index_fields=fields))


async def test_a_value_that_messagepack_has_not_comes_back_all_the_same() -> None:
    with Judging(judge_as_a_row_of_any_digits, in_child=True) as running:
        verdicts = await running.judge(bodies(SMALL_BATCH_RECORDS))
    assert verdicts == [judge_as_a_row_of_any_digits(None, None)] * SMALL_BATCH_RECORDS


@pytest.mark.parametrize("judge", [judge_run_record, judge_legacy_record])
def test_verdicts_on_runs_are_packed(judge: Any) -> None:
    with Judging(judge, in_child=False) as alone:
        assert alone._judges_runs
    assert isinstance(judging._judge_packed(judge, KINDS), bytes)


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
