"""The middleware of every request: rules for its head, limits, token, log line and metrics.

It stands around the whole application, whose last resort for errors is inside too.
"""

import asyncio
import ipaddress
import random
import re
import time
from collections import Counter
from collections.abc import Awaitable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import prometheus_client
import structlog
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline import metrics
from pipeline.api.answers import ApiError, error_answer
from pipeline.api.http.pages import Pages
from pipeline.api.http.request_body import is_unasked
from pipeline.api.http.request_head import (
    READING,
    HeadRules,
    has_hidden_slash,
    header_of,
    in_origin_form,
)
from pipeline.api.http.tokens import OPEN_PATHS, Tokens

REQUEST_ID_HEADER = b"x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")
_ALWAYS_ANSWERED = OPEN_PATHS | {"/metrics"}
"""Not limited: what shows that the limit is reached must not be refused by it."""
_METHODS = READING | {"POST", "PUT", "PATCH", "DELETE"}
_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
_CORS_METHODS = ("GET", "HEAD", "POST", "PUT")
_CORS_REQUEST_HEADERS = (
    *("Authorization", "Content-Type", "If-None-Match", "If-Range", "Range"),
    *("Traceparent", "X-Request-ID"),
)
_CORS_ANSWER_HEADERS = (
    *("Content-Disposition", "Content-Range", "ETag", "Location", "Retry-After", "X-Request-ID"),
)
_IPV6_NETWORK_BITS = 64
"""What one household or host is given: it has all addresses below, and may use each."""

# Of its own: a seed that others set must not repeat an id.
_ids = random.Random()  # noqa: S311  # an id of a request is no secret
_log = structlog.get_logger(__name__)


class SlowClientError(Exception):
    """A client does not read its answer."""


@dataclass(frozen=True, slots=True)
class RequestLimit:
    """How many requests may be under way: of all clients together, and of one of them.

    A request above the limit is refused at once; it does not wait.

    Attributes:
        total: Most requests at a time.
        for_one_client: Most of them from one address.
    """

    total: int
    for_one_client: int
    _active: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def slot_for(self, address: str) -> Iterator[bool]:
        """Yield whether a client at `address` got a slot; the end of the block frees it."""
        client = _client_of(address)
        if self._active.total() >= self.total or self._active[client] >= self.for_one_client:
            yield False
            return
        self._active[client] += 1
        try:
            yield True
        finally:
            self._active[client] -= 1
            if not self._active[client]:
                del self._active[client]


@lru_cache(maxsize=1024)
def _client_of(address: str) -> str:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found), _IPV6_NETWORK_BITS), strict=False))


