"""A host dies, and another goes on with its volume: nothing is lost, doubled or torn.

And a host that is without its volume: its services refuse, and make nothing in the place of it.
"""

import asyncio
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree

import pytest

from pipeline.broker.local.broker import LocalBroker
from pipeline.disk.store_identity import read_store
from pipeline.settings import Settings
from tests.builders import run_request
from tests.disk.mounts import run_program
from tests.e2e.audits import auditing
from tests.e2e.commands import Ended, rmos_forked
from tests.e2e.kafka_reading import (
    SHORT_SESSION_MS,
    Sending,
    committed,
    produce,
    sending,
    wait_until,
    wait_until_consumed,
)
from tests.e2e.prepared_store import prepare_store
from tests.e2e.store_audit import audit_store, store_files
from tests.e2e.test_persist_crashes import assert_as_uninterrupted
from tests.e2e.volumes import BLOCK, FOLDER, BlockVolume, Volume, volume_of
from tests.e2e.worker_processes import (
    RMOS,
    WorkerPool,
    WorkerProcess,
    only_sentence,
    worker_environment,
)
from tests.e2e.worker_stopped_at import records_of

pytestmark = pytest.mark.e2e

NAME = "stopped"
"""Instance of every worker here, on whichever host; that of `worker_stopped_at` too."""

SESSION_MS = 300_000
"""Longer than a test waits: one in which a worker had to wait for the end of a session fails."""

DEATHS = (
    "written ahead",
    "contents flushed",
    "some linked",
    "names flushed",
    "some checkpoints in place",
    "rows inserted",
    "index committed",
    "some published",
    "second stored",
    "to be committed",
)


@dataclass(frozen=True)
class Host:
    """A host: an empty mount point and a folder of keys at first.

    Attributes:
        settings: Of its services; only the places of files differ from those of another host.
        pool: Where its processes run.
    """

    settings: Settings
    pool: WorkerPool

    @property
    def mount_point(self) -> Path:
        return self.settings.data_dir

    @property
    def key_file(self) -> Path:
        assert self.settings.ledger_key_file is not None
        return self.settings.ledger_key_file

    @property
    def changes(self) -> dict[str, str]:
        return {
            "RMOS_LEDGER_KEY_FILE": str(self.key_file),
            "RMOS_SESSION_TIMEOUT_MS": str(SESSION_MS),
            "RMOS_INSTANCE": NAME,
        }

    def worker(self, **changes: str) -> WorkerProcess:
        return self.pool.start(self.settings, **{**self.changes, **changes})

    def killed_at(self, step: str) -> WorkerProcess:
        """Send some records and start a worker that is killed at a step of a batch."""
        driver = [sys.executable, "-m", "tests.e2e.worker_stopped_at", "SIGKILL", step]
        return self.pool.fork(driver, self.settings, **self.changes)

    async def rmos(self, *words: str) -> Ended:
        environment = worker_environment(self.settings, **self.changes)
        return await asyncio.to_thread(rmos_forked, environment, *words)

    def take_key_of(self, other: "Host") -> None:
        """Have the key too, as it is prepared before a host dies."""
        copytree(other.key_file.parent, self.key_file.parent, dirs_exist_ok=True)


def host(folder: Path, settings: Settings, pool: WorkerPool) -> Host:
    places = {
        "data_dir": folder / "srv" / "rmos",
        "ledger_key_file": folder / "etc" / "rmos" / "ledger.pem",
    }
    found = Host(settings.model_copy(update=places), pool)
    found.mount_point.mkdir(parents=True)
    found.key_file.parent.mkdir(parents=True)
    return found


@pytest.fixture(params=[BLOCK, FOLDER])
def volume(request: pytest.FixtureRequest, tmp_path: Path, workers: WorkerPool) -> Iterator[Volume]:
    with volume_of(request.param, tmp_path) as made:
        yield made
        workers.kill_all()


@pytest.fixture
def block_volume(tmp_path: Path, workers: WorkerPool) -> Iterator[BlockVolume]:
    with volume_of(BLOCK, tmp_path) as made:
        assert isinstance(made, BlockVolume)
        yield made
        workers.kill_all()


@pytest.fixture
def old(settings: Settings, tmp_path: Path, workers: WorkerPool) -> Host:
    return host(tmp_path / "old", settings, workers)


@pytest.fixture
def other(settings: Settings, tmp_path: Path, workers: WorkerPool) -> Host:
    return host(tmp_path / "other", settings, workers)


def runs(count: int, start: int = 0) -> list[Sending]:
    return [sending(run_request(run_id=f"run_{n}")) for n in range(start, start + count)]


async def consume(at: Host, sendings: list[Sending]) -> None:
    """Let a worker of that host store some records, which then ends in order."""
    await produce(at.settings, sendings)
    worker = at.worker()
    await wait_until_consumed(at.settings, check=worker.check)
    assert await worker.stop() == 0


