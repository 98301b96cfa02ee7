"""Keeps the metric of lost offsets in a process that lives on when workers refuse to.

A worker that stops because of lost offsets cannot be asked for its metrics any more.
"""

import asyncio

import structlog

from pipeline import metrics
from pipeline.broker.admin.topics import committed_offsets, partition_offsets
from pipeline.broker.connection import is_cancelled
from pipeline.broker.reading.lost_offsets import lost_offsets
from pipeline.errors import BrokerError
from pipeline.settings import Settings

WATCH_SECONDS = 30.0

_log = structlog.get_logger(__name__)


async def watch_lost_offsets(settings: Settings) -> None:
    """Look at the groups of the request topics now and then, until cancelled."""
    topics = settings.topics
    persist = topics.persist_group if settings.runs_v2_enabled else topics.persist_v1_group
    watched = {persist: topics.run_requests, topics.advise_group: topics.advisory_requests}
    while True:
        for group, topic in watched.items():
            try:
                await measure_lost_offsets(settings, group, topic)
            except BrokerError as error:
                # Whether the broker answers is told by readiness.
                _log.debug("lost offsets not measured", group=group, why=str(error))
            # aiokafka swallows a cancellation that comes while one of its clients stops.
            if is_cancelled():
                return
        await asyncio.sleep(WATCH_SECONDS)


async def measure_lost_offsets(settings: Settings, group: str, topic: str) -> None:
    """Set the metric for every partition of `topic` in which `group` has been.

    Raises:
        BrokerError: The broker cannot be reached.
    """
    before = await partition_offsets(settings, [topic])
    committed = await committed_offsets(settings, group, [topic])
    # Log and group go on while we look: only what is lost before and after is lost.
    seems_lost = any(lost_offsets(*place, at, before[place]) for place, at in committed.items())
    after = await partition_offsets(settings, [topic]) if seems_lost else before
    for place, position in committed.items():
        found = lost_offsets(*place, position, before[place])
        lost = found and lost_offsets(*place, position, after[place])
        metrics.LOST_OFFSETS.labels(group, *place).set(lost.count if lost else 0)
