"""Reads the events topic from its end on, for all requests of one publisher."""

import asyncio
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.broker.connection import (
    ANSWER_TIMEOUT_SECONDS,
    broker_error,
    broker_errors,
    client_options,
    close_consumer,
)
from pipeline.broker.event_matching import EventMatcher
from pipeline.errors import BrokerError
from pipeline.settings import Settings

POLL_SECONDS = 1.0
SILENCE_LIMIT_SECONDS = 60.0
"""Longest time without any answer from the broker; a fetch is answered twice a second."""


class EventReader:
    """One consumer without a group, which reads every partition and commits nothing.

    It outlives a broker that restarts. Once it cannot go on, all that wait for an event are
    told, `is_alive` is false, and another reader has to be made.
    """

    def __init__(self, settings: Settings, topic: str, partitions: Sequence[int]) -> None:
        self.matcher = EventMatcher()
        self._settings = settings
        self._partitions = [TopicPartition(topic, number) for number in partitions]
        self._task: asyncio.Task[None] | None = None

    @property
    def is_alive(self) -> bool:
        """Whether events are being read."""
        return self._task is not None and not self._task.done()

    async def start(self) -> None:
        """Stand at the end of every partition: from now on no event is missed.

        Raises:
            BrokerError: No broker answers, or it refuses.
        """
        consumer = AIOKafkaConsumer(
            **client_options(self._settings),
            isolation_level="read_committed",
            # A position that the log does not hold means that events were missed: say so.
            auto_offset_reset="none",
            enable_auto_commit=False,
            request_timeout_ms=int(ANSWER_TIMEOUT_SECONDS * 1000),
        )
        async with broker_errors(self._settings):
            try:
                await self._stand_at_end(consumer)
            except BaseException:
                await close_consumer(consumer)
                raise
        self._task = asyncio.create_task(self._read(consumer), name="rmos event reader")
        self._task.add_done_callback(self._tell_end)

    async def stop(self) -> None:
        """Read no more; all that still wait are told."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _stand_at_end(self, consumer: Any) -> None:  # noqa: ANN401 - aiokafka has no types
        async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
            await consumer.start()
            ends = await consumer.end_offsets(self._partitions)
        # No pause between these two, or the consumer would look for positions by itself.
        consumer.assign(self._partitions)
        for partition, offset in ends.items():
            consumer.seek(partition, offset)

    async def _read(self, consumer: Any) -> None:  # noqa: ANN401 - aiokafka has no types
        loop = asyncio.get_running_loop()
        last_answer, heard_at = None, loop.time()
        try:
            async with broker_errors(self._settings):
                while True:
                    fetched = await consumer.getmany(timeout_ms=int(POLL_SECONDS * 1000))
                    self._match(fetched)
                    answer = self._last_answer(consumer)
                    if answer != last_answer:
                        last_answer, heard_at = answer, loop.time()
                    elif loop.time() - heard_at > SILENCE_LIMIT_SECONDS:
                        # Also the only sign of a fetcher that died inside aiokafka.
                        raise await broker_error(self._settings)
        finally:
            await close_consumer(consumer)

    def _match(self, fetched: dict[TopicPartition, list[Any]]) -> None:
        for records in fetched.values():
            for record in records:
                # One that is too large to be held is no event of ours.
                if isinstance(record.value, bytes):
                    self.matcher.take(record.value)

    def _last_answer(self, consumer: Any) -> int:  # noqa: ANN401 - aiokafka has no types
        return max(consumer.last_poll_timestamp(each) or 0 for each in self._partitions)

    def _tell_end(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            error: BaseException | None = BrokerError("The publisher was stopped.")
        else:
            error = task.exception()
        assert isinstance(error, Exception)
        self.matcher.fail(error)
