"""A real Prometheus scrapes a real worker and a real API, and answers what board and alerts ask."""

import math
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from pipeline.broker.local.broker import LocalBroker
from pipeline.settings import Settings
from tests.builders import advisory_request, encode, run_request
from tests.docs.test_alerts import DOCS, RULES
from tests.docs.test_board import expressions
from tests.e2e.api_service import JSON, RUNS
from tests.e2e.audits import ask, asking, at, audit_request, flip, stored_runs, wait_for_reports
from tests.e2e.kafka_reading import (
    Sending,
    new_settings,
    produce,
    sending,
    topics_and_store,
    wait_until,
)
from tests.e2e.prometheus import MISSING, WHY_NOT, Prometheus, node_exporter, prometheus
from tests.e2e.worker_processes import RMOS, WorkerPool, WorkerProcess

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=WHY_NOT),
]

_SELECTOR = re.compile(r"\b(?:rmos|node|up)[a-z_]*(?:\{[^}]*\})?")

AT_A_FAULT = {
    "rmos_render_drift_total",
    'rmos_dead_letters_total{code="INTERNAL_ERROR"}',
    "rmos_unreadable_batches_total",
    "rmos_not_ready_reasons",
    'rmos_faults_total{side="broker"}',
    'rmos_http_requests_total{status=~"50[37]"}',
}
"""What has a series only from a fault on that this test does not bring about."""

FIRING = {
    *("RmosArtifactCorrupt", "RmosApiFails", "RmosConflict"),
    *("RmosDeadLetters", "RmosAdvisoryWithoutRun"),
}
"""Alerts whose fault it brings about."""


@pytest.fixture
async def settings(broker: LocalBroker, tmp_path: Path) -> AsyncIterator[Settings]:
    changes = {"audit_daily_at": -1, "audit_hourly": False, "advisory_wait_seconds": 0}
    settings = new_settings(broker, tmp_path / "store", **changes)
    async with topics_and_store(broker, settings):
        yield settings


@pytest.mark.slow
async def test_board_and_alerts_ask_for_what_is_measured(
    settings: Settings, workers: WorkerPool, tmp_path: Path
) -> None:
    unscheduled = {"RMOS_AUDIT_DAILY_AT": "-1", "RMOS_AUDIT_HOURLY": "false"}
    worker = workers.fork(
        [str(RMOS), "worker", "all"],
        settings,
        RMOS_METRICS_PORT="0",
        RMOS_ADVISORY_WAIT_SECONDS="0",
        **unscheduled,
    )
    api = workers.fork([str(RMOS), "api"], settings, RMOS_API_PORT="0")
    api_address = await logged_address(api, "api started")
    with node_exporter(tmp_path) as node:
        targets = {
            "rmos-worker": await logged_address(worker, "metrics and health"),
            "rmos-api": api_address,
            "node": node,
        }
        rules = here((DOCS / "alerts.yaml").read_text(encoding="utf-8"), settings)
        async with prometheus(tmp_path / "prometheus", targets, rules) as asked:
            # After the first scrape: a rate needs a value before.
            await bring_about(settings, f"http://{api_address}")
            await wait_until_answered(asked, settings)
            await wait_until_fired(asked)
            for group in (await asked.ask("rules"))["groups"]:
                assert [rule["name"] for rule in group["rules"]] == [r["alert"] for r in RULES]
                assert {rule["health"] for rule in group["rules"]} == {"ok"}
            names = {name.removesuffix("_total") for name in await asked.ask("metadata")}
            for selector in AT_A_FAULT:
                assert selector.partition("{")[0].removesuffix("_total") in names, selector
    assert await api.stop() == 0
    assert await worker.stop() == 0


async def logged_address(process: WorkerProcess, event: str) -> str:
    def is_logged() -> bool:
        process.check()
        return bool(process.logged(event))

    await wait_until(is_logged, event)
    return str(process.logged(event)[0]["address"])


def here(text: str, settings: Settings) -> str:
    """Return an expression of a document with the names of this test's groups and volume."""
    volume = next(each for each in settings.data_dir.resolve().parents if each.is_mount())
    text = text.replace('group="rmos.', f'group="{settings.prefix}.')
    return text.replace('"/srv/rmos"', f'"{volume}"').replace('"$mountpoint"', f'"{volume}"')


async def bring_about(settings: Settings, api: str) -> None:
    """Let runs be stored, refused and in conflict, audited and clean; then damage one."""
    now = {"created_at_utc": at(datetime.now(UTC))}
    runs = [run_request(run_id=f"run_{number}", **now) for number in range(200)]
    await produce(settings, map(sending, runs))
    async with httpx.AsyncClient(base_url=api, timeout=60) as http:
        posted = await http.post(
            RUNS, content=encode(run_request(run_id="run_x", **now)), headers=JSON
        )
        assert posted.status_code == 201, posted.text
        changed = runs[0] | {"mode": "other"}
        await produce(settings, [sending(changed), Sending(b"bad", b"{")])
        lost = Sending(b"run_none", encode(advisory_request(run_id="run_none")))
        await produce(settings, [lost], topic=settings.topics.advisory_requests)
        for mode in ("quick", "full"):
            await ask(settings, asking(audit_request(f"{mode}_1", mode=mode)))
        assert [each.codes for each in await wait_for_reports(settings, 2)] == [{}, {}]
        path = next(each for each in stored_runs(settings) if each.stem == "run_1")
        flip(path)
        await produce(settings, [sending(runs[1])])
        assert (await http.get(f"{RUNS}/run_1")).status_code == 500


async def wait_until_answered(asked: Prometheus, settings: Settings) -> None:
    """Wait until every expression has data: of the board whole, of alerts what they look at."""
    wanted = {here(expression, settings) for _, expression in expressions()}
    watched = {each for rule in RULES for each in _SELECTOR.findall(rule["expr"])}
    assert watched >= AT_A_FAULT
    wanted |= {here(each, settings) for each in watched - AT_A_FAULT}

    async def all_answered() -> bool:
        for each in sorted(wanted):
            values = await asked.values(each)
            # Of a series with one value there is no rate, and a mean of nothing is no number. Where
            # a file system has no fixed number of inodes, nothing is a part of nothing.
            if values and ("inodes" in each or not all(map(math.isnan, values))):
                wanted.remove(each)
        return not wanted

    try:
        await wait_until(all_answered, "every expression has data")
    except AssertionError as error:
        error.add_note(f"without: {sorted(wanted)}")
        raise


async def wait_until_fired(asked: Prometheus) -> None:
    async def have_fired() -> bool:
        return await asked.firing() >= FIRING

    await wait_until(have_fired, "the alerts fire")
    assert await asked.firing() <= FIRING
