"""What traces cost a worker: chunks over a real store in turns, one reported and one not.

    python -m tests.bench.traces

In one process without a broker, so what others on the machine take falls on both alike, and the
share is larger than that of a whole worker. The spans go through the exporter's own encoding, at
once and not every five seconds, which costs more too.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from pipeline.broker.sending.batches import Message
from pipeline.consumers.engine.batches import CHUNK_RECORDS, BatchWorker, Record, Steps
from pipeline.consumers.engine.judging import Judging
from pipeline.consumers.engine.outbox import Outbox
from pipeline.consumers.engine.span_traces import SpanTraces
from pipeline.consumers.engine.traces import Traces
from pipeline.core.runs.event import run_event, run_event_headers
from pipeline.core.runs.verdict import judge_run_record
from tests.bench.requests import encoded_requests
from tests.storage.stores import opened

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class _Encoding(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        encode_spans(spans).SerializePartialToString()
        return SpanExportResult.SUCCESS


class _Nobody:
    async def send(self, messages: Sequence[Message]) -> None:
        del messages


@contextmanager
def _worker(folder: Path) -> Iterator[BatchWorker[Any, Any]]:
    outbox = Outbox("rmos.persist", "events", "letters")
    with (
        ThreadPoolExecutor(1) as executor,
        ThreadPoolExecutor(1) as writer,
        opened(folder) as store,
    ):
        runs = store
        publish = partial(outbox.messages, run_event, run_event_headers)
        yield BatchWorker(
            Steps(Judging(judge_run_record, in_child=False), runs.commit, publish, runs.write),
            outbox,
            cast("Any", _Nobody()),
            epoch=1,
            executor=executor,
            writer=writer,
        )


def _records(flags: str) -> Iterator[list[Record]]:
    """Yield chunks of records, whose producers set these flags; none for no header."""
    headers = (("traceparent", f"00-{TRACE}-{SPAN}-{flags}".encode()),) if flags else ()
    offset = 0
    requests = encoded_requests(10**9)
    while True:
        yield [
            cast(
                "Any",
                SimpleNamespace(
                    topic="rmos.runs.requests",
                    partition=0,
                    offset=offset + number,
                    timestamp=0,
                    key=key,
                    value=value,
                    headers=headers,
                ),
            )
            for number, (key, value) in enumerate(islice(requests, CHUNK_RECORDS))
        ]
        offset += CHUNK_RECORDS


def measure(folder: Path, pairs: int, flags: str) -> tuple[float, float]:
    """Return the CPU of a record without and with traces, in us: the median of all chunks."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_Encoding()))
    kinds: list[tuple[Traces, Callable[[], object]]] = [
        (Traces(), lambda: None),
        (SpanTraces(provider), provider.force_flush),
    ]
    took: list[list[float]] = [[], []]
    chunks = _records(flags)
    with _worker(folder) as worker, asyncio.Runner() as runner:
        runner.run(worker.process(next(chunks)))
        for pair in range(pairs):
            # Each of the two is the first as often as the other.
            for kind in ((0, 1), (1, 0))[pair % 2]:
                traces, flush = kinds[kind]
                records = next(chunks)
                worker.traces = traces
                begin = time.process_time()
                runner.run(worker.process(records))
                flush()
                took[kind].append((time.process_time() - begin) / CHUNK_RECORDS * 1e6)
    provider.shutdown()
    return statistics.median(took[0]), statistics.median(took[1])


def main() -> None:
    """Measure what producers may send."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.traces")
    parser.add_argument("--pairs", type=int, default=60, help="chunks of 512 of each kind")
    options = parser.parse_args()
    for name, flags in (("no header", ""), ("not sampled", "00"), ("all sampled", "01")):
        with tempfile.TemporaryDirectory(prefix="rmos-bench-") as folder:
            off, on = measure(Path(folder), options.pairs, flags)
        print(f"{name}: {off:.1f} us off, {on:.1f} us on, {100 * (on / off - 1):+.1f} %")


if __name__ == "__main__":
    main()
