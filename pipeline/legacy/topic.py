"""The legacy topic: consumed once, to an end that is fixed, by the same steps as run requests."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial

from pipeline.broker.admin.groups import committed_offsets
from pipeline.broker.admin.offsets import OffsetRange, partition_offsets
from pipeline.broker.reading.group_reader import group_reader
from pipeline.broker.reading.ranges import Ranges
from pipeline.broker.sending.batches import BatchSender
from pipeline.consumers.engine.batches import BatchWorker, Steps
from pipeline.consumers.engine.judging import Judging
from pipeline.consumers.engine.outbox import Outbox
from pipeline.consumers.requests import run_messages
from pipeline.core.runs.event import run_event
from pipeline.core.runs.outcome import Outcome
from pipeline.legacy.record import judge_legacy_record
from pipeline.settings import Settings
from pipeline.storage.batch_store import BatchResult, RejectLimit
from pipeline.storage.run_store import RunRecord, RunStore


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
    stored: Callable[[Sequence[Outcome]], None],
    accepted_rejects: int = 0,
) -> None:
    """Store the records of `ranges`, publish their events, then commit their offsets.

    Args:
        settings: How to reach the broker.
        store: Where the runs go.
        sender: Sends events and dead letters.
        ranges: From where the group goes on.
        stored: Given the outcomes of each chunk once it is stored.
        accepted_rejects: Failures that do not count against the reject limit.

    Raises:
        RejectLimitError: Too many records fail; nothing more was written.
        IntegrityError: A log is not what was written.
        StoreError: The disk failed; what is not committed is done again.
        BrokerError: The broker cannot be reached; what is not committed is done again.
    """
    topics = settings.topics
    group = topics.migrate_group

    def store_chunk(judged: Sequence[RunRecord], limit: RejectLimit) -> BatchResult[Outcome]:
        result = store.commit(judged, limit)
        stored(result.outcomes)
        return result

    with (
        ThreadPoolExecutor(1, thread_name_prefix="store") as executor,
        Judging(judge_legacy_record, helper=settings.judge_in_helper) as judging,
    ):
        outbox = Outbox(group, topics.run_events, topics.run_dead_letters)
        worker = BatchWorker(
            Steps(judging, store_chunk, partial(run_messages, outbox, run_event)),
            outbox,
            sender,
            epoch=store.identity.epoch,
            executor=executor,
            accepted_rejects=accepted_rejects,
        )
        async with (
            group_reader(settings, group, ranges) as reader,
            aclosing(reader.batches()) as batches,
        ):
            async for records in batches:
                # Where a worker would be given them again, this program is run again.
                await worker.process(records)
                await reader.commit()
