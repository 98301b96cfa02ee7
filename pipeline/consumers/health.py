"""Metrics and health of one process over HTTP, from a thread of its own.

A thread, so that a stuck event loop is seen as not ready rather than as no answer.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

from pipeline import metrics
from pipeline.errors import InputError

PATIENCE_SECONDS = 2.0
"""Longest wait for a client that has connected and says nothing. Meanwhile nobody else is
answered, and the server cannot be stopped."""

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
    ) -> None:
        """Bind; nothing is answered before `start`.

        Args:
            host: Address to bind.
            port: Port to bind; 0 for any free one.
            checks: What must hold to be ready, by name.
            reasons: Why it is not ready besides, as sentences; see `Standing`.

        Raises:
            InputError: The address cannot be bound.
        """
        self._checks = checks
        self._reasons = reasons
        self._metrics = make_wsgi_app(metrics.REGISTRY)
        try:
            self._server: WSGIServer = make_server(host, port, self._answer, handler_class=_Quiet)
        except OSError as error:
            message = (
                f"Metrics cannot be served at {host}:{port} ({error.strerror}): set "
                "RMOS_METRICS_HOST and RMOS_METRICS_PORT to a free address, or unset the port."
            )
            raise InputError(message) from error
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
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            answer: Iterable[bytes] = self._metrics(environ, start_response)
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


def _json(start_response: StartResponse, status: str, document: object) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(document).encode()]


class _Quiet(WSGIRequestHandler):
    timeout = PATIENCE_SECONDS

    def handle(self) -> None:
        """Answer one request; a client that is too slow or gone is no fault of ours to print."""
        with suppress(OSError):
            super().handle()

    def log_message(self, *args: object) -> None:
        """Say nothing: a probe every few seconds is no event."""


def is_disk_writable(root: Path) -> bool:
    """Tell whether the store's disk is mounted, writable and not full."""
    try:
        space = os.statvfs(root)
    except OSError:
        return False
    return os.access(root, os.W_OK) and space.f_bavail > 0 and not space.f_flag & os.ST_RDONLY
