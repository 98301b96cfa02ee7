"""Workers and brokers that die, halt, join and leave: nothing is lost, doubled or torn."""

import asyncio
import os
import random
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest

from pipeline.app.persist import persist_worker
from pipeline.broker.admin.groups import group_members
from pipeline.disk.store_identity import read_store
from pipeline.settings import Settings
from tests.builders import run_request
from tests.e2e.kafka_reading import (
    SHORT_SESSION_MS,
    Sending,
    commit,
    group_consumer,
    partitions_of,
    produce,
    producer_of,
    sending,
    wait_until,
    wait_until_consumed,
)
from tests.e2e.prepared_store import prepare_store
from tests.e2e.store_audit import StoreAudit, audit_store, store_files
from tests.e2e.worker_processes import REPOSITORY, WorkerPool, WorkerProcess, only_sentence
from tests.e2e.worker_stopped_at import RECORDS_OF_A_STEP, STEPS, records_of
from tests.ledger.ledgers import on_disk

pytestmark = pytest.mark.e2e

FEWER_IN_FLIGHT = {
    "polled",
}
"""Steps at which fewer than three chunks may be in flight."""

DRIVER = [sys.executable, "-m", "tests.e2e.worker_stopped_at"]


def runs(count: int, start: int = 0) -> Iterator[Sending]:
    return (sending(run_request(run_id=f"run_{n}")) for n in range(start, start + count))


ORPHAN = """
import multiprocessing, os, signal, sys, time
from pathlib import Path
from pipeline.consumers.engine.child_process import init_child

def begin_late(folder):
    worker = os.getppid()
    (folder / "pid").write_text(str(os.getpid()))
    while os.getppid() == worker:
        time.sleep(0.01)
    init_child()
    (folder / "went on").touch()
    time.sleep(60)

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    multiprocessing.get_context("spawn").Process(target=begin_late, args=[folder]).start()
    while not (folder / "pid").exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
"""
"""A worker that is killed before its child process has told the kernel that it depends on it."""


@asynccontextmanager
async def load(settings: Settings, *, per_second: float = 600) -> AsyncIterator[list[int]]:
    """Send runs while a block works, without a pause; give a list that holds their number."""
    sent, stop = [0], asyncio.Event()

    async def send() -> None:
        async with producer_of(settings) as producer:
            while not stop.is_set():
                lot = list(runs(50, sent[0]))
                futures = [
                    await producer.send(
                        settings.topics.run_requests, key=each.key, value=each.value
                    )
                    for each in lot
                ]
                await asyncio.gather(*futures)
                sent[0] += len(lot)
                # The pace of a busy shop, so that a batch stays of a size that a test can meet.
                await asyncio.sleep(len(lot) / per_second)

    task = asyncio.create_task(send())
    try:
        yield sent
    finally:
        stop.set()
        await task


async def assert_all_stored(settings: Settings, count: int) -> StoreAudit:
    audit = await audit_store(settings)
    audit.assert_whole()
    assert len(audit.requests) == count
    assert audit.rows.keys() == {f"run_{number}" for number in range(count)}
    assert audit.outcomes() == {"persisted": count}
    return audit


async def wait_until_committed(settings: Settings, count: int, check: Callable[[], None]) -> None:
    """Wait until the group has committed `count` records in all."""
    async with group_consumer(settings) as consumer:
        places = partitions_of(settings, settings.topics.run_requests)

        async def is_committed() -> bool:
            check()
            offsets = [await consumer.committed(place) or 0 for place in places]
            return sum(offsets) >= count

        await wait_until(is_committed, f"{count} records committed")


@pytest.mark.slow
async def test_twenty_kills_at_random_moments_lose_and_double_nothing(
    store_settings: Settings, workers: WorkerPool
) -> None:
    rng, total = random.Random(20), 6_000
    settings = store_settings

    def start(number: int) -> WorkerProcess:
        # A static member takes its partitions back at once, so a kill costs no session time-out.
        return workers.start(settings, "--instance", f"worker-{number}")

    living = [start(0), start(1)]
    kills = 0
    async with load(settings) as sent:
        while kills < 20 or sent[0] < total:
            # Also while it starts, joins, or has nothing to do.
            await asyncio.sleep(rng.uniform(0.1, 0.8))
            if kills < 20:
                victim = rng.randrange(2)
                living[victim].check()
                living[victim].kill()
                living[victim] = start(victim)
                kills += 1

    def check() -> None:
        for worker in living:
            worker.check()

    await wait_until_consumed(settings, check=check)
    for worker in living:
        assert await worker.stop() == 0
    assert kills == 20
    assert sent[0] >= total
    await wait_until(lambda: not children_of_workers(settings), "no child process is left")
    audit = await assert_all_stored(settings, sent[0])
    await assert_as_uninterrupted(settings, audit)


