"""The reasons why a polling worker is not ready, each as one sentence."""

import asyncio
import random
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import structlog
from aiokafka import TopicPartition
from prometheus_client import Gauge

from pipeline import metrics
from pipeline.core.record import Located, Partition, RecordId

KINDS = {
    "broker": "the broker refuses a request of the consumer, such as after a right was revoked",
    "batch": "the same records are put off again and again",
    "commit": "offsets of finished records cannot be committed",
    "claims": "claims whose run has come cannot be linked",
    "schedule": "an audit that is due cannot be requested",
    "unreadable": "a batch of the broker cannot be read",
    "group": "another program has committed offsets in the name of the group",
    "partitions": "a topic has another number of partitions than it must have",
    "transaction": "an open transaction of a producer holds records up",
    "settings": "a setting of a topic was changed, and a promise rests on it",
    "topic": "the request topic is missing",
    "unconfirmed": "nothing confirms that topic and group are those of the store",
}
"""Every kind of reason: what is wrong."""

PUT_OFF_LIMIT = 3
"""So often a batch may be put off from the same offset without a word: a broker that restarts
takes one or two."""

PUT_OFF_KEPT_SECONDS = 120.0
"""Longest time between two tries of a batch: confirming takes 20 s, connecting 10 s, and the
pause is some seconds."""

_log = structlog.get_logger(__name__)


class Standing:
    """The reasons for which one consumer is not ready, by kind.

    A reason is logged when it begins, when it changes and when it ends, however often it is
    reported.
    """

    def __init__(self, group: str) -> None:
        """Begin without a reason.

        Args:
            group: The consumer group, for metrics and logs.
        """
        self.group = group
        # Replaced, never changed: the thread that answers probes reads it meanwhile.
        self._sentences: Mapping[str, str] = {}

    @property
    def reasons(self) -> tuple[str, ...]:
        """The sentences, in the order in which the reasons began; none where it is ready."""
        return tuple(self._sentences.values())

    def report(self, kind: str, sentence: str) -> None:
        """Let the consumer be not ready for this reason until `clear`.

        Args:
            kind: One of `KINDS`; one sentence of a kind holds at a time.
            sentence: What is wrong and what to do about it.
        """
        assert kind in KINDS, kind
        before = self._sentences.get(kind)
        if before == sentence:
            return
        if before is None:
            self._gauge(kind).inc()
        self._sentences = {**self._sentences, kind: sentence}
        _log.error("not ready", group=self.group, kind=kind, why=sentence)

    def clear(self, kind: str) -> None:
        """Take note that the reason of this kind, if there was one, holds no longer."""
        if kind not in self._sentences:
            return
        self._gauge(kind).dec()
        self._sentences = {name: each for name, each in self._sentences.items() if name != kind}
        _log.info("reason has ended", group=self.group, kind=kind)

    def _gauge(self, kind: str) -> Gauge:
        return metrics.NOT_READY_REASONS.labels(self.group, kind)


def record_at(place: TopicPartition, offset: int) -> RecordId:
    """Return the place of the record at `offset`."""
    return RecordId(place.topic, place.partition, offset)


@dataclass(frozen=True, slots=True)
class Backoff:
    """How a consumer waits after a fault of the broker.

    Attributes:
        pause_seconds: The shortest pause; jitter makes it up to twice as long.
    """

    pause_seconds: float

    async def rest(self) -> None:
        """Wait, each worker a time of its own, so that not all come back at once."""
        await asyncio.sleep(self.pause_seconds * random.uniform(1, 2))  # noqa: S311


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
