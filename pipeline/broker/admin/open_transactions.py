"""Open transactions: their producers, their start, and the records that they hold up.

Who reads committed records does not get past the first record of an open transaction, so those of
other producers behind it wait. The broker ends one by itself after the time that its producer has
asked for, by default a minute, at most 15.
"""

import asyncio
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, for_code

from pipeline.broker.admin.topics import with_retries
from pipeline.broker.aiokafka_fixes.clients import ask, broker_ids
from pipeline.broker.aiokafka_fixes.requests import (
    describe_producers,
    describe_transactions,
    list_transactions,
)
from pipeline.broker.connection import admin_client
from pipeline.core.record import Partition
from pipeline.core.runs.event import broker_time
from pipeline.errors import BrokerError
from pipeline.settings import Settings

_LOOK_SECONDS = 2.0
"""Longest look for a caller that has waited already."""


@dataclass(frozen=True, slots=True)
class OpenTransaction:
    """The first transaction that is open in a partition.

    Attributes:
        offset: Of its first record there; no consumer gets past it.
        last_timestamp_ms: When its producer last wrote there.
        transactional_id: Under which its program runs; None where the broker does not show it.
        since_ms: When it began; None where the broker does not show it.
        timeout_ms: After which time the broker ends it.
    """

    topic: str
    partition: int
    offset: int
    producer_id: int
    last_timestamp_ms: int
    transactional_id: str | None = None
    since_ms: int | None = None
    timeout_ms: int | None = None

    def __str__(self) -> str:
        name = (
            "" if self.transactional_id is None else f", transactional.id {self.transactional_id}"
        )
        since = (
            f"open since {broker_time(self.since_ms)}"
            if self.since_ms is not None
            else f"whose producer last wrote at {broker_time(self.last_timestamp_ms)}"
        )
        end = "" if self.timeout_ms is None else f"; the broker ends it after {self.timeout_ms} ms"
        return (
            f"a transaction of producer {self.producer_id}{name} at offset {self.offset} of "
            f"{self.topic}, partition {self.partition}, {since}{end}"
        )


async def open_transactions(
    settings: Settings, partitions: Collection[Partition]
) -> dict[Partition, OpenTransaction]:
    """Return the first open transaction of each of `partitions` that has one.

    Raises:
        BrokerError: The broker cannot be reached, or does not show the producers of a partition.
    """
    async with admin_client(settings) as admin:
        # The leader of a topic that was just made may not know it yet.
        found = await with_retries(lambda: _found(admin, partitions))
        return await _named(admin, found) if found else {}


async def holder_of(
    settings: Settings, topic: str, partition: int, offset: int
) -> OpenTransaction | None:
    """Return what holds up the record at `offset`; None where nothing does or it is unknown."""
    with suppress(BrokerError, TimeoutError):
        async with asyncio.timeout(_LOOK_SECONDS):
            found = await open_transactions(settings, [(topic, partition)])
            transaction = found.get((topic, partition))
            if transaction is not None and transaction.offset <= offset:
                return transaction
    return None


async def _found(
    admin: AIOKafkaAdminClient, partitions: Collection[Partition]
) -> dict[Partition, OpenTransaction]:
    found: dict[Partition, OpenTransaction] = {}
    for node, topics in (await _by_leader(admin, partitions)).items():
        response = await ask(admin, describe_producers(topics), node)
        found |= _first_open(response)
    return found


async def _by_leader(
    admin: AIOKafkaAdminClient, partitions: Collection[Partition]
) -> dict[int, list[tuple[str, list[int]]]]:
    """Return which of `partitions` each broker leads."""
    grouped: dict[int, dict[str, list[int]]] = {}
    # Of all topics: asking for one by name would create it on some brokers.
    for topic in await admin.describe_topics():
        for each in topic["partitions"]:
            if (topic["topic"], each["partition"]) in partitions and each["leader"] >= 0:
                topics = grouped.setdefault(each["leader"], {})
                topics.setdefault(topic["topic"], []).append(each["partition"])
    return {node: list(topics.items()) for node, topics in grouped.items()}


def _first_open(response: Any) -> dict[Partition, OpenTransaction]:  # noqa: ANN401
    found = {}
    for topic, partitions, _ in response.topics:
        for partition, code, reason, producers, _ in partitions:
            if code != 0:
                raise for_code(code)(reason or f"{topic}, partition {partition}")
            begun = [
                OpenTransaction(topic, partition, start, producer_id, last_ms)
                for producer_id, _epoch, _sequence, last_ms, _coordinator, start, _ in producers
                if start >= 0
            ]
            if begun:
                found[topic, partition] = min(begun, key=lambda each: each.offset)
    return found


async def _named(
    admin: AIOKafkaAdminClient,
    found: Mapping[Partition, OpenTransaction],
) -> dict[Partition, OpenTransaction]:
    """Add what the coordinators of the transactions know; each lists its own."""
    producer_ids = sorted({each.producer_id for each in found.values()})
    known: dict[int, dict[str, Any]] = {}
    for broker in broker_ids(admin):
        # The right to read the topic does not include the right to look at transactions.
        with suppress(KafkaError):
            listed = await ask(admin, list_transactions(producer_ids), broker)
            ids = [transactional_id for transactional_id, *_ in listed.transaction_states]
            if ids:
                described = await ask(admin, describe_transactions(ids), broker)
                known |= _described(described)
    return {
        partition: replace(each, **known.get(each.producer_id, {}))
        for partition, each in found.items()
    }


def _described(response: Any) -> dict[int, dict[str, Any]]:  # noqa: ANN401
    return {
        producer_id: {
            "transactional_id": transactional_id,
            "since_ms": since_ms if since_ms >= 0 else None,
            "timeout_ms": timeout_ms,
        }
        for code, transactional_id, _, timeout_ms, since_ms, producer_id, *_ in (
            response.transaction_states
        )
        if code == 0
    }
