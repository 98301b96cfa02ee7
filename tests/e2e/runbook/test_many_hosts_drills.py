"""Drills about a store that many hosts share, as `docs/runbook/many-hosts.md` has them."""

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("obstore", reason="the extra scale is not installed")

from pydantic import SecretStr

from pipeline.broker.local.broker import LocalBroker
from pipeline.broker.local.loopback import free_port
from pipeline.postgres.connections import name_of
from pipeline.storage.store import create, init_key, open_to_read
from tests.bucket.conftest import moto, quick_server, versitygw
from tests.bucket.faulty_proxy import Proxy, standing_before
from tests.bucket.servers import BUCKET, point_at
from tests.e2e.kafka_reading import RUN_TOPICS, produce, read_topic, topics_of, wait_until_consumed
from tests.e2e.runbook import wrong_versions
from tests.e2e.runbook.conftest import drill_settings, environment_of
from tests.e2e.runbook.drill import Drill
from tests.e2e.runbook.shop import deploy, runs
from tests.e2e.runbook.units import units_of
from tests.postgres.servers import Server, running, standby_of
from tests.postgres.test_failover import both

__all__ = ["moto", "quick_server", "versitygw"]

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PAGE = "many-hosts.md"
FIRST, SECOND = "rmos-persist@1", "rmos-persist@2"
INDEX = "postgresql://rmos@db-a,db-b/rmos"


@dataclass
class Hosts:
    """Two hosts, and what they share."""

    drill: Drill
    cluster_id: str
    bucket: Proxy
    primary: Server
    standby: Server


@pytest.fixture
def databases() -> Iterator[tuple[Server, Server]]:
    with running("18") as primary, standby_of(primary) as standby:
        yield primary, standby


@pytest.fixture
async def hosts(
    broker: LocalBroker,
    quick_server: str,
    databases: tuple[Server, Server],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Hosts]:
    primary, standby = databases
    settings = drill_settings(broker, tmp_path)
    index_url = both(primary.new_database(), primary, standby)
    shared = settings.model_copy(
        update={
            "store_url": f"s3://{BUCKET}/{settings.prefix}",
            "index_url": SecretStr(index_url),
        }
    )
    ports = {name: free_port() for name in (FIRST, SECOND)}
    with standing_before(quick_server, lambda *_: None) as proxy:
        point_at(monkeypatch, proxy.address)
        environment = environment_of(shared) | {"RMOS_SESSION_TIMEOUT_MS": "2000"}
        file = tmp_path / "etc" / "rmos" / "environment"
        words = {
            "http://host-1:9101": f"http://127.0.0.1:{ports[FIRST]}",
            "http://host-2:9102": f"http://127.0.0.1:{ports[SECOND]}",
            "/etc/rmos/": f"{tmp_path}/etc/rmos/",
            "s3://shop/rmos": f"{shared.store_url}",
            f"{INDEX}?target_session_attrs=primary": f"{index_url}&target_session_attrs=primary",
            INDEX: index_url,
            INDEX.replace("rmos@", ""): name_of(index_url),
            "psql ": f"{primary.programs}/psql ",
        }
        async with topics_of(shared, RUN_TOPICS):
            create(shared, cluster_id=broker.cluster_id)
            init_key(shared)
            with units_of(tmp_path / "units", environment, [FIRST, SECOND], file) as units:
                for name, port in ports.items():
                    units.own[name] = {"RMOS_METRICS_PORT": str(port)}
                drill = Drill(shared, tmp_path, units, words)
                yield Hosts(drill, broker.cluster_id, proxy, primary, standby)


async def start(drill: Drill, *names: str) -> None:
    for name in names:
        drill.units.start(name)
    for name in names:
        await drill.units.started(name, name.replace("@", "-"))


def halt_in_a_batch(hosts: Hosts) -> asyncio.Event:
    """Halt the first host at the first file that it makes; return what says that it is halted."""
    halted, loop = asyncio.Event(), asyncio.get_running_loop()

    def choose(method: str, path: str) -> None:
        if method == "PUT" and "/runs/" in path and not halted.is_set():
            hosts.drill.units.send_signal(FIRST, signal.SIGSTOP)
            loop.call_soon_threadsafe(halted.set)

    hosts.bucket.choose = choose
    return halted


