"""What the broker can say to an audit, which runs in a thread and knows no broker."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing
from typing import Any

from pipeline.audit.checks.offsets import BrokerView
from pipeline.broker.admin.groups import committed_offsets
from pipeline.broker.admin.offsets import OffsetRange
from pipeline.broker.connection import broker_errors
from pipeline.broker.reading.ranges import read_ranges
from pipeline.ledger.log_id import LogId
from pipeline.settings import Settings

ASKED_OFFSETS = 1_000
"""Most offsets of one question, so that a lost log of any size needs the same memory."""

ANSWER_SECONDS = 60.0

Ask = Callable[[Coroutine[Any, Any, list[int]]], list[int]]
"""Runs a question in the loop for a thread, and waits for its answer."""


async def broker_view(settings: Settings, epoch: int, ask: Ask) -> BrokerView:
    """Return the broker's view of the logs of `epoch`, for a thread that asks by `ask`.

    Raises:
        BrokerError: No broker answers. The view raises the same.
    """
    topics = settings.topics
    writers = {
        topics.run_requests: topics.persist_group,
        topics.advisory_requests: topics.advise_group,
        topics.legacy_runs: topics.migrate_group,
    }
    committed: dict[LogId, int] = {}
    for topic, group in writers.items():
        offsets = await committed_offsets(settings, group, [topic])
        committed |= {LogId(epoch, *place): offset for place, offset in offsets.items()}

    def shown(log: LogId, start: int, end: int) -> Iterator[int]:
        # Offsets of an earlier epoch are those of a broker that is gone.
        while log.epoch == epoch and log.topic in writers and start < end:
            offsets = ask(shown_offsets(settings, log, start, end))
            yield from offsets
            start = offsets[-1] + 1 if offsets else end

    return BrokerView(committed, shown)


async def shown_offsets(settings: Settings, log: LogId, start: int, end: int) -> list[int]:
    """Return the offsets of the first committed records from `start` to before `end`.

    Raises:
        BrokerError: No broker answers.
    """
    ranges = {(log.topic, log.partition): OffsetRange(start, end)}
    offsets: list[int] = []
    async with broker_errors(settings):
        reading = read_ranges(settings, ranges)
        # Closed here, with its consumer, also where we have enough.
        async with asyncio.timeout(ANSWER_SECONDS), aclosing(reading):
            async for record in reading:
                offsets.append(record.offset)
                if len(offsets) == ASKED_OFFSETS:
                    break
    return offsets
