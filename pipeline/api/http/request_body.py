"""Bodies of requests, read with limits of type, size, silence and rate."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress

from starlette.requests import ClientDisconnect, Request
from starlette.types import Scope

from pipeline.api.answers import ApiError
from pipeline.api.http.request_head import header_of
from pipeline.errors import RmosError
from pipeline.topics import REQUEST_VALUE_LIMIT_BYTES

_DRAIN_SECONDS = 2.0
LEAST_BYTES_PER_SECOND = 16 * 1024
"""A body that comes slower than this, after the time that a client may be silent, is given up, and
so is an answer that is taken slower. At 128 kbit/s a blob of 2 GiB takes 36 hours; a machine on a
slower line has other troubles, and one byte a second would hold a slot for 68 years."""
_UPLOAD = "PUT large contents under /attachments/{sha256} and name them as attachments"


async def read_json_body(request: Request, idle_seconds: float) -> bytes:
    """Return the body of a request to publish, which must be JSON.

    Raises:
        ApiError: It is of another type (415), too large (413) or too slow (408).
    """
    body = bytearray()
    whole = f"Expected the whole body within {idle_seconds:g} s."
    async with drained(request):
        kind, _, parameters = request.headers.get("content-type", "").partition(";")
        charset = parameters.partition("charset=")[2].strip().strip('"').lower()
        if kind.strip().lower() != "application/json" or charset not in {"", "utf-8", "utf8"}:
            message = "Expected a body of Content-Type application/json in UTF-8."
            raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", message)
        limited = limited_body(request, REQUEST_VALUE_LIMIT_BYTES, idle_seconds, _UPLOAD)
        # The whole of it within the time: a few MiB a byte at a time would hold a slot for ever.
        async with _time_limit(idle_seconds, whole), aclosing(limited) as pieces:
            async for piece in pieces:
                body += piece
    return bytes(body)


async def limited_body(
    request: Request, limit_bytes: int, idle_seconds: float, way_out: str
) -> AsyncGenerator[bytes]:
    """Yield the body piece by piece.

    Args:
        request: Where it comes with.
        limit_bytes: Most bytes.
        idle_seconds: Longest silence, and how much later than its least rate it may come.
        way_out: What a client does with a larger one, for the message.

    Raises:
        ApiError: It is encoded (415), too large (413), silent for too long or too slow (408).
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", "Expected a body without Content-Encoding.")
    # Before the first byte is asked for: a client that waits for `100 Continue` sends none.
    if _announced_bytes(request) > limit_bytes:
        raise _too_large(limit_bytes, way_out)
    received = 0
    loop = asyncio.get_running_loop()
    begin = loop.time()
    request.state.is_body_asked_for = True
    message = (
        f"Expected a body without a pause of {idle_seconds:g} s, and after that time at "
        f"{LEAST_BYTES_PER_SECOND:,} bytes a second or more."
    )
    pieces = request.stream()
    while True:
        # Silence uses up a client's time limit; each byte that it sends extends it.
        late = begin + idle_seconds + received / LEAST_BYTES_PER_SECOND - loop.time()
        async with _time_limit(min(idle_seconds, max(late, 0.0)), message):
            piece = await anext(pieces, None)
        if piece is None:
            return
        received += len(piece)
        if received > limit_bytes:
            raise _too_large(limit_bytes, way_out)
        if piece:
            yield piece


@asynccontextmanager
async def drained(request: Request) -> AsyncIterator[None]:
    """Where a block refuses a request, read what its client still sends, for a moment.

    Closing a connection with unread bytes resets it, and a client that is writing would see
    the reset alone. A client that waits for `100 Continue` is not writing: reading would make it.
    """
    try:
        yield
    except (ApiError, RmosError):
        await _drain(request)
        raise


async def _drain(request: Request) -> None:
    if is_unasked(request.scope):
        return
    with suppress(TimeoutError, ClientDisconnect, RuntimeError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            async for _ in request.stream():
                pass


def is_unasked(scope: Scope) -> bool:
    """Return whether a client waits for `100 Continue` and its body was not asked for."""
    waits = "100-continue" in (header_of(scope, b"expect") or "").lower()
    return waits and not scope["state"].get("is_body_asked_for", False)


def _announced_bytes(request: Request) -> int:
    announced = request.headers.get("content-length", "0")
    return int(announced) if re.fullmatch("[0-9]{1,18}", announced) else 0


def _too_large(limit_bytes: int, way_out: str) -> ApiError:
    message = f"Expected a body of at most {limit_bytes:,} bytes: {way_out}."
    return ApiError(413, "TOO_LARGE", message)


@asynccontextmanager
async def _time_limit(seconds: float, message: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise ApiError(408, "REQUEST_TIMEOUT", message, headers={"Connection": "close"}) from error
