"""Two audit workers share one audit of the whole store; one of them is killed in the middle."""

import signal
from pathlib import Path

import pytest

from pipeline.broker.admin.groups import group_members
from pipeline.broker.local.broker import LocalBroker
from tests.e2e import audits
from tests.e2e.audits import ask, asking, audit_request, auditing
from tests.e2e.kafka_reading import wait_until
from tests.e2e.test_audit_crashes import DRIVER, told
from tests.e2e.worker_processes import WorkerPool

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ENVIRONMENT = {
    "RMOS_AUDIT_DAILY_AT": "-1",
    "RMOS_AUDIT_HOURLY": "false",
    "RMOS_AUDIT_PARTS": "3",
}


async def test_a_worker_that_is_killed_leaves_its_parts_to_the_other(
    broker: LocalBroker, tmp_path: Path, workers: WorkerPool
) -> None:
    async with audits.store_to_audit(broker, tmp_path) as settings:
        runs = audits.stored_runs(settings)
        audits.flip(runs[0])
        audits.flip(runs[-1])
        audits.flip(next((settings.data_dir / "quarantine").rglob("?" * 64)))
        killed = workers.fork([*DRIVER, "one day done"], settings, **ENVIRONMENT)
        shared = settings.model_copy(update={"audit_parts": 3})
        async with auditing(shared) as other:

            async def both_hold_partitions() -> bool:
                members = await group_members(settings, settings.topics.audit_group)
                return len(members) == 2 and len(other.subscription.assigned) in {1, 2}

            await wait_until(both_hold_partitions, "both have partitions")
            await ask(settings, asking(audit_request("a1")))
            assert await killed.ended(seconds=90) == -signal.SIGKILL
            await audits.wait_for_reports(settings)
        async with auditing(settings):
            places = await ask(settings, asking(audit_request("a2")))
            await audits.wait_until_committed(settings, places)
        published = await audits.reports(settings)
        assert len({each.model_dump_json() for each in published}) == 2, "one a whole audit"
        found = {each.audit_id: each for each in published}
        for name in ("codes", "counts", "logs"):
            assert told(found["a1"])[name] == told(found["a2"])[name]
        assert found["a1"].counts.findings == 3
        # What the killed one began was resumed by the other: the ledger was read again.
        parts = [audits.journal_lines(settings, f"a1.part-{n}-of-3") for n in (1, 2, 3)]
        done = [[line["done"] for line in lines if "done" in line] for lines in parts]
        assert sorted(each.count("ledger") for each in done) == [1, 1, 2]
        assert all(len(set(each)) == len(each) - each.count("ledger") + 1 for each in done)
