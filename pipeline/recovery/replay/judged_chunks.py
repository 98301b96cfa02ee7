"""Records of a topic judged chunk by chunk, as a worker does it; nobody is told of them.

While one chunk is stored or compared, the next ones are judged.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

from aiokafka import ConsumerRecord

from pipeline.broker.reading.ranges import Ranges, read_ranges
from pipeline.consumers.engine.batches import CHUNK_BYTES, CHUNK_RECORDS, CHUNKS_AHEAD, drop
from pipeline.consumers.engine.judging import Judging, judged_records
from pipeline.consumers.engine.outbox import request_of
from pipeline.core.dead_letters.carried_record import held_bytes
from pipeline.core.progress import Progress, no_progress
from pipeline.recovery.chunks import in_chunks
from pipeline.recovery.replay.request_topics import RequestTopic
from pipeline.settings import Settings
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.batch_store import BatchStore

JudgedChunk = list[JudgedRecord[Any]]
"""Judged records of one partition, in the order of their offsets."""

Records = AsyncGenerator[ConsumerRecord, None]


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
    loop = asyncio.get_running_loop()
    done, total = 0, sum(each.end - each.beginning for each in ranges.values())
    with (
        Judging(topic.judge, helper=settings.judge_in_helper) as judging,
        ThreadPoolExecutor(1, thread_name_prefix="replay") as thread,
    ):
        records = read_ranges(settings, ranges)
        async with aclosing(judged_chunks(records, judging, store.identity.epoch)) as chunks:
            async for chunk in chunks:
                await loop.run_in_executor(thread, store.commit, chunk)
                done += len(chunk)
                progress(f"records of {topic.name}", done, total)
    return done


async def judged_chunks(
    records: Records, judging: Judging[Any], epoch: int
) -> AsyncGenerator[JudgedChunk, None]:
    """Yield `records` judged, in their order, in chunks of bounded number and size.

    Args:
        records: One partition after the other, each in the order of its offsets.
        judging: Says what each is.
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
        await drop(waiting)


async def _judged(chunk: list[ConsumerRecord], judging: Judging[Any], epoch: int) -> JudgedChunk:
    return await judged_records(judging, [request_of(record, epoch) for record in chunk])
