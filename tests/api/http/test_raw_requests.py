"""HTTP as neighbours speak it, byte for byte over a real socket."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.api.http.server import listen, serving
from tests.api.conftest import RUNS, Api, api_over
from tests.builders import attachment, run_request, sha256

DXF = b"0\nSECTION\n"
BLOB = f"{RUNS}/saw_1/attachments/{sha256(DXF)}"
HOST = "Host: localhost"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Socket:
    api: Api
    address: tuple[str, int]

    async def say(self, *lines: str, body: bytes = b"", until: str = "") -> bytes:
        """Send one request and return all that comes, until the connection is closed."""
        reader, writer = await asyncio.open_connection(*self.address)
        try:
            writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            async with asyncio.timeout(60):
                return await (reader.readuntil(until.encode()) if until else reader.read())
        finally:
            writer.close()

    async def ask(self, *lines: str, body: bytes = b"") -> Answer:
        """Send one request that closes its connection."""
        return answer_of(await self.say(*lines, "Connection: close", body=body))


def answer_of(told: bytes) -> Answer:
    head, _, body = told.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return Answer(int(first.split()[1]), headers, body)


@pytest.fixture
async def raw(tmp_path: Path) -> AsyncIterator[Socket]:
    async with api_over(tmp_path / "store", api_idle_seconds=0.5) as api:
        api.add_runs(run_request(run_id="saw_1", attachments=[attachment(DXF)]))
        listening = listen("127.0.0.1", 0)
        address = listening.getsockname()[:2]
        async with serving(api.app, listening, stop_seconds=1):
            yield Socket(api, address)


@pytest.mark.parametrize(
    "path",
    [RUNS, f"{RUNS}/saw_1", f"{RUNS}/saw_1/download", BLOB, "/metrics", "/health/live", "/nothing"],
)
async def test_head_is_the_head_of_get(raw: Socket, path: str) -> None:
    head = await raw.ask(f"HEAD {path} HTTP/1.1", HOST)
    whole = await raw.ask(f"GET {path} HTTP/1.1", HOST)
    assert (head.status, head.body) == (whole.status, b"")
    changing = {"x-request-id", "date"} | ({"content-length"} if path == "/metrics" else set())
    kept: Callable[[Answer], dict[str, str]] = lambda answer: {  # noqa: E731
        name: value for name, value in answer.headers.items() if name not in changing
    }
    assert kept(head) == kept(whole)
    if path == BLOB:
        assert head.headers["content-length"] == str(len(DXF))
        assert head.headers["accept-ranges"] == "bytes"


async def test_head_of_a_part_and_of_what_is_known(raw: Socket) -> None:
    part = await raw.ask(f"HEAD {BLOB} HTTP/1.1", HOST, "Range: bytes=1-3")
    assert (part.status, part.headers["content-length"], part.body) == (206, "3", b"")
    assert part.headers["content-range"] == f"bytes 1-3/{len(DXF)}"
    known = await raw.ask(f"HEAD {BLOB} HTTP/1.1", HOST, f'If-None-Match: "{sha256(DXF)}"')
    assert known.status == 304


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        (RUNS, "GET, HEAD, OPTIONS, POST"),
        ("/runs", "GET, HEAD, OPTIONS, POST"),
        (f"{RUNS}/saw_1", "GET, HEAD, OPTIONS"),
        (f"{RUNS}/saw_1/attach-advisory", "OPTIONS, POST"),
        (f"{RUNS}/attachments/{sha256(DXF)}", "OPTIONS, PUT"),
        (BLOB, "GET, HEAD, OPTIONS"),
        ("/metrics", "GET, HEAD, OPTIONS"),
        ("/", "GET, HEAD, OPTIONS"),
        ("*", "GET, HEAD, OPTIONS, POST, PUT"),
    ],
)
async def test_options_and_405_name_what_is_allowed(raw: Socket, path: str, allowed: str) -> None:
    options = await raw.ask(f"OPTIONS {path} HTTP/1.1", HOST)
    assert (options.status, options.headers["allow"], options.body) == (204, allowed.lower(), b"")
    if path == "*":
        return
    refused = await raw.ask(f"DELETE {path} HTTP/1.1", HOST)
    assert (refused.status, refused.headers["allow"]) == (405, allowed.lower())
    assert f"one of the methods {allowed} at".encode() in refused.body


@pytest.mark.parametrize(
    "path",
    [
        f"{RUNS}/saw_1%2Fdownload",
        f"{RUNS}/saw_1%2fattachments%2fverify",
        "/api%2Frmos/runs/saw_1?a=%2F",
    ],
)
async def test_an_escaped_slash_is_no_slash(raw: Socket, path: str) -> None:
    answer = await raw.ask(f"GET {path} HTTP/1.1", HOST)
    assert (answer.status, b'"NOT_FOUND"' in answer.body) == (404, True)


async def test_an_escaped_letter_is_that_letter(raw: Socket) -> None:
    assert (await raw.ask(f"GET {RUNS}/saw%5F1?x HTTP/1.1", HOST)).status == 422
    assert (await raw.ask(f"GET {RUNS}/saw%5F1/%64ownload HTTP/1.1", HOST)).status == 200


@pytest.mark.parametrize("scheme", ["http", "HTTP", "https"])
async def test_a_whole_url_in_the_request_line_is_its_path(raw: Socket, scheme: str) -> None:
    asked = f"GET {scheme}://localhost:8080{RUNS}?limit=1 HTTP/1.1"
    answer = await raw.ask(asked, "Host: localhost")
    assert (answer.status, b'"limit":1' in answer.body) == (200, True)
    assert (await raw.ask("GET http://127.0.0.1 HTTP/1.1", HOST)).status == 200


async def test_the_host_of_a_whole_url_is_the_one_that_counts(raw: Socket) -> None:
    for url, host in (("http://evil.example", "localhost"), ("http://a@localhost", "localhost")):
        answer = await raw.ask(f"GET {url}{RUNS} HTTP/1.1", f"Host: {host}")
        assert answer.status == 421
    answer = await raw.ask(f"GET http://localhost{RUNS} HTTP/1.1", "Host: evil.example")
    assert answer.status == 200


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
async def test_chunks_are_no_part_of_an_older_protocol(raw: Socket, method: str) -> None:
    asked = [f"{method} {RUNS} HTTP/1.0", HOST, "Transfer-Encoding: chunked"]
    answer = await raw.ask(*asked, body=b"0\r\n\r\n")
    assert (answer.status, b'"BAD_REQUEST"' in answer.body) == (400, True)


async def test_another_protocol_is_not_spoken_and_not_advised(
    raw: Socket, caplog: pytest.LogCaptureFixture
) -> None:
    asked = ["GET /health/live HTTP/1.1", HOST, "Connection: Upgrade", "Upgrade: websocket"]
    told = await raw.say(*asked, "Sec-WebSocket-Key: x", until="}")
    assert answer_of(told).status == 200
    # Only our own line about the request: nothing of the server, which would advise to install.
    assert {each.name for each in caplog.records} <= {"pipeline.api.http.middleware"}


async def test_two_lengths_are_refused_and_the_connection_is_closed(raw: Socket) -> None:
    """What the first length leaves over would be the next request: one that nobody sent."""
    body = b"0\r\n\r\nGET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    told = await raw.say(
        f"POST {RUNS} HTTP/1.1",
        HOST,
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Transfer-Encoding: chunked",
        body=body,
    )
    answer = answer_of(told)
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert b'"BAD_REQUEST"' in answer.body
    assert told.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    ("path", "kind", "length", "status"),
    [
        (RUNS, "application/json", 99_999_999_999, 413),
        (RUNS, "text/plain", 5, 415),
        (f"{RUNS}/saw_1/attach-advisory", "application/json", 5_000_000, 413),
        (f"{RUNS}/attachments/{'0' * 64}", "x/y", 99_999_999_999, 413),
        (f"{RUNS}/attachments/{'0' * 63}", "x/y", 5, 404),
    ],
)
async def test_a_body_that_is_refused_is_not_asked_for(
    raw: Socket, path: str, kind: str, length: int, status: int
) -> None:
    method = "PUT" if "/attachments/" in path else "POST"
    told = await raw.say(
        f"{method} {path} HTTP/1.1",
        HOST,
        f"Content-Type: {kind}",
        f"Content-Length: {length}",
        "Expect: 100-continue",
    )
    assert b"100 Continue" not in told
    answer = answer_of(told)
    assert (answer.status, answer.headers["connection"]) == (status, "close")


async def test_a_body_that_is_taken_is_asked_for(raw: Socket) -> None:
    reader, writer = await asyncio.open_connection(*raw.address)
    head = f"PUT {RUNS}/attachments/{sha256('x')} HTTP/1.1\r\n{HOST}\r\nContent-Length: 1\r\n"
    writer.write((head + "Expect: 100-continue\r\nConnection: close\r\n\r\n").encode())
    async with asyncio.timeout(60):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        writer.write(b"x")
        assert (await reader.read()).startswith(b"HTTP/1.1 201 ")
    writer.close()


@pytest.mark.parametrize(
    ("path", "target"),
    [
        (f"{RUNS}/", RUNS),
        ("/runs/?status=OK&a=%20", "/runs?status=OK&a=%20"),
        (f"{RUNS}/saw_1/", f"{RUNS}/saw_1"),
        (f"{RUNS}//", RUNS),
    ],
)
async def test_a_slash_too_many_leads_to_the_path_without_it(
    raw: Socket, path: str, target: str
) -> None:
    for method in ("GET", "HEAD", "POST"):
        if method == "POST" and "saw_1" in path:
            continue
        answer = await raw.ask(f"{method} {path} HTTP/1.1", HOST)
        assert (answer.status, answer.headers["location"]) == (307, target.lower())


@pytest.mark.parametrize("path", ["//evil.example/", "/nothing/", "//", f"/{RUNS}/"])
async def test_no_other_path_leads_anywhere(raw: Socket, path: str) -> None:
    answer = await raw.ask(f"GET {path} HTTP/1.1", HOST)
    assert (answer.status, "location" in answer.headers) == (404, False)


async def test_the_root_says_where_to_go_on(raw: Socket) -> None:
    answer = await raw.ask("GET / HTTP/1.1", HOST)
    assert answer.status == 200
    for path in (RUNS, "/openapi.json", "/health/ready", "/metrics"):
        assert f'"{path}"'.encode() in answer.body
        assert (await raw.ask(f"GET {path} HTTP/1.1", HOST)).status in {200, 503}


@pytest.mark.parametrize(
    "doubled",
    [
        ("Origin: http://localhost", "Origin: https://evil.example"),
        ("Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
async def test_of_two_origins_the_foreign_one_counts(
    raw: Socket, doubled: tuple[str, str], order: int
) -> None:
    put = f"PUT {RUNS}/attachments/{sha256('x')} HTTP/1.1"
    answer = await raw.ask(put, HOST, *doubled[::order], "Content-Length: 1", body=b"x")
    assert answer.status == 403
