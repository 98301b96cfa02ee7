"""Records of request topics read, judged chunk by chunk, and handled in a thread of their own.

While one chunk is stored or compared, the next ones are judged. An operator may limit the records
a second, so that a replay leaves capacity for the workers.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from aiokafka import ConsumerRecord

from pipeline.broker.reading.ranges import Ranges, read_ranges
from pipeline.consumers.engine.batches import CHUNK_BYTES, CHUNK_RECORDS, judged_records
from pipeline.consumers.engine.judging import Judging
from pipeline.consumers.engine.outbox import request_of
from pipeline.core.dead_letters.carried_record import held_bytes
from pipeline.core.progress import Progress, no_progress
from pipeline.core.record import Partition
from pipeline.recovery.chunks import in_chunks
from pipeline.recovery.replay.partitions import ReplayedPartition
from pipeline.recovery.replay.request_topics import RequestTopic
from pipeline.settings import Settings
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.batch_store import BatchStore

CHUNKS_AHEAD = 3
"""Most chunks that are judged or wait to be stored."""

_LEAST_PAUSE_SECONDS = 0.01
"""A shorter pause is saved up: the event loop sleeps no more exactly."""

JudgedChunk = list[JudgedRecord[Any]]
"""Judged records of one partition, in the order of their offsets."""

Records = AsyncGenerator[ConsumerRecord, None]


@dataclass(frozen=True, slots=True)
class Reading:
    """How to read.

    Attributes:
        per_second: Most records a second; None for as fast as it goes.
        progress: Called with how far it is.
    """

    per_second: float | None = None
    progress: Progress = no_progress


UNLIMITED = Reading()
"""As fast as it goes, without progress."""


async def limited(records: Records, per_second: float | None, run_id: str | None) -> Records:
    """Yield those of `records` that have this run as their key; None for all.

    At most so many are taken a second, on the average; None for as fast as it goes.
    """
    key = None if run_id is None else run_id.encode()
    clock = asyncio.get_running_loop().time
    begun, count = clock(), 0
    async with aclosing(records):
        async for record in records:
            if key is None or record.key == key:
                yield record
            count += 1
            ahead_seconds = 0.0 if per_second is None else begun + count / per_second - clock()
            if ahead_seconds > _LEAST_PAUSE_SECONDS:
                await asyncio.sleep(ahead_seconds)


async def read_partitions(
    settings: Settings,
    partitions: Sequence[ReplayedPartition],
    handle: Callable[[ReplayedPartition, JudgedChunk], None],
    *,
    reading: Reading,
    run_id: str | None,
) -> None:
    """Read what is to be read of `partitions`, in their order, and hand it on.

    Args:
        settings: The broker.
        partitions: Those of one topic after those of another.
        handle: Takes the next records of a partition, in a thread; what it raises ends the reading.
        reading: Rate limit and progress.
        run_id: The run whose records are wanted; None for all.

    Raises:
        BrokerError: The broker cannot be reached.
    """
    by_place = {each.place: each for each in partitions}
    total = sum(each.to_read.end - each.to_read.beginning for each in partitions)
    done: dict[Partition, int] = {}

    def handle_chunk(chunk: JudgedChunk) -> None:
        handle(by_place[chunk[-1].source.id.topic_partition], chunk)

    for topic, group in groupby(partitions, key=lambda each: each.topic):
        ranges = {each.place: each.to_read for each in group}
        epoch = by_place[next(iter(ranges))].log_id.epoch
        records = limited(read_ranges(settings, ranges), reading.per_second, run_id)
        handled = _handled(settings, topic, records, epoch, handle_chunk)
        async with aclosing(handled) as chunks:
            async for chunk in chunks:
                last = chunk[-1].source.id
                # Offsets without a record count as soon as one after them is done.
                done[last.topic_partition] = (
                    last.offset + 1 - ranges[last.topic_partition].beginning
                )
                reading.progress("offsets", sum(done.values()), total)
    reading.progress("offsets", total, total)


async def commit_ranges(
    settings: Settings,
    topic: RequestTopic,
    store: BatchStore[Any, Any],
    ranges: Ranges,
    progress: Progress = no_progress,
) -> int:
    """Let `store` consume the records of `ranges`, as a worker does; publish nothing.

    Files, rows, leaves and positions are made by the same function as a worker's. What is there
    already stays as it is. The reject limit does not apply. Stop the workers first.

    Returns:
        How many records were consumed.

    Args:
        settings: The broker.
        topic: What the records are.
        store: What keeps them.
        ranges: Of `topic`, each from where the store stands.
        progress: Called after each chunk.

    Raises:
        BrokerError: The broker cannot be reached.
        IntegrityError: A log is not what was written, or an offset has another leaf.
        StoreError: The disk failed; what is done stays, and doing it again goes on from there.
    """
    done, total = 0, sum(each.end - each.beginning for each in ranges.values())
    records = read_ranges(settings, ranges)
    handled = _handled(settings, topic, records, store.identity.epoch, store.commit)
    async with aclosing(handled) as chunks:
        async for chunk in chunks:
            done += len(chunk)
            progress(f"records of {topic.name}", done, total)
    return done


async def _handled(
    settings: Settings,
    topic: RequestTopic,
    records: Records,
    epoch: int,
    handle: Callable[[JudgedChunk], object],
) -> AsyncGenerator[JudgedChunk, None]:
    """Yield each chunk of judged records when `handle` has returned, in a thread."""
    loop = asyncio.get_running_loop()
    with (
        Judging(topic.judge, in_child=settings.judge_in_child_process) as judging,
        ThreadPoolExecutor(1, thread_name_prefix="replay") as thread,
    ):
        async with aclosing(judged_chunks(records, judging, epoch)) as chunks:
            async for chunk in chunks:
                await loop.run_in_executor(thread, handle, chunk)
                yield chunk


async def judged_chunks(
    records: Records, judging: Judging[Any], epoch: int
) -> AsyncGenerator[JudgedChunk, None]:
    """Yield `records` judged, in their order, in chunks of bounded number and size.

    Args:
        records: One partition after the other, each in the order of its offsets.
        judging: Returns the verdict on each.
        epoch: That of the store.
    """
    waiting: deque[asyncio.Task[JudgedChunk]] = deque()
    try:
        chunked = in_chunks(
            records,
            held_bytes,
            most=CHUNK_RECORDS,
            most_bytes=CHUNK_BYTES,
            group_of=lambda record: (record.topic, record.partition),
        )
        async with aclosing(chunked) as chunks:
            async for chunk in chunks:
                waiting.append(asyncio.create_task(_judged(chunk, judging, epoch)))
                if len(waiting) == CHUNKS_AHEAD:
                    yield await waiting.popleft()
        while waiting:
            yield await waiting.popleft()
    finally:
        # What is still being judged when another chunk failed: that failure is reported already.
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _judged(chunk: list[ConsumerRecord], judging: Judging[Any], epoch: int) -> JudgedChunk:
    return await judged_records(judging, [request_of(record, epoch) for record in chunk])
