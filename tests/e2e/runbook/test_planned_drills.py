"""Drills of planned work, as `docs/runbook/planned.md` has them."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from pipeline.broker.local.loopback import free_port
from pipeline.settings import Settings
from tests.builders import attachment, red_request, run_request
from tests.e2e.kafka_reading import (
    Place,
    Sending,
    produce,
    producer_of,
    read_topic,
    sending,
    wait_until,
    wait_until_consumed,
)
from tests.e2e.runbook.drill import Drill
from tests.e2e.runbook.shop import consume, deploy, runs, write
from tests.e2e.store_audit import audit_store, store_files

pytestmark = pytest.mark.e2e

PAGE = "planned.md"
FIRST, SECOND = "rmos-persist@1", "rmos-persist@2"
PUBLISH_SECONDS = 0.02
LONG_SESSION_MS = 90_000
"""Longer than any machine takes for the drill: a partition that waits so long is seen."""


@asynccontextmanager
async def publishing(settings: Settings) -> AsyncIterator[list[str]]:
    """Publish a run every now and then for the length of a block; give their names."""
    sent: list[str] = []
    is_over = asyncio.Event()

    async def publish() -> None:
        async with producer_of(settings) as producer:
            while not is_over.is_set():
                run_id = f"run_live_{len(sent)}"
                each = sending(run_request(run_id=run_id))
                await producer.send_and_wait(settings.topics.run_requests, each.value, each.key)
                sent.append(run_id)
                await asyncio.sleep(PUBLISH_SECONDS)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(publish())
        try:
            await wait_until(lambda: len(sent) > 10, "some are sent")
            yield sent
        finally:
            is_over.set()


@pytest.mark.slow
async def test_a_new_version_without_a_gap(drill: Drill) -> None:
    drill.read(PAGE, "A new version, without a gap")
    settings = drill.settings
    deploy(drill, "", after="rmos-old", before="rmos-new")
    ports = {FIRST: "9101", SECOND: "9102"}
    drill.units.enabled = [FIRST, SECOND]
    for number, (name, port) in enumerate(ports.items(), start=1):
        here = free_port()
        drill.words[f"127.0.0.1:{port}"] = f"127.0.0.1:{here}"
        drill.units.own[name] = {
            "RMOS_METRICS_PORT": str(here),
            "RMOS_INSTANCE": f"persist-{number}",
            "RMOS_SESSION_TIMEOUT_MS": str(LONG_SESSION_MS),
        }
        drill.units.start(name)
    async with publishing(settings) as sent:
        await drill.you_see()
        await drill.run()
    await wait_until_consumed(settings)
    await drill.then()
    audit = await audit_store(settings)
    audit.assert_whole()
    assert audit.rows.keys() == set(sent)
    requested = {
        Place(each.partition, each.offset): each.timestamp
        for each in await read_topic(settings, settings.topics.run_requests)
    }
    waits_ms = [told[0].timestamp - requested[place] for place, told in audit.events.items()]
    assert max(waits_ms) < LONG_SESSION_MS


def all_kinds(total: int) -> list[Sending]:
    """Return runs with everything that a store keeps: blobs, and bodies of runs not OK."""
    made = [run_request(run_id=f"run_{n}") for n in range(total - 2)]
    made.append(red_request(run_id="run_red"))
    made.append(run_request(run_id="run_blob", attachments=[attachment()]))
    return [sending(each) for each in made]


async def test_back_up_store_and_keys(drill: Drill) -> None:
    drill.read(PAGE, "Back up store and keys")
    settings = drill.settings
    await consume(settings, all_kinds(20))
    (settings.data_dir / "audits").mkdir(exist_ok=True)
    drill.units.start(FIRST)
    async with publishing(settings) as sent:
        await drill.you_see()
        before = len(sent)
        await drill.run()
        assert len(sent) > before
    await drill.then()
    copy = settings.data_dir.parent / "backup" / "store"
    assert not (copy / "index.sqlite3").exists()
    assert len(store_files(copy)) > 20
    key = settings.ledger_key_file
    assert key is not None
    assert (settings.data_dir.parent / "vault" / key.name).read_bytes() == key.read_bytes()


async def test_archive_old_dates(drill: Drill) -> None:
    drill.read(PAGE, "Archive old dates")
    settings = drill.settings
    await consume(settings, all_kinds(20))
    before = store_files(settings.data_dir)
    await drill.you_see()
    await drill.run()
    kept = store_files(settings.data_dir)
    assert {path.partition("/")[0] for path in kept} == {"quarantine"}
    await drill.then()
    after = store_files(settings.data_dir)
    assert {path: after[path] for path in before} == before


@pytest.mark.every_topic
async def test_restore_a_backup(drill: Drill) -> None:
    drill.read(PAGE, "Restore a backup")
    settings, srv = drill.settings, drill.settings.data_dir.parent
    await consume(settings, runs(20))
    for name in ("store.json", "runs", "ledger"):
        source, copy = settings.data_dir / name, srv / "backup" / "store" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, copy)
    await drill.shell("rmos ledger checkpoint > /srv/backup/trusted.txt")
    key = settings.ledger_key_file
    assert key is not None
    shutil.copytree(key.parent, srv / "vault")
    await consume(settings, runs(10, start=20))
    before = store_files(settings.data_dir)
    shutil.rmtree(settings.data_dir)
    shutil.rmtree(key.parent)
    await drill.you_see()
    await drill.run()
    await drill.then()
    assert store_files(settings.data_dir) == before
    (await audit_store(settings)).assert_whole()


async def test_move_to_a_new_machine(drill: Drill) -> None:
    drill.read(PAGE, "Move to a new machine")
    old = drill.folder
    await consume(drill.settings, runs(20))
    drill.units.start(FIRST)
    await drill.units.started(FIRST, "rmos-persist-1")
    await drill.you_see()
    new = old / "new-machine"
    (new / "srv").mkdir(parents=True)
    (new / "etc").mkdir()

    def copy(path: str) -> None:
        if path == "srv/rmos":
            # From here on we are on the new machine; what comes meanwhile waits in the topic.
            drill.words |= {"/srv/": f"{new}/srv/", "/etc/rmos/": f"{new}/etc/rmos/"}
            drill.units.environment |= {
                "RMOS_DATA_DIR": f"{new}/srv/rmos",
                "RMOS_LEDGER_KEY_FILE": f"{new}/etc/rmos/ledger.pem",
            }
        source = old / path
        if source.is_dir():
            shutil.copytree(source, new / path)
        else:
            shutil.copy2(source, new / path)

    for path in ("srv/rmos/", "etc/rmos/", "srv/trusted.txt"):
        drill.by_hand[f"rsync -a OLD:/{path} /{path}"] = partial(copy, path.rstrip("/"))
    before = store_files(drill.settings.data_dir)
    await drill.run()
    await produce(drill.settings, runs(5, start=20))
    await wait_until_consumed(drill.settings)
    await drill.then()
    assert store_files(drill.settings.data_dir) == before
    assert len(store_files(new / "srv/rmos")) == len(before) + 5


async def test_back_to_v1_and_forth(drill: Drill) -> None:
    drill.read(PAGE, "Back to v1, and forth")
    settings, srv = drill.settings, drill.settings.data_dir.parent
    await consume(settings, runs(20))
    write(srv / "run_v1.json", run_request(run_id="run_v1"))
    drill.units.start(FIRST)
    await drill.units.started(FIRST, "rmos-persist-1")
    drill.units.enabled = [FIRST, "rmos-api"]
    drill.units.own["rmos-api"] = {"RMOS_API_PORT": str(free_port())}
    await drill.you_see()
    await drill.run()
    await wait_until_consumed(settings)
    await drill.then()
    assert len(store_files(settings.data_dir)) == 21
