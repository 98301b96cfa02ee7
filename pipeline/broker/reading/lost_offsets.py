"""Offsets that a group needs and the log no longer has: named, logged, measured.

The metric is kept by the process of the API too: a worker that has stopped because of lost
offsets cannot be asked for its metrics any more.
"""

import asyncio
from dataclasses import dataclass

import structlog

from pipeline import metrics
from pipeline.broker.admin.groups import committed_offsets
from pipeline.broker.admin.topics import OffsetRange, partition_offsets
from pipeline.broker.aiokafka_fixes.clients import is_cancelled
from pipeline.core.record import Partition
from pipeline.errors import BrokerError
from pipeline.settings import Settings

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LostOffsets:
    """Offsets of one partition that a group misses.

    Attributes:
        position: Where the group stands; outside of the log.
        first: The first of them.
        last: The last of them.
    """

    topic: str
    partition: int
    position: int
    first: int
    last: int

    @property
    def count(self) -> int:
        """How many offsets; which of those that are gone held a record cannot be known."""
        return self.last - self.first + 1

    @property
    def removed_by_retention(self) -> bool:
        """Whether they were before the log's start; otherwise they lie beyond its end."""
        return self.position == self.first

    @property
    def way_out(self) -> str:
        """What to do, as the rest of a sentence."""
        if self.removed_by_retention:
            return "ask for them to be published again, and start with --accept-loss"
        return "run rmos store new-epoch, then start with --accept-loss"

    def __str__(self) -> str:
        where = f"{self.topic}, partition {self.partition}"
        if self.removed_by_retention:
            return (
                f"Offsets {self.first} to {self.last} of {where} were removed by retention before "
                "they were consumed"
            )
        return (
            f"The group has committed offset {self.position} of {where}, the log ends at "
            f"{self.first}: the broker has lost offsets {self.first} to {self.last}"
        )

    def report(self, group: str, *, accepted: bool = False) -> None:
        """Log them, and show them in the metric of this process."""
        metrics.LOST_OFFSETS.labels(group, self.topic, self.partition).set(self.count)
        log = _log.warning if accepted else _log.error
        log(
            "loss accepted" if accepted else "offsets lost",
            group=group,
            topic=self.topic,
            partition=self.partition,
            first=self.first,
            last=self.last,
            lost=str(self),
        )


def lost_offsets(
    topic: str, partition: int, position: int, found: OffsetRange
) -> LostOffsets | None:
    """Return what a group that goes on at `position` misses; None where the log holds it."""
    if position < found.beginning:
        return LostOffsets(topic, partition, position, position, found.beginning - 1)
    if position > found.end:
        return LostOffsets(topic, partition, position, found.end, position - 1)
    return None


WATCH_SECONDS = 30.0


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
                # Readiness reports whether the broker answers.
                _log.debug("lost offsets not measured", group=group, why=str(error))
            # aiokafka swallows a cancellation that comes while one of its clients stops.
            if is_cancelled():
                return
        await asyncio.sleep(WATCH_SECONDS)


async def measure_lost_offsets(settings: Settings, group: str, topic: str) -> None:
    """Set the metric for every partition of `topic` in which `group` has been."""
    before = await partition_offsets(settings, [topic])
    committed = await committed_offsets(settings, group, [topic])

    def lost_in(log: dict[Partition, OffsetRange]) -> dict[Partition, LostOffsets]:
        found = ((each, lost_offsets(*each, at, log[each])) for each, at in committed.items())
        return {each: lost for each, lost in found if lost is not None}

    lost = lost_in(before)
    if lost:
        # Log and group go on while we look: only what is lost before and after is lost.
        after = lost_in(await partition_offsets(settings, [topic]))
        lost = {each: after[each] for each in lost if each in after}
    for each in committed:
        metrics.LOST_OFFSETS.labels(group, *each).set(lost[each].count if each in lost else 0)