async def assert_as_uninterrupted(settings: Settings, audit: StoreAudit) -> None:
    """Compare files and logs with those of one worker that reads the topic in one go."""
    identity = read_store(settings.data_dir)
    again = settings.model_copy(update={"data_dir": settings.data_dir.with_name("uninterrupted")})
    prepare_store(again, identity.cluster_id, store_id=identity.store_id)

    async def is_empty() -> bool:
        # A static member stays one until its session ends.
        return await group_members(settings, settings.topics.persist_group) == []

    await wait_until(is_empty, "the group has no members")
    await commit(again, dict.fromkeys(range(12), 0))
    async with persist_worker(again):
        await wait_until_consumed(again)
    assert store_files(again.data_dir) == audit.files
    assert on_disk(again.data_dir) == on_disk(settings.data_dir)


def children_of_workers(settings: Settings) -> list[int]:
    """Return the child processes that workers over this store have started and that still run."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("RMOS_DATA_DIR") == str(settings.data_dir):
                found.append(process.pid)
    return found


async def test_a_child_process_whose_worker_was_killed_before_it_began_ends_by_itself(
    settings_without_topics: Settings, workers: WorkerPool, tmp_path: Path
) -> None:
    program = tmp_path / "orphan.py"
    program.write_text(ORPHAN, encoding="utf-8")
    command = [sys.executable, str(program), str(tmp_path)]
    worker = workers.run(command, settings_without_topics, PYTHONPATH=str(REPOSITORY))
    assert await worker.ended() == -signal.SIGKILL
    child = int((tmp_path / "pid").read_text(encoding="utf-8"))
    try:
        await wait_until(lambda: not psutil.pid_exists(child), "the child process ended")
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    assert not (tmp_path / "went on").exists()


async def test_a_child_process_that_is_killed_ends_its_worker_with_one_sentence(
    store_settings: Settings, workers: WorkerPool
) -> None:
    settings = store_settings

    def large_batch(name: str) -> list[Sending]:
        return [sending(run_request(run_id=f"{name}_{n}"), partition=0) for n in range(200)]

    worker = workers.start(settings)
    await worker.wait_until_started()
    await produce(settings, large_batch("first"))
    await wait_until_consumed(settings, check=worker.check)
    (child,) = psutil.Process(worker.pid).children()
    child.kill()
    await produce(settings, large_batch("second"))
    assert await worker.ended() == 6
    said = only_sentence(worker.text)
    assert "was killed, most likely for want of memory; nothing was acknowledged" in said
    assert not worker.logged("batch failed")
    async with persist_worker(settings):
        await wait_until_consumed(settings)
    audit = await audit_store(settings)
    audit.assert_whole()
    assert len(audit.rows) == 400


@pytest.mark.slow
async def test_a_kill_between_any_two_steps_of_a_batch_repeats_work_and_loses_nothing(
    store_settings: Settings, workers: WorkerPool
) -> None:
    settings = store_settings
    # What a step left is the next one's first batch, beside records of its own.
    short = str(SHORT_SESSION_MS)
    driver = workers.fork([*DRIVER, "SIGKILL", *STEPS], settings, RMOS_SESSION_TIMEOUT_MS=short)
    assert await driver.ended(seconds=120) == 0
    ends = [line for line in driver.text.splitlines() if line.partition(":")[0] in STEPS]
    assert ends == [f"{step}: {-signal.SIGKILL}" for step in STEPS], driver.text
    chunks = map(int, re.findall(r"(\d) chunks in flight", driver.text))
    in_flight = dict(zip(STEPS, chunks, strict=True))
    assert {step for step, count in in_flight.items() if count < 3} <= FEWER_IN_FLIGHT, in_flight
    # Let no restart depend on a committed offset that the last step left behind.
    await produce(settings, records_of("restarted"))
    async with persist_worker(settings):
        await wait_until_consumed(settings)
    audit = await audit_store(settings)
    audit.assert_whole()
    steps = len(STEPS) + 1
    assert audit.outcomes() == {
        "persisted": steps * (RECORDS_OF_A_STEP + 2),
        "duplicate": steps,
        "conflict": steps,
        "INVALID_JSON": steps,
        "TOMBSTONE": steps,
    }
    # The steps after the events were sent make them be sent again.
    assert max(map(len, audit.events.values())) >= 2
    assert max(map(len, audit.letters.values())) >= 2
    await assert_as_uninterrupted(settings, audit)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["judged", "to be published", "to be committed"])
async def test_a_worker_that_halts_until_another_took_over_changes_nothing(
    store_settings: Settings, workers: WorkerPool, step: str
) -> None:
    settings = store_settings
    short = str(SHORT_SESSION_MS)
    driver = workers.fork([*DRIVER, "SIGSTOP", step], settings, RMOS_SESSION_TIMEOUT_MS=short)
    (zombie,) = await halted_children(driver)
    rescuer = workers.start(settings)
    # As soon as the session time-out has passed.
    await wait_until_consumed(settings, check=rescuer.check)
    before = (await audit_store(settings)).files
    zombie.send_signal(signal.SIGCONT)
    await produce(settings, runs(400))
    await wait_until_consumed(settings, check=rescuer.check)
    # It has taken part again before it goes.
    await wait_until(lambda: driver.text.count("batch stored") >= 1, "the zombie's batch")
    zombie.send_signal(signal.SIGTERM)
    assert await driver.ended() == 0
    assert f"{step}: 0" in driver.text
    assert await rescuer.stop() == 0
    audit = await audit_store(settings)
    audit.assert_whole()
    assert audit.outcomes()["persisted"] == RECORDS_OF_A_STEP + 2 + 400
    assert before.items() <= audit.files.items()


async def halted_children(driver: WorkerProcess) -> list[psutil.Process]:
    parent = psutil.Process(driver.pid)

    def halted() -> list[psutil.Process]:
        driver.check()
        children = parent.children()
        return [each for each in children if each.status() == psutil.STATUS_STOPPED]

    await wait_until(lambda: bool(halted()), "a worker that halts")
    return halted()


@pytest.mark.slow
async def test_a_second_worker_that_joins_and_leaves_under_load_changes_nothing(
    store_settings: Settings,
) -> None:
    settings = store_settings
    async with persist_worker(settings) as first:
        async with load(settings) as sent:
            await wait_until_committed(settings, 200, lambda: None)
            for _ in range(2):
                async with persist_worker(settings) as second:
                    await wait_until(
                        lambda: (
                            len(first.subscription.assigned) == 6
                            and len(second.subscription.assigned) == 6
                        ),
                        "six partitions each",
                    )
                    await wait_until_committed(settings, sent[0], lambda: None)
                await wait_until(
                    lambda: len(first.subscription.assigned) == 12, "all partitions back"
                )
        await wait_until_consumed(settings)
        assert not any(fault.done() for fault in first.faults)
    audit = await assert_all_stored(settings, sent[0])
    # Each batch in hand was finished before its partitions went: nothing was told twice.
    assert {len(each) for each in audit.events.values()} == {1}


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
async def test_a_signal_in_the_middle_of_a_load_stops_in_order_and_loses_nothing(
    store_settings: Settings, workers: WorkerPool, number: signal.Signals
) -> None:
    settings = store_settings
    worker = workers.start(settings, RMOS_SESSION_TIMEOUT_MS="300000")
    async with load(settings) as sent:
        await wait_until_committed(settings, 500, worker.check)
        assert await worker.stop(number) == 0
    assert worker.log_lines()[-1]["event"] == "persist worker stopped"
    # It has left the group, so its successor need not wait for a time-out.
    async with persist_worker(settings):
        await wait_until_consumed(settings)
    audit = await audit_store(settings)
    audit.assert_whole()
    assert audit.outcomes() == {"persisted": sent[0]}
    # A clean stop commits what it has told: nothing is told twice.
    assert {len(each) for each in audit.events.values()} == {1}
