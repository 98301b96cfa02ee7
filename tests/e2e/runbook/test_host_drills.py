"""Drills about hosts and their volume, as `docs/runbook/host.md` has them."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.app.persist import persist_worker
from tests.e2e.kafka_reading import produce, wait_until_consumed
from tests.e2e.runbook.drill import Drill
from tests.e2e.runbook.shop import consume, runs
from tests.e2e.store_audit import audit_store
from tests.e2e.volumes import BLOCK, FOLDER, Volume, volume_of

pytestmark = [pytest.mark.e2e, pytest.mark.every_topic]

PAGE = "host.md"
WORKER = "rmos-persist@1"


@pytest.fixture(params=[BLOCK, FOLDER])
def volume(request: pytest.FixtureRequest, drill: Drill) -> Iterator[Volume]:
    """Give the volume with the store, attached to the host of the drill."""
    store = drill.settings.data_dir
    with volume_of(request.param, drill.folder) as made:
        (filling := drill.folder / "filling").mkdir()
        made.attach(filling)
        shutil.copytree(store, filling, dirs_exist_ok=True)
        made.detach()
        shutil.rmtree(store)
        store.mkdir()
        made.attach(store)
        yield made
        drill.units.kill_all()


def other_host(drill: Drill) -> Path:
    """Return what `/` is on the other host, which has the key and an empty mount point."""
    other = drill.folder / "other-host"
    (other / "srv" / "rmos").mkdir(parents=True)
    shutil.copytree(drill.folder / "etc" / "rmos", other / "etc" / "rmos")
    return other


def go_to(drill: Drill, host: Path) -> None:
    """Let the commands from here on be those of that host."""
    drill.words |= {"/srv/": f"{host}/srv/", "/etc/rmos/": f"{host}/etc/rmos/"}
    drill.units.environment |= {
        "RMOS_DATA_DIR": f"{host}/srv/rmos",
        "RMOS_LEDGER_KEY_FILE": f"{host}/etc/rmos/ledger.pem",
    }


async def test_a_host_is_dead(drill: Drill, volume: Volume) -> None:
    drill.read(PAGE, "A host is dead")
    drill.units.own[WORKER] |= {"RMOS_INSTANCE": "persist-1"}
    drill.units.start(WORKER)
    await produce(drill.settings, runs(20))
    await wait_until_consumed(drill.settings)
    await drill.shell("rmos ledger checkpoint > /srv/trusted.txt")
    other = other_host(drill)
    shutil.copy2(drill.folder / "srv" / "trusted.txt", other / "srv" / "trusted.txt")
    drill.units.kill_all()
    volume.host_dies()
    await produce(drill.settings, runs(10, start=20))
    go_to(drill, other)
    drill.by_hand["mount /srv/rmos"] = lambda: volume.attach(other / "srv" / "rmos")
    await drill.you_see()
    await drill.run()
    await wait_until_consumed(drill.settings)
    await drill.then()
    moved = drill.settings.model_copy(update={"data_dir": other / "srv" / "rmos"})
    audit = await audit_store(moved)
    audit.assert_whole()
    assert audit.outcomes() == {"persisted": 30}


async def test_a_host_is_back_without_its_volume(drill: Drill, volume: Volume) -> None:
    drill.read(PAGE, "A host is back without its volume")
    await consume(drill.settings, runs(20))
    other = other_host(drill)
    volume.host_dies()
    volume.attach(other / "srv" / "rmos")
    moved = drill.settings.model_copy(update={"data_dir": other / "srv" / "rmos"})
    async with persist_worker(moved):
        drill.units.start(WORKER)
        assert await drill.units.ended(WORKER) == 6
        await drill.you_see()
        # Which units start by themselves is systemd's to know.
        drill.by_hand["systemctl disable rmos.target"] = lambda: None
        await drill.run()
        await produce(drill.settings, runs(10, start=20))
        await wait_until_consumed(drill.settings)
        go_to(drill, other)
        await drill.then()
    (await audit_store(moved)).assert_whole()
