"""What a worker does where the log does not hold what its group counts on: it never jumps."""

import re
import signal

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from pipeline import metrics
from pipeline.app.advise import advise_worker
from pipeline.app.persist import persist_worker
from pipeline.broker.admin.groups import committed_offsets
from pipeline.broker.admin.topics import partition_offsets
from pipeline.broker.connection import admin_client
from pipeline.broker.reading.lost_offsets import measure_lost_offsets
from pipeline.errors import StoreNotReadyError
from pipeline.settings import Settings
from tests.e2e import advisories
from tests.e2e.kafka_reading import commit, committed, produce, wait_until, wait_until_consumed
from tests.e2e.store_audit import audit_store
from tests.e2e.test_persist_start import PARTITION, consume_all, in_transaction, refusal, runs
from tests.e2e.worker_processes import WorkerPool, only_sentence

pytestmark = pytest.mark.e2e


async def remove_records(settings: Settings, before: int, topic: str | None = None) -> None:
    place = TopicPartition(topic or settings.topics.run_requests, PARTITION)

    async def is_written() -> bool:
        return (await partition_offsets(settings, [place.topic]))[place].end >= before

    # The broker answers the end of a transaction before its mark is in the log.
    await wait_until(is_written, "the log goes so far")
    async with admin_client(settings) as admin:
        await admin.delete_records({place: RecordsToDelete(before_offset=before)})


def shown(settings: Settings) -> float:
    """Return what the metric of this process says."""
    group, topic = settings.topics.persist_group, settings.topics.run_requests
    return metrics.LOST_OFFSETS.labels(group, topic, PARTITION)._value.get()


async def test_retention_that_overtakes_a_paused_worker_stops_it_before_it_writes(
    store_settings: Settings, workers: WorkerPool
) -> None:
    settings = store_settings
    await produce(settings, runs(4))
    worker = workers.start(settings)
    await wait_until_consumed(settings, check=worker.check)
    worker.send(signal.SIGSTOP)
    # The broker may answer the question that the worker had asked with the first of them alone.
    await produce(settings, runs(1, start=4))
    await produce(settings, runs(3, start=5))
    await remove_records(settings, before=7)
    await produce(settings, runs(2, start=8))
    worker.send(signal.SIGCONT)
    assert await worker.ended() == 6

    said = only_sentence(worker.text)
    found = re.match(r"Offsets (\d) to 6 of (\S+), partition 4 were removed by retention", said)
    assert found is not None, said
    first = int(found[1])
    assert first in {4, 5}
    assert "before they were consumed: the worker stopped before it consumed more" in said
    assert "--accept-loss" in said
    (line,) = worker.logged("offsets lost")
    assert line["level"] == "error"
    assert (line["group"], line["partition"]) == (settings.topics.persist_group, PARTITION)
    assert (line["first"], line["last"]) == (first, 6)
    assert (await committed(settings))[PARTITION] == first
    audit = await audit_store(settings)
    assert audit.rows.keys() == {f"run_{number}" for number in range(first)}

    # Another process goes on showing them: the API looks at the groups too.
    topic, group = settings.topics.run_requests, settings.topics.persist_group
    await measure_lost_offsets(settings, group, topic)
    assert shown(settings) == 7 - first

    assert f"Offsets {first} to 6" in await refusal(settings)
    assert shown(settings) == 7 - first
    await consume_all(settings, accept_loss=True)
    assert shown(settings) == 7 - first
    await consume_all(settings)
    assert shown(settings) == 0
    await measure_lost_offsets(settings, group, topic)
    assert shown(settings) == 0
    stored = {f"run_{number}" for number in (*range(first), 7, 8, 9)}
    assert (await audit_store(settings)).rows.keys() == stored


