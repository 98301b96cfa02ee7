"""The HTTP server: its address is taken before anything else starts, and it stops in order."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.types import ASGIApp

from pipeline.errors import AddressTakenError

_KEEP_ALIVE_SECONDS = 15
_HEAD_LIMIT_BYTES = 64 * 1024
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
        message = (
            f"The API cannot listen at {host}:{port} ({error.strerror}): set RMOS_API_HOST and "
            "RMOS_API_PORT to a free address."
        )
        raise AddressTakenError(message) from error


def address_of(listening: socket.socket) -> str:
    """Return host and port of a listening socket, as a URL has them."""
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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
        lifespan="off",
        ws="none",
        # Log lines and the address of a client behind a proxy are ours to say.
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
    """A server that leaves signals to the process that it is a part of."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take none."""
        yield