class RequestMiddleware:
    """ASGI middleware around the whole application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        tokens: Tokens | None,
        head_rules: HeadRules,
        limit: RequestLimit,
        idle_seconds: float,
        pages: Pages | None = None,
    ) -> None:
        """Wrap `app`.

        Args:
            app: What answers.
            tokens: Those that are accepted; None where none is needed.
            head_rules: What the head of a request must hold.
            limit: Of requests under way.
            idle_seconds: Longest wait for a client to take a piece of an answer.
            pages: Those of `app` that people open, where there are any.
        """
        self.app = app
        self._pages = pages
        self._tokens = tokens
        self._head_rules = head_rules
        self._limit = limit
        self._idle_seconds = idle_seconds
        self._cors = CORSMiddleware(
            self._answer,
            allow_origins=head_rules.origins,
            allow_methods=_CORS_METHODS,
            allow_headers=_CORS_REQUEST_HEADERS,
            expose_headers=_CORS_ANSWER_HEADERS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method = scope["method"]
        scope = in_origin_form(scope)
        if method == "HEAD":
            # The answer to a GET, and nothing of its body.
            scope = {**scope, "method": "GET"}
        exchange = _Exchange(scope, send, method, self._idle_seconds)
        structlog.contextvars.bind_contextvars(request_id=exchange.request_id)
        try:
            await self._run(scope, receive, exchange)
        finally:
            exchange.report()
            structlog.contextvars.unbind_contextvars("request_id", "token")

    async def _run(self, scope: Scope, receive: Receive, exchange: "_Exchange") -> None:
        refused = self._head_rules.refusal(scope)
        try:
            if refused is not None:
                await error_answer(refused)(scope, receive, exchange.send)
            elif self._has_cors(scope):
                await self._cors(scope, receive, exchange.send)
            else:
                await self._answer(scope, receive, exchange.send)
        except Exception as error:
            _log.error("request failed", exc_info=not isinstance(error, SlowClientError))
            # An answer that is cut short must not look like a whole one: the server closes the
            # connection for an exception.
            if not exchange.is_whole:
                raise

    def _has_cors(self, scope: Scope) -> bool:
        origins = self._head_rules.origins
        if not origins or scope["method"] != "OPTIONS":
            return bool(origins)
        # The question of a page that may not ask is answered like any other OPTIONS.
        return header_of(scope, b"origin") in origins

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = (scope.get("client") or ("",))[0]
        is_limited = scope["path"] not in _ALWAYS_ANSWERED
        with self._limit.slot_for(client) if is_limited else nullcontext(True) as has_slot:
            app = self._refusal(scope) if has_slot else self._error(scope, _too_busy())
            await (app or self.app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        """Return what answers a request that is refused, or None."""
        if self._tokens is not None and scope["path"] not in OPEN_PATHS:
            refused = self._refusal_by_token(scope, self._tokens)
            if refused is not None:
                return refused
        if has_hidden_slash(scope):
            message = "No name here holds a slash, escaped or not."
            return self._error(scope, ApiError(404, "NOT_FOUND", message))
        return None

    def _error(self, scope: Scope, error: ApiError) -> ASGIApp:
        """Return an error as a page to a person, and else as the API has it."""
        if self._pages is not None and self._pages.reads(scope):
            return self._pages.error_page(Request(scope), error)
        return error_answer(error)

    def _refusal_by_token(self, scope: Scope, tokens: Tokens) -> ASGIApp | None:
        pages = self._pages
        if pages is not None and pages.is_open(scope):
            return None
        if pages is not None and pages.takes_cookie(scope):
            return None if pages.let_in(scope, tokens) else pages.ask_for_token
        if (
            pages is not None
            and pages.reads(scope)
            and scope["method"] in READING
            and header_of(scope, b"authorization") is None
        ):
            # No page has this path. The cookie counts here alone, and opens nothing.
            if not pages.let_in(scope, tokens):
                return pages.ask_for_token
            message = "There is nothing under this path."
            return pages.error_page(Request(scope), ApiError(404, "NOT_FOUND", message))
        refused = tokens.refusal(Headers(scope=scope), scope["method"])
        return None if refused is None else error_answer(refused)


def _too_busy() -> ApiError:
    message = "Too many requests at a time, by all clients or by this one: try again in a moment."
    return ApiError(503, "TOO_BUSY", message, headers={"Retry-After": "1"})


class _Exchange:
    """One request and what has been answered to it."""

    def __init__(self, scope: Scope, send: Send, method: str, idle_seconds: float) -> None:
        self.request_id = _request_id(scope)
        self._is_head = method == "HEAD"
        # Routes that publish carry the id on; those that read a file need not read it for HEAD.
        scope.setdefault("state", {}).update(request_id=self.request_id, is_head=self._is_head)
        self.status: int | None = None
        self.is_whole = False
        self._scope = scope
        self._method = method
        self._send = send
        self._idle_seconds = idle_seconds
        self._begin = time.perf_counter()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._add_headers(message)
        elif self._is_head:
            message = {**message, "body": b""}
        await _in_time(self._send(message), self._idle_seconds)
        if message["type"] == "http.response.body":
            self.is_whole = not message.get("more_body", False)

    def _add_headers(self, message: Message) -> None:
        headers = [each for each in message["headers"] if each[0] != REQUEST_ID_HEADER]
        given = {name for name, _ in headers}
        headers.append((REQUEST_ID_HEADER, self.request_id.encode()))
        headers += [each for each in _HEADERS if each[0] not in given]
        if is_unasked(self._scope):
            # Whether the body comes all the same cannot be known: no request can follow.
            headers = [each for each in headers if each[0] != b"connection"]
            headers.append((b"connection", b"close"))
        message["headers"] = headers

    def report(self) -> None:
        seconds = time.perf_counter() - self._begin
        # The template, never the path: labels must not grow with what clients send.
        route = str(getattr(self._scope.get("route"), "path", "none"))
        method = self._method if self._method in _METHODS else "other"
        _answers(method, route, self.status or 0).inc()
        _durations(method, route).observe(seconds)
        _log.info(
            "request",
            method=self._method,
            path=self._scope["path"],
            status=self.status,
            milliseconds=round(seconds * 1000, 1),
        )


def _request_id(scope: Scope) -> str:
    given = header_of(scope, REQUEST_ID_HEADER) or ""
    if _REQUEST_ID.fullmatch(given):
        return given
    # Not by uuid4: it asks the system, which lets another thread take over.
    return f"{_ids.getrandbits(128):032x}"


@lru_cache(maxsize=4096)
def _answers(method: str, route: str, status: int) -> prometheus_client.Counter:
    return metrics.HTTP_REQUESTS.labels(method, route, str(status))


@lru_cache(maxsize=1024)
def _durations(method: str, route: str) -> prometheus_client.Histogram:
    return metrics.HTTP_SECONDS.labels(method, route)


async def _in_time(sending: Awaitable[None], seconds: float) -> None:
    """Await what sends a message; a timer is set only where it has to wait for the client.

    Raises:
        SlowClientError: It waits for longer than this.
    """
    steps = sending.__await__()
    try:
        waits_for = next(steps)
    except StopIteration:
        return
    try:
        async with asyncio.timeout(seconds):
            await _Begun(steps, waits_for)
    except TimeoutError as error:
        raise SlowClientError from error


class _Begun:
    """The rest of something awaited that was begun and waits."""

    def __init__(self, steps: Generator[Any, Any, None], waits_for: object) -> None:
        self._steps = steps
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, None]:
        waits_for = self._waits_for
        try:
            while True:
                try:
                    value = yield waits_for
                except BaseException as error:  # noqa: BLE001  # a cancellation too is for it
                    waits_for = self._steps.throw(error)
                else:
                    waits_for = self._steps.send(value)
        except StopIteration:
            return
