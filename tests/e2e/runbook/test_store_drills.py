"""Drills about disk, index, files and key, as `docs/runbook/store.md` has them."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.app.advise import advise_worker
from pipeline.app.persist import persist_worker
from pipeline.disk.locks import INDEX_LOCK
from pipeline.disk.store_identity import read_store
from tests.builders import advisory_request, attachment, record, red_request, run_request
from tests.disk.mounts import mounted, run_program, why_not
from tests.e2e.advisories import wait_for
from tests.e2e.kafka_reading import (
    Sending,
    commit,
    produce,
    sending,
    wait_until,
    wait_until_consumed,
)
from tests.e2e.runbook.drill import Drill
from tests.e2e.runbook.shop import change_a_byte, consume, runs
from tests.e2e.store_audit import audit_store, store_files
from tests.e2e.worker_processes import WITHOUT_RIGHTS

pytestmark = pytest.mark.e2e

PAGE = "store.md"
REASON = why_not()
needs_mount = pytest.mark.skipif(REASON is not None, reason=REASON or "")
DISK_BYTES = 6 * 1024 * 1024
ANOTHER_USER = 54_321


@needs_mount
async def test_the_disk_is_full(drill: Drill) -> None:
    drill.read(PAGE, "The disk is full")
    store = drill.settings.data_dir
    kept = shutil.move(store, store.with_name("kept"))
    with mounted(store, "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs"):
        shutil.copytree(kept, store, dirs_exist_ok=True)
        filler = store / "filler"
        space = os.statvfs(store)
        with filler.open("wb") as file:
            left_bytes = 1_000_000
            os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize - left_bytes)
        big = {"gcode_text": "G1 X1 Y1\n" * 2000}
        requests = (run_request(run_id=f"run_{n}", outputs=big) for n in range(200))
        await produce(drill.settings, map(sending, requests))
        drill.units.start("rmos-persist@1")
        await drill.units.ended("rmos-persist@1")
        await drill.you_see()
        filler.unlink()
        await drill.run()
        await drill.then()
        (await audit_store(drill.settings)).assert_whole()
        await drill.units.stop("rmos-persist@1")


@needs_mount
async def test_the_volume_is_not_mounted(drill: Drill) -> None:
    drill.read(PAGE, "The volume is not mounted")
    store = drill.settings.data_dir
    await consume(drill.settings, runs(10))
    drill.words["STORE_ID"] = read_store(store).store_id
    volume = shutil.move(store, store.with_name("volume"))
    store.mkdir()
    await produce(drill.settings, runs(10, start=10))
    drill.units.start("rmos-persist@1")
    assert await drill.units.ended("rmos-persist@1") == 6
    with ExitStack() as at_end:

        def mount() -> None:
            run_program("mount", "--bind", str(volume), str(store))
            at_end.callback(run_program, "umount", str(store))
            at_end.callback(drill.units.kill_all)

        drill.by_hand["mount /srv/rmos"] = mount
        await drill.you_see()
        assert list(store.iterdir()) == []
        await drill.run()
        await drill.then()
        (await audit_store(drill.settings)).assert_whole()


@pytest.mark.every_topic
async def test_the_index_is_missing_or_damaged(drill: Drill) -> None:
    drill.read(PAGE, "The index is missing or damaged")
    settings = drill.settings
    await consume(settings, runs(20))
    advisory = Sending(*record(advisory_request(run_id="run_3")))
    (place,) = await produce(settings, [advisory], topic=settings.topics.advisory_requests)
    async with advise_worker(settings):
        await wait_for(settings, place, "linked")
    before = store_files(settings.data_dir)
    for file in settings.data_dir.glob("index.sqlite3*"):
        file.unlink()
    await drill.you_see()
    await drill.run()
    await drill.then()
    assert store_files(settings.data_dir) == before


async def test_a_writer_waits_for_the_stores_lock(drill: Drill) -> None:
    drill.read(PAGE, "A writer waits for the store's lock")
    await consume(drill.settings, runs(10))
    with stopped_holder(drill.settings.data_dir / INDEX_LOCK) as pid:
        await wait_until(lambda: is_stopped(pid), "the lock is held")
        drill.words["HOLDER"] = str(pid)
        await produce(drill.settings, runs(10, start=10))
        drill.units.start("rmos-persist@1")
        await drill.you_see()
        await drill.run()
        await drill.then()
    await drill.units.stop("rmos-persist@1")


@contextmanager
def stopped_holder(lock: Path) -> Iterator[int]:
    """Start what takes a lock, is stopped, and ends once it may go on; give its number."""
    holder = subprocess.Popen(["flock", "--no-fork", lock, "sh", "-c", "kill -STOP $$"])
    try:
        yield holder.pid
    finally:
        holder.kill()
        holder.wait()


def is_stopped(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(") ")[2]
    return state.startswith("T")


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can give folders away"
)
async def test_a_command_was_run_as_root(drill: Drill) -> None:
    drill.read(PAGE, "A command was run as root")
    await consume(drill.settings, runs(10))
    # The test is the user of the store, with the rights of its owner alone; root is another.
    drill.units.wrapper = WITHOUT_RIGHTS
    drill.words |= {"-user rmos": "-user root", "chown -R rmos:": "chown -R root:"}
    os.chown(drill.settings.data_dir / "runs/2025-12-18", ANOTHER_USER, ANOTHER_USER)
    await produce(drill.settings, runs(10, start=10))
    drill.units.start("rmos-persist@1")
    await drill.units.ended("rmos-persist@1")
    await drill.you_see()
    await drill.run()
    await drill.then()
    await drill.units.stop("rmos-persist@1")


@pytest.mark.every_topic
async def test_files_that_nothing_explains(drill: Drill) -> None:
    drill.read(PAGE, "Files that nothing explains")
    settings = drill.settings
    await consume(settings, runs(20))
    before = store_files(settings.data_dir)
    folder = settings.data_dir / "runs/2025-12-18"
    added = (folder / "run_7.json").read_bytes().replace(b"run_7", b"run_x")
    (folder / "run_x.json").write_bytes(added)
    (folder / "run_x.json").chmod(0o444)
    with pytest.raises(AssertionError, match="run_x: no leaf and no record explains its file"):
        await drill.shell("rmos index rebuild")
    await drill.you_see()
    await drill.run()
    await drill.then()
    assert store_files(settings.data_dir) == before
    assert (settings.data_dir.parent / "evidence/run_x.json").read_bytes() == added


@pytest.mark.every_topic
async def test_an_artifact_is_not_what_was_written(drill: Drill) -> None:
    drill.read(PAGE, "An artifact is not what was written")
    await consume(drill.settings, runs(20))
    store = drill.settings.data_dir
    unexpected = store / "runs/2025-12-18/run_7.json"
    before = change_a_byte(unexpected)
    await drill.you_see()
    await drill.run()
    await drill.then()
    assert (store.parent / "evidence" / unexpected.name).read_bytes() == before


@pytest.mark.every_topic
async def test_an_audit_found_something(drill: Drill) -> None:
    drill.read(PAGE, "An audit found something")
    now = datetime.now(UTC)
    # Of today: an audit also finds what came long after its time.
    made = (run_request(run_id=f"run_{n}", created_at_utc=f"{now:%FT%TZ}") for n in range(20))
    await consume(drill.settings, [sending(each) for each in made])
    drill.words["2025-12-18"] = f"{now:%F}"
    await drill.shell("rmos ledger checkpoint > /srv/trusted.txt")
    drill.units.environment |= {"RMOS_AUDIT_DAILY_AT": "-1", "RMOS_AUDIT_HOURLY": "false"}
    drill.units.own["rmos-audit"] = {"RMOS_METRICS_PORT": "0"}
    drill.units.start("rmos-audit")
    await drill.units.started("rmos-audit", "rmos-audit")
    store = drill.settings.data_dir
    before = store_files(store)
    change_a_byte(store / f"runs/{now:%F}/run_7.json")
    await drill.you_see()
    await drill.run()
    await drill.then()
    assert store_files(store) == before


@pytest.mark.every_topic
async def test_offsets_have_no_leaf(drill: Drill) -> None:
    drill.read(PAGE, "Offsets have no leaf")
    settings, partition = drill.settings, 4
    now = f"{datetime.now(UTC):%FT%TZ}"
    made = [
        sending(run_request(run_id=f"run_{n}", created_at_utc=now), partition=partition)
        for n in range(8)
    ]
    await consume(settings, made[:3])
    # As a tool with auto-commit in the group does it.
    await produce(settings, made[3:6])
    await commit(settings, {partition: 6})
    async with persist_worker(settings, accept_loss=True):
        await produce(settings, made[6:])
        await wait_until_consumed(settings)
    await drill.shell("rmos replay restore")
    before = store_files(settings.data_dir)
    drill.words["STORE_ID"] = read_store(settings.data_dir).store_id
    drill.units.environment |= {"RMOS_AUDIT_DAILY_AT": "-1", "RMOS_AUDIT_HOURLY": "false"}
    drill.units.own["rmos-audit"] = {"RMOS_METRICS_PORT": "0"}
    drill.units.start("rmos-audit")
    await drill.units.started("rmos-audit", "rmos-audit")
    await drill.you_see()
    await drill.run()
    await drill.then()
    runs_before = {path: content for path, content in before.items() if path.startswith("runs/")}
    after = store_files(settings.data_dir)
    assert {path: content for path, content in after.items() if path in runs_before} == runs_before


@pytest.mark.every_topic
async def test_the_disk_is_lost(drill: Drill) -> None:
    drill.read(PAGE, "The disk is lost")
    settings = drill.settings
    changed = [sending(run_request(run_id=f"run_{n}", mode="other")) for n in range(3)]
    await consume(settings, [*runs(20), sending(red_request(run_id="run_red")), *changed])
    blob = run_request(run_id="run_blob", attachments=[attachment()])
    await consume(settings, [sending(blob), Sending(b"run_x", b"{")])
    drill.words["STORE_ID"] = read_store(settings.data_dir).store_id
    drill.words["STORE_ROOT"] = (await drill.shell("rmos ledger checksums --root")).strip()
    await drill.shell("rmos ledger checkpoint > /srv/trusted.txt")
    before = store_files(settings.data_dir)
    logs = log_files(settings.data_dir)
    shutil.rmtree(settings.data_dir)
    await drill.you_see()
    await drill.run()
    await drill.then()
    assert store_files(settings.data_dir) == before
    assert log_files(settings.data_dir) == logs


def log_files(root: Path) -> dict[str, bytes]:
    paths = [path for path in (root / "ledger").rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


async def test_the_key_of_the_ledger_is_lost(drill: Drill) -> None:
    drill.read(PAGE, "The key of the ledger is lost")
    await consume(drill.settings, runs(20))
    await drill.shell("rmos ledger checkpoint > /srv/trusted.txt")
    key = drill.settings.ledger_key_file
    assert key is not None
    key.unlink()
    drill.units.start("rmos-persist@1")
    assert await drill.units.ended("rmos-persist@1") == 6
    await drill.you_see()
    await drill.run()
    await drill.then()


async def test_the_key_of_the_ledger_got_into_wrong_hands(drill: Drill) -> None:
    drill.read(PAGE, "The key of the ledger got into wrong hands")
    await consume(drill.settings, runs(20))
    await drill.shell("rmos ledger checkpoint > /srv/trusted.txt")
    drill.units.start("rmos-persist@1")
    await drill.units.started("rmos-persist@1", "rmos-persist-1")
    await drill.you_see()
    await drill.run()
    await produce(drill.settings, runs(5, start=20))
    await drill.then()