async def test_a_log_that_ends_before_a_running_worker_stops_it(store_settings: Settings) -> None:
    settings = store_settings
    await produce(settings, runs(4))
    async with persist_worker(settings) as worker:
        await wait_until_consumed(settings)
        # What the client sees where the broker came back without its last records.
        consumer = worker.subscription._consumer
        assert consumer is not None
        consumer.seek(TopicPartition(settings.topics.run_requests, PARTITION), 9)
        fault = worker.faults[0]
        await wait_until(fault.done, "the worker noticed")
        with pytest.raises(StoreNotReadyError) as caught:
            fault.result()
    said = str(caught.value)
    assert "The group has committed offset 9 of" in said
    assert "the log ends at 4: the broker has lost offsets 4 to 8" in said
    assert "run rmos store new-epoch, then start with --accept-loss" in said
    assert shown(settings) == 5
    assert (await committed(settings))[PARTITION] == 4


async def test_a_group_beyond_the_end_goes_on_at_the_start_once_that_is_accepted(
    store_settings: Settings,
) -> None:
    settings = store_settings
    await produce(settings, runs(3))
    await commit(settings, {PARTITION: 9})
    assert "offsets 3 to 8" in await refusal(settings)
    await consume_all_of_three(settings)
    async with persist_worker(settings):
        pass
    assert (await audit_store(settings)).rows.keys() == {"run_0", "run_1", "run_2"}


async def consume_all_of_three(settings: Settings) -> None:
    async def is_consumed() -> bool:
        return (await committed(settings))[PARTITION] == 3

    async with persist_worker(settings, accept_loss=True):
        await wait_until(is_consumed, "the log is consumed from its start")


async def test_an_accepted_loss_is_not_met_again_though_the_log_is_empty(
    store_settings: Settings,
) -> None:
    settings = store_settings
    await produce(settings, runs(4))
    await consume_all(settings)
    await produce(settings, runs(2, start=4))
    await remove_records(settings, before=6)
    assert "Offsets 4 to 5" in await refusal(settings)

    async def is_committed() -> bool:
        return (await committed(settings))[PARTITION] == 6

    async with persist_worker(settings, accept_loss=True):
        await wait_until(is_committed, "the group goes on at the log's start")
    async with persist_worker(settings):
        pass
    await produce(settings, runs(1, start=6))
    await consume_all(settings)
    assert (await audit_store(settings)).rows.keys() == {f"run_{n}" for n in (0, 1, 2, 3, 6)}


async def test_a_new_group_that_accepts_the_start_of_the_log_goes_on_there(
    store_settings: Settings,
) -> None:
    settings = store_settings
    await produce(settings, runs(4))
    await remove_records(settings, before=3)
    assert "Offsets 0 to 2" in await refusal(settings)
    async with persist_worker(settings, accept_loss=True):
        pass
    await consume_all(settings)
    assert (await audit_store(settings)).rows.keys() == {"run_3"}


async def test_the_removed_mark_of_a_transaction_cannot_be_told_from_a_record(
    store_settings: Settings,
) -> None:
    settings = store_settings
    async with persist_worker(settings):
        await in_transaction(settings, runs(2))
        await wait_until_consumed(settings)
    await in_transaction(settings, runs(1, start=2), abort=True)
    await remove_records(settings, before=5)
    assert "Offsets 3 to 4" in await refusal(settings)


@pytest.mark.every_topic
async def test_an_advise_worker_stops_likewise(store_settings: Settings) -> None:
    settings = store_settings
    topic = settings.topics.advisory_requests
    group = settings.topics.advise_group
    sent = [advisories.advisory_of(f"adv_{number}") for number in range(3)]
    places = await produce(settings, sent, topic=topic)
    place = TopicPartition(topic, places[0].partition)
    async with advise_worker(settings):

        async def is_consumed() -> bool:
            found = await committed_offsets(settings, group, [topic])
            return found.get(place, 0) > places[0].offset

        await wait_until(is_consumed, "the advisories are consumed")
    before = await committed_offsets(settings, group, [topic])
    await produce(settings, sent, topic=topic)
    async with admin_client(settings) as admin:
        await admin.delete_records({place: RecordsToDelete(before_offset=-1)})
    with pytest.raises(StoreNotReadyError, match="were removed by retention"):
        async with advise_worker(settings):
            pytest.fail("the worker started")
    assert await committed_offsets(settings, group, [topic]) == before
