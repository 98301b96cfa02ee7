"""Sends events and dead letters as whole batches, and waits until the broker has them all."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import BatchBuilder

from pipeline.broker.connection import broker_errors, client_options
from pipeline.settings import Settings

BATCH_BYTES = 1024 * 1024
"""Size at which a batch is closed. A larger record goes alone: the broker's limit is a batch's."""


@dataclass(frozen=True, slots=True)
class Message:
    """One record to send.

    Attributes:
        partition: Counted in the partitions of its source; taken modulo those of `topic`.
        headers: In order; a value may be missing, as in the record that it came from.
    """

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = field(default_factory=tuple)


class BatchSender:
    """An idempotent producer with acks=all that sends many records at once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Connect.

        Raises:
            BrokerError: No broker answers.
        """
        producer = AIOKafkaProducer(
            **client_options(self._settings),
            acks="all",
            enable_idempotence=True,
            compression_type="lz4",
            max_batch_size=BATCH_BYTES,
            linger_ms=0,
        )
        with broker_errors(self._settings):
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
        self._producer = producer

    async def stop(self) -> None:
        """Disconnect; what is not confirmed by now is not sent."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def send(self, messages: Iterable[Message]) -> None:
        """Send `messages`, in order within each partition; return when the broker has them all.

        Raises:
            BrokerError: The broker did not confirm all of them; some may be there. The producer
                begins anew with the next call, as a failed idempotent one cannot go on.
        """
        if self._producer is None:
            await self.start()
        assert self._producer is not None
        with broker_errors(self._settings):
            try:
                await self._send(self._producer, messages)
            except (KafkaError, OSError):
                await self.stop()
                raise

    async def _send(self, producer: AIOKafkaProducer, messages: Iterable[Message]) -> None:
        by_partition: dict[tuple[str, int], list[Message]] = {}
        for message in messages:
            place = (message.topic, message.partition)
            by_partition.setdefault(place, []).append(message)
        await asyncio.gather(
            *(
                _send_partition(producer, topic, partition, queue)
                for (topic, partition), queue in by_partition.items()
            )
        )


async def _send_partition(
    producer: AIOKafkaProducer, topic: str, partition: int, queue: Sequence[Message]
) -> None:
    count = len(await producer.partitions_for(topic))
    confirmations = [
        await producer.send_batch(batch, topic, partition=partition % count)
        for batch in _batches(producer, queue)
    ]
    await asyncio.gather(*confirmations)


def _batches(producer: AIOKafkaProducer, queue: Sequence[Message]) -> Iterable[BatchBuilder]:
    batch = producer.create_batch()
    for message in queue:
        if not _append(batch, message):
            yield batch
            batch = producer.create_batch()
            _append(batch, message)
    batch.close()
    yield batch


def _append(batch: BatchBuilder, message: Message) -> bool:
    appended = batch.append(
        timestamp=None, key=message.key, value=message.value, headers=message.headers
    )
    return appended is not None
