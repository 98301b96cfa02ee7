"""The HTTP server: it binds its address before anything else starts, and stops in order."""

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from pipeline.api.http.request_body import LEAST_BYTES_PER_SECOND
from pipeline.errors import AddressTakenError

_KEEP_ALIVE_SECONDS = 15
"""Longest time for the head of a request to come, and between two requests."""

_HEAD_LIMIT_BYTES = 64 * 1024
_MOST_CONNECTIONS = 4096
"""Open at a time, and never more than half of the files that the process may have open: the store
and the broker need the others."""
_BACKLOG = 1024


def listen(host: str, port: int) -> socket.socket:
    """Take the address `host` and `port`; port 0 is any free one.

    Raises:
        AddressTakenError: It is taken, or none of this machine's.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        # The standard library repeats the address, which the sentence has.
        reason = (error.strerror or str(error)).partition(" (")[0]
        message = (
            f"The API cannot listen at {host}:{port} ({reason}): set RMOS_API_HOST and "
            "RMOS_API_PORT to a free address."
        )
        raise AddressTakenError(message) from error


def address_of(listening: socket.socket) -> str:
    """Return host and port of a listening socket, as a URL has them."""
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _most_connections() -> int:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        min(_MOST_CONNECTIONS, files // 2) if files != resource.RLIM_INFINITY else _MOST_CONNECTIONS
    )


@asynccontextmanager
async def serving(
    app: ASGIApp, listening: socket.socket, *, stop_seconds: float
) -> AsyncIterator[asyncio.Future[None]]:
    """Serve `app` for the length of a block; then let requests under way end.

    Args:
        app: What answers.
        listening: Where; it is closed at the end.
        stop_seconds: Longest wait for requests under way.

    Yields:
        Done when the server ended by itself.
    """
    config = uvicorn.Config(
        app,
        http=_Connection,
        lifespan="off",
        ws="none",
        # The middleware writes the log lines.
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, int(stop_seconds)),
        h11_max_incomplete_event_size=_HEAD_LIMIT_BYTES,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listening]), name="rmos api server")
    try:
        yield task
    finally:
        server.should_exit = True
        await asyncio.wait([task])
        listening.close()


class _Server(uvicorn.Server):
    """A server that leaves signals to its process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class _Connection(H11Protocol):
    """A connection that is closed where a head does not come, or an answer is not taken, in time.

    Uvicorn itself waits for ever for the first head, for the rest of a head, and for a client that
    does not read, whose answer stays in memory meanwhile.
    """

    _head_timer: asyncio.TimerHandle | None = None
    _answer_timer: asyncio.TimerHandle | None = None
    idle_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a head; where there are too many connections, close the one idle for longest."""
        super().connection_made(transport)
        self.idle_since = self.loop.time()
        self._watch_head()
        if len(self.connections) > _most_connections():
            self._make_room()

    def data_received(self, data: bytes) -> None:
        """Read bytes; part of a head does not prolong the wait."""
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        self._stop_timer()
        if self._answer_timer is not None:
            self._answer_timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait for the client to take what is written already."""
        super().pause_writing()
        self._watch_answer()

    def on_response_complete(self) -> None:
        """Go on to the next request, and wait for the client to take this answer."""
        super().on_response_complete()
        self.idle_since = self.loop.time()
        self._watch_answer()

    def _should_upgrade(self) -> bool:
        # There is no other protocol; not logged, as any page may ask for one.
        return False

    @property
    def is_idle(self) -> bool:
        """Whether closing it loses nothing."""
        return self._waits_for_head and not self.transport.get_write_buffer_size()

    @property
    def _waits_for_head(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _make_room(self) -> None:
        all_of_ours = (each for each in self.connections if isinstance(each, _Connection))
        idle = (each for each in all_of_ours if each.is_idle)
        # This one is idle too, and is closed where all others are busy.
        longest = min(idle, key=lambda each: each.idle_since, default=self)
        longest.transport.abort()
        self.connections.discard(longest)

    def _watch_head(self) -> None:
        if not self._waits_for_head:
            self._stop_timer()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self.timeout_keep_alive, self._give_up)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _watch_answer(self) -> None:
        left = self.transport.get_write_buffer_size()
        if left and self._answer_timer is None:
            wait = self.timeout_keep_alive
            self._answer_timer = self.loop.call_later(wait, self._look_at_answer, left)

    def _look_at_answer(self, before: int) -> None:
        self._answer_timer = None
        # While an answer is being written more is added to it, and its pieces have a time limit.
        is_written = self._waits_for_head or self.transport.is_closing()
        least = LEAST_BYTES_PER_SECOND * self.timeout_keep_alive
        if is_written and self.transport.get_write_buffer_size() > max(0, before - least):
            self.transport.abort()
        else:
            self._watch_answer()

    def _give_up(self) -> None:
        self._head_timer = None
        if self._waits_for_head:
            self.timeout_keep_alive_handler()
