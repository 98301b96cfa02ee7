"""Bad records stop the worker before the batch that reaches the reject limit is written."""

import pytest

from pipeline.settings import Settings
from tests.builders import incomplete_request, run_request
from tests.e2e.kafka_reading import Sending, committed, produce, sending, wait_until_consumed
from tests.e2e.store_audit import audit_store
from tests.e2e.worker_processes import WorkerPool, only_sentence

pytestmark = pytest.mark.e2e

PARTITION = 7


def bad_records(count: int, start: int) -> list[Sending]:
    """Return dead letters and incomplete requests by turns, all in one partition."""
    numbers = range(start, start + count)
    return [
        Sending(f"bad_{number}".encode(), b"{", partition=PARTITION)
        if number % 2
        else sending(incomplete_request(run_id=f"run_bad_{number}"), partition=PARTITION)
        for number in numbers
    ]


async def test_the_reject_limit_stops_before_its_batch_is_written_until_the_operator_accepts_it(
    store_settings: Settings, workers: WorkerPool
) -> None:
    settings = store_settings
    # 500 verdicts must have been seen: so many bad ones do not reach the limit yet.
    await produce(settings, bad_records(400, 0))
    worker = workers.start(settings)
    await wait_until_consumed(settings, check=worker.check)
    good = [sending(run_request(run_id=f"run_{n}"), partition=PARTITION) for n in range(40)]
    # One batch of the broker, so one poll of the worker: 200 more reach the limit within it.
    await produce(settings, [*bad_records(200, 400), *good], compression="lz4")
    assert await worker.ended() == 4
    said = only_sentence(worker.text)
    assert "are dead letters or incomplete" in said
    assert "--accept-rejects N" in said
    assert "Traceback" not in worker.text

    # The window is kept, so a restart meets it again.
    again = workers.start(settings)
    assert await again.ended() == 4
    assert "--accept-rejects N" in only_sentence(again.text)
    short = workers.start(settings, "--accept-rejects", "1")
    assert await short.ended() == 4

    stopped = await audit_store(settings)
    passed = (await committed(settings))[PARTITION]
    # Whatever the polls were cut to, the batch that reached the limit is not there at all.
    assert 400 <= passed < 500
    assert len(stopped.events) == passed
    assert len(stopped.letters) == passed // 2
    assert len(stopped.artifacts()) == len(stopped.rows)
    assert not [run_id for run_id in stopped.rows if not run_id.startswith("run_bad_")]

    accepting = workers.start(settings, "--accept-rejects", "200")
    await wait_until_consumed(settings, check=accepting.check)
    assert await accepting.stop() == 0
    audit = await audit_store(settings)
    audit.assert_whole()
    assert audit.outcomes() == {"persisted": 340, "INVALID_JSON": 300}
