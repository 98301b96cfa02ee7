"""Latency at a steady pace, and what a record costs in a growing store, of the real worker."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median

from pipeline.broker.local.broker import LocalBroker
from pipeline.broker.publisher import RunPublisher
from tests.bench.contender import Contender
from tests.bench.lane import EventCounter, make_lane, send_unseen, start_line, wait_until_joined
from tests.bench.race import WARM_RECORDS, WORKER, Result, Watch
from tests.bench.requests import encoded_requests

WARM_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from the time at which a request was due to the time of its event."""

    rate: float
    count: int
    p50: float
    p99: float
    worst: float


async def measure_latency(
    broker: LocalBroker, folder: Path, *, rate: float, seconds: float
) -> Latency:
    """Publish at a fixed schedule, whatever the answers do, and wait for each event."""
    lane = await make_lane(broker, folder, "latency", 0)
    with Contender(WORKER.command, lane.environment(), folder / "latency.log") as contender:
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
    requests = [json.loads(body) for _, body in encoded_requests(int(rate * seconds), seed)]
    loop = asyncio.get_running_loop()
    start = loop.time() + 0.2

    async def publish(number: int) -> float:
        due = start + number / rate
        await asyncio.sleep(due - loop.time())
        await publisher.publish_and_wait(requests[number])
        return (loop.time() - due) * 1000

    return list(await asyncio.gather(*(publish(number) for number in range(len(requests)))))


async def measure_growth(
    broker: LocalBroker,
    folder: Path,
    *,
    runs: int,
    step: int,
    random_dates: bool,
    tell: Callable[[str], None],
) -> list[Result]:
    """Let one worker take `runs` records; return what each step of `step` records cost.

    Each step is in the topic before its clock starts, as a run of the race is.
    """
    requests = encoded_requests(runs, random_dates=random_dates)
    lane = await make_lane(broker, folder, "growth", runs, WARM_RECORDS)
    steps: list[Result] = []
    async with start_line(lane, islice(requests, step)) as producer, EventCounter(lane) as events:
        with Contender(WORKER.command, lane.environment(), folder / "growth.log") as contender:
            await wait_until_joined(lane, contender)
            await events.wait_for(lane.warm, contender)
            for number in range(1, runs // step + 1):
                if steps:
                    await send_unseen(producer, lane, islice(requests, step))
                watch, started = Watch(contender, broker), time.time()
                await producer.commit_transaction()
                await events.wait_for(lane.warm + number * step, contender)
                seconds = await events.last_event_seconds() - started
                steps.append(watch.result(WORKER, number, step, seconds))
                tell(f"{number * step:,} runs: {steps[-1].cpu_us:,.0f} us CPU")
            contender.stop()
    return steps
