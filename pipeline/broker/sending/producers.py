"""Idempotent producers: how they begin, and how they end also where no broker answers."""

import asyncio
from typing import Any

from aiokafka import AIOKafkaProducer

from pipeline.broker.connection import (
    ANSWER_TIMEOUT_SECONDS,
    broker_errors,
    client_options,
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
