"""Drills about broker, offsets and retention, as `docs/runbook/broker.md` has them."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from pipeline.broker.connection import admin_client
from pipeline.broker.local.broker import LocalBroker
from pipeline.topics import topic_table
from tests.builders import run_request
from tests.e2e.changed_topics import add_partitions, make_again, set_topic
from tests.e2e.kafka_reading import (
    Sending,
    commit,
    committed,
    produce,
    sending,
    wait_until,
    wait_until_consumed,
)
from tests.e2e.runbook.conftest import drilled
from tests.e2e.runbook.drill import Drill
from tests.e2e.runbook.shop import consume, runs, write
from tests.e2e.store_audit import audit_store, index_rows, store_files

pytestmark = pytest.mark.e2e

PAGE = "broker.md"
WORKER = "rmos-persist@1"


@pytest.fixture
async def broken(mortal_broker: LocalBroker, tmp_path: Path) -> AsyncIterator[Drill]:
    """Give a drill on a broker that may be stopped, damaged and lost."""
    async with drilled(mortal_broker, tmp_path) as drill:
        yield drill


@pytest.mark.slow
async def test_no_broker_answers(broken: Drill, mortal_broker: LocalBroker) -> None:
    broken.read(PAGE, "No broker answers")
    await produce(broken.settings, runs(5))
    broken.units.start(WORKER)
    await wait_until_consumed(broken.settings)
    mortal_broker.stop()
    broken.by_hand["systemctl start kafka"] = mortal_broker.start
    await broken.you_see()
    await broken.run()
    await produce(broken.settings, runs(5, start=5))
    await broken.then()
    (await audit_store(broken.settings)).assert_whole()


@pytest.mark.slow
async def test_a_batch_cannot_be_read(broken: Drill, mortal_broker: LocalBroker) -> None:
    broken.read(PAGE, "A batch cannot be read")
    topic = broken.settings.topics.run_requests
    for run_id in ("run_before", "run_damaged", "run_after"):
        await produce(broken.settings, [sending(run_request(run_id=run_id), partition=3)])
    (log,) = mortal_broker._folder.root.rglob(f"{topic}-3/00000000000000000000.log")
    data = log.read_bytes()
    with log.open("r+b") as file:
        file.seek(data.index(b"run_damaged"))
        file.write(b"run_damagee")
    broken.units.start(WORKER)
    await broken.you_see()
    rows = broken.settings.data_dir

    async def is_stored() -> None:
        await wait_until(lambda: "run_after" in index_rows(rows), "what stands behind the batch")

    broken.before_interrupt = is_stored
    await broken.run()
    await broken.then()
    assert index_rows(rows).keys() == {"run_before", "run_after"}


@pytest.mark.slow
async def test_the_broker_was_replaced(mortal_broker: LocalBroker, tmp_path: Path) -> None:
    async with drilled(mortal_broker, tmp_path) as drill:
        drill.read(PAGE, "The broker was replaced")
        await consume(drill.settings, runs(20))
        write(tmp_path / "srv" / "run_0.json", run_request(run_id="run_0"))
        mortal_broker.stop()
        address = mortal_broker.bootstrap_servers
        with LocalBroker(tmp_path / "kafka", port=int(address.rpartition(":")[2])):
            drill.units.start(WORKER)
            assert await drill.units.ended(WORKER) == 6
            await drill.you_see()
            await drill.run()
            await drill.then()
            await drill.units.stop(WORKER)
        mortal_broker.start()


PARTITION = 4


def in_partition(count: int, start: int = 0) -> list[Sending]:
    names = (f"run_{n}" for n in range(start, start + count))
    return [sending(run_request(run_id=name), partition=PARTITION) for name in names]


async def refused(drill: Drill) -> None:
    drill.units.start(WORKER)
    assert await drill.units.ended(WORKER) == 6


async def test_the_broker_lost_records(drill: Drill) -> None:
    drill.read(PAGE, "The broker lost records")
    await consume(drill.settings, in_partition(3))
    await commit(drill.settings, {PARTITION: 5})
    await refused(drill)
    await drill.you_see()

    async def stands_within_the_log() -> None:
        async def is_within() -> bool:
            return (await committed(drill.settings))[PARTITION] == 3

        await wait_until(is_within, "the group is where the log ends")

    drill.before_interrupt = stands_within_the_log
    await drill.run()
    await produce(drill.settings, in_partition(2, start=3))
    await wait_until_consumed(drill.settings)
    await drill.then()


@pytest.mark.every_topic
async def test_the_store_is_behind_its_group(drill: Drill) -> None:
    drill.read(PAGE, "The store is behind its group")
    store = drill.settings.data_dir
    await consume(drill.settings, in_partition(3))
    shutil.copytree(store, store.with_name("copy"))
    await consume(drill.settings, in_partition(3, start=3))
    whole = store_files(store)
    shutil.rmtree(store)
    store.with_name("copy").rename(store)
    await refused(drill)
    await drill.you_see()
    await drill.run()
    await drill.then()
    assert store_files(store) == whole


@pytest.mark.every_topic
async def test_retention_ran_ahead_of_the_group(drill: Drill) -> None:
    drill.read(PAGE, "Retention ran ahead of the group")
    await consume(drill.settings, in_partition(4))
    await produce(drill.settings, in_partition(4, start=4))
    place = TopicPartition(drill.settings.topics.run_requests, PARTITION)
    async with admin_client(drill.settings) as admin:
        await admin.delete_records({place: RecordsToDelete(before_offset=6)})
    await refused(drill)
    await drill.you_see()
    drill.before_interrupt = lambda: wait_until_consumed(drill.settings)
    await drill.run()
    await produce(drill.settings, in_partition(2, start=4))
    await wait_until_consumed(drill.settings)
    await drill.then()
    assert index_rows(drill.settings.data_dir).keys() == {f"run_{n}" for n in range(8)}


async def test_the_ledger_does_not_fit_the_store(drill: Drill) -> None:
    drill.read(PAGE, "The ledger does not fit the store")
    await consume(drill.settings, in_partition(3))
    await drill.shell("rmos ledger checkpoint > /srv/trusted.txt")
    (log,) = (drill.settings.data_dir / "ledger" / "1").iterdir()
    shutil.rmtree(log)
    await refused(drill)
    await drill.you_see()
    await drill.run()
    await drill.then()


@pytest.mark.every_topic
async def test_somebody_else_reads_with_our_group(drill: Drill) -> None:
    drill.read(PAGE, "Somebody else reads with our group")
    await consume(drill.settings, in_partition(2))
    await produce(drill.settings, in_partition(3, start=2))
    await commit(drill.settings, {PARTITION: 5})
    await refused(drill)
    await drill.you_see()
    await drill.run()
    await wait_until_consumed(drill.settings)
    await drill.then()
    (await audit_store(drill.settings)).assert_whole()


@pytest.mark.slow
async def test_the_topic_was_made_again(drill: Drill) -> None:
    drill.read(PAGE, "The topic was made again")
    await consume(drill.settings, in_partition(3))
    topic = drill.settings.topics.run_requests
    drill.units.start(WORKER)
    await drill.units.started(WORKER, "rmos-persist-1")
    await make_again(drill.settings, topic)
    await produce(drill.settings, in_partition(4, start=1))
    assert await drill.units.ended(WORKER) == 6
    await drill.you_see()
    await drill.run()
    await drill.then()


async def test_partitions_were_added(drill: Drill) -> None:
    drill.read(PAGE, "Partitions were added")
    await consume(drill.settings, in_partition(3))
    await add_partitions(drill.settings, drill.settings.topics.run_requests, 24)
    await produce(drill.settings, [sending(run_request(run_id="run_3"), partition=17)])
    drill.units.start(WORKER)
    await drill.units.started(WORKER, "rmos-persist-1")
    await drill.you_see()
    await drill.run()
    await drill.then()


@pytest.mark.every_topic
async def test_a_setting_of_a_topic_was_changed(drill: Drill) -> None:
    drill.read(PAGE, "A setting of a topic was changed")
    topic = drill.settings.topics.run_requests
    right = next(each for each in topic_table(drill.settings.prefix) if each.name == topic).configs
    wrong = {**right, "message.timestamp.type": "CreateTime"}
    await set_topic(drill.settings, topic, wrong)
    drill.units.start(WORKER)
    await drill.units.started(WORKER, "rmos-persist-1")

    def mended() -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, set_topic(drill.settings, topic, right)).result()

    drill.by_hand[
        "kafka-configs.sh --bootstrap-server 127.0.0.1:9092 --alter --entity-type topics "
        "--entity-name rmos.runs.requests --add-config message.timestamp.type=LogAppendTime"
    ] = mended
    await drill.you_see()
    await drill.run()
    await drill.then()
