"""Latency at a steady pace, and memory over many records, of the real worker."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from pipeline.broker.local.broker import LocalBroker
from pipeline.broker.publisher import RunPublisher
from tests.bench.contender import Contender
from tests.bench.lane import EventCounter, Lane, make_lane, start_line, wait_until_joined
from tests.bench.race import WORKER
from tests.bench.requests import encoded_requests, run_request

WARM_SECONDS = 2.0
SAMPLE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from the time at which a request was due to the time of its event."""

    rate: float
    count: int
    p50: float
    p99: float
    worst: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of the worker, in MB, while it takes many records.

    Attributes:
        first: Median over the first quarter of the records.
        last: Median over the last quarter.
    """

    records: int
    rate: float
    first: float
    last: float
    peak: float


async def measure_latency(
    broker: LocalBroker, folder: Path, *, rate: float, seconds: float
) -> Latency:
    """Publish at a fixed schedule, whatever the answers do, and wait for each event."""
    lane = await make_lane(broker, folder, "latency", 0)
    with Contender(WORKER, lane.environment(), folder / "latency.log") as contender:
        await wait_until_joined(lane, contender)
        async with RunPublisher(lane.settings) as publisher:
            await _publish_on_schedule(publisher, rate, WARM_SECONDS, "warm")
            waits = await _publish_on_schedule(publisher, rate, seconds, "timed")
        contender.stop()
    ordered = sorted(waits)
    return Latency(
        rate, len(ordered), median(ordered), ordered[int(len(ordered) * 0.99)], ordered[-1]
    )


async def _publish_on_schedule(
    publisher: RunPublisher, rate: float, seconds: float, seed: str
) -> list[float]:
    """Return the milliseconds of each request, counted from when it was due, not sent."""
    requests = [run_request(number, seed) for number in range(int(rate * seconds))]
    loop = asyncio.get_running_loop()
    start = loop.time() + 0.2

    async def publish(number: int) -> float:
        due = start + number / rate
        await asyncio.sleep(due - loop.time())
        await publisher.publish_and_wait(requests[number])
        return (loop.time() - due) * 1000

    return list(await asyncio.gather(*(publish(number) for number in range(len(requests)))))


async def measure_memory(
    broker: LocalBroker, folder: Path, *, records: int, tell: Callable[[str], None]
) -> Memory:
    """Let the worker take `records`, and sample its memory."""
    tell(f"memory: filling a topic with {records:,} records")
    lane = await make_lane(broker, folder, "memory", records)
    requests: Iterator[tuple[bytes, bytes]] = encoded_requests(records)
    async with start_line(lane, requests) as producer, EventCounter(lane) as events:
        with Contender(WORKER, lane.environment(), folder / "memory.log") as contender:
            await wait_until_joined(lane, contender)
            started = time.time()
            await producer.commit_transaction()
            samples = await _sample(lane, contender, events)
            rate = records / (await events.last_event_seconds() - started)
            peak = contender.peak_rss_mb()
            contender.stop()
    quarter = max(1, records // 4)
    first = [rss for count, rss in samples if 0 < count <= quarter]
    last = [rss for count, rss in samples if count >= records - quarter]
    return Memory(records, rate, median(first), median(last), peak)


async def _sample(
    lane: Lane, contender: Contender, events: EventCounter
) -> list[tuple[int, float]]:
    """Return pairs of events so far and memory, until all events are there."""
    samples: list[tuple[int, float]] = []
    done = asyncio.create_task(events.wait_for(lane.records, contender))
    async with EventCounter(lane) as own:
        while not done.done():
            samples.append((await own.count(), contender.rss_mb()))
            await asyncio.wait([done], timeout=SAMPLE_SECONDS)
    done.result()
    samples.append((lane.records, contender.rss_mb()))
    return samples
