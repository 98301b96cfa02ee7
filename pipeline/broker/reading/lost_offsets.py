"""Offsets that the log does not hold although a group counts on them: named, measured, told."""

from dataclasses import dataclass

import structlog

from pipeline import metrics
from pipeline.broker.admin.topics import OffsetRange

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
        """How many offsets; of those that are gone nobody can tell which ones held a record."""
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
        place = f"{self.topic}, partition {self.partition}"
        if self.removed_by_retention:
            return (
                f"Offsets {self.first} to {self.last} of {place} were removed by retention before "
                "they were consumed"
            )
        return (
            f"The group has committed offset {self.position} of {place}, the log ends at "
            f"{self.first}: the broker has lost offsets {self.first} to {self.last}"
        )

    def tell(self, group: str, *, accepted: bool = False) -> None:
        """Log them, and show them in the metric of this process."""
        metrics.LOST_OFFSETS.labels(group, self.topic, self.partition).set(self.count)
        say = _log.warning if accepted else _log.error
        say(
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
