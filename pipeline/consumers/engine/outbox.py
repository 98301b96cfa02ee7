"""The messages of a request whose outcome is known: event, dead letter, counts."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import msgspec
import structlog
from aiokafka import ConsumerRecord

from pipeline import metrics
from pipeline.broker.sending.batches import Message
from pipeline.core.dead_letters.carried_record import (
    AllHeaders,
    ReadContent,
    carried_record,
    split_headers,
    summarized_record,
)
from pipeline.core.dead_letters.letter import Carry, dead_letter
from pipeline.core.record import RecordId, RecordSource, Resolved

_log = structlog.get_logger(__name__)
_CARRIED_HEADER = "traceparent"
_CARRIED_HEADER_BYTES = 512
"""Of W3C's version 00 it has 55; a later version may be longer. A larger one is no trace."""

_CARRIED_HEADERS = 8
"""Most of them that an event carries; one is what there is."""

Headers = Sequence[tuple[str, bytes | None]]


class Request(msgspec.Struct, frozen=True, gc=False):
    """One record of a request topic, as its producer sent it.

    Attributes:
        source: Where the request topic keeps it.
        timestamp_ms: Its broker time there.
        headers: Those that were kept of the record as it was read.
        all_headers: A summary of all, where not all were kept.
    """

    source: RecordSource
    timestamp_ms: int
    key: ReadContent | None
    value: ReadContent | None
    headers: Headers
    all_headers: AllHeaders | None = None


def request_of(record: ConsumerRecord, epoch: int) -> Request:
    """Return the request that `record` of a request topic is."""
    headers, all_headers = split_headers(record.headers)
    return Request(
        RecordSource(epoch, RecordId.of(record)),
        record.timestamp,
        record.key,
        record.value,
        headers,
        all_headers,
    )


class CountedOutcome(Resolved, Protocol):
    """What must be known of an outcome to report and count it."""

    @property
    def drifted(self) -> bool:
        """Whether our program renders other bytes than it once did."""


AnyOutcome = TypeVar("AnyOutcome", bound=CountedOutcome)


@dataclass(frozen=True, slots=True)
class Outbox:
    """Where one consumer group publishes what became of its records.

    Attributes:
        group: The consumer group.
        events: Topic of its events.
        dead_letters: Topic of its dead letters.
    """

    group: str
    events: str
    dead_letters: str

    def messages(
        self,
        event_of: Callable[[AnyOutcome, RecordSource], bytes],
        headers_of: Callable[[AnyOutcome, RecordSource, int], Headers],
        request: Request,
        outcome: AnyOutcome,
    ) -> Iterator[Message]:
        """Yield the event of a request, and its dead letter where it has one."""
        headers = headers_of(outcome, request.source, request.timestamp_ms)
        value = event_of(outcome, request.source)
        yield self.event(request, outcome.run_id, value, headers)
        if outcome.code is not None:
            yield self.dead_letter(request, outcome.code, outcome.message)

    def event(
        self, request: Request, run_id: str | None, value: bytes, headers: Headers
    ) -> Message:
        """Return the event of a request."""
        carried = [
            (name, value)
            for name, value in request.headers
            if name == _CARRIED_HEADER and len(value or b"") <= _CARRIED_HEADER_BYTES
        ]
        return Message(
            self.events,
            # As many partitions as the requests have, so all that concerns a run stays in order.
            request.source.id.partition,
            run_id.encode() if run_id is not None else None,
            value,
            [*headers, *carried[:_CARRIED_HEADERS]],
        )

    def dead_letter(self, request: Request, code: str, message: str | None) -> Message:
        """Return the dead letter of a request, which its topic takes whatever the request is."""

        def letter(carry: Carry, smaller: Callable[[], Message] | None = None) -> Message:
            made = dead_letter(
                (request.key, request.value, request.headers),
                request.source,
                request.timestamp_ms,
                code=code,
                message=message or "",
                group=self.group,
                all_headers=request.all_headers,
                carry=carry,
            )
            partition = request.source.id.partition
            parts = (made.key, made.value, made.headers)
            return Message(self.dead_letters, partition, *parts, smaller)

        return letter(carried_record, smaller=partial(letter, summarized_record))

    def count(self, requests: Sequence[Request], outcomes: Sequence[CountedOutcome]) -> None:
        """Count and log what became of a chunk."""
        for request, outcome in zip(requests, outcomes, strict=True):
            if outcome.code is not None:
                metrics.DEAD_LETTERS.labels(self.group, outcome.code).inc()
            if outcome.kind == "conflict":
                metrics.CONFLICTS.labels(self.group).inc()
            if outcome.code == "ARTIFACT_CORRUPT":
                metrics.CORRUPT_ARTIFACTS.labels(self.group).inc()
            if outcome.drifted:
                metrics.RENDER_DRIFT.labels(self.group).inc()
                _log.error("RENDER_DRIFT", run_id=outcome.run_id, offset=request.source.id.offset)
        counts = Counter(outcome.kind for outcome in outcomes)
        for kind, count in counts.items():
            metrics.RECORDS.labels(self.group, kind).inc(count)
        level = _log.warning if {"conflict", "rejected"} & counts.keys() else _log.info
        level("batch stored", group=self.group, **counts)
