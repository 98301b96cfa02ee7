"""No more records a second than an operator allows, so that a replay does not starve others."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from aiokafka import ConsumerRecord

_LEAST_PAUSE_SECONDS = 0.01
"""A shorter pause is saved up: the event loop sleeps no more exactly."""

Records = AsyncGenerator[ConsumerRecord, None]


async def paced(records: Records, per_second: float | None) -> Records:
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
