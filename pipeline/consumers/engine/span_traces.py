"""Spans of batches, by OpenTelemetry: only a worker that has a collector imports this module.

A batch has a span of its own, in a trace of its own: its records come from many traces, and a span
has one parent. It links to those that their producers sampled. Where a producer sampled a record,
its trace also gets a span of that record, which links to the one of the batch.

The current span is kept in a context variable, and each batch is taken by a task of its own, so
batches that overlap do not see each other's.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from typing import TypeGuard

from aiokafka import ConsumerRecord
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    SpanKind,
    TracerProvider,
    get_current_span,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from pipeline.consumers.engine.outbox import CountedOutcome
from pipeline.consumers.engine.traces import ReportOutcomes, Traces

LINKS = 128
"""Most links of a span; the SDK's own limit, where its environment sets no other."""

_PARENT = "traceparent"
_SAMPLED = b"13579bdf"
_FLAGS_END = 55
"""Length of W3C's version 00. Its last digit holds the flag that says sampled, the lowest bit."""

_LONGEST_BYTES = 512
"""Of a field that is read; a `tracestate` may be dropped where it is longer."""

_FIELDS = (_PARENT, "tracestate")
_propagator = TraceContextTextMapPropagator()

Sampled = tuple[int, Context, Link]
"""A record's place in its batch, what its producer sent, and the link to it."""


class SpanTraces(Traces):
    """Reports spans by a provider of tracers."""

    def __init__(self, provider: TracerProvider) -> None:
        """Report to `provider`."""
        self._tracer = provider.get_tracer("rmos")

    @contextmanager
    def batch(self, group: str, records: Sequence[ConsumerRecord]) -> Iterator[ReportOutcomes]:
        """Span the way of a batch; what is yielded takes the outcomes of its records at its end."""
        begin_ns = time.time_ns()
        sampled = list(_sampled(records))
        attributes = _attributes(group, records[0].topic)
        attributes["messaging.batch.message_count"] = len(records)
        with self._tracer.start_as_current_span(
            f"process {records[0].topic}",
            # No parent, whatever the task that began this one was about.
            context=Context(),
            kind=SpanKind.CONSUMER,
            attributes=attributes,
            links=[link for _, _, link in islice(sampled, LINKS)],
            start_time=begin_ns,
        ) as span:

            def report(outcomes: Sequence[CountedOutcome]) -> None:
                for number, parent, _ in sampled:
                    record, outcome = records[number], outcomes[number]
                    self._tracer.start_span(
                        f"process {record.topic}",
                        context=parent,
                        kind=SpanKind.CONSUMER,
                        attributes=_of_record(group, record, outcome),
                        links=[Link(span.get_span_context())],
                        start_time=begin_ns,
                    ).end()

            yield report

    def stage(self, name: str) -> AbstractContextManager[object]:
        """Span one stage of the batch that this task takes."""
        return self._tracer.start_as_current_span(name)

    def exemplar(self) -> dict[str, str] | None:
        """Return the labels that name the trace of the batch that this task takes."""
        found = get_current_span().get_span_context()
        if not (found.is_valid and found.trace_flags.sampled):
            return None
        return {"trace_id": f"{found.trace_id:032x}", "span_id": f"{found.span_id:016x}"}


def _attributes(group: str, topic: str) -> dict[str, str | int]:
    """Return what OpenTelemetry's conventions say of any span about records of a topic."""
    return {
        "messaging.system": "kafka",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.consumer.group.name": group,
        "messaging.destination.name": topic,
    }


def _of_record(group: str, record: ConsumerRecord, outcome: CountedOutcome) -> dict[str, str | int]:
    attributes = _attributes(group, record.topic) | {
        "messaging.destination.partition.id": str(record.partition),
        "messaging.kafka.offset": record.offset,
        "rmos.outcome": outcome.kind,
    }
    return attributes | ({"rmos.run_id": outcome.run_id} if outcome.run_id is not None else {})


def _sampled(records: Sequence[ConsumerRecord]) -> Iterator[Sampled]:
    """Yield each record whose producer sampled it."""
    for number, record in enumerate(records):
        for name, value in record.headers:
            if name == _PARENT:
                # Most are not sampled, and to read one takes 5 us.
                if _is_short(value) and value[_FLAGS_END - 1 : _FLAGS_END] in _SAMPLED:
                    yield from _read(number, record)
                break


def _read(number: int, record: ConsumerRecord) -> Iterator[Sampled]:
    carrier = {
        name: value.decode("latin-1")
        for name, value in reversed(record.headers)
        if name in _FIELDS and _is_short(value)
    }
    parent = _propagator.extract(carrier, Context())
    found = get_current_span(parent).get_span_context()
    if found.is_valid:
        yield number, parent, Link(found)


def _is_short(value: object) -> TypeGuard[bytes]:
    return isinstance(value, bytes) and len(value) <= _LONGEST_BYTES
