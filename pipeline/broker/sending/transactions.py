"""Sends messages and the records about them in one transaction: both or neither.

One producer of a transactional id may be at work at a time. A new one ends the transaction
that another has left open and shuts that one out; what the other had committed is there to be
read before anything more is sent.

| state | if the process dies here |
|---|---|
| begun, sent | the broker drops it after `TRANSACTION_TIMEOUT_MS`, or when the next one starts |
| committed | done, and remembered |
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from aiokafka import AIOKafkaProducer
from aiokafka.errors import InvalidProducerEpoch, KafkaError, ProducerFenced

from pipeline.broker.aiokafka_fixes.clients import retrieve_failures
from pipeline.broker.connection import broker_errors
from pipeline.broker.sending.batches import CONFIRM_TIMEOUT_SECONDS, Message, Sender, send_all
from pipeline.core.record import RecordId
from pipeline.errors import RefusedError
from pipeline.settings import Settings

TRANSACTION_TIMEOUT_MS = 40_000
"""How long the broker keeps an abandoned transaction open: consumers of committed records do not
get past it in its partitions. Longer than we wait for what is sent and for its end together."""

_END_TIMEOUT_SECONDS = 10.0
_ABORT_TIMEOUT_SECONDS = 2.0

Remember = Callable[[Sequence[RecordId]], Sequence[Message]]
"""Makes what is remembered of messages, given where each of them is."""


class TransactionalSender(Sender):
    """A producer whose messages are there for consumers all together, or never."""

    def __init__(self, settings: Settings, transactional_id: str) -> None:
        super().__init__(
            settings,
            transactional_id=transactional_id,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
        )

    async def send(self, messages: Sequence[Message], remember: Remember) -> list[RecordId]:
        """Send `messages` and what is remembered of them in one transaction.

        Returns:
            Where each of `messages` is.

        Raises:
            RefusedError: Another has begun to send under this transactional id. Nothing was sent.
            BrokerError: The broker refused, or did not confirm in time. Nothing was sent, or all
                and its memory: every reader of the memory knows.
        """
        producer = self._producer
        assert producer is not None, "start it first"
        async with broker_errors(self._settings):
            try:
                return await self._send(producer, messages, remember)
            except (ProducerFenced, InvalidProducerEpoch) as error:
                retrieve_failures(producer)
                await self.stop()
                raise RefusedError(
                    "Another command has begun to redrive, so this one has ended: nothing more "
                    "was sent by it. What it sent before is remembered."
                ) from error
            except BaseException:
                await self._abandon(producer)
                raise

    async def _send(
        self, producer: AIOKafkaProducer, messages: Sequence[Message], remember: Remember
    ) -> list[RecordId]:
        async with asyncio.timeout(CONFIRM_TIMEOUT_SECONDS):
            await producer.begin_transaction()
            sent = await send_all(producer, messages, transactional=True)
            await send_all(producer, remember(sent), transactional=True)
        async with asyncio.timeout(_END_TIMEOUT_SECONDS):
            await producer.commit_transaction()
        return sent

    async def _abandon(self, producer: AIOKafkaProducer) -> None:
        """End the open transaction, or leave it to the next producer, and disconnect."""
        # Left open it would hold up its partitions, and nothing would close it for a while.
        with suppress(KafkaError, OSError, AssertionError):
            async with asyncio.timeout(_ABORT_TIMEOUT_SECONDS):
                await producer.abort_transaction()
        retrieve_failures(producer)
        await self.stop()
