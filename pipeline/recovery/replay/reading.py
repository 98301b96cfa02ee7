"""Partitions read one after the other, judged, and handed on in a thread of their own.

No more records a second than an operator allows, so that a replay does not starve others.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from itertools import groupby

from aiokafka import ConsumerRecord

from pipeline.broker.reading.ranges import read_ranges
from pipeline.consumers.engine.judging import Judging
from pipeline.core.progress import Progress, no_progress
from pipeline.core.record import Partition
from pipeline.recovery.replay.judged_chunks import JudgedChunk, judged_chunks
from pipeline.recovery.replay.partitions import ReplayedPartition
from pipeline.settings import Settings

_LEAST_PAUSE_SECONDS = 0.01
"""A shorter pause is saved up: the event loop sleeps no more exactly."""

Records = AsyncGenerator[ConsumerRecord, None]


async def rate_limited(records: Records, per_second: float | None) -> Records:
    """Yield `records`, at most so many a second on the average; None for as fast as it goes."""
    clock = asyncio.get_running_loop().time
    begun = clock()
    async with aclosing(records):
        count = 0
        async for record in records:
            yield record
            count += 1
            if per_second is None:
                continue
            ahead_seconds = begun + count / per_second - clock()
            if ahead_seconds > _LEAST_PAUSE_SECONDS:
                await asyncio.sleep(ahead_seconds)


async def of_run(records: Records, run_id: str | None) -> Records:
    """Yield those of `records` that have this run as their key; None for all."""
    key = None if run_id is None else run_id.encode()
    async with aclosing(records):
        async for record in records:
            if key is None or record.key == key:
                yield record


Handle = Callable[[ReplayedPartition, JudgedChunk], None]
"""Takes the next records of a partition."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How to read.

    Attributes:
        per_second: Most records a second; None for as fast as it goes.
        progress: Told how far it is.
    """

    per_second: float | None = None
    progress: Progress = no_progress


UNLIMITED = Reading()
"""As fast as it goes, and nobody watches."""


async def read_partitions(
    settings: Settings,
    partitions: Sequence[ReplayedPartition],
    handle: Handle,
    *,
    reading: Reading,
    run_id: str | None,
) -> None:
    """Read what is to be read of `partitions`, in their order, and hand it on.

    Args:
        settings: The broker.
        partitions: Those of one topic after those of another.
        handle: Runs in a thread, for one chunk at a time; what it raises ends the reading.
        reading: Rate limit and progress.
        run_id: The run whose records are wanted; None for all.

    Raises:
        BrokerError: The broker cannot be reached.
    """
    done = _Done(partitions, reading.progress)
    with ThreadPoolExecutor(1, thread_name_prefix="replay") as thread:
        for topic, group in groupby(partitions, key=lambda each: each.topic):
            by_place = {each.place: each for each in group}
            ranges = {place: each.to_read for place, each in by_place.items()}
            records = of_run(
                rate_limited(read_ranges(settings, ranges), reading.per_second), run_id
            )
            epoch = next(iter(by_place.values())).log_id.epoch
            with Judging(topic.judge, helper=settings.judge_in_helper) as judging:
                async with aclosing(judged_chunks(records, judging, epoch)) as chunks:
                    async for chunk in chunks:
                        last = chunk[-1].source
                        partition = by_place[last.id.topic_partition]
                        loop = asyncio.get_running_loop()
                        await loop.run_in_executor(thread, handle, partition, chunk)
                        done.reached(partition.place, last.id.offset + 1)
    done.all()


class _Done:
    """How much of the ranges is done; offsets without a record count as soon as one after is."""

    def __init__(self, partitions: Sequence[ReplayedPartition], progress: Progress) -> None:
        self._progress = progress
        self._begins = {each.place: each.to_read.beginning for each in partitions}
        self._total = sum(each.to_read.end - each.to_read.beginning for each in partitions)
        self._done: dict[Partition, int] = {}

    def reached(self, place: Partition, offset: int) -> None:
        self._done[place] = offset - self._begins[place]
        self._progress("offsets", sum(self._done.values()), self._total)

    def all(self) -> None:
        self._progress("offsets", self._total, self._total)
