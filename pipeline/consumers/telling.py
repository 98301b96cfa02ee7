"""What is told of a request once it is settled: its event, its dead letter, and the counts."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from pipeline import metrics
from pipeline.broker.sender import Message
from pipeline.consumers.raw_records import Record
from pipeline.core.dead_letter import dead_letter
from pipeline.core.outcome import RecordSource

_log = structlog.get_logger(__name__)
_CARRIED_HEADER = "traceparent"

Headers = Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request as its producer sent it, wherever we read it.

    Attributes:
        source: Where the request topic keeps it.
        timestamp_ms: Its broker time there.
        read_from: The topic that this delivery came by.
    """

    source: RecordSource
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    read_from: str


def delivery_of(record: Record, epoch: int) -> Delivery:
    """Return the delivery of a record of a request topic."""
    return Delivery(
        RecordSource(epoch, record.topic, record.partition, record.offset),
        record.timestamp,
        record.key,
        record.value,
        record.headers,
        record.topic,
    )


class Settlement(Protocol):
    """What an outcome must tell to be counted."""

    @property
    def kind(self) -> str:
        """What became of the record, in one word."""

    @property
    def run_id(self) -> str | None:
        """Where it could be read."""

    @property
    def code(self) -> str | None:
        """Why there is a dead letter."""

    @property
    def drifted(self) -> bool:
        """Whether our program renders other bytes than it once did."""


@dataclass(frozen=True, slots=True)
class Telling:
    """Where one consumer group tells what became of its records.

    Attributes:
        group: The consumer group.
        events: Topic of its events.
        dead_letters: Topic of its dead letters.
    """

    group: str
    events: str
    dead_letters: str

    def event(
        self, delivery: Delivery, run_id: str | None, value: bytes, headers: Headers
    ) -> Message:
        """Return the event of a request."""
        carried = [header for header in delivery.headers if header[0] == _CARRIED_HEADER]
        return Message(
            self.events,
            # As many partitions as the requests have, so all that concerns a run stays in order.
            delivery.source.partition,
            run_id.encode() if run_id is not None else None,
            value,
            [*headers, *carried],
        )

    def dead_letter(self, delivery: Delivery, code: str, message: str | None) -> Message:
        """Return the dead letter of a request."""
        letter = dead_letter(
            (delivery.key, delivery.value, delivery.headers),
            delivery.source,
            delivery.timestamp_ms,
            code=code,
            message=message or "",
            group=self.group,
        )
        return Message(
            self.dead_letters,
            delivery.source.partition,
            letter.key,
            letter.value,
            letter.headers,
        )

    def count(self, deliveries: Sequence[Delivery], outcomes: Sequence[Settlement]) -> None:
        """Count and log what became of a chunk."""
        for delivery, outcome in zip(deliveries, outcomes, strict=True):
            if outcome.code is not None:
                metrics.DEAD_LETTERS.labels(self.group, outcome.code).inc()
            if outcome.kind == "conflict":
                metrics.CONFLICTS.labels(self.group).inc()
            if outcome.code == "ARTIFACT_CORRUPT":
                metrics.CORRUPT_ARTIFACTS.labels(self.group).inc()
            if outcome.drifted:
                metrics.RENDER_DRIFT.labels(self.group).inc()
                _log.error("RENDER_DRIFT", run_id=outcome.run_id, offset=delivery.source.offset)
        counts = Counter(outcome.kind for outcome in outcomes)
        for kind, count in counts.items():
            metrics.RECORDS.labels(self.group, kind).inc(count)
        level = _log.warning if {"conflict", "rejected"} & counts.keys() else _log.info
        level("batch stored", group=self.group, **counts)
