"""What an operator sees of a worker: metrics, health and log lines."""

import asyncio
import json
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline import metrics
from pipeline.settings import Settings
from tests.builders import incomplete_request, run_request
from tests.e2e.kafka_reading import Sending, produce, sending, wait_until, wait_until_consumed
from tests.e2e.worker_processes import WorkerPool, WorkerProcess

pytestmark = pytest.mark.e2e

CHUNK_RECORDS = 512


def get(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def address_of(worker: WorkerProcess) -> str:
    await worker.wait_until_started()
    await wait_until(lambda: bool(worker.logged("metrics and health")), "the address")
    return str(worker.logged("metrics and health")[0]["address"])


async def test_metrics_health_and_log_of_a_worker(
    store_settings: Settings, workers: WorkerPool
) -> None:
    settings = store_settings
    worker = workers.start(settings, RMOS_METRICS_PORT="0")
    address = await address_of(worker)
    runs = [run_request(run_id=f"run_{number}") for number in range(2000)]
    await produce(
        settings,
        [
            *map(sending, runs),
            *map(sending, runs[:30]),
            *(sending(each | {"mode": "other"}) for each in runs[:20]),
            *(sending(incomplete_request(run_id=f"run_i_{n}")) for n in range(5)),
            *(Sending(f"bad_{number}".encode(), b"{") for number in range(10)),
        ],
    )
    await wait_until_consumed(settings, check=worker.check)

    async def is_ready() -> bool:
        status, text = await asyncio.to_thread(get, address, "/health/ready")
        document = json.loads(text)
        assert document["ready"] is (status == 200)
        assert document["ready"] is (all(document["checks"].values()) and not document["reasons"])
        return status == 200

    await wait_until(is_ready, "ready")
    assert await asyncio.to_thread(get, address, "/health/live") == (200, '{"live": true}')
    assert (await asyncio.to_thread(get, address, "/else"))[0] == 404

    async def lag_is_zero() -> bool:
        found = await samples(address)
        return found.get("rmos_consumer_lag_records") == 0

    await wait_until(lag_is_zero, "no lag")
    status, text = await asyncio.to_thread(get, address, "/metrics")
    families = {family.name for family in text_string_to_metric_families(text)}
    assert status == 200
    assert {family.name for family in metrics.REGISTRY.collect()} <= families
    found = await samples(address)
    assert found["rmos_records_total"] == 2065
    assert found["rmos_dead_letters_total"] == 30
    assert found["rmos_conflicts_total"] == 20
    assert found["rmos_assigned_partitions"] == 12
    assert found["rmos_batch_records_sum"] == 2065

    assert await worker.stop() == 0
    assert_sparse_json_log(worker, records=2065)


async def test_the_lag_of_a_partition_is_reported_by_the_worker_that_has_it_alone(
    store_settings: Settings, workers: WorkerPool
) -> None:
    first = workers.start(store_settings, RMOS_METRICS_PORT="0")
    address = await address_of(first)

    async def lags() -> int:
        _, text = await asyncio.to_thread(get, address, "/metrics")
        return text.count("\nrmos_consumer_lag_records{")

    async def tells_all() -> bool:
        return await lags() == 12

    async def tells_half() -> bool:
        return await lags() == 6

    await wait_until(tells_all, "all partitions")
    second = workers.start(store_settings)
    await second.wait_until_started()
    await wait_until(tells_half, "half of the partitions")
    assert await second.stop() == 0
    await wait_until(tells_all, "all partitions again")


async def samples(address: str) -> dict[str, float]:
    """Return the sum of each metric over its labels."""
    _, text = await asyncio.to_thread(get, address, "/metrics")
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


def assert_sparse_json_log(worker: WorkerProcess, *, records: int) -> None:
    lines = worker.log_lines()
    assert all({"event", "level", "timestamp"} <= line.keys() for line in lines)
    batches = worker.logged("batch stored")
    told = sum(
        line.get(kind, 0)
        for line in batches
        for kind in ("persisted", "duplicate", "conflict", "rejected")
    )
    assert told == records
    # One line for each chunk at most, and none for a record.
    assert len(batches) < records / 10
    assert len(lines) - len(batches) < 15, lines
    assert not [line for line in lines if "run_id" in line]


async def test_a_port_that_is_taken_is_one_sentence(
    store_settings: Settings, workers: WorkerPool
) -> None:
    port = store_settings.bootstrap_servers.rpartition(":")[2]
    worker = workers.start(store_settings, RMOS_METRICS_PORT=port)
    assert await worker.ended() == 2
    (said,) = [line for line in worker.text.splitlines() if not line.startswith("{")]
    assert "RMOS_METRICS_PORT" in said
