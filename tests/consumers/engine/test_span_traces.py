"""Spans of batches: each begins and ends with its own, whatever runs beside it."""

from collections.abc import Iterator
from typing import Any, cast

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.openmetrics.exposition import generate_latest

from pipeline import metrics
from pipeline.consumers.engine.batches import BatchDeferred, Delivery
from pipeline.consumers.engine.span_traces import LINKS, SpanTraces
from pipeline.errors import BrokerError
from tests.consumers.engine.chunks import Engine, engine, records

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = ("traceparent", f"00-{TRACE}-{SPAN}-01".encode())
UNSAMPLED = ("traceparent", f"00-{TRACE}-{SPAN}-00".encode())


class Traced:
    """An engine whose batches are reported to memory."""

    def __init__(self, made: Engine) -> None:
        self.steps = made.steps
        self.worker = made.worker
        self._memory = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._memory))
        self.tracer = provider.get_tracer("test")
        self.worker.traces = SpanTraces(provider)

    def spans(self, name: str) -> list[ReadableSpan]:
        return [each for each in self._memory.get_finished_spans() if each.name == name]

    @property
    def batches(self) -> list[ReadableSpan]:
        return [each for each in self.spans("process rmos.runs.requests") if is_batch(each)]

    @property
    def of_records(self) -> list[ReadableSpan]:
        return [each for each in self.spans("process rmos.runs.requests") if not is_batch(each)]


def is_batch(span: ReadableSpan) -> bool:
    return "messaging.batch.message_count" in (span.attributes or {})


def with_headers(numbers: range, *headers: tuple[str, bytes | None]) -> list[Any]:
    made = cast("list[Any]", records(numbers))
    for each in made:
        each.headers = headers
    return made


@pytest.fixture
def traced() -> Iterator[Traced]:
    with engine() as made:
        yield Traced(made)


async def test_batches_that_overlap_have_each_its_own_stages(traced: Traced) -> None:
    for first in (0, 100):
        traced.steps.halt("publish", first)
    with traced.tracer.start_as_current_span("what polled them"):
        begun = [
            traced.worker.begin(Delivery(with_headers(range(first, first + 100)))).task
            for first in (0, 100)
        ]
    await traced.steps.wait_for("store", 100)
    traced.steps.go("publish", 0)
    await begun[0]
    assert len(traced.batches) == 1
    traced.steps.go("publish", 100)
    await begun[1]
    one, two = traced.batches
    assert one.parent is None
    assert two.parent is None
    assert one.context.trace_id != two.context.trace_id
    # The second began before the first had ended.
    assert cast("int", one.start_time) < cast("int", two.start_time)
    assert cast("int", two.start_time) < cast("int", one.end_time) < cast("int", two.end_time)
    for batch in (one, two):
        children = [
            (each.name, each.context.trace_id)
            for name in ("judge", "write", "store", "publish")
            for each in traced.spans(name)
            if each.parent is not None and each.parent.span_id == batch.context.span_id
        ]
        assert [name for name, _ in children] == ["judge", "write", "store", "publish"]
        assert {trace for _, trace in children} == {batch.context.trace_id}


async def test_a_batch_links_to_what_was_sampled_and_to_no_more_than_the_limit(
    traced: Traced,
) -> None:
    sent = [
        *with_headers(range(LINKS + 10), SAMPLED),
        *with_headers(range(1000, 1010), UNSAMPLED),
        *with_headers(range(2000, 2002), ("traceparent", b"00-nothing"), ("traceparent", None)),
        *with_headers(range(3000, 3002), ("traceparent", SAMPLED[1] + b"1" * 512)),
        *with_headers(range(4000, 4002), ("traceparent", SAMPLED[1][:-1])),
    ]
    await traced.worker.process(sent)
    (batch,) = traced.batches
    assert len(batch.links) == LINKS
    assert {each.context.trace_id for each in batch.links} == {int(TRACE, 16)}
    assert (batch.attributes or {})["messaging.batch.message_count"] == len(sent)
    assert batch.dropped_links == 0


async def test_a_record_has_a_span_in_its_producers_trace_where_that_was_sampled(
    traced: Traced,
) -> None:
    sent = [
        *with_headers(range(3), UNSAMPLED),
        *with_headers(range(7, 8), ("a", b"b"), SAMPLED, ("tracestate", b"them=1")),
    ]
    await traced.worker.process(sent)
    (batch,) = traced.batches
    (own,) = traced.of_records
    assert own.parent is not None
    assert (own.context.trace_id, own.parent.span_id) == (int(TRACE, 16), int(SPAN, 16))
    assert own.parent.trace_state.to_header() == "them=1"
    assert [each.context.span_id for each in batch.links] == [int(SPAN, 16)]
    assert [each.context.span_id for each in own.links] == [batch.context.span_id]
    assert own.start_time == batch.start_time
    attributes = own.attributes or {}
    assert (attributes["messaging.kafka.offset"], attributes["rmos.outcome"]) == (7, "persisted")


async def test_a_long_state_of_a_trace_is_dropped_and_not_the_trace(traced: Traced) -> None:
    long = ",".join(f"vendor{number}={'v' * 20}" for number in range(30)).encode()
    await traced.worker.process(with_headers(range(1), SAMPLED, ("tracestate", long)))
    (own,) = traced.of_records
    assert own.parent is not None
    assert own.parent.trace_state.to_header() == ""


async def test_a_batch_that_fails_ends_with_its_fault_and_no_record_has_a_span(
    traced: Traced,
) -> None:
    traced.steps.faults["publish", 0] = BrokerError("away")
    tasks = [
        traced.worker.begin(Delivery(with_headers(range(first, first + 2), SAMPLED))).task
        for first in (0, 2)
    ]
    with pytest.raises(BrokerError):
        await tasks[0]
    with pytest.raises(BatchDeferred):
        await tasks[1]
    assert [each.status.is_ok for each in traced.batches] == [False, False]
    assert traced.of_records == []
    await traced.worker.process(with_headers(range(2), SAMPLED))
    assert len(traced.of_records) == 2


async def test_a_stage_that_was_slow_names_the_trace_of_its_batch(traced: Traced) -> None:
    await traced.worker.process(with_headers(range(2)))
    (batch,) = traced.batches
    exposed = generate_latest(metrics.REGISTRY).decode()
    (line,) = [
        each
        for each in exposed.splitlines()
        if f'trace_id="{batch.context.trace_id:032x}"' in each and 'stage="store"' in each
    ]
    assert line.startswith("rmos_stage_seconds_bucket{")
    (store,) = traced.spans("store")
    assert f'span_id="{store.context.span_id:016x}"' in line
