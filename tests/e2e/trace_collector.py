"""A collector of traces: takes what is reported by OTLP over HTTP, and keeps it.

`python -m tests.e2e.trace_collector` runs one at the usual port, for measurements.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

USUAL_PORT = 4318


@contextmanager
def collector(port: int = 0) -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """Take what is reported; yield the address and all that came."""
    requests: list[ExportTraceServiceRequest] = []

    class Taking(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["content-length"]))
            requests.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Taking) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}", requests
        finally:
            server.shutdown()
            thread.join()


if __name__ == "__main__":
    with collector(USUAL_PORT):
        threading.Event().wait()
