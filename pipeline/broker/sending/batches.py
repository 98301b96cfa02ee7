"""Sends events and dead letters as whole batches, and waits until the broker has them all."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidTimestampError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)
from aiokafka.producer.message_accumulator import BatchBuilder

from pipeline.broker.aiokafka_fixes.any_name_batch import AnyNameBatch
from pipeline.broker.aiokafka_fixes.clients import close_producer
from pipeline.broker.connection import BATCH_BYTES, broker_errors, start_producer
from pipeline.core.dead_letters.carried_record import record_bytes
from pipeline.core.record import Partition, RecordId
from pipeline.errors import UnsendableError
from pipeline.settings import Settings

_log = structlog.get_logger(__name__)

NEVER_TAKEN = (MessageSizeTooLargeError, RecordListTooLargeError, InvalidTimestampError)
"""Answers of a broker to what it will refuse again, whenever it is sent."""

CONFIRM_TIMEOUT_SECONDS = 20.0
"""Longest wait for the broker to confirm the messages of one chunk."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """One record to send.

    Attributes:
        partition: Counted in the partitions of its source; taken modulo those of `topic`.
        headers: In order; a value may be missing, as in the record that it came from.
        smaller: Makes what is sent in its place where the topic does not take it.
    """

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()
    smaller: Callable[[], "Message"] | None = None


class Sender:
    """An idempotent producer with acks=all, connected while it is started."""

    def __init__(self, settings: Settings, **options: Any) -> None:  # noqa: ANN401
        """Prepare; `options` are aiokafka's own, beside those of every producer."""
        self._settings = settings
        self._options = options
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Connect; a previous holder of the same transactional id is fenced off.

        Raises:
            BrokerError: No broker answers.
        """
        self._producer = await start_producer(self._settings, **self._options)

    async def stop(self) -> None:
        """Disconnect; what is not confirmed by now is not sent."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await close_producer(producer)


class BatchSender(Sender):
    """Sends many records at once."""

    async def send(self, messages: Iterable[Message]) -> None:
        """Send `messages`, in order within each partition; return when the broker has them all.

        Raises:
            BrokerError: The broker did not confirm all of them; some may be there. The producer
                begins anew with the next call, as a failed idempotent one cannot go on.
            UnsendableError: A topic takes neither one of them nor what is smaller; some may be
                there.
        """
        waiting = list(messages)
        async with broker_errors(self._settings):
            try:
                await self._confirmed(waiting)
            except NEVER_TAKEN:
                # A batch is refused for one record of it, or for being one: each goes alone.
                for message in waiting:
                    await self._send_alone(message)

    async def _send_alone(self, message: Message) -> None:
        try:
            await self._confirmed([message])
        except NEVER_TAKEN as error:
            size = record_bytes(message.key, message.value, message.headers)
            if message.smaller is None:
                raise UnsendableError(
                    f"The topic {message.topic} does not take a record of {size:,} bytes "
                    f"({type(error).__name__}), now or ever: compare its max.message.bytes with "
                    "`rmos topics check`, mend it, and start again."
                ) from error
            _log.warning(
                "sent without what its topic does not take",
                topic=message.topic,
                size_bytes=size,
                why=type(error).__name__,
            )
            await self._send_alone(message.smaller())

    async def _confirmed(self, messages: Sequence[Message]) -> None:
        """Send `messages` and wait until the broker has them all, or begin anew."""
        if self._producer is None:
            await self.start()
        assert self._producer is not None
        try:
            # aiokafka's idempotent producer tries for ever: the end of our patience is ours
            # to set, so that a worker without a broker can still be stopped.
            async with asyncio.timeout(CONFIRM_TIMEOUT_SECONDS):
                await send_all(self._producer, messages)
        except (KafkaError, OSError):
            await self.stop()
            raise


async def send_all(
    producer: AIOKafkaProducer, messages: Iterable[Message], *, transactional: bool = False
) -> list[RecordId]:
    """Send `messages`, in order within each partition; return where the broker has each.

    Args:
        producer: Connected.
        messages: To any topics.
        transactional: Whether the producer is.

    Raises:
        KafkaError: The broker did not confirm all of them.
    """
    by_partition: dict[Partition, list[tuple[int, Message]]] = {}
    for index, message in enumerate(messages):
        by_partition.setdefault((message.topic, message.partition), []).append((index, message))
    offsets = await asyncio.gather(
        *(
            send_partition(producer, transactional, partition, [each for _, each in queue])
            for partition, queue in by_partition.items()
        )
    )
    sent = {
        index: RecordId(*partition, offset)
        for (partition, queue), found in zip(by_partition.items(), offsets, strict=True)
        for (index, _), offset in zip(queue, found, strict=True)
    }
    return [sent[index] for index in sorted(sent)]


async def send_partition(
    producer: AIOKafkaProducer, transactional: bool, to: Partition, queue: Sequence[Message]
) -> list[int]:
    """Send `queue` to one partition; return its offsets when the broker has all of it."""
    topic, partition = to
    count = len(await producer.partitions_for(topic))
    batches = [
        (
            batch.record_count(),
            await producer.send_batch(batch, topic, partition=partition % count),
        )
        for batch in _batches(producer, queue, transactional)
    ]
    confirmed = await asyncio.gather(*(confirmation for _, confirmation in batches))
    return [
        first.offset + number
        for (records, _), first in zip(batches, confirmed, strict=True)
        for number in range(records)
    ]


def _batches(
    producer: AIOKafkaProducer, queue: Sequence[Message], transactional: bool = False
) -> Iterator[BatchBuilder]:
    batch: BatchBuilder | None = None
    for message in queue:
        if batch is not None:
            if _append(batch, message):
                continue
            batch.close()
            yield batch
        batch = producer.create_batch()
        if not _append(batch, message):
            batch = AnyNameBatch(BATCH_BYTES, transactional=transactional)
            _append(batch, message)
    if batch is not None:
        batch.close()
        yield batch


def _append(batch: BatchBuilder, message: Message) -> bool:
    """Add `message` if there is room for it, and if the batch can hold its header names."""
    try:
        appended = batch.append(
            timestamp=None, key=message.key, value=message.value, headers=list(message.headers)
        )
    except UnicodeEncodeError:
        # Raised before anything is written: the batch is as it was.
        return False
    return appended is not None
