"""What holds for every request: an id, a token where one is asked for, limits, and a log line.

Around the whole application, so that its last resort for errors is inside too.
"""

import asyncio
import re
import time
import uuid
from collections.abc import Mapping

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline import metrics
from pipeline.api.answers import ApiError, error_answer
from pipeline.api.tokens import Role, Token, Tokens

REQUEST_ID_HEADER = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")
_OPEN_PATHS = frozenset({"/health/live", "/health/ready"})
"""Probes have no tokens, and these tell nothing about runs."""
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_METHODS = _READING | {"POST", "PUT", "PATCH", "DELETE"}
_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}

_log = structlog.get_logger(__name__)


class SlowClientError(Exception):
    """A client does not take what it asked for."""


class Guard:
    """An ASGI application around another one."""

    def __init__(
        self, app: ASGIApp, *, tokens: Tokens | None, requests: int, idle_seconds: float
    ) -> None:
        """Wrap `app`.

        Args:
            app: What answers.
            tokens: Who may use it; None for everybody.
            requests: Most requests at a time.
            idle_seconds: Longest wait for a client to take a piece of an answer.
        """
        self.app = app
        self._tokens = tokens
        self._places = requests
        self._idle_seconds = idle_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        exchange = _Exchange(scope, send, _request_id(headers), self._idle_seconds)
        structlog.contextvars.bind_contextvars(request_id=exchange.request_id)
        self._places -= 1
        try:
            refused = self._refusal(scope, headers)
            app = self.app if refused is None else error_answer(refused)
            await self._run(app, scope, receive, exchange)
        finally:
            self._places += 1
            exchange.tell()
            structlog.contextvars.unbind_contextvars("request_id", "token")

    async def _run(
        self, app: ASGIApp, scope: Scope, receive: Receive, exchange: "_Exchange"
    ) -> None:
        try:
            await app(scope, receive, exchange.send)
        except Exception as error:
            _log.error("request failed", exc_info=not isinstance(error, SlowClientError))
            # An answer that is cut short must not look like a whole one: the server closes the
            # connection for an exception.
            if not exchange.is_whole:
                raise

    def _refusal(self, scope: Scope, headers: Headers) -> ApiError | None:
        if self._places < 0:
            message = "Too many requests at a time: try again in a moment."
            return ApiError(503, "TOO_BUSY", message, headers={"Retry-After": "1"})
        if self._tokens is None or scope["path"] in _OPEN_PATHS:
            return None
        return _check_token(self._tokens, headers, scope["method"])


class _Exchange:
    """One request and what has been answered to it."""

    def __init__(self, scope: Scope, send: Send, request_id: str, idle_seconds: float) -> None:
        # Routes that publish carry it on.
        scope.setdefault("state", {})["request_id"] = request_id
        self.request_id = request_id
        self.status: int | None = None
        self.is_whole = False
        self._scope = scope
        self._send = send
        self._idle_seconds = idle_seconds
        self._begin = time.perf_counter()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._add_headers(message)
        try:
            async with asyncio.timeout(self._idle_seconds):
                await self._send(message)
        except TimeoutError as error:
            raise SlowClientError from error
        if message["type"] == "http.response.body":
            self.is_whole = not message.get("more_body", False)

    def _add_headers(self, message: Message) -> None:
        headers = MutableHeaders(scope=message)
        headers[REQUEST_ID_HEADER] = self.request_id
        for name, value in _HEADERS.items():
            headers.setdefault(name, value)

    def tell(self) -> None:
        seconds = time.perf_counter() - self._begin
        route = _route_of(self._scope)
        status = str(self.status or 0)
        method = self._scope["method"] if self._scope["method"] in _METHODS else "other"
        metrics.HTTP_REQUESTS.labels(method, route, status).inc()
        metrics.HTTP_SECONDS.labels(method, route).observe(seconds)
        _log.info(
            "request",
            method=self._scope["method"],
            path=self._scope["path"],
            status=self.status,
            milliseconds=round(seconds * 1000, 1),
        )


def _route_of(scope: Mapping[str, object]) -> str:
    # The template, never the path: labels must not grow with what clients send.
    return str(getattr(scope.get("route"), "path", "none"))


def _request_id(headers: Headers) -> str:
    given = headers.get(REQUEST_ID_HEADER, "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _check_token(tokens: Tokens, headers: Headers, method: str) -> ApiError | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    known = tokens.find(token.strip()) if scheme.lower() == "bearer" else None
    if known is None:
        message = "Expected the header Authorization: Bearer with a token that is known here."
        return ApiError(401, "UNAUTHORIZED", message, headers={"WWW-Authenticate": "Bearer"})
    structlog.contextvars.bind_contextvars(token=known.name)
    return None if _may(known, _needed(method)) else _forbidden(known)


def _needed(method: str) -> Role:
    return "read" if method in _READING else "publish"


def _may(token: Token, needed: Role) -> bool:
    return token.role == "publish" or needed == "read"


def _forbidden(token: Token) -> ApiError:
    message = f"This needs a token of the role publish; that of {token.name} may read."
    return ApiError(403, "FORBIDDEN", message)
