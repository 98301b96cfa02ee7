"""Latency at a steady pace, and what a record costs in a growing store, of the real worker."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median

from aiokafka import AIOKafkaProducer

from pipeline.broker.local.broker import LocalBroker
from pipeline.broker.publisher import RunPublisher
from tests.bench.contender import Contender
from tests.bench.lane import (
    EventCounter,
    Lane,
    make_lane,
    send_unseen,
    start_line,
    wait_until_joined,
)
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
    turns: int,
    random_dates: bool,
    ordered_ids: bool,
    tell: Callable[[str], None],
) -> tuple[list[Result], list[tuple[Result, Result]]]:
    """Let one worker take `runs` records; return what each step of `step` records cost.

    A machine's own speed changes over the minutes that this takes. So at the end that worker takes
    turns with one whose store is new, a step each.

    Returns:
        The steps, and for each turn the step in the new store and that in the grown one.
    """
    requests = partial(encoded_requests, random_dates=random_dates, ordered_ids=ordered_ids)
    async with _growing(broker, folder, "growth", requests(runs + turns * step), step) as grown:
        steps: list[Result] = []
        while len(steps) < runs // step:
            steps.append(await grown.take())
            tell(f"{len(steps) * step:,} runs: {steps[-1].cpu_us:,.0f} us CPU")
        pairs: list[tuple[Result, Result]] = []
        for turn in range(1, turns + 1):
            name = f"new{turn}"
            async with _growing(broker, folder, name, requests(step, name), step) as new:
                pairs.append((await new.take(), await grown.take()))
            tell(f"turn {turn}: {' and '.join(f'{each.cpu_us:,.0f}' for each in pairs[-1])} us CPU")
    return steps, pairs


@dataclass
class _Growing:
    """A worker whose store grows by a step at a time."""

    broker: LocalBroker
    lane: Lane
    requests: Iterator[tuple[bytes, bytes]]
    producer: AIOKafkaProducer
    events: EventCounter
    contender: Contender
    taken: int = 0

    async def take(self) -> Result:
        """Time the records that are there unseen, and send as many again behind them."""
        step = self.lane.records
        watch, started = Watch(self.contender, self.broker), time.time()
        await self.producer.commit_transaction()
        self.taken += step
        await self.events.wait_for(self.lane.warm + self.taken, self.contender)
        seconds = await self.events.last_event_seconds() - started
        result = watch.result(WORKER, self.taken // step, step, seconds)
        await send_unseen(self.producer, self.lane, islice(self.requests, step))
        return result


@asynccontextmanager
async def _growing(
    broker: LocalBroker,
    folder: Path,
    name: str,
    requests: Iterator[tuple[bytes, bytes]],
    step: int,
) -> AsyncIterator[_Growing]:
    """Start a worker over a new store; the first step is in its topic, unseen."""
    lane = await make_lane(broker, folder, name, step, WARM_RECORDS)
    with Contender(WORKER.command, lane.environment(), folder / f"{name}.log") as contender:
        async with (
            start_line(lane, islice(requests, step)) as producer,
            EventCounter(lane) as events,
        ):
            await wait_until_joined(lane, contender)
            await events.wait_for(lane.warm, contender)
            yield _Growing(broker, lane, requests, producer, events, contender)
        contender.stop()
