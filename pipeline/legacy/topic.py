"""The legacy topic: consumed once, to an end that is fixed, by the same steps as run requests."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing

from faststream.exceptions import NackMessage

from pipeline.broker.admin.groups import committed_offsets
from pipeline.broker.admin.offsets import OffsetRange, partition_offsets
from pipeline.broker.reading.group_reader import GroupReader
from pipeline.broker.reading.ranges import Ranges
from pipeline.broker.sending.batches import BatchSender
from pipeline.consumers.engine.batches import BatchConsumer, Pace
from pipeline.consumers.engine.judging import Judging
from pipeline.consumers.run_requests import RunRequestJudge, Settled
from pipeline.legacy.record import judge_legacy_record
from pipeline.settings import Settings
from pipeline.storage.run_store import RunStore


async def waiting_legacy_runs(settings: Settings) -> Ranges:
    """Return what the group has not consumed yet of each partition, as the topic ends now.

    Raises:
        BrokerError: No broker answers.
    """
    topics = settings.topics
    ranges = await partition_offsets(settings, [topics.legacy_runs])
    committed = await committed_offsets(settings, topics.migrate_group, [topics.legacy_runs])
    return {
        place: OffsetRange(max(found.beginning, committed.get(place, 0)), found.end)
        for place, found in ranges.items()
    }


async def store_legacy_runs(
    settings: Settings,
    store: RunStore,
    sender: BatchSender,
    ranges: Ranges,
    *,
    settled: Settled,
    accepted_rejects: int = 0,
) -> None:
    """Store the records of `ranges`, tell of them, then commit their offsets.

    Args:
        settings: How to reach the broker.
        store: Where the runs go.
        sender: Sends events and dead letters.
        ranges: From where the group goes on.
        settled: Told what became of each chunk.
        accepted_rejects: Failures that do not count against the reject limit.

    Raises:
        RejectLimitError: Too many records fail; nothing more was written.
        IntegrityError: A log is not what was written.
        StoreError: The disk failed; what is not committed is done again.
        BrokerError: The broker cannot be reached; what is not committed is done again.
    """
    group = settings.topics.migrate_group
    with (
        ThreadPoolExecutor(1, thread_name_prefix="store") as executor,
        Judging(judge_legacy_record, helper=settings.judge_in_helper) as judging,
    ):
        judge = RunRequestJudge(
            store,
            settings.topics,
            judging=judging,
            executor=executor,
            accepted_rejects=accepted_rejects,
            group=group,
            settled=settled,
        )
        consumer = BatchConsumer(group, judge, sender, Pace(settings.broker_pause_seconds))
        async with (
            GroupReader(settings, group, ranges) as reader,
            aclosing(reader.batches()) as batches,
        ):
            async for records in batches:
                try:
                    await consumer.handle(records)
                except NackMessage as error:
                    # A worker would be given them again; this program is run again.
                    _forget(consumer.fault)
                    raise (error.__cause__ or error) from None
                await reader.commit()


def _forget(fault: asyncio.Future[None]) -> None:
    if fault.done():
        fault.exception()
