"""`faststream run` as a process of its own: each worker does what `rmos worker` does."""

import sys
from pathlib import Path

import pytest

from pipeline.app.persist import persist_worker
from pipeline.broker.admin.groups import committed_offsets
from pipeline.broker.local.broker import LocalBroker
from pipeline.settings import Settings
from tests.e2e.advisories import NEVER, advisory_of, links, publish, run_of, store_of, wait_for
from tests.e2e.audits import ask, asking, audit_request, store_to_audit, wait_for_reports
from tests.e2e.kafka_reading import produce, read_topic, wait_until
from tests.e2e.worker_processes import WorkerPool, WorkerProcess

pytestmark = pytest.mark.e2e

FASTSTREAM = Path(sys.executable).with_name("faststream")


def faststream_run(pool: WorkerPool, settings: Settings, name: str, **env: str) -> WorkerProcess:
    return pool.run([str(FASTSTREAM), "run", f"pipeline.app.{name}:app"], settings, **env)


@pytest.mark.slow
async def test_persist_stores_and_finishes_the_batch_in_hand_on_sigterm(
    store_settings: Settings, workers: WorkerPool
) -> None:
    settings = store_settings
    worker = faststream_run(workers, settings, "persist")
    await worker.wait_until_started()
    await produce(settings, [run_of(f"run_{number}") for number in range(4000)])

    def stored() -> int:
        return len(list((settings.data_dir / "runs").rglob("*.json")))

    await wait_until(lambda: stored() > 0, "some are stored")
    assert await worker.stop() == 0
    assert worker.logged("persist worker stopped")
    topics = settings.topics
    committed = await committed_offsets(settings, topics.persist_group, [topics.run_requests])
    events = await read_topic(settings, topics.run_events)
    # Nothing is stored or published of which the offsets are not committed.
    assert sum(committed.values()) == stored() == len(events) > 0
    again = faststream_run(workers, settings, "persist")
    await wait_until(lambda: stored() == 4000, "the others are stored")
    assert await again.stop() == 0


async def test_a_fault_ends_it_with_the_exit_status_of_rmos(
    settings: Settings, workers: WorkerPool
) -> None:
    worker = faststream_run(workers, settings, "persist")
    assert await worker.ended() == 6
    assert "there is no store" in worker.text.lower()


async def test_advise_links(broker: LocalBroker, tmp_path: Path, workers: WorkerPool) -> None:
    async with store_of(broker, tmp_path / "s", NEVER) as settings:
        worker = faststream_run(workers, settings, "advise")
        async with persist_worker(settings):
            early, _ = await publish(settings, *map(advisory_of, ("run_1", "run_2")))
            await wait_for(settings, early, "waiting")
            await produce(settings, [run_of("run_1"), run_of("run_2")])
            await wait_until(lambda: len(links(settings)) == 2, "2 links")
            await wait_for(settings, early, "linked")
        assert await worker.stop() == 0
        assert worker.logged("advise worker stopped")


async def test_audit_reports(broker: LocalBroker, tmp_path: Path, workers: WorkerPool) -> None:
    async with store_to_audit(broker, tmp_path) as settings:
        unscheduled = {"RMOS_AUDIT_DAILY_AT": "-1", "RMOS_AUDIT_HOURLY": "false"}
        worker = faststream_run(workers, settings, "audit", **unscheduled)
        await ask(settings, asking(audit_request()))
        (report,) = await wait_for_reports(settings)
        assert report.audit_id == "a1"
        assert await worker.stop() == 0
        assert worker.logged("audit worker stopped")
