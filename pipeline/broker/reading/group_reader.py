"""Read ranges of topics in the name of a consumer group that has no members.

For a program that runs once: it takes every partition itself, without the group's rebalances, and
commits what it has finished. Where another program has members in the group, its commits would
be refused by the broker; nothing would be lost.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from pipeline.broker.admin.topics import OffsetRange
from pipeline.broker.aiokafka_fixes.installed import install
from pipeline.broker.connection import broker_errors, connected_consumer
from pipeline.broker.reading.ranges import Ranges, waits_for_transaction
from pipeline.settings import Settings

_POLL_MS = 200


@asynccontextmanager
async def group_reader(
    settings: Settings, group: str, ranges: Ranges
) -> AsyncIterator["GroupReader"]:
    """Read and commit `ranges` in the name of `group`, each partition in its order.

    Args:
        settings: How to reach the broker, and the size of a batch.
        group: The consumer group.
        ranges: From where the group goes on to where it is to stop.
    """
    wanted = {
        TopicPartition(*partition): offsets
        for partition, offsets in ranges.items()
        if offsets.end > offsets.beginning
    }
    install()
    connected = connected_consumer(settings, group_id=group, auto_offset_reset="earliest")
    async with AsyncExitStack() as stack:
        async with broker_errors(settings):
            consumer = await stack.enter_async_context(connected)
            consumer.assign(list(wanted))
            for partition, offsets in wanted.items():
                consumer.seek(partition, offsets.beginning)
        yield GroupReader(settings, consumer, wanted)


@dataclass(frozen=True, slots=True)
class GroupReader:
    """Reads ranges of partitions, and commits them."""

    settings: Settings
    consumer: AIOKafkaConsumer
    ranges: Mapping[TopicPartition, OffsetRange]

    async def batches(self) -> AsyncGenerator[list[ConsumerRecord]]:
        """Yield the records of each poll, until every range has ended; commit before the next.

        A range ends early before a transaction that is still open: what it holds is no record
        yet.
        """
        while waiting := await self._unfinished():
            # The records are handled outside of this: their faults are not the broker's.
            async with broker_errors(self.settings):
                polled = await self.consumer.getmany(
                    *waiting, timeout_ms=_POLL_MS, max_records=self.settings.batch_records
                )
            records = [
                record
                for partition, found in sorted(polled.items())
                for record in found
                if record.offset < self.ranges[partition].end
            ]
            if records:
                yield records
            elif all(waits_for_transaction(self.consumer, *each) for each in waiting.items()):
                return

    async def commit(self) -> None:
        """Commit everything that `batches` has yielded."""
        async with broker_errors(self.settings):
            await self.consumer.commit(
                {
                    partition: OffsetAndMetadata(min(at, self.ranges[partition].end), "")
                    for partition, at in (await self._positions()).items()
                }
            )

    async def _unfinished(self) -> dict[TopicPartition, int]:
        """Return where each range stands that has not ended."""
        async with broker_errors(self.settings):
            reached = await self._positions()
        return {each: at for each, at in reached.items() if at < self.ranges[each].end}

    async def _positions(self) -> dict[TopicPartition, int]:
        return {each: await self.consumer.position(each) for each in self.ranges}
