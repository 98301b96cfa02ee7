"""Two hosts, each with a worker: one dies, or loses what it needs in silence, and comes back.

Hosts are network namespaces, with the real broker. Afterwards the store is what a calm worker makes
of the same topic on a disk, a replay finds it equal, and an audit finds it whole.
"""

import asyncio
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("obstore", reason="the extra scale is not installed")

from pydantic import SecretStr

from pipeline.broker.admin.groups import GroupState, describe_group
from pipeline.broker.local.broker import LocalBroker
from pipeline.broker.local.loopback import HOST, free_port
from pipeline.errors import BrokerError
from pipeline.settings import Settings
from pipeline.storage.store import create, init_key
from tests.bucket.servers import BUCKET, moto_server, point_at
from tests.e2e.equivalence.calm_run import check_as_on_a_disk
from tests.e2e.equivalence.outcomes import key_file_in
from tests.e2e.equivalence.test_hosts import audited, differences, printed
from tests.e2e.kafka_reading import (
    NO_FLUSHES,
    QUIET,
    SHORT_WAITS,
    new_settings,
    produce,
    topics_of,
    wait_until,
    wait_until_consumed,
)
from tests.e2e.namespaces import SERVICES, Host, address, hosts
from tests.e2e.worker_processes import WorkerPool, WorkerProcess
from tests.e2e.worker_stopped_at import records_of
from tests.postgres.servers import Server, running

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

DRILLS: dict[str, tuple[str, ...]] = {
    "its life": (),
    "everything": SERVICES,
    "Kafka": ("kafka",),
    "the bucket": ("bucket",),
    "the database": ("database",),
}
"""What the first host loses."""

ASKED = list(DRILLS) if os.environ.get("HOST_DRILLS") == "all" else ["everything"]
"""All of them take minutes: `HOST_DRILLS=all pytest -n0 -m slow` and the name of this file."""

PARTITIONS = 12
PATIENCE_SECONDS = 300.0
"""A transaction of a silent host holds its partitions for a minute."""


@dataclass
class Shop:
    """The hosts and what they share."""

    hosts: list[Host]
    broker: LocalBroker
    listener: str
    database: Server


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with ExitStack() as stack:
        made = stack.enter_context(hosts(2))
        bucket = stack.enter_context(moto_server(address("bucket")))
        point_at(stack.enter_context(pytest.MonkeyPatch.context()), bucket)
        database = stack.enter_context(running("18"))
        database.listen(address("database"), 5432)
        ports = {name: free_port() for name in ("PLAINTEXT", "CONTROLLER", "HOSTS")}
        places = {name: f"{HOST}:{port}" for name, port in ports.items()}
        places["HOSTS"] = f"{address('kafka')}:{ports['HOSTS']}"
        properties = {
            "listeners": ",".join(f"{name}://{place}" for name, place in places.items()),
            "advertised.listeners": f"PLAINTEXT://{places['PLAINTEXT']},HOSTS://{places['HOSTS']}",
            "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in places),
            "controller.quorum.voters": f"1@{places['CONTROLLER']}",
        }
        broker = LocalBroker(
            tmp_path_factory.mktemp("kafka"),
            port=ports["PLAINTEXT"],
            properties=SHORT_WAITS | QUIET | NO_FLUSHES | properties,
        )
        yield Shop(made, stack.enter_context(broker), places["HOSTS"], database)


def settings_of(shop: Shop, folder: Path) -> Settings:
    """Make a store; return its settings, as the hosts have them."""
    url = shop.database.new_database()
    settings = new_settings(shop.broker, folder / "none").model_copy(
        update={
            "store_url": f"s3://{BUCKET}/{folder.name}",
            "index_url": SecretStr(url.replace(str(shop.database.folder), address("database"))),
            "ledger_key_file": key_file_in(folder),
        }
    )
    create(settings, cluster_id=shop.broker.cluster_id)
    init_key(settings)
    return settings


def start(shop: Shop, workers: WorkerPool, settings: Settings, host: Host) -> WorkerProcess:
    return workers.start(
        settings.model_copy(update={"bootstrap_servers": shop.listener}),
        wrapper=host.within,
        RMOS_LEDGER_KEY_FILE=str(settings.ledger_key_file),
    )


async def group_of(settings: Settings) -> GroupState | None:
    """Return the group; None before any has met on this broker."""
    try:
        return await describe_group(settings, settings.topics.persist_group)
    except BrokerError:
        return None


async def coordinated(settings: Settings) -> bool:
    return await group_of(settings) is not None


async def held_by(settings: Settings, workers: Mapping[Host, WorkerProcess]) -> None:
    """Wait until these hosts hold all partitions, and each of them has some."""
    wanted = {each.address("kafka") for each in workers}

    async def hold() -> bool:
        await asyncio.sleep(0.5)
        for worker in workers.values():
            worker.check()
        state = await group_of(settings)
        held = {each.host: each.holds for each in state.members} if state is not None else {}
        return held.keys() == wanted and sum(map(len, held.values())) == PARTITIONS

    await wait_until(hold, f"{len(workers)} hosts hold the partitions", seconds=PATIENCE_SECONDS)


async def consumed(settings: Settings, *workers: WorkerProcess) -> None:
    def check() -> None:
        for worker in workers:
            worker.check()

    await wait_until_consumed(settings, check=check, seconds=PATIENCE_SECONDS)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("lost", ASKED)
async def test_one_of_two_hosts_loses(
    lost: str, shop: Shop, workers: WorkerPool, tmp_path: Path
) -> None:
    settings = settings_of(shop, tmp_path)
    first, second = shop.hosts
    async with topics_of(settings):
        await wait_until(partial(coordinated, settings), "the broker has a place for groups")
        one, two = (start(shop, workers, settings, each) for each in shop.hosts)
        await held_by(settings, {first: one, second: two})
        await produce(settings, records_of("before"))
        await consumed(settings, one, two)

        first.lose(*DRILLS[lost])
        await produce(settings, records_of("meanwhile"))
        if lost == "its life":
            one.kill()
        elif "kafka" not in DRILLS[lost]:
            # It is a member of the group as before, and the records of its partitions wait: for a
            # batch, or for the database that must confirm its start.
            await wait_until(
                lambda: len(one.logged("batch put off") + one.logged("not ready")) > 1,
                "it puts its batches off",
                seconds=PATIENCE_SECONDS,
            )
            await one.stop()
        await held_by(settings, {second: two})
        await consumed(settings, two)

        first.find(*DRILLS[lost])
        if one.process.poll() is not None:
            one = start(shop, workers, settings, first)
        await held_by(settings, {first: one, second: two})
        await produce(settings, records_of("after"))
        await consumed(settings, one, two)
        await check_as_on_a_disk(settings, tmp_path)
        assert await one.stop() == await two.stop() == 0
        verified = await printed(settings, workers, "replay", "verify", "--json")
        assert not any(differences(json.loads(verified[-1])["summary"]))
        *_, report = await audited(settings, workers)
        assert report["codes"].keys() == {"LATE"}, "the records are of another year"
        verdicts = {name: each["result"] for name, each in report["verdicts"].items()}
        assert (verdicts["integrity"], verdicts["completeness"]) == ("ok", "ok")
