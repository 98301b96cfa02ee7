"""The HTTP server: connections over a real socket."""

import asyncio
from contextlib import suppress

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from pipeline.api.http import server
from pipeline.api.http.server import listen, serving

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", HEAD[:20], HEAD + HEAD[:20]])
async def test_a_connection_whose_head_does_not_come_is_closed(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(server, "_KEEP_ALIVE_SECONDS", 0.1)
    listening = listen("127.0.0.1", 0)
    host, port = listening.getsockname()
    async with serving(PlainTextResponse("it"), listening, stop_seconds=1):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(sent)
        async with asyncio.timeout(60):
            told = await reader.read()
        assert told.count(b"200 OK") == sent.count(HEAD)
        await closed(writer)


async def closed(writer: asyncio.StreamWriter) -> None:
    """Close a connection and wait until it is, so that nothing is left to the collector."""
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def test_a_head_that_comes_byte_by_byte_does_not_prolong_the_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "_KEEP_ALIVE_SECONDS", 0.1)
    listening = listen("127.0.0.1", 0)
    host, port = listening.getsockname()
    async with serving(PlainTextResponse("it"), listening, stop_seconds=1):
        reader, writer = await asyncio.open_connection(host, port)
        ended = asyncio.create_task(reader.read())
        async with asyncio.timeout(60):
            while not ended.done():
                writer.write(b"G")
                await asyncio.wait([ended], timeout=0.03)
        await closed(writer)


async def is_lost(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Return an event that the end of a connection sets, as the server sees it."""
    lost = asyncio.Event()
    real = server._Connection.connection_lost

    def noted(self: server._Connection, exc: Exception | None) -> None:
        real(self, exc)
        lost.set()

    monkeypatch.setattr(server._Connection, "connection_lost", noted)
    return lost


@pytest.mark.parametrize("head", [HEAD, HEAD[:-2] + b"Connection: close\r\n\r\n"])
async def test_a_client_that_does_not_take_its_answer_is_given_up(
    monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    """The answer is in our memory until it is taken, and the request is over for all else."""
    monkeypatch.setattr(server, "_KEEP_ALIVE_SECONDS", 0.1)
    lost = await is_lost(monkeypatch)
    listening = listen("127.0.0.1", 0)
    host, port = listening.getsockname()
    async with serving(PlainTextResponse(b"x" * (32 << 20)), listening, stop_seconds=1):
        _reader, writer = await asyncio.open_connection(host, port)
        writer.write(head)
        async with asyncio.timeout(60):
            await lost.wait()
        await closed(writer)


async def test_an_answer_that_was_given_up_does_not_stay_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the middleware does where a client does not take a piece in time."""
    monkeypatch.setattr(server, "_KEEP_ALIVE_SECONDS", 0.1)
    lost = await is_lost(monkeypatch)

    async def broken_off(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * (32 << 20), "more_body": True})
        raise ValueError

    listening = listen("127.0.0.1", 0)
    host, port = listening.getsockname()
    async with serving(broken_off, listening, stop_seconds=1):
        _reader, writer = await asyncio.open_connection(host, port)
        writer.write(HEAD)
        async with asyncio.timeout(60):
            await lost.wait()
        await closed(writer)


async def test_a_client_may_take_its_answer_piece_by_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "_KEEP_ALIVE_SECONDS", 0.5)
    content = b"x" * (16 << 20)
    listening = listen("127.0.0.1", 0)
    host, port = listening.getsockname()
    async with serving(PlainTextResponse(content), listening, stop_seconds=1):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(HEAD)
        async with asyncio.timeout(60):
            await reader.readuntil(b"\r\n\r\n")
            for _ in range(16):
                assert len(await reader.readexactly(1 << 20)) == 1 << 20
                await asyncio.sleep(0.05)
        await closed(writer)


async def test_a_request_under_way_may_take_longer_than_its_head(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "_KEEP_ALIVE_SECONDS", 0.05)

    async def slow(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        await asyncio.sleep(0.2)
        await PlainTextResponse("it")(scope, receive, send)

    listening = listen("127.0.0.1", 0)
    host, port = listening.getsockname()
    async with serving(slow, listening, stop_seconds=1):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(HEAD)
        async with asyncio.timeout(60):
            assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
        await closed(writer)


async def test_a_connection_too_many_takes_the_place_of_the_one_that_waits_longest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Connections that ask for nothing keep nobody out, and end no request."""
    monkeypatch.setattr(server, "_MOST_CONNECTIONS", 3)
    listening = listen("127.0.0.1", 0)
    host, port = listening.getsockname()
    asked, answer = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            asked.set()
            await answer.wait()
        await PlainTextResponse("it")(scope, receive, send)

    async with asyncio.timeout(60), serving(app, listening, stop_seconds=1):
        at_work, asking = await asyncio.open_connection(host, port)
        asking.write(HEAD.replace(b"/", b"/slow", 1))
        await asked.wait()
        idle = [await asyncio.open_connection(host, port) for _ in range(5)]
        for reader, _ in idle[:3]:
            assert await reader.read() == b""
        for reader, writer in idle[3:]:
            writer.write(HEAD)
            assert b"200 OK" in await reader.readline()
        answer.set()
        assert b"200 OK" in await at_work.readline()
        for writer in (asking, *(writer for _, writer in idle)):
            await closed(writer)
