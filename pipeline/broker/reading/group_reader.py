"""Read ranges of topics in the name of a consumer group that has no members.

For a program that runs once: it takes every partition itself, without the group's rebalances, and
commits what it has finished. Where another program has members in the group, its commits would
be refused by the broker; nothing would be lost.
"""

from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from pipeline.broker.aiokafka_fixes.tolerant_records import install_tolerant_records
from pipeline.broker.connection import broker_errors, client_options, close_consumer
from pipeline.broker.reading.ranges import Ranges, waits_for_transaction
from pipeline.settings import Settings

_POLL_MS = 200


class GroupReader:
    """A context in which ranges are read and committed, each partition in its order."""

    def __init__(self, settings: Settings, group: str, ranges: Ranges) -> None:
        """Prepare; nothing is read before the context begins.

        Args:
            settings: How to reach the broker, and the size of a batch.
            group: The consumer group.
            ranges: From where the group goes on to where it is to stop.
        """
        install_tolerant_records()
        self._settings = settings
        self._ends = {
            TopicPartition(topic, partition): offsets
            for (topic, partition), offsets in ranges.items()
            if offsets.end > offsets.beginning
        }
        self._consumer = AIOKafkaConsumer(
            **client_options(settings),
            group_id=group,
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
        )

    async def __aenter__(self) -> Self:
        async with broker_errors(self._settings):
            await self._consumer.start()
            self._consumer.assign(list(self._ends))
            for place, offsets in self._ends.items():
                self._consumer.seek(place, offsets.beginning)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await close_consumer(self._consumer)

    async def batches(self) -> AsyncGenerator[list[ConsumerRecord]]:
        """Yield what each poll brings, until every range has ended; commit before the next.

        A range ends early before a transaction that is still open: what it holds is no record
        yet.

        Raises:
            BrokerError: The broker cannot be reached.
        """
        while waiting := await self._unfinished():
            async with broker_errors(self._settings):
                polled = await self._consumer.getmany(
                    *waiting, timeout_ms=_POLL_MS, max_records=self._settings.batch_records
                )
            records = [
                record
                for place, found in sorted(polled.items())
                for record in found
                if record.offset < self._ends[place].end
            ]
            if records:
                yield records
            elif await self._waits_for_transactions(waiting):
                return

    async def commit(self) -> None:
        """Commit everything that `batches` has yielded.

        Raises:
            BrokerError: The broker cannot be reached, or refuses.
        """
        async with broker_errors(self._settings):
            positions = {
                place: OffsetAndMetadata(min(await self._consumer.position(place), offsets.end), "")
                for place, offsets in self._ends.items()
            }
            await self._consumer.commit(positions)

    async def _waits_for_transactions(self, places: list[TopicPartition]) -> bool:
        async with broker_errors(self._settings):
            return all(
                [
                    waits_for_transaction(
                        self._consumer, place, await self._consumer.position(place)
                    )
                    for place in places
                ]
            )

    async def _unfinished(self) -> list[TopicPartition]:
        async with broker_errors(self._settings):
            return [
                place
                for place, offsets in self._ends.items()
                if await self._consumer.position(place) < offsets.end
            ]