async def test_what_hosts_live_through(hosts: Hosts) -> None:
    drill = hosts.drill
    await start(drill, FIRST, SECOND)
    await produce(drill.settings, runs(20))
    await wait_until_consumed(drill.settings)

    drill.read(PAGE, "A host of many is dead")
    drill.units.send_signal(FIRST, signal.SIGKILL)
    await drill.units.ended(FIRST)
    await produce(drill.settings, runs(10, start=20))
    await drill.you_see()
    await drill.run()
    await wait_until_consumed(drill.settings)
    await drill.then()

    drill.read(PAGE, "The bucket is away")
    hosts.bucket.choose = lambda *_: "503"
    await produce(drill.settings, runs(10, start=30))
    await drill.you_see()
    await drill.run()
    hosts.bucket.choose = lambda *_: None
    await drill.then()

    drill.read(PAGE, "A zombie holds partitions")
    await drill.units.stop(SECOND)
    await start(drill, FIRST)
    halted = halt_in_a_batch(hosts)
    await produce(drill.settings, runs(10, start=40))
    await halted.wait()
    drill.units.start(SECOND)
    await drill.you_see()
    await drill.run()
    await wait_until_consumed(drill.settings)
    drill.units.send_signal(FIRST, signal.SIGCONT)
    await drill.then()

    drill.read(PAGE, "PostgreSQL fails over")
    hosts.primary.stop()
    await produce(drill.settings, runs(10, start=50))
    await drill.you_see()
    promote = "pg_ctl promote -w -D /var/lib/postgresql/data"
    standby = hosts.standby
    drill.by_hand[promote] = lambda: standby.run("pg_ctl", "-D", standby.data, "-w", "promote")
    await drill.run()
    await drill.then()
    told = await read_topic(drill.settings, drill.settings.topics.run_events)
    assert len({each.key for each in told}) == 60
    with closing(open_to_read(drill.settings)) as store:
        assert store.index.count() == 60


async def test_what_refuses_a_start(hosts: Hosts) -> None:
    drill = hosts.drill
    own = drill.folder / "etc" / "rmos"
    others = drill.folder / "host-2" / "etc" / "rmos"

    drill.read(PAGE, "A host joins")
    drill.units.own[SECOND]["RMOS_LEDGER_KEY_FILE"] = str(others / "ledger.pem")
    await start(drill, FIRST)
    drill.units.start(SECOND)
    assert await drill.units.ended(SECOND) == 6
    await drill.you_see()
    copy = "scp -p /etc/rmos/ledger.pem /etc/rmos/ledger.pem.vkey host-2:/etc/rmos/"
    drill.by_hand[copy] = lambda: shutil.copytree(own, others)
    await drill.run()
    await drill.then()
    await drill.units.systemctl(["stop", FIRST, SECOND])

    drill.read(PAGE, "A wrong bucket or a wrong database")
    wrong = f"{drill.settings.store_url}-wrong"
    elsewhere = hosts.primary.new_database()
    other = {"store_url": wrong, "index_url": SecretStr(elsewhere)}
    create(drill.settings.model_copy(update=other), cluster_id=hosts.cluster_id)
    of_other = INDEX.removesuffix("rmos") + "other"
    drill.words = {
        of_other: elsewhere,
        of_other.replace("rmos@", ""): name_of(elsewhere),
        **drill.words,
    }
    (own / "environment").write_text(f"RMOS_STORE_URL={wrong}\n")
    drill.units.start(FIRST)
    assert await drill.units.ended(FIRST) == 6
    await drill.you_see()
    await drill.run()
    await drill.then()
    await drill.units.stop(FIRST)

    drill.read(PAGE, "The tables lack a script")
    deploy(drill, wrong_versions.ONE_SCRIPT_MORE)
    drill.units.start(FIRST)
    assert await drill.units.ended(FIRST) == 6
    await drill.you_see()
    await drill.run()
    await drill.then()
