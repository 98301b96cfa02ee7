"""Logs built afterwards are, byte for byte, those of a store that had a ledger from its start."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import RecordsToDelete

from pipeline.app.advise import advise_worker
from pipeline.app.persist import persist_worker
from pipeline.broker.admin.groups import committed_offsets
from pipeline.broker.admin.topics import partition_offsets
from pipeline.broker.connection import admin_client
from pipeline.broker.local.broker import LocalBroker
from pipeline.disk.store_identity import read_store
from pipeline.errors import StoreNotReadyError
from pipeline.recovery.rebuild.ledger import build_logs, find_missing_leaves
from pipeline.settings import Settings
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import open_store_to_write
from tests.builders import incomplete_request, red_request, run_request
from tests.e2e.advisories import NEVER, advisory_of, publish, store_of
from tests.e2e.commands import rmos
from tests.e2e.kafka_reading import (
    Sending,
    partitions_of,
    produce,
    sending,
    wait_until,
    wait_until_consumed,
)
from tests.e2e.prepared_store import prepare_store
from tests.e2e.store_audit import store_files
from tests.ledger.ledgers import on_disk
from tests.storage.stores import rows

pytestmark = [pytest.mark.e2e, pytest.mark.every_topic]

PARTITION = 4


def run_records() -> list[Sending]:
    runs = [run_request(run_id=f"run_{number}") for number in range(300)]
    return [
        *map(sending, runs),
        sending(red_request(run_id="run_red")),
        sending(incomplete_request(run_id="run_incomplete")),
        *map(sending, runs[:40]),
        *(sending(each | {"notes": "changed"}) for each in runs[40:60]),
        *(Sending(f"bad_{number}".encode(), b"no json") for number in range(20)),
    ]


def advisory_records() -> list[Sending]:
    return [
        *(advisory_of(f"run_{n}", advisory_id="a", content_text=str(n)) for n in range(30)),
        *(advisory_of(f"run_{n}", advisory_id="a", content_text=str(n)) for n in range(5)),
        *(advisory_of(f"run_{n}", advisory_id="a", content_text="other") for n in range(5)),
        advisory_of("run_that_never_comes", advisory_id="early"),
        Sending(b"run_1", b"no json"),
    ]


@dataclass(frozen=True, slots=True)
class TwoStores:
    """Two stores that consumed the same topics, under one identity and with one key."""

    with_ledger: Settings
    without: Settings


async def begin_again(settings: Settings) -> None:
    """Let the groups of the workers, which have no members, begin anew."""
    topics = settings.topics
    for group, topic in (
        (topics.persist_group, topics.run_requests),
        (topics.advise_group, topics.advisory_requests),
    ):
        consumer = AIOKafkaConsumer(
            bootstrap_servers=settings.bootstrap_servers,
            group_id=group,
            enable_auto_commit=False,
        )
        async with consumer:
            places = partitions_of(settings, topic)
            consumer.assign(places)
            await consumer.commit(dict.fromkeys(places, 0))


async def work(settings: Settings) -> None:
    topic = settings.topics.advisory_requests

    async def is_consumed() -> bool:
        ends = await partition_offsets(settings, [topic])
        found = await committed_offsets(settings, settings.topics.advise_group, [topic])
        return all(found.get(place, 0) == each.end for place, each in ends.items())

    async with persist_worker(settings):
        await wait_until_consumed(settings)
    async with advise_worker(settings):
        await wait_until(is_consumed, "the advisories are consumed")


@pytest.fixture
async def stores(broker: LocalBroker, tmp_path: Path) -> AsyncIterator[TwoStores]:
    async with store_of(broker, tmp_path / "with", NEVER) as first:
        await produce(first, run_records())
        await publish(first, *advisory_records())
        await work(first)
        identity = read_store(first.data_dir)
        second = first.model_copy(
            update={"data_dir": tmp_path / "without", "ledger_enabled": False, "batch_records": 37}
        )
        prepare_store(second, broker.cluster_id, store_id=identity.store_id)
        await begin_again(second)
        await work(second)
        yield TwoStores(first, second.model_copy(update={"ledger_enabled": True}))


def content(settings: Settings) -> tuple[Any, ...]:
    return store_files(settings.data_dir), rows(settings.data_dir)


async def test_logs_built_afterwards_are_those_written_from_the_start(stores: TwoStores) -> None:
    settings = stores.without
    assert not (settings.data_dir / "ledger").exists()
    before = content(settings)
    missing = await find_missing_leaves(settings)
    total = len(run_records()) + len(advisory_records())
    assert (missing.offsets, missing.lost) == (total, [])

    class KilledError(Exception):
        pass

    def stop(what: str, done: int, total: int | None) -> None:
        raise KilledError

    for _ in range(3):
        with pytest.raises(KilledError):
            await build_logs(settings, await find_missing_leaves(settings), stop)
    assert 0 < (await find_missing_leaves(settings)).offsets < total
    await build_logs(settings, await find_missing_leaves(settings))
    assert on_disk(settings.data_dir) == on_disk(stores.with_ledger.data_dir)
    assert content(settings) == before
    assert (await find_missing_leaves(settings)).offsets == 0
    # A worker goes on from there.
    await produce(settings, [sending(run_request(run_id="run_after"))])
    async with persist_worker(settings):
        await wait_until_consumed(settings)


async def test_the_command_builds_once_and_refuses_while_workers_run(stores: TwoStores) -> None:
    settings = stores.without
    async with persist_worker(settings.model_copy(update={"ledger_enabled": False})) as worker:
        del worker
        done = await rmos(settings, "ledger", "init")
        assert done.status == 6
        assert f"Stop the workers of {settings.topics.persist_group} first, 1 of them" in done.err
    done = await rmos(settings, "ledger", "init", "--json")
    assert done.status == 0
    assert done.documents[0]["leaves_built"] == len(run_records()) + len(advisory_records())
    async with persist_worker(settings):
        done = await rmos(settings, "ledger", "init", "--json")
        assert (done.status, done.documents[0]["leaves_built"]) == (0, 0)


async def delete_before(settings: Settings, offset: int) -> None:
    place = TopicPartition(settings.topics.run_requests, PARTITION)
    async with admin_client(settings) as admin:
        await admin.delete_records({place: RecordsToDelete(before_offset=offset)})


@pytest.mark.parametrize(("removed", "leaves"), [(3, 2), (5, 0)])
async def test_what_retention_has_removed_is_named_and_has_to_be_accepted(
    store_settings: Settings, removed: int, leaves: int
) -> None:
    settings = store_settings
    without = settings.model_copy(update={"ledger_enabled": False})
    await produce(
        settings,
        [sending(run_request(run_id=f"run_{n}"), partition=PARTITION) for n in range(5)],
    )
    async with persist_worker(without):
        await wait_until_consumed(settings)
    await delete_before(settings, removed)
    done = await rmos(settings, "ledger", "init")
    assert done.status == 6
    place = f"{settings.topics.run_requests}-{PARTITION}"
    assert f"no longer has offsets 0 to {removed - 1} of {place}:" in done.err
    assert not list(settings.data_dir.glob("ledger/*/*/tile"))
    done = await rmos(settings, "ledger", "init", "--accept-loss", "--json")
    assert (done.status, done.documents[0]["leaves_built"]) == (0, leaves)
    log = settings.data_dir / "ledger/1" / place / "checkpoint"
    assert log.read_text().splitlines()[1] == str(leaves)
    # A later start has nothing to build, and asks for nothing.
    done = await rmos(settings, "ledger", "init", "--json")
    assert (done.status, done.documents[0]["leaves_built"]) == (0, 0)


async def test_a_store_ahead_of_its_topic_is_refused(store_settings: Settings) -> None:
    settings = store_settings
    store = RunStore(open_store_to_write(settings.data_dir))
    with store.index.transaction() as transaction:
        transaction.advance(1, {(settings.topics.run_requests, PARTITION): 6})
    store.close()
    with pytest.raises(StoreNotReadyError, match=r"up to offset 6 .* ends at 0"):
        await find_missing_leaves(settings)
