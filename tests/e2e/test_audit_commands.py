"""`rmos audit run` and `rmos worker audit` as a shell sees them."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from pipeline.broker.local.broker import LocalBroker
from pipeline.settings import Settings
from tests.e2e import audits
from tests.e2e.audits import ask, asking, audit_request, auditing
from tests.e2e.commands import Ended, rmos_forked
from tests.e2e.kafka_reading import produce, wait_until, wait_until_consumed
from tests.e2e.worker_processes import RMOS, WorkerPool, worker_environment

pytestmark = [pytest.mark.e2e, pytest.mark.every_topic]


@pytest.fixture
async def store(broker: LocalBroker, tmp_path: Path) -> AsyncIterator[Settings]:
    async with audits.store_to_audit(broker, tmp_path) as settings:
        yield settings


async def rmos(settings: Settings, *arguments: str) -> Ended:
    return await asyncio.to_thread(rmos_forked, worker_environment(settings), *arguments)


async def test_a_clean_store_ends_with_0_and_its_report_can_be_printed(store: Settings) -> None:
    async with auditing(store):
        done = await rmos(store, "audit", "run", "--audit-id", "a1")
    assert done.status == 0, done.err
    assert "INTEGRITY\tok\t" in done.out
    assert done.err == "audit a1\n"
    printed = await rmos(store, "audit", "report", "a1")
    assert printed.status == 0
    assert printed.out == done.out


async def test_a_flipped_bit_ends_with_5_and_a_line_that_names_the_path(store: Settings) -> None:
    damaged = audits.stored_runs(store)[2]
    audits.flip(damaged)
    path = damaged.relative_to(store.data_dir).as_posix()
    async with auditing(store):
        done = await rmos(store, "audit", "run", "--audit-id", "a1")
        again = await rmos(store, "audit", "run", "--audit-id", "a1", "--json")
        one_run = ("--run-id", damaged.stem, "--mode", "full", "--json")
        of_one = await rmos(store, "audit", "run", *one_run)
        other = await rmos(store, "audit", "run", "--audit-id", "a1", "--mode", "quick")
    assert done.status == 5
    assert done.out.startswith(f"error  BYTES_DIFFER  {path}: expected SHA-256 ")
    # An audit that is done tells no finding again, but what came of it.
    assert again.status == 5
    (summary,) = map(json.loads, again.out.splitlines())
    assert summary["summary"]["codes"] == {"BYTES_DIFFER": 1}
    assert of_one.status == 5
    finding, summary = map(json.loads, of_one.out.splitlines())
    assert finding["path"] == path
    assert summary["summary"]["scope"] == {"run_ids": [damaged.stem]}
    assert other.status == 4
    assert "AUDIT_CONFLICT: " in other.err
    assert other.out == ""


async def test_without_a_worker_it_ends_with_6_and_the_request_stays(store: Settings) -> None:
    done = await rmos(store, "audit", "run", "--audit-id", "a1", "--timeout", "2")
    assert done.status == 6
    assert "The audit a1 has no report after 2 s." in done.err
    assert "Traceback" not in done.err
    async with auditing(store):
        (report,) = await audits.wait_for_reports(store)
    assert report.audit_id == "a1"


async def test_a_worker_process_audits_on_schedule_is_ready_and_stops_in_order(
    store: Settings, workers: WorkerPool
) -> None:
    environment = {"RMOS_AUDIT_DAILY_AT": "-1", "RMOS_METRICS_PORT": "0"}
    worker = workers.fork([str(RMOS), "worker", "audit"], store, **environment)
    await wait_until(lambda: bool(worker.logged("metrics and health")), "the worker started")
    (report, *_) = await audits.wait_for_reports(store)
    assert report.audit_id.startswith("hourly-")
    assert report.codes == {}
    address = worker.logged("metrics and health")[0]["address"]

    async def is_ready() -> bool:
        ready = await asyncio.to_thread(_get, f"http://{address}/health/ready")
        return '"ready": true' in ready

    await wait_until(is_ready, "it is ready")
    metrics = await asyncio.to_thread(_get, f"http://{address}/metrics")
    assert 'rmos_audits_total{mode="quick",result="ok",verdict="integrity"} 1.0' in metrics
    assert 'rmos_last_clean_audit_timestamp_seconds{mode="quick"}' in metrics
    await ask(store, asking(audit_request("a1")))
    await audits.wait_for_reports(store, 2)
    assert await worker.stop() == 0
    assert worker.log_lines()[-1]["event"] == "audit worker stopped"


async def test_all_workers_in_one_process_store_audit_and_stop_in_order(
    store: Settings, workers: WorkerPool
) -> None:
    worker = workers.fork(
        [str(RMOS), "worker", "all"], store, RMOS_AUDIT_DAILY_AT="-1", RMOS_AUDIT_HOURLY="false"
    )
    await wait_until(lambda: bool(worker.logged("audit worker started")), "all have started")
    await produce(store, audits.requests(9)[6:])
    await wait_until_consumed(store)
    await ask(store, asking(audit_request("a1", mode="quick")))
    (report,) = await audits.wait_for_reports(store)
    assert report.codes == {}
    assert report.counts.artifacts == 9
    assert await worker.stop() == 0
    stopped = {line["event"] for line in worker.log_lines()}
    assert {f"{name} worker stopped" for name in ("persist", "advise", "audit")} <= stopped


def _get(url: str) -> str:
    return httpx.get(url).text
