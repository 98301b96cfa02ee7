"""A proxy before a server of S3 that answers wrongly, or not at all, by a seed."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any
from urllib.parse import urlsplit

FAULTS = (
    *("503", "409", "500 after it was stored"),
    *("cut before it was stored", "cut after it was stored", "silence after it was stored"),
)

Choose = Callable[[str, str], str | None]
"""Which of the faults a request meets, by its method and its path; None for none."""


def one_in(number: int, seed: int, among: tuple[str, ...] = FAULTS) -> Choose:
    """Return what lets one request in so many meet any of some faults."""
    chances, lock = random.Random(seed), Lock()

    def choose(method: str, _path: str) -> str | None:
        with lock:
            fault = chances.choice(among) if chances.randrange(number) == 0 else None
        # That two collided is no answer to a read.
        return None if fault == "409" and method != "PUT" else fault

    return choose


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: "Proxy"

    def log_message(self, *_: Any) -> None:
        pass

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.proxy.choose(self.command, self.path)
        self.proxy.count(fault)
        if fault in {"503", "409", "403"}:
            self._answer(int(fault), b"", [])
            return
        if fault == "cut before it was stored":
            self.close_connection = True
            return
        response, content = self.proxy.forward(self, body)
        if fault == "silence after it was stored":
            self.proxy.stopped.wait(10)
        if fault in {"cut after it was stored", "silence after it was stored"}:
            self.close_connection = True
        elif fault == "500 after it was stored":
            self._answer(500, b"", [])
        else:
            self._answer(response.status, content, response.getheaders())

    def do_GET(self) -> None:
        self.handle_any()

    def do_PUT(self) -> None:
        self.handle_any()

    def do_HEAD(self) -> None:
        self.handle_any()

    def do_DELETE(self) -> None:
        self.handle_any()

    def _answer(self, status: int, content: bytes, headers: list[tuple[str, str]]) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                self.send_header(name, value)
        length = dict(headers).get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class Proxy:
    """What happens between a client and its server.

    Attributes:
        choose: Which fault the next request meets.
        faults: How many met each.
        requests: How many there were.
    """

    def __init__(self, upstream: str, choose: Choose) -> None:
        self.choose = choose
        self.faults: Counter[str] = Counter()
        self.requests = 0
        self.stopped = Event()
        self.address = ""
        self._upstream = urlsplit(upstream).netloc
        self._lock = Lock()

    def count(self, fault: str | None) -> None:
        with self._lock:
            self.requests += 1
            self.faults.update([fault] if fault else [])

    def forward(self, request: _Handler, body: bytes) -> tuple[HTTPResponse, bytes]:
        connection = HTTPConnection(self._upstream, timeout=30)
        try:
            connection.putrequest(
                request.command, request.path, skip_host=True, skip_accept_encoding=True
            )
            # As they came: a signature covers them.
            for name, value in request.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()


@contextmanager
def standing_before(upstream: str, choose: Choose) -> Iterator[Proxy]:
    """Let a proxy stand before a server while the block runs."""
    proxy = Proxy(upstream, choose)
    handler = type("Handler", (_Handler,), {"proxy": proxy})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    proxy.address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()
