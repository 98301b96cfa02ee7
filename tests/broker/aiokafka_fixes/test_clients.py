"""What we use of aiokafka that is not public is there, and what it lacks it still lacks.

Where one of these fails, the pin has moved: read `pipeline/broker/aiokafka_fixes` anew.
"""

import asyncio
import importlib
import inspect
from typing import Any

import aiokafka
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.producer.message_accumulator import BatchBuilder, MessageAccumulator, MessageBatch
from aiokafka.producer.producer import AIOKafkaProducer
from aiokafka.producer.sender import Sender
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.protocol.metadata import MetadataRequest

from pipeline.broker.aiokafka_fixes import unreadable_batches
from pipeline.broker.aiokafka_fixes.clients import close_consumer, close_producer
from pipeline.broker.aiokafka_fixes.installed import install
from pipeline.broker.aiokafka_fixes.requests import (
    DESCRIBE_PRODUCERS,
    DESCRIBE_TRANSACTIONS,
    LIST_TRANSACTIONS,
    OFFSET_DELETE,
)

USED = [
    (AIOKafkaAdminClient.__init__, "self._client"),
    (AIOKafkaAdminClient._send_request, "self._client.send(node_id, request)"),
    (AIOKafkaClient.get_random_node, "return"),
    (ClusterMetadata.brokers, "return"),
    (aiokafka.AIOKafkaConsumer.__init__, "self._client"),
    (AIOKafkaProducer.__init__, "self._closed"),
    (AIOKafkaProducer.__init__, "self._message_accumulator"),
    (AIOKafkaProducer.__init__, "self._txn_manager"),
    (AIOKafkaProducer.__init__, "self._sender"),
    (Sender.close, "self._sender_task.cancel()"),
    (MessageAccumulator.__init__, "self._batches"),
    (MessageBatch.__init__, "self._drain_waiter"),
    (TransactionManager.wait_for_transaction_end, "return"),
    (BatchBuilder.__init__, "self._builder"),
    (BatchBuilder._set_producer_state, "self._builder.set_producer_state"),
    (FetchResult.__init__, "self._topic_partition"),
    (FetchResult.__init__, "self._partition_records"),
    (FetchResult._update_position, "self._partition_records.next_fetch_offset"),
]
"""What of aiokafka has no public name: a function of it, and what must stand there."""

WITHOUT_REQUEST = [
    DESCRIBE_PRODUCERS,
    DESCRIBE_TRANSACTIONS,
    LIST_TRANSACTIONS,
    OFFSET_DELETE,
]
PROTOCOL = ("admin", "commit", "coordination", "fetch", "metadata", "offset", "transaction")


def test_every_private_name_that_is_used_stands_where_it_did() -> None:
    missing = [
        f"{place.__qualname__}: {text}"
        for place, text in USED
        if text not in inspect.getsource(place)
    ]
    assert not missing


def test_aiokafka_still_has_none_of_the_requests_of_ours() -> None:
    theirs = {
        (kind.API_KEY, name)
        for module in PROTOCOL
        for name, kind in vars(importlib.import_module(f"aiokafka.protocol.{module}")).items()
        if isinstance(getattr(kind, "API_KEY", None), int)
    }
    known = {key for key, _ in theirs}
    assert known, "the names of its modules are others"
    assert not [ours for ours in WITHOUT_REQUEST if ours.API_KEY in known]


def test_aiokafka_still_asks_for_metadata_without_ids_of_topics() -> None:
    newest = max(version.API_VERSION for version in MetadataRequest._CLASSES)  # type: ignore[attr-defined]
    assert newest < 10


class Stuck:
    """A client whose `stop` awaits a task that is cancelled, as where a broker is gone."""

    def __init__(self) -> None:
        self.closed = False
        self._client = self

    async def stop(self) -> None:
        raise asyncio.CancelledError

    async def close(self) -> None:
        self.closed = True


async def test_a_consumer_whose_stop_is_cut_off_has_its_connections_closed() -> None:
    consumer = Stuck()
    await close_consumer(consumer)
    assert consumer.closed


async def test_a_cancellation_that_is_meant_for_us_goes_on() -> None:
    consumer: Any = Stuck()
    consumer.stop = asyncio.Event().wait
    task = asyncio.create_task(close_consumer(consumer))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert consumer.closed


async def test_a_producer_is_closed_without_a_broker_although_its_own_stop_would_flush() -> None:
    producer = AIOKafkaProducer(bootstrap_servers="127.0.0.1:9")
    assert "_message_accumulator.close()" in inspect.getsource(AIOKafkaProducer.stop)
    async with asyncio.timeout(60):
        await close_producer(producer)
    assert producer._closed


def test_partitions_are_held_once_a_worker_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        aiokafka.consumer.fetcher, "MemoryRecords", aiokafka.consumer.fetcher.MemoryRecords
    )
    monkeypatch.setattr(FetchResult, "getall", FetchResult.getall)
    install()
    assert fetcher.MemoryRecords is not aiokafka.record.memory_records.MemoryRecords
    install(hold_partitions=True)
    assert FetchResult.getall is unreadable_batches.getall
    install()
    assert FetchResult.getall is unreadable_batches.getall