@pytest.mark.slow
@pytest.mark.every_topic
async def test_hosts_that_die_at_each_step_of_a_batch_leave_a_volume_to_go_on_with(
    broker: LocalBroker, old: Host, other: Host, volume: Volume
) -> None:
    here, there = old, other
    volume.attach(here.mount_point)
    prepare_store(here.settings, broker.cluster_id)
    there.take_key_of(here)
    trusted = there.mount_point.parent / "trusted"
    trusted.mkdir()
    for number, step in enumerate(DEATHS):
        worker = here.killed_at(step)
        # Each finishes first what the one before left, under its name and before its session ends.
        assert await worker.ended() == 0
        assert f"{step}: -{signal.SIGKILL.value}" in worker.text
        volume.host_dies()
        here, there = there, here
        assert list(there.mount_point.iterdir()) == []
        volume.attach(here.mount_point)
        if number in {5, len(DEATHS) - 1}:
            checkpoint = await here.rmos("ledger", "checkpoint")
            assert checkpoint.status == 0, checkpoint.err
            (trusted / f"after-{number}.txt").write_text(checkpoint.out, encoding="utf-8")

    last = here.worker(RMOS_SESSION_TIMEOUT_MS="6000")
    await wait_until_consumed(here.settings, check=last.check)
    assert await last.stop() == 0

    audit = await audit_store(here.settings)
    audit.assert_whole()
    records = [each for step in DEATHS for each in records_of(step)]
    assert len(audit.requests) == len(audit.events) == len(records)
    handed_out = sorted(trusted.iterdir())
    assert len(handed_out) == 2
    for taken in handed_out:
        verified = await here.rmos("ledger", "verify", "--trusted", str(taken))
        assert verified.status == 0, verified.out
    replayed = await here.rmos("replay", "verify", "--json")
    assert (replayed.status, replayed.summary["differs"]) == (0, False)
    unscheduled = {"audit_daily_at": -1, "audit_hourly": False}
    auditor = here.settings.model_copy(update={"audit_trusted_dir": trusted, **unscheduled})
    async with auditing(auditor):
        audited = await here.rmos("audit", "run", "--audit-id", "moved")
    for verdict in ("INTEGRITY", "COMPLETENESS", "ANCHORED"):
        assert f"\n{verdict}\tok\t" in audited.out
    # The requests of the tests are of last year.
    findings = [
        line for line in audited.out.splitlines() if line.startswith(("error ", "warning "))
    ]
    assert all(line.startswith("warning  LATE ") for line in findings), findings
    await assert_as_uninterrupted(here.settings, audit)


async def test_a_volume_that_was_unmounted_in_order_goes_on_at_another_host_under_another_name(
    broker: LocalBroker, old: Host, other: Host, volume: Volume
) -> None:
    volume.attach(old.mount_point)
    prepare_store(old.settings, broker.cluster_id)
    other.take_key_of(old)
    await produce(old.settings, runs(20))
    first = old.worker(RMOS_SESSION_TIMEOUT_MS=str(SHORT_SESSION_MS))
    await wait_until_consumed(old.settings, check=first.check)
    if isinstance(volume, BlockVolume):
        with pytest.raises(OSError, match="target is busy"):
            volume.detach()
    assert await first.stop() == 0
    volume.detach()
    if isinstance(volume, BlockVolume):
        assert not volume.needs_recovery
    volume.attach(other.mount_point)
    await produce(other.settings, runs(20, start=20))
    second = other.worker(RMOS_INSTANCE="another")
    await wait_until_consumed(other.settings, check=second.check)
    assert await second.stop() == 0
    (audit := await audit_store(other.settings)).assert_whole()
    assert audit.outcomes() == {"persisted": 40}


@pytest.mark.parametrize("volume", [FOLDER], indirect=True)
async def test_the_other_host_names_the_key_that_it_lacks_and_makes_no_second_one(
    broker: LocalBroker, old: Host, other: Host, volume: Volume
) -> None:
    volume.attach(old.mount_point)
    prepare_store(old.settings, broker.cluster_id)
    await consume(old, runs(20))
    volume.detach()
    volume.attach(other.mount_point)
    before = store_files(other.mount_point)
    worker = other.worker()
    assert await worker.ended() == 6
    assert only_sentence(worker.text).startswith(f"There is no ledger key at {other.key_file}: ")
    made = await other.rmos("ledger", "init")
    assert made.status == 6
    assert f"put that key back at {other.key_file}, or set RMOS_LEDGER_KEY_FILE" in made.err
    assert list(other.key_file.parent.iterdir()) == []
    assert store_files(other.mount_point) == before

    other.take_key_of(old)
    await consume(other, runs(10, start=20))
    (await audit_store(other.settings)).assert_whole()


SERVICES = (
    ("worker", "persist"),
    ("worker", "advisories"),
    ("worker", "audit"),
    ("worker", "all"),
    ("api",),
)
COMMANDS = (
    ("store", "status"),
    ("runs", "list"),
    ("index", "check"),
    ("index", "rebuild"),
    ("ledger", "init"),
    ("ledger", "checkpoint"),
    ("replay", "verify"),
    ("replay", "restore"),
    ("doctor",),
)


