"""The HTTP server: connections over a real socket."""

import asyncio

import pytest
from starlette.responses import PlainTextResponse

from pipeline.api import server
from pipeline.api.server import listen, serving

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
        async with asyncio.timeout(5):
            told = await reader.read()
        assert told.count(b"200 OK") == sent.count(HEAD)
        writer.close()


async def test_a_head_that_comes_byte_by_byte_does_not_prolong_the_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "_KEEP_ALIVE_SECONDS", 0.1)
    listening = listen("127.0.0.1", 0)
    host, port = listening.getsockname()
    async with serving(PlainTextResponse("it"), listening, stop_seconds=1):
        reader, writer = await asyncio.open_connection(host, port)
        ended = asyncio.create_task(reader.read())
        async with asyncio.timeout(5):
            while not ended.done():
                writer.write(b"G")
                await asyncio.wait([ended], timeout=0.03)
        writer.close()


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
        async with asyncio.timeout(5):
            assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
        writer.close()
