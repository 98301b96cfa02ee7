"""An audit that is killed goes on after the last whole part, and says the same in the end."""

import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.broker.local.broker import LocalBroker
from pipeline.settings import Settings
from schemas.audit_report import AuditReport
from tests.e2e import audits
from tests.e2e.auditor_killed_at import STEPS
from tests.e2e.audits import ask, asking, audit_request, auditing
from tests.e2e.kafka_reading import header_dict, read_topic
from tests.e2e.worker_processes import WorkerPool

pytestmark = pytest.mark.e2e

DRIVER = [sys.executable, "-m", "tests.e2e.auditor_killed_at"]
INSTANCE = "auditor"
"""A worker of the same name takes the place of the one that was killed, without a time-out."""

ENVIRONMENT = {
    "RMOS_AUDIT_DAILY_AT": "-1",
    "RMOS_AUDIT_HOURLY": "false",
    "RMOS_INSTANCE": INSTANCE,
}


@pytest.fixture
async def store(broker: LocalBroker, tmp_path: Path) -> AsyncIterator[Settings]:
    """Give a store with a fault on each of two dates, and one in the quarantine."""
    async with audits.store_to_audit(broker, tmp_path) as settings:
        runs = audits.stored_runs(settings)
        audits.flip(runs[0])
        audits.flip(runs[-1])
        audits.flip(next((settings.data_dir / "quarantine").rglob("?" * 64)))
        yield settings


def told(report: AuditReport) -> dict[str, Any]:
    return report.model_dump(exclude={"audit_id", "started_at_utc", "finished_at_utc"})


@pytest.mark.parametrize("step", STEPS)
async def test_killed_at_a_step_it_goes_on_after_the_last_whole_part(
    store: Settings, workers: WorkerPool, step: str
) -> None:
    await ask(store, asking(audit_request("a1")))
    killed = workers.fork([*DRIVER, step], store, **ENVIRONMENT)
    assert await killed.ended() == -signal.SIGKILL
    done = {line["done"] for line in audits.journal_lines(store) if "done" in line}
    async with auditing(store.model_copy(update={"instance": INSTANCE})):
        await audits.wait_for_reports(store)
        places = await ask(store, asking(audit_request("a2")))
        await audits.wait_until_committed(store, places)
    by_id = {each.audit_id: each for each in await audits.reports(store)}
    assert told(by_id["a1"]) == told(by_id["a2"])
    assert by_id["a1"].counts.findings == 3
    # What was done was not done again.
    lines = audits.journal_lines(store)
    parts = [line["done"] for line in lines if "done" in line]
    # The ledger is read by every audit that goes on; one that is done does not go on.
    twice = ["ledger"] if "ledger" in done and len(done) < 6 else []
    assert sorted(parts) == sorted([*set(parts), *twice])
    assert len(set(parts)) == 6
    assert sum("code" in line for line in lines) == 3
    # Told at least once, and to be told apart by the id.
    messages = await read_topic(store, store.topics.audit_findings)
    ids = {header_dict(each)["ce_id"] for each in messages if each.key == b"a1"}
    assert len(ids) == 3