@pytest.mark.parametrize("words", [*SERVICES, *COMMANDS], ids=" ".join)
async def test_a_host_that_comes_back_without_its_volume_makes_nothing_in_its_place(
    settings_without_topics: Settings, tmp_path: Path, workers: WorkerPool, words: tuple[str, ...]
) -> None:
    back = host(tmp_path / "back", settings_without_topics, workers)
    environment = {**back.changes, "RMOS_API_PORT": "0"}
    process = workers.fork([str(RMOS), *words], back.settings, **environment)
    assert await process.ended() == 6
    assert f"There is no store at {back.mount_point}: mount its volume" in process.text
    assert list(back.mount_point.iterdir()) == []
    assert list(back.key_file.parent.iterdir()) == []


@pytest.mark.parametrize("volume", [FOLDER], indirect=True)
async def test_a_store_that_somebody_made_in_place_of_the_volume_is_not_taken(
    broker: LocalBroker, old: Host, volume: Volume
) -> None:
    volume.attach(old.mount_point)
    store_id = prepare_store(old.settings, broker.cluster_id).store_id
    await consume(old, runs(20))
    offsets = await committed(old.settings)
    volume.detach()
    made = await old.rmos("store", "init")
    assert made.status == 0, made.err
    assert read_store(old.mount_point).store_id != store_id
    worker = old.worker()
    assert await worker.ended() == 6
    said = only_sentence(worker.text)
    assert said.startswith("Expected the public key of ")
    assert f"found that of rmos/{store_id}: set RMOS_LEDGER_KEY_FILE" in said
    assert store_files(old.mount_point) == {}
    assert await committed(old.settings) == offsets


async def test_a_worker_whose_volume_is_taken_away_acknowledges_nothing_more(
    broker: LocalBroker, old: Host, other: Host, block_volume: BlockVolume
) -> None:
    """The provider detaches by force, and the host is not dead: every access fails from then on."""
    block_volume.attach(old.mount_point)
    prepare_store(old.settings, broker.cluster_id)
    other.take_key_of(old)
    living = old.worker()
    await produce(old.settings, runs(50))
    await wait_until_consumed(old.settings, check=living.check)
    offsets = await committed(old.settings)
    block_volume.fail()
    await produce(old.settings, runs(50, start=50))
    assert await living.ended() == 6
    said = [line for line in living.text.splitlines() if line.startswith("Error: ")]
    assert len(said) == 1
    assert "Input/output error" in said[0]
    assert "nothing was acknowledged" in said[0]
    assert await committed(old.settings) == offsets
    # Its supervisor starts it again, and again.
    again = old.worker()
    assert await again.ended() == 6
    assert "Input/output error at store.json" in only_sentence(again.text)
    block_volume.detach()
    assert "There is no store at" in only_sentence(await ended_text(old.worker()))

    block_volume.attach(other.mount_point)
    taking = other.worker()
    await wait_until_consumed(other.settings, check=taking.check)
    assert await taking.stop() == 0
    audit = await audit_store(other.settings)
    audit.assert_whole()
    assert audit.outcomes() == {"persisted": 100}


async def ended_text(worker: WorkerProcess) -> str:
    assert await worker.ended() == 6
    return worker.text


async def test_a_worker_whose_volume_was_unmounted_lazily_stores_nothing_beside_it(
    broker: LocalBroker, old: Host, block_volume: BlockVolume
) -> None:
    block_volume.attach(old.mount_point)
    prepare_store(old.settings, broker.cluster_id)
    worker = old.worker()
    await produce(old.settings, runs(50))
    await wait_until_consumed(old.settings, check=worker.check)
    offsets = await committed(old.settings)
    run_program("umount", "--lazy", str(old.mount_point))
    await produce(old.settings, runs(50, start=50))
    assert await worker.ended() == 6
    assert "nothing was acknowledged" in worker.text
    assert await committed(old.settings) == offsets
    # Only the empty file whose lock it took.
    assert [path.name for path in old.mount_point.rglob("*")] == ["index.lock"]


async def test_two_living_workers_with_one_name_disturb_each_other_and_lose_nothing(
    broker: LocalBroker, old: Host
) -> None:
    prepare_store(old.settings, broker.cluster_id)
    pair = [old.worker()]
    await pair[0].wait_until_started()
    pair.append(old.worker())
    await pair[1].wait_until_started()
    sent = 0

    async def is_disturbed() -> bool:
        nonlocal sent
        await produce(old.settings, runs(20, start=sent))
        sent += 20
        return all(worker.logged("offsets not committed") for worker in pair)

    await wait_until(is_disturbed, "each was pushed out")
    pair[0].kill()
    await wait_until_consumed(old.settings, check=pair[1].check)
    assert await pair[1].stop() == 0
    audit = await audit_store(old.settings)
    audit.assert_whole()
    assert audit.outcomes() == {"persisted": sent}
