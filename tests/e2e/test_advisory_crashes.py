"""Advise workers that die between any two steps: nothing is lost, doubled or torn."""

import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

from pipeline.app.advise import advise_worker
from pipeline.app.persist import persist_worker
from pipeline.broker.local.broker import LocalBroker
from tests.builders import sha256
from tests.e2e.advise_stopped_at import LINKED_OF_A_STEP, STEPS, records_of
from tests.e2e.advisories import (
    dead_letter_headers,
    links,
    outcomes,
    run_of,
    store_of,
    wait_until_persisted,
)
from tests.e2e.kafka_reading import Place, produce, read_topic, wait_until
from tests.e2e.log_audit import audit_logs
from tests.e2e.worker_processes import WorkerPool
from tests.storage.stores import rows

pytestmark = pytest.mark.e2e

DRIVER = [sys.executable, "-m", "tests.e2e.advise_stopped_at"]


@pytest.mark.slow
async def test_a_kill_between_any_two_steps_repeats_work_and_loses_nothing(
    broker: LocalBroker, tmp_path: Path, workers: WorkerPool
) -> None:
    wait_seconds = 0.2
    async with store_of(broker, tmp_path / "s", wait_seconds) as settings:
        async with persist_worker(settings):
            await produce(settings, [run_of("run_1")])
            await wait_until_persisted(settings, 1)
        async with persist_worker(settings):
            driver = workers.fork(
                [*DRIVER, "SIGKILL", *STEPS], settings, RMOS_ADVISORY_WAIT_SECONDS=str(wait_seconds)
            )
            assert await driver.ended(seconds=240) == 0
        ends = [line for line in driver.text.splitlines() if line.partition(":")[0] in STEPS]
        assert ends == [f"{step}: {-signal.SIGKILL}" for step in STEPS], driver.text
        runs = [record.key.decode() for step in STEPS for record in records_of(step) if record.key]
        wanted = len(STEPS) * (LINKED_OF_A_STEP + 1)
        async with persist_worker(settings), advise_worker(settings):
            await produce(settings, map(run_of, sorted(set(runs))))
            sent = await read_topic(settings, settings.topics.advisory_requests)

            async def is_whole() -> bool:
                told = await outcomes(settings)
                last = [events[-1].outcome for events in told.values()]
                linked = sum(
                    any(event.outcome == "linked" for event in events) for events in told.values()
                )
                return len(last) == len(sent) and linked == wanted

            await wait_until(is_whole, "every record told, every claim linked")
        found = links(settings)
        assert len(found) == wanted
        table = rows(settings.data_dir)["advisories"]
        assert len(table) == wanted
        for row in table:
            content = (settings.data_dir / row["link_path"]).read_bytes()
            assert sha256(content) == row["link_sha256"]
        kinds = Counter(
            event.outcome
            for events in (await outcomes(settings)).values()
            for event in events
            if event.error is None or event.error.code != "RUN_NOT_FOUND"
        )
        steps = len(STEPS)
        assert kinds["linked"] == wanted
        assert kinds["duplicate"] == 2 * steps
        assert kinds["conflict"] == kinds["rejected"] == steps
        letters = await read_topic(settings, settings.topics.advisory_dead_letters)
        codes = {dead_letter_headers(each).error_code for each in letters}
        assert (
            {"ADVISORY_CONFLICT", "INVALID_JSON"}
            <= codes
            <= {
                "ADVISORY_CONFLICT",
                "INVALID_JSON",
                "RUN_NOT_FOUND",
            }
        )
        logs = audit_logs(settings, settings.topics.advisory_requests)
        assert logs.faults == []
        assert logs.leaves.keys() == {Place(each.partition, each.offset) for each in sent}
        assert Counter(leaf["kind"] for leaf in logs.leaves.values()) == {
            "advisory": wanted,
            "duplicate": 2 * steps,
            "conflict": steps,
            "rejected": steps,
        }
        temporary = [path for path in settings.data_dir.iterdir() if path.suffix == ".tmp"]
        assert temporary == []
