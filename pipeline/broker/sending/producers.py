"""Idempotent producers: how they begin, and how they end also where no broker answers."""

import asyncio
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from pipeline.broker.connection import (
    ANSWER_TIMEOUT_SECONDS,
    broker_errors,
    client_options,
    is_cancelled,
)
from pipeline.settings import Settings


async def start_producer(settings: Settings, **options: Any) -> AIOKafkaProducer:  # noqa: ANN401
    """Connect an idempotent producer with acks=all and lz4.

    Args:
        settings: How to reach the broker.
        options: More of aiokafka's own options.

    Raises:
        BrokerError: No broker answers within about 10 s.
    """
    producer = AIOKafkaProducer(
        **client_options(settings),
        acks="all",
        enable_idempotence=True,
        compression_type="lz4",
        **options,
    )
    async with broker_errors(settings):
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
                await producer.start()
        except BaseException:
            await producer.stop()
            raise
    return producer


async def close_producer(producer: AIOKafkaProducer) -> None:
    """Disconnect a producer; what it has not sent is dropped."""
    # `producer.stop` would flush first, which without a broker never ends; these are its other
    # steps, for which aiokafka has no public name.
    producer._closed = True
    try:
        # A producer that could not go on raises here what all its records were told already.
        with suppress(KafkaError):
            await producer._sender.close()
    except asyncio.CancelledError:
        # Of a task that had not begun yet, aiokafka awaits its cancellation and lets it rise, where
        # it would stand for the error that made us close. One that is meant for us goes on.
        if is_cancelled():
            raise
    finally:
        await producer.client.close()
