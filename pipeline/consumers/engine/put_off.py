"""Which records are put off again and again, so that a worker which gets nowhere is not ready."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from aiokafka import TopicPartition

from pipeline.consumers.engine.standing import Standing
from pipeline.core.record import Located, Partition, RecordId

PUT_OFF_LIMIT = 3
"""So often a batch may be put off from the same offset without a word: a broker that restarts
takes one or two."""

PUT_OFF_KEPT_SECONDS = 120.0
"""Longest time between two tries of a batch: confirming takes 20 s, connecting 10 s, and the
pause is some seconds."""


def record_at(place: TopicPartition, offset: int) -> RecordId:
    """Return the place of the record at `offset`."""
    return RecordId(place.topic, place.partition, offset)


class PutOff:
    """Notes which records are put off again and again, and lets the worker be not ready for it.

    A batch begins at the same offset again where nothing of it was committed. A partition of
    which nothing more came for a while has no record any more.
    """

    def __init__(self, standing: Standing, kind: str = "batch") -> None:
        """Begin with nothing put off.

        Args:
            standing: Gets the reason.
            kind: Of the reason; each kind has one that notes it.
        """
        self._standing = standing
        self._kind = kind
        self._times: dict[Partition, _Times] = {}

    def note(self, records: Sequence[Located], why: str) -> None:
        """Take note that `records` were put off."""
        now = time.monotonic()
        for (topic, partition), offset in _first_offsets(records).items():
            before = self._times.get((topic, partition))
            again = before is not None and before.offset == offset
            count = before.count + 1 if before is not None and again else 1
            self._times[topic, partition] = _Times(offset, count, now, why)
        self._report()

    def forget(self, records: Sequence[Located]) -> None:
        """Take note that `records` are done."""
        if self._times:
            for place in _first_offsets(records):
                self._times.pop(place, None)
            self._report()

    def keep_only(self, assigned: Collection[TopicPartition]) -> None:
        """Take note that the records of all other partitions are another worker's."""
        self._times = {
            (topic, partition): each
            for (topic, partition), each in self._times.items()
            if TopicPartition(topic, partition) in assigned
        }
        self._report()

    def forget_all(self) -> None:
        """Take note that nothing waits."""
        self.keep_only(())

    def _report(self) -> None:
        oldest = time.monotonic() - PUT_OFF_KEPT_SECONDS
        self._times = {place: each for place, each in self._times.items() if each.last > oldest}
        waiting = [
            (place, self._times[place])
            for place in sorted(self._times)
            if self._times[place].count > PUT_OFF_LIMIT
        ]
        if not waiting:
            self._standing.clear(self._kind)
            return
        (topic, partition), first = waiting[0]
        more = f" and {len(waiting) - 1} partitions more" if len(waiting) > 1 else ""
        self._standing.report(
            self._kind,
            f"The records from {topic}, partition {partition}, offset {first.offset} on{more} were "
            f"put off more than {PUT_OFF_LIMIT} times in a row, and those behind them wait: "
            f"{first.why}",
        )


@dataclass(frozen=True, slots=True)
class _Times:
    """How often the records of a partition from `offset` on were put off, when and why last."""

    offset: int
    count: int
    last: float
    why: str


def _first_offsets(records: Sequence[Located]) -> dict[Partition, int]:
    first: dict[Partition, int] = {}
    for record in records:
        first.setdefault((record.topic, record.partition), record.offset)
    return first
