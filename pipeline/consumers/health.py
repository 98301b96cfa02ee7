"""Metrics and health of one process over HTTP, from a thread of its own.

A thread, so that a stuck event loop is seen as not ready rather than as no answer.
"""

import json
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from socketserver import ThreadingMixIn
from threading import Thread, Timer
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

from pipeline import metrics
from pipeline.core.http_hosts import KnownHosts, is_loopback
from pipeline.disk.volume import Room, room_of
from pipeline.errors import InputError

PATIENCE_SECONDS = 2.0
"""Longest time for a client to send its request, and to take the answer."""

_READING = ("GET", "HEAD")

StartResponse = Callable[[str, list[tuple[str, str]]], Any]
Checks = Mapping[str, bool]


class HealthServer:
    """Serves `/metrics`, `/health/live` and `/health/ready`."""

    def __init__(
        self,
        host: str,
        port: int,
        checks: Callable[[], Checks],
        reasons: Callable[[], Sequence[str]] = tuple,
        *,
        allowed_hosts: Sequence[str] = (),
    ) -> None:
        """Bind; nothing is answered before `start`.

        Args:
            host: Address to bind.
            port: Port to bind; 0 for any free one.
            checks: What must hold to be ready, by name.
            reasons: Why it is not ready besides, as sentences; see `Standing`.
            allowed_hosts: Names under which it answers at loopback, beside those of loopback.

        Raises:
            InputError: The address cannot be bound.
        """
        self._checks = checks
        self._reasons = reasons
        self._metrics = make_wsgi_app(metrics.REGISTRY)
        # Beyond loopback there is no name that a scraper could not have.
        names = allowed_hosts if is_loopback(host) else ()
        self._hosts = KnownHosts.of(host, names, asks_tokens=False)
        try:
            self._server: WSGIServer = make_server(
                host, port, self._answer, server_class=_Server, handler_class=_Quiet
            )
        except OSError as error:
            raise InputError(
                f"Metrics cannot be served at {host}:{port} ({error.strerror}): each service needs "
                "a RMOS_METRICS_PORT of its own, also beside a worker; set it and "
                "RMOS_METRICS_HOST to a free address, or unset the port."
            ) from error
        self._thread = Thread(target=self._server.serve_forever, name="health", daemon=True)

    @property
    def address(self) -> str:
        """Host and port."""
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and give the port back."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        heads: list[tuple[str, list[tuple[str, str]]]] = []
        body = b"".join(self._found(environ, lambda *head: heads.append(head)))
        status, headers = heads[0]
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _found(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if not self._hosts.has(environ.get("HTTP_HOST")):
            return _json(start_response, "421 Misdirected Request", {"error": "WRONG_HOST"})
        if environ["REQUEST_METHOD"] not in _READING:
            refused = {"error": "METHOD_NOT_ALLOWED"}
            allow = ("Allow", ", ".join(_READING))
            return _json(start_response, "405 Method Not Allowed", refused, allow)
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            asked = environ | {"REQUEST_METHOD": "GET"}
            answer: Iterable[bytes] = self._metrics(asked, start_response)
            return answer
        if path == "/health/live":
            return _json(start_response, "200 OK", {"live": True})
        if path == "/health/ready":
            checks, reasons = dict(self._checks()), list(self._reasons())
            ready = all(checks.values()) and not reasons
            status = "200 OK" if ready else "503 Service Unavailable"
            document = {"ready": ready, "checks": checks, "reasons": reasons}
            return _json(start_response, status, document)
        return _json(start_response, "404 Not Found", {"error": "NOT_FOUND"})


def _json(
    start_response: StartResponse, status: str, document: object, *headers: tuple[str, str]
) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "application/json"), *headers])
    return [json.dumps(document).encode()]


class _Server(ThreadingMixIn, WSGIServer):
    """A server that one slow client does not hold up; the threads end with the process."""

    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    timeout = PATIENCE_SECONDS

    def handle(self) -> None:
        """Answer one request; a client that is too slow or gone is no fault of ours to print."""
        # The timeout of the socket is for each of its bytes, this one for all of them.
        patience = Timer(PATIENCE_SECONDS, self._read_no_more)
        patience.daemon = True
        patience.start()
        with suppress(OSError):
            super().handle()
        patience.cancel()

    def _read_no_more(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RD)

    def log_message(self, *args: object) -> None:
        """Log nothing: a probe every few seconds is no event."""


def measure_room(root: Path) -> None:
    """Let the metrics of this process show how many files the volume of the store has room for."""
    metrics.FREE_INODES.set_function(lambda: _room_or_none(root).free_inodes)
    metrics.INODES.set_function(lambda: _room_or_none(root).inodes)


def _room_or_none(root: Path) -> Room:
    try:
        return room_of(root)
    except OSError:
        return Room(0, 0, 0, is_read_only=True)
