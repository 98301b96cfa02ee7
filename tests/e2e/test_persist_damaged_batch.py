"""A batch that the broker's disk damaged holds up its own partition, and nothing is lost."""

from pathlib import Path

import pytest

from pipeline.broker.local.broker import LocalBroker
from pipeline.settings import Settings
from tests.builders import run_request
from tests.e2e.kafka_reading import (
    RUN_TOPICS,
    committed,
    new_settings,
    produce,
    sending,
    topics_and_store,
    wait_until,
    wait_until_consumed,
)
from tests.e2e.store_audit import audit_store, index_rows
from tests.e2e.worker_processes import WorkerPool

pytestmark = pytest.mark.e2e


def turn_bit(log: Path, before: bytes, after: bytes) -> None:
    """Let the broker's disk hold `after` where it was given `before`."""
    data = log.read_bytes()
    assert len(before) == len(after)
    with log.open("r+b") as file:
        file.seek(data.index(before))
        file.write(after)


@pytest.mark.slow
async def test_a_bit_that_turned_on_the_broker_holds_up_its_partition_alone(
    mortal_broker: LocalBroker, tmp_path: Path, workers: WorkerPool
) -> None:
    settings = new_settings(mortal_broker, tmp_path / "store")
    async with topics_and_store(mortal_broker, settings, RUN_TOPICS):
        topic = settings.topics.run_requests
        for run_id in ("run_before", "run_damaged", "run_after"):
            await produce(settings, [sending(run_request(run_id=run_id), partition=3)])
        (log,) = mortal_broker._folder.root.rglob(f"{topic}-3/00000000000000000000.log")
        turn_bit(log, b"run_damaged", b"run_damagee")
        beside = [run_request(run_id=f"run_{number}") for number in range(600)]
        sent = await produce(settings, map(sending, beside))
        worker = workers.start(settings, RMOS_BATCH_RECORDS="16")
        await worker.wait_until_started()
        readable = 1 + sum(1 for place in sent if place.partition != 3)

        def is_stored() -> bool:
            worker.check()
            return len(index_rows(settings.data_dir)) == readable

        # All the other partitions, and what stands before the bad batch in its own.
        await wait_until(is_stored, "what can be read is stored")
        await wait_until(lambda: bool(worker.logged("batch cannot be read")), "it is told")
        told = worker.logged("batch cannot be read")[0]
        assert (told["topic"], told["partition"], told["offset"]) == (topic, 3, 1)
        await wait_until_committed(settings, 3, 1)
        await wait_until(lambda: bool(worker.logged("not ready")), "it is not ready")
        reason = worker.logged("not ready")[0]
        assert reason["kind"] == "unreadable"
        assert f"The batch at offset 1 of {topic}, partition 3," in reason["why"]

        turn_bit(log, b"run_damagee", b"run_damaged")
        await wait_until_consumed(settings, check=worker.check)
        assert await worker.stop() == 0
        audit = await audit_store(settings)
        audit.assert_whole()
        assert audit.outcomes() == {"persisted": len(sent) + 3}


async def wait_until_committed(settings: Settings, partition: int, offset: int) -> None:
    async def is_committed() -> bool:
        return (await committed(settings)).get(partition) == offset

    await wait_until(is_committed, f"the commit of {offset} in partition {partition}")
