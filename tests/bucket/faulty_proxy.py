"""A proxy before a server of S3 that answers wrongly, or not at all, by a seed."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from threading import Event, Lock
from urllib.parse import urlsplit

from tests.bucket.relay import Relay, relaying

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


class _Handler(Relay):
    proxy: "Proxy"

    def handle_any(self) -> None:
        body = self.body()
        fault = self.proxy.choose(self.command, self.path)
        self.proxy.count(fault)
        if fault in {"503", "409", "403"}:
            self.answer(int(fault), b"")
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
            self.answer(500, b"")
        else:
            self.answer(response.status, content, response.getheaders())


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
    with relaying(handler) as proxy.address:
        try:
            yield proxy
        finally:
            proxy.stopped.set()
