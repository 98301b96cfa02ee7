"""What a worker rests on at the broker may change under it: it says so, and there is a way on."""

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import pytest
from aiokafka import AIOKafkaConsumer

from pipeline import metrics
from pipeline.app.persist import persist_worker
from pipeline.app.worker import Worker
from pipeline.consumers.engine import topic_watch
from pipeline.errors import StoreNotReadyError, TopicsError
from pipeline.settings import Settings
from pipeline.storage.index.run_index import INDEX_FILE
from pipeline.topics import topic_table
from tests.builders import run_request
from tests.e2e.changed_topics import add_partitions, make_again, set_topic
from tests.e2e.commands import rmos
from tests.e2e.kafka_reading import (
    Sending,
    commit,
    produce,
    read_topic,
    sending,
    wait_until,
    wait_until_consumed,
)
from tests.e2e.test_persist_start import PARTITION, consume_all, refusal, runs
from tests.storage.stores import index_at

pytestmark = [pytest.mark.e2e, pytest.mark.every_topic]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_watch, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(topic_watch, "SETTINGS_SECONDS", 0.2)


@asynccontextmanager
async def colleague(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    """Join the worker's group as a tool with auto-commit does; leave at the end of the block."""
    consumer = AIOKafkaConsumer(
        settings.topics.run_requests,
        bootstrap_servers=settings.bootstrap_servers,
        group_id=settings.topics.persist_group,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    try:
        await wait_until(lambda: bool(consumer.assignment()), "the colleague has partitions")
        yield consumer
    finally:
        await consumer.stop()


async def stopped_by(worker: Worker) -> str:
    fault = worker.faults[0]
    await wait_until(fault.done, "the worker stops")
    with pytest.raises(StoreNotReadyError) as caught:
        fault.result()
    assert caught.value.exit_status == 6
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def reason(worker: Worker, beginning: str) -> str:
    found: list[str] = []

    def is_there() -> bool:
        found[:] = [each for each in worker.reasons if each.startswith(beginning)]
        return bool(found)

    await wait_until(is_there, f"a reason: {beginning}")
    return found[0]


async def stored(settings: Settings) -> set[str]:
    """Return the runs, each with its artifact as it was written, whatever its epoch."""
    checked = await rmos(settings, "index", "check")
    assert checked.status == 0, checked
    with closing(index_at(settings.data_dir / INDEX_FILE)) as index:
        return {run.run_id for run in index.all_runs()}


def settings_of(topic: str, settings: Settings) -> dict[str, str]:
    return next(each.configs for each in topic_table(settings.prefix) if each.name == topic)


def named(count: int, start: int = 0) -> set[str]:
    return {f"run_{number}" for number in range(start, start + count)}


async def test_what_a_colleague_consumes_in_our_group_stops_the_worker_and_can_be_had_back(
    store_settings: Settings,
) -> None:
    settings = store_settings
    async with persist_worker(settings) as worker:
        await produce(settings, runs(2))
        await wait_until_consumed(settings)
        async with colleague(settings) as consumer:
            # It holds the partition, or the worker does: what the worker holds it stores.
            await produce(settings, [each for number in range(12) for each in _one(number)])
            await wait_until(lambda: len(consumer.assignment()) < 12, "the partitions are shared")
            theirs = {place.partition for place in consumer.assignment()}
            taken = await consumer.getmany(timeout_ms=5000)
            assert taken
            await consumer.commit()
            said = await reason(worker, "The group has committed offset")
            assert "rmos offsets reset persist --to-store" in said
            assert not worker.subscription.fault.done()
        assert "The group has committed offset" in await stopped_by(worker)

    assert theirs
    said = await refusal(settings)
    assert "if somebody else reads with this group, stop that and run rmos offsets reset" in said
    moved = await rmos(settings, "offsets", "reset", "persist", "--to-store", "--yes")
    assert moved.status == 0, moved
    await consume_all(settings)
    assert await stored(settings) == named(2) | {f"run_p{number}" for number in range(12)}
    checked = await rmos(settings, "replay", "verify")
    assert checked.status == 0, checked
    events = await read_topic(settings, settings.topics.run_events)
    assert {json.loads(each.value)["run_id"] for each in events if each.value} == await stored(
        settings
    )


def _one(number: int) -> list[Sending]:
    return [sending(run_request(run_id=f"run_p{number}"), partition=number)]


async def test_a_topic_that_is_made_again_stops_the_worker_before_it_stores_of_it(
    store_settings: Settings,
) -> None:
    settings = store_settings
    topic = settings.topics.run_requests
    async with persist_worker(settings) as worker:
        await produce(settings, runs(3))
        await wait_until_consumed(settings)
        await make_again(settings, topic)
        await produce(settings, runs(5, start=10))
        said = await stopped_by(worker)
    assert f"The topic {topic} was deleted and made again" in said
    assert "rmos store new-epoch" in said
    assert await stored(settings) == named(3)
    await new_epoch(settings, said, expected=named(3) | named(5, 10))


async def new_epoch(settings: Settings, said: str, *, expected: set[str]) -> None:
    """Go on as the sentence says."""
    assert await refusal(settings) == said
    assert (await rmos(settings, "replay", "restore")).status == 6
    assert (await rmos(settings, "store", "new-epoch")).status == 0
    await consume_all(settings)
    assert await stored(settings) == expected
    assert (await rmos(settings, "replay", "verify")).status == 0


async def test_other_records_at_the_same_offsets_are_another_topic(
    store_settings: Settings,
) -> None:
    settings = store_settings
    await produce(settings, runs(3))
    await consume_all(settings)
    await make_again(settings, settings.topics.run_requests)
    await produce(settings, runs(3, start=10))
    await commit(settings, {PARTITION: 3})
    said = await refusal(settings)
    assert "was deleted and made again" in said
    with pytest.raises(StoreNotReadyError, match="made again"):
        await consume_all(settings, accept_loss=True)
    assert (await rmos(settings, "store", "new-epoch")).status == 0
    # The group's offset is that of the old topic.
    said = await refusal(settings)
    assert "rmos offsets reset persist --to-store" in said
    assert (await rmos(settings, "offsets", "reset", "persist", "--to-store", "--yes")).status == 0
    await consume_all(settings)
    assert await stored(settings) == named(3) | named(3, 10)


async def test_a_store_of_before_learns_the_id_of_its_topic(store_settings: Settings) -> None:
    settings = store_settings
    await produce(settings, runs(3))
    await consume_all(settings)
    forget_topic_ids(settings)
    await consume_all(settings)
    rebuilt = await rmos(settings, "index", "rebuild")
    assert rebuilt.status == 0, rebuilt
    await make_again(settings, settings.topics.run_requests)
    assert "was deleted and made again" in await refusal(settings)


def forget_topic_ids(settings: Settings) -> None:
    with sqlite3.connect(settings.data_dir / "index.sqlite3") as connection:
        connection.execute("DROP TABLE topic_ids")


async def test_partitions_that_are_added_wait_while_the_others_go_on(
    store_settings: Settings,
) -> None:
    settings = store_settings
    topic = settings.topics.run_requests
    async with persist_worker(settings) as worker:
        await produce(settings, runs(2))
        await wait_until_consumed(settings)
        await add_partitions(settings, topic, 24)
        said = await reason(worker, f"Expected the topic {topic} to have partitions=12, found 24")
        assert "RMOS_REQUEST_PARTITIONS" in said
        # The client looks by itself every five minutes.
        assert worker.subscription._consumer is not None
        await worker.subscription._consumer._client.force_metadata_update()
        await wait_until(lambda: len(worker.subscription.assigned) == 24, "the group knows of them")
        await produce(settings, [sending(run_request(run_id="run_new"), partition=17)])
        await produce(settings, runs(3, start=2))
        await wait_until(lambda: _are_stored(settings, 5), "the old partitions go on")
        await wait_until(lambda: _lag(settings, 17) == 1, "what waits there is in the lag")
        assert worker.is_ready
        assert not any(fault.done() for fault in worker.faults)
    assert await stored(settings) == named(5)

    # A worker that starts says the same and goes on with the others.
    async with persist_worker(settings) as worker:
        assert await reason(worker, f"Expected the topic {topic}") == said
        await produce(settings, runs(1, start=5))
        await wait_until(lambda: _are_stored(settings, 6), "the old partitions go on")

    grown = settings.model_copy(update={"request_partitions": 24})
    async with persist_worker(grown) as worker:
        await wait_until(lambda: _are_stored(settings, 7), "the new partitions are consumed")
        assert worker.reasons == ()
    assert await stored(settings) == named(6) | {"run_new"}
    for command in (("replay", "verify"), ("offsets", "show", "persist"), ("index", "check")):
        done = await rmos(grown, *command)
        assert done.status == 0, done


def _lag(settings: Settings, partition: int) -> float | None:
    labels = {
        "group": settings.topics.persist_group,
        "topic": settings.topics.run_requests,
        "partition": str(partition),
    }
    return metrics.REGISTRY.get_sample_value("rmos_consumer_lag_records", labels)


async def _are_stored(settings: Settings, count: int) -> bool:
    with closing(index_at(settings.data_dir / INDEX_FILE)) as index:
        return index.count() == count


@pytest.mark.parametrize(
    ("changes", "promise"),
    [
        ({"message.timestamp.type": "CreateTime"}, "go by the broker's time of a record"),
        ({"retention.ms": "3600000"}, "those not consumed by then are lost"),
        ({"retention.bytes": "1000000"}, "those not consumed by then are lost"),
        ({"max.message.bytes": "1000"}, "a message that it refuses would hold up its partition"),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) else "",
)
async def test_a_setting_that_a_promise_rests_on_makes_the_worker_not_ready(
    store_settings: Settings, changes: dict[str, str], promise: str
) -> None:
    settings = store_settings
    topic = settings.topics.run_requests
    right = settings_of(topic, settings)
    async with persist_worker(settings) as worker:
        await produce(settings, runs(1))
        await wait_until_consumed(settings)
        assert worker.reasons == ()
        await set_topic(settings, topic, {**right, **changes})
        assert promise in await reason(worker, f"Expected the topic {topic} to have")
        checked = await rmos(settings, "topics", "check")
        assert checked.status == 5
        assert worker.reasons[0].split(": ")[-1] in checked.err
        await set_topic(settings, topic, right)
        await wait_until(lambda: worker.reasons == (), "the reason ends")


async def test_a_request_topic_that_is_compacted_stops_the_worker(
    store_settings: Settings,
) -> None:
    settings = store_settings
    topic = settings.topics.run_requests
    async with persist_worker(settings) as worker:
        right = settings_of(topic, settings)
        await set_topic(settings, topic, {**right, "cleanup.policy": "compact"})
        said = await stopped_by(worker)
    assert "a request that must be refused could win" in said
    with pytest.raises(TopicsError, match="a request that must be refused could win"):
        async with persist_worker(settings):
            pytest.fail("the worker started")
