"""A transaction that stays open holds up who reads behind it, and everybody can see whose it is."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import DefaultPartitioner

from pipeline import metrics
from pipeline.app.persist import persist_worker
from pipeline.broker.admin.open_transactions import open_transactions
from pipeline.consumers.engine import liveness
from pipeline.settings import Settings
from tests.builders import run_request
from tests.e2e.api_service import api_only
from tests.e2e.commands import rmos
from tests.e2e.kafka_reading import produce, sending, wait_until, wait_until_consumed

pytestmark = [pytest.mark.e2e, pytest.mark.every_topic]
WAITING = 14


@asynccontextmanager
async def open_transaction(settings: Settings, partition: int) -> AsyncIterator[AIOKafkaProducer]:
    """Leave a transaction open, with records of others behind it, for the length of a block."""
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap_servers,
        transactional_id=f"{settings.prefix}.gateway",
        transaction_timeout_ms=600_000,
    )
    await producer.start()
    try:
        await producer.begin_transaction()
        first = sending(run_request(run_id="run_open"))
        await producer.send_and_wait(
            settings.topics.run_requests, first.value, key=first.key, partition=partition
        )
        waiting = [run_request(run_id=f"run_{number}") for number in range(WAITING - 1)]
        await produce(settings, [sending(each, partition=partition) for each in waiting])
        yield producer
        await producer.commit_transaction()
    finally:
        await producer.stop()


def lag(settings: Settings, partition: int) -> float:
    labels = (settings.topics.persist_group, settings.topics.run_requests, partition)
    return float(metrics.LAG_RECORDS.labels(*labels)._value.get())


async def test_whose_it_is_and_since_when(settings: Settings) -> None:
    topic = settings.topics.run_requests
    places = [(topic, 3), (topic, 4)]
    assert await open_transactions(settings, places) == {}
    async with open_transaction(settings, 3):
        found = await open_transactions(settings, places)
        assert list(found) == [(topic, 3)]
        one = found[topic, 3]
        assert (one.offset, one.timeout_ms) == (0, 600_000)
        assert one.transactional_id == f"{settings.prefix}.gateway"
        assert one.since_ms is not None
        assert f"producer {one.producer_id}" in str(one)
        assert "open since 20" in str(one)

    async def is_over() -> bool:
        return await open_transactions(settings, places) == {}

    # The broker answers a commit before it has marked the partitions (KIP-98).
    await wait_until(is_over, "the transaction is over")


async def test_a_worker_that_it_holds_up_has_lag_and_is_not_ready(
    store_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = store_settings
    monkeypatch.setattr(liveness, "PATIENCE_SECONDS", 0.5)
    async with persist_worker(settings) as worker:
        async with open_transaction(settings, 3):
            await wait_until(lambda: bool(worker.reasons), "a reason")
            (reason,) = worker.reasons
            assert f"transactional.id {settings.prefix}.gateway" in reason
            assert "partition 3" in reason
            assert lag(settings, 3) == WAITING
        await wait_until_consumed(settings)
        await wait_until(lambda: not worker.reasons, "no reason")
        await wait_until(lambda: lag(settings, 3) == 0, "no lag")


async def test_offsets_show_names_it(store_settings: Settings) -> None:
    settings = store_settings
    async with persist_worker(settings):
        await produce(settings, [sending(run_request(run_id="run_before"), partition=3)])
        await wait_until_consumed(settings)
        async with open_transaction(settings, 3):
            shown = await rmos(settings, "offsets", "show", "persist")
            assert "held up by a transaction of producer" in shown.out + shown.err
            (document,) = (await rmos(settings, "offsets", "show", "persist", "--json")).documents
            (part,) = [
                each for each in document["groups"][0]["partitions"] if each["partition"] == 3
            ]
            assert part["lag"] == WAITING
            assert part["held_up_by"]["transactional_id"] == f"{settings.prefix}.gateway"


async def test_a_post_that_it_holds_up_says_so(store_settings: Settings) -> None:
    async with (
        persist_worker(store_settings),
        api_only(store_settings, receipt_timeout_seconds=0.2) as api,
    ):
        request = run_request(run_id="run_posted")
        partition = partition_of("run_posted")
        async with open_transaction(store_settings, partition):
            answer = await api.http.post("/api/rmos/runs", json=request)
            assert answer.status_code == 202
            assert "held up by a transaction of producer" in answer.json()["message"]
        await wait_until_consumed(store_settings)
        async with api_only(store_settings) as patient:
            answer = await patient.http.post("/api/rmos/runs", json=request)
        assert answer.json()["outcome"] == "duplicate"


def partition_of(run_id: str) -> int:
    """Return where the key sends a run."""
    numbers = list(range(12))
    return int(DefaultPartitioner()(run_id.encode(), numbers, numbers))
