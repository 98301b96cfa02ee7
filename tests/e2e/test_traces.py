"""A trace from a client through HTTP and the topic to the worker, on the real broker."""

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from pipeline.broker.local.broker import LocalBroker
from pipeline.broker.local.loopback import free_port
from pipeline.settings import Settings
from tests.builders import run_request
from tests.e2e.api_service import ApiService, api_service
from tests.e2e.kafka_reading import (
    header_dict,
    produce,
    read_topic,
    sending,
    wait_until,
    wait_until_consumed,
)
from tests.e2e.trace_collector import collector
from tests.e2e.worker_processes import WorkerPool

pytestmark = pytest.mark.e2e

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{SPAN}-01"
EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter.OTLPSpanExporter"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Let every service of this process report to memory, as soon as a span has ended."""
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(EXPORTER, lambda: exporter)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    return exporter


@pytest.fixture
async def api(
    memory: InMemorySpanExporter, broker: LocalBroker, tmp_path: Path
) -> AsyncIterator[ApiService]:
    async with api_service(broker, tmp_path / "store") as service:
        yield service


async def finished(
    memory: InMemorySpanExporter, what: str, found: Callable[[ReadableSpan], bool]
) -> ReadableSpan:
    """Wait for the one span that `found` holds of."""
    spans: list[ReadableSpan] = []

    def is_there() -> bool:
        spans[:] = filter(found, memory.get_finished_spans())
        return bool(spans)

    await wait_until(is_there, what)
    (span,) = spans
    return span


def service_of(span: ReadableSpan) -> str:
    return str(span.resource.attributes["service.name"])


async def test_a_trace_goes_from_the_client_through_http_and_the_topic_to_the_worker(
    api: ApiService, memory: InMemorySpanExporter
) -> None:
    answer = await api.post(run_request(run_id="run_a"), traceparent=SAMPLED)
    assert answer.status_code == 201, answer.text
    posted = await finished(memory, "the request", lambda each: each.name.startswith("POST"))
    assert service_of(posted) == "rmos.api"
    assert posted.name == "POST /api/rmos/runs"
    assert posted.parent is not None
    assert (posted.context.trace_id, posted.parent.span_id) == (int(TRACE, 16), int(SPAN, 16))

    (record,) = await read_topic(api.settings, api.settings.topics.run_requests)
    carried = header_dict(record)["traceparent"]
    assert carried == f"00-{TRACE}-{posted.context.span_id:016x}-01".encode()
    (event,) = await read_topic(api.settings, api.settings.topics.run_events)
    assert header_dict(event)["traceparent"] == carried

    own = await finished(memory, "the record", lambda each: "rmos.run_id" in each.attributes)
    assert own.parent is not None
    assert (own.context.trace_id, own.parent.span_id) == (int(TRACE, 16), posted.context.span_id)
    assert own.attributes["rmos.run_id"] == "run_a"
    assert own.attributes["messaging.kafka.offset"] == record.offset

    batch = await finished(
        memory, "the batch", lambda each: "messaging.batch.message_count" in each.attributes
    )
    assert service_of(batch) == api.settings.topics.persist_group
    assert [each.context.span_id for each in batch.links] == [posted.context.span_id]
    assert [each.context.span_id for each in own.links] == [batch.context.span_id]
    stages = [
        each.name
        for each in memory.get_finished_spans()
        if each.parent is not None and each.parent.span_id == batch.context.span_id
    ]
    assert stages == ["judge", "store", "publish"]

    # The same trace beside the duration of the batch.
    exposed = await api.http.get("/metrics", headers={"accept": OPENMETRICS})
    exemplars = [
        sample.exemplar.labels
        for family in text_string_to_metric_families(exposed.text)
        for sample in family.samples
        if sample.exemplar is not None and family.name == "rmos_record_age_seconds"
    ]
    wanted = {
        "trace_id": f"{batch.context.trace_id:032x}",
        "span_id": f"{batch.context.span_id:016x}",
    }
    assert wanted in exemplars
    # A scrape is no request that anybody asks about.
    assert not any("/metrics" in each.name for each in memory.get_finished_spans())


async def test_what_a_client_did_not_sample_has_no_span_of_its_own(
    api: ApiService, memory: InMemorySpanExporter
) -> None:
    unsampled = f"00-{TRACE}-{SPAN}-00"
    assert (await api.post(run_request(run_id="run_b"), traceparent=unsampled)).status_code == 201
    batch = await finished(
        memory, "the batch", lambda each: "messaging.batch.message_count" in each.attributes
    )
    assert list(batch.links) == []
    assert {each.context.trace_id for each in memory.get_finished_spans()} == {
        batch.context.trace_id
    }


async def test_a_worker_reports_to_a_collector_over_http(
    store_settings: Settings, workers: WorkerPool
) -> None:
    with collector() as (address, requests):
        worker = workers.start(store_settings, **collected_at(address))
        await worker.wait_until_started()
        sent = sending(run_request(run_id="run_c"), [("traceparent", SAMPLED.encode())])
        await produce(store_settings, [sent])
        await wait_until_consumed(store_settings, check=worker.check)
        assert await worker.stop() == 0
    resources = [each for request in requests for each in request.resource_spans]
    names = {
        attribute.value.string_value
        for each in resources
        for attribute in each.resource.attributes
        if attribute.key == "service.name"
    }
    assert names == {"sawmill"}
    spans = [span for each in resources for scope in each.scope_spans for span in scope.spans]
    topic = store_settings.topics.run_requests
    assert sorted(each.name for each in spans) == sorted(
        ["judge", "store", "publish", *[f"process {topic}"] * 2]
    )
    assert sum(each.trace_id.hex() == TRACE for each in spans) == 1


async def test_a_collector_that_is_away_holds_nobody_up(
    store_settings: Settings, workers: WorkerPool
) -> None:
    # The exporter tries for longer than the service may take to stop.
    slow = {"OTEL_EXPORTER_OTLP_TIMEOUT": "60", "RMOS_STOP_TIMEOUT_SECONDS": "15"}
    worker = workers.start(store_settings, **collected_at(f"127.0.0.1:{free_port()}"), **slow)
    await worker.wait_until_started()
    await produce(store_settings, [sending(run_request(run_id="run_d"))])
    await wait_until_consumed(store_settings, check=worker.check)
    assert await worker.stop() == 0
    # Each line of the log is JSON, those of the exporter too.
    worker.log_lines()


def test_without_a_collector_nothing_of_opentelemetry_is_imported() -> None:
    # FastStream looks whether the package is there, and imports its names of attributes.
    program = (
        "import sys, asyncio\n"
        "from contextlib import AsyncExitStack\n"
        "import pipeline.app.services, pipeline.app.worker as worker\n"
        "found = worker._traces('g', AsyncExitStack())\n"
        "assert type(found).__name__ == 'Traces', found\n"
        "print([each for each in sys.modules if each.startswith("
        "('opentelemetry.sdk', 'opentelemetry.trace', 'opentelemetry.exporter'))])\n"
    )
    environment = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def collected_at(address: str) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{address}",
        "OTEL_SERVICE_NAME": "sawmill",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
