"""The persist worker's steps behind a bare loop of aiokafka: what its frame costs beside them.

The same judging, store, events and overlapping chunks. Left out are FastStream, the checks of
topics and offsets, what follows a fault or a rebalance, health and metrics over HTTP. So the worker
can hardly be faster than this, and what it is slower is the price of all that.
`python -m tests.bench.bare_loop`, with settings in the environment;
`RMOS_JUDGE_IN_CHILD_PROCESS=false` judges and stores in one process.
"""

import asyncio
import signal
from collections import deque
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from itertools import chain
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from pipeline.app.persist import worker_of_runs
from pipeline.app.process import run_service
from pipeline.app.worker import opened_store
from pipeline.broker.connection import client_options
from pipeline.consumers.engine.batches import (
    CHUNK_RECORDS,
    CHUNKS_IN_FLIGHT,
    BatchWorker,
    Chunk,
    Delivery,
)
from pipeline.consumers.engine.in_flight import CHUNKS_UNSTORED
from pipeline.consumers.engine.subscription import FETCH_BYTES, PARTITION_FETCH_BYTES
from pipeline.settings import Settings, read_settings
from pipeline.storage.run_store import RunStore


def main() -> None:
    run_service(_serve(read_settings()))


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        store = await opened_store(settings, stack, RunStore)
        worker = await worker_of_runs(settings, stack, store)
        consumer = _consumer(settings)
        await consumer.start()
        stack.push_async_callback(consumer.stop)
        consuming = asyncio.create_task(_consume(consumer, worker, settings.batch_wait_ms))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([consuming, stopped], return_when=asyncio.FIRST_COMPLETED)
        if consuming.done():
            consuming.result()
        consuming.cancel()
        await asyncio.gather(consuming, return_exceptions=True)


def _consumer(settings: Settings) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        settings.topics.run_requests,
        **client_options(settings),
        group_id=settings.topics.persist_group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        fetch_max_bytes=FETCH_BYTES,
        max_partition_fetch_bytes=PARTITION_FETCH_BYTES,
    )


async def _consume(consumer: AIOKafkaConsumer, worker: BatchWorker[Any, Any], wait_ms: int) -> None:
    """Poll, and begin with a chunk once it is full, or nothing else waits for the disk."""
    begun: deque[Chunk] = deque(maxlen=CHUNKS_IN_FLIGHT)
    waiting: list[ConsumerRecord] = []
    while True:
        polled = await consumer.getmany(
            timeout_ms=wait_ms, max_records=CHUNK_RECORDS - len(waiting)
        )
        waiting += chain.from_iterable(polled.values())
        if not waiting or (worker.unstored and len(waiting) < CHUNK_RECORDS):
            continue
        if len(begun) == CHUNKS_IN_FLIGHT:
            await begun[0].task
        if len(begun) >= CHUNKS_UNSTORED:
            await begun[-CHUNKS_UNSTORED].stored
        begun.append(worker.begin(Delivery(waiting, partial(_commit, consumer, waiting))))
        waiting = []


async def _commit(consumer: AIOKafkaConsumer, records: Sequence[ConsumerRecord]) -> None:
    # The last record of a partition wins, and it is the latest.
    await consumer.commit(
        {TopicPartition(each.topic, each.partition): each.offset + 1 for each in records}
    )


if __name__ == "__main__":
    main()
