"""A broker that goes and comes back in the middle: the worker waits, tells so, and goes on."""

import asyncio
import urllib.error
import urllib.request
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, NotEnoughReplicasError, RequestTimedOutError
from structlog.testing import capture_logs

from pipeline.app.persist import persist_worker
from pipeline.broker.admin.topics import apply_topics
from pipeline.broker.local.broker import LocalBroker
from pipeline.broker.sending import batches as sender
from pipeline.consumers.engine.readiness import Backoff
from pipeline.settings import Settings
from tests.builders import run_request
from tests.e2e.kafka_reading import (
    committed,
    new_settings,
    produce,
    sending,
    wait_until,
    wait_until_consumed,
)
from tests.e2e.prepared_store import prepare_store
from tests.e2e.store_audit import audit_store
from tests.e2e.worker_processes import WorkerPool, WorkerProcess

pytestmark = pytest.mark.e2e

PAUSE_SECONDS = 0.5


@pytest.fixture
async def own_settings(mortal_broker: LocalBroker, tmp_path: Path) -> Settings:
    settings = new_settings(mortal_broker, tmp_path / "store")
    assert await apply_topics(settings) == []
    prepare_store(settings, mortal_broker.cluster_id)
    return settings


def status_of(address: str, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


async def is_status(address: str, path: str, expected: int) -> bool:
    return await asyncio.to_thread(status_of, address, path) == expected


async def health_address(worker: WorkerProcess) -> str:
    await wait_until(lambda: bool(worker.logged("metrics and health")), "the address")
    (line,) = worker.logged("metrics and health")
    return str(line["address"])


@pytest.mark.slow
async def test_a_broker_that_goes_and_comes_back_costs_a_pause_and_nothing_else(
    mortal_broker: LocalBroker, own_settings: Settings, workers: WorkerPool
) -> None:
    settings = own_settings
    address_before = mortal_broker.bootstrap_servers
    worker = workers.start(
        settings, RMOS_METRICS_PORT="0", RMOS_BROKER_PAUSE_SECONDS=str(PAUSE_SECONDS)
    )
    health = await health_address(worker)
    await wait_until(lambda: is_status(health, "/health/ready", 200), "ready")
    await produce(settings, (sending(run_request(run_id=f"run_{n}")) for n in range(3000)))
    await wait_until(lambda: bool(worker.logged("batch stored")), "a batch in hand")
    # As a crash of its machine, in the middle of a batch.
    mortal_broker.kill()
    await wait_until(lambda: is_status(health, "/health/ready", 503), "not ready")
    assert await is_status(health, "/health/live", 200)
    worker.check()

    await asyncio.to_thread(mortal_broker.start)
    assert mortal_broker.bootstrap_servers == address_before
    await wait_until_consumed(settings, check=worker.check)
    await wait_until(lambda: is_status(health, "/health/ready", 200), "ready again")
    await produce(settings, (sending(run_request(run_id=f"run_{n}")) for n in range(3000, 3200)))
    await wait_until_consumed(settings, check=worker.check)

    # In order, while the worker has nothing to do.
    await asyncio.to_thread(mortal_broker.stop)
    await wait_until(lambda: is_status(health, "/health/ready", 503), "not ready")
    await asyncio.to_thread(mortal_broker.start)
    await produce(settings, (sending(run_request(run_id=f"run_{n}")) for n in range(3200, 3300)))
    await wait_until_consumed(settings, check=worker.check)
    await wait_until(lambda: is_status(health, "/health/ready", 200), "ready again")
    assert await worker.stop() == 0

    audit = await audit_store(settings)
    audit.assert_whole()
    assert audit.outcomes() == {"persisted": 3300}
    assert_no_tight_loop(worker)


def assert_no_tight_loop(worker: WorkerProcess) -> None:
    put_off = [datetime.fromisoformat(line["timestamp"]) for line in worker.logged("batch put off")]
    for earlier, later in pairwise(put_off):
        assert (later - earlier).total_seconds() >= PAUSE_SECONDS
    # Nor does anything else tell of every attempt.
    warnings = [line for line in worker.log_lines() if line["event"] != "batch stored"]
    assert len(warnings) < 60, warnings


@pytest.mark.parametrize(
    "fault",
    [
        KafkaConnectionError(),
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in (RequestTimedOutError(), NotEnoughReplicasError(), OSError("reset"))
        ),
    ],
    ids=lambda fault: type(fault).__name__,
)
async def test_events_that_are_not_confirmed_put_the_batch_off_and_are_reported_again(
    store_settings: Settings, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    settings = store_settings.model_copy(update={"broker_pause_seconds": 0.2})
    confirm = sender.send_partition
    failures, confirmed, offsets_when_failing = [0], [0], []

    async def failing(*args: Any) -> list[int]:
        # The third queue of a batch fails: some events of the batch are there, others are not.
        failures[0] += 1
        if failures[0] in {3, 6, 9}:
            offsets_when_failing.append((sum((await committed(settings)).values()), confirmed[0]))
            raise fault
        sent = await confirm(*args)
        confirmed[0] += len(sent)
        return sent

    monkeypatch.setattr(sender, "send_partition", failing)
    requests = [run_request(run_id=f"run_{number}") for number in range(400)]
    await produce(settings, map(sending, requests))
    with capture_logs() as logged:
        async with persist_worker(settings) as worker:
            await wait_until_consumed(settings)
            assert not worker.faults[0].done()
    put_off = [line for line in logged if line["event"] == "batch put off"]
    assert 1 <= len(put_off) <= 3
    assert all(settings.bootstrap_servers in line["why"] for line in put_off)
    # No offset is committed before its event is confirmed.
    assert all(offsets <= events for offsets, events in offsets_when_failing)
    audit = await audit_store(settings)
    audit.assert_whole()
    assert audit.outcomes() == {"persisted": 400}
    assert max(map(len, audit.events.values())) >= 2


async def test_workers_pause_with_jitter_and_not_in_step() -> None:
    loop = asyncio.get_running_loop()
    backoff, taken = Backoff(0.02), []
    for _ in range(10):
        start = loop.time()
        await backoff.rest()
        taken.append(loop.time() - start)
    assert min(taken) >= 0.02
    assert len({round(each, 3) for each in taken}) > 1
