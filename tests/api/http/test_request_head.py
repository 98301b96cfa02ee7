"""Who may ask: names of this host, pages of this origin, and how many at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Message

from pipeline.api.http.middleware import RequestLimit, SlowClientError
from pipeline.errors import InputError
from pipeline.settings import read_settings
from tests.api.conftest import JSON, RUNS, Api, api_over, tokens_of
from tests.builders import encode, run_request, sha256

EVIL = "evil.example"
CAM = "https://cam.example"
PREFLIGHT = {"access-control-request-method": "POST"}


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


async def test_another_name_that_leads_here_reads_nothing(api: Api) -> None:
    root = ("/", "/runs", "/metrics", "/health/ready", "/openapi.json")
    for path in (RUNS, f"{RUNS}/saw_1", *root):
        answer = await api.http.get(path, headers={"host": f"{EVIL}:8080"})
        assert refusal(answer) == (421, "WRONG_HOST"), path


async def test_another_name_that_leads_here_writes_nothing(api: Api) -> None:
    headers = {"host": EVIL, "origin": f"http://{EVIL}", **JSON}
    posted = await api.http.post(RUNS, content=encode(run_request()), headers=headers)
    assert refusal(posted) == (421, "WRONG_HOST")
    put = await api.put(sha256("x"), b"x", **headers)
    assert refusal(put) == (421, "WRONG_HOST")
    assert not (api.root / "attachments").exists()


async def test_a_page_of_another_site_writes_nothing(api: Api) -> None:
    for headers in (
        {"origin": f"https://{EVIL}"},
        {"origin": "http://127.0.0.1:3000"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"origin": "http://127.0.0.1", "sec-fetch-site": "cross-site"},
    ):
        for answer in (
            await api.http.post(RUNS, content=encode(run_request()), headers={**JSON, **headers}),
            await api.http.post(f"{RUNS}/saw_1/attach-advisory", content=b"{}", headers=headers),
            await api.put(sha256("x"), b"x", **headers),
        ):
            assert refusal(answer) == (403, "FOREIGN_ORIGIN"), headers
    assert not (api.root / "attachments").exists()


async def test_programs_and_our_own_pages_may_write(api: Api) -> None:
    for number, headers in enumerate(
        (
            {},
            {"origin": "http://127.0.0.1"},
            {"sec-fetch-site": "same-origin"},
            {"host": "localhost"},
        )
    ):
        content = str(number)
        answer = await api.put(sha256(content), content.encode(), **headers)
        assert answer.status_code == 201, headers


async def test_a_page_of_another_site_gets_an_answer_that_its_browser_keeps_from_it(
    api: Api,
) -> None:
    answer = await api.get(Origin=CAM)
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers
    asked = await api.http.options(RUNS, headers={"origin": CAM, **PREFLIGHT})
    assert asked.status_code == 204
    assert "access-control-allow-origin" not in asked.headers


async def test_a_page_of_an_allowed_origin_may_ask_and_write(tmp_path: Path) -> None:
    tokens = tokens_of(tmp_path, ("cam", "publish", "secret"))
    headers = {"origin": CAM, "sec-fetch-site": "cross-site"}
    async with api_over(
        tmp_path / "store", tokens=tokens, api_allowed_origins=f"http://localhost:3000, {CAM}"
    ) as api:
        asked = await api.http.options(
            f"{RUNS}/attachments/{sha256('x')}",
            headers={
                **headers,
                "access-control-request-method": "PUT",
                "access-control-request-headers": "authorization, content-type",
            },
        )
        # A browser sends no token with this question.
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == CAM
        put = await api.put(sha256("x"), b"x", **headers, authorization="Bearer secret")
        assert (put.status_code, put.headers["access-control-allow-origin"]) == (201, CAM)
        assert "X-Request-ID" in put.headers["access-control-expose-headers"]
        # Also what is refused can be read by the page.
        refused = await api.put(sha256("x"), b"x", **headers)
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, CAM)
        foreign = await api.get(origin=f"https://{EVIL}", authorization="Bearer secret")
        assert "access-control-allow-origin" not in foreign.headers
        assert "Origin" in foreign.headers["vary"]
        asked = await api.http.options(RUNS, headers={"origin": f"https://{EVIL}", **PREFLIGHT})
        assert refusal(asked) == (401, "UNAUTHORIZED")


async def test_with_tokens_any_name_is_answered_unless_some_are_allowed(tmp_path: Path) -> None:
    tokens = tokens_of(tmp_path, ("cam", "read", "secret"))
    headers = {"host": "shop.example", "authorization": "Bearer secret"}
    async with api_over(tmp_path / "store", tokens=tokens) as api:
        assert (await api.get(**headers)).status_code == 200
    async with api_over(
        tmp_path / "store", tokens=tokens, api_allowed_hosts="runs.example,[fd00::1]"
    ) as api:
        assert refusal(await api.get(**headers)) == (421, "WRONG_HOST")
        assert (await api.get(**{**headers, "host": "runs.example"})).status_code == 200


def test_a_list_that_no_browser_would_match_is_refused() -> None:
    for name, value in (
        ("api_allowed_hosts", "https://runs.example"),
        ("api_allowed_hosts", "runs.example:8080"),
        ("api_allowed_hosts", "*"),
        ("api_allowed_origins", "*"),
        ("api_allowed_origins", "null"),
        ("api_allowed_origins", "cam.example"),
        ("api_allowed_origins", "https://cam.example/"),
        ("api_allowed_origins", "https://cam.example:443"),
        ("api_allowed_origins", "https://Cam.example"),
    ):
        with pytest.raises(InputError, match=f"RMOS_{name.upper()} cannot be") as refused:
            read_settings(**{name: value})
        assert f"found {value!r} in it" in str(refused.value)


async def test_health_and_metrics_are_answered_above_the_limit_of_requests(tmp_path: Path) -> None:
    async with (
        api_over(tmp_path / "store", api_requests=3) as api,
        silent_uploads(api, 3),
    ):
        answer = await api.get()
        assert refusal(answer) == (503, "TOO_BUSY")
        assert answer.headers["retry-after"] == "1"
        assert (await api.http.get("/health/live")).status_code == 200
        assert (await api.http.get("/health/ready")).json()["checks"] == {"broker answers": False}
        assert "rmos_http" in (await api.http.get("/metrics")).text


async def test_one_client_cannot_take_every_slot(tmp_path: Path) -> None:
    async with api_over(tmp_path / "store", api_requests=9, api_client_requests=2) as api:
        async with silent_uploads(api, 2):
            assert refusal(await api.get()) == (503, "TOO_BUSY")
            elsewhere = httpx.ASGITransport(api.app, client=("10.0.0.9", 1))
            async with httpx.AsyncClient(transport=elsewhere, base_url="http://localhost") as http:
                assert (await http.get(RUNS)).status_code == 200
        assert (await api.get()).status_code == 200


@asynccontextmanager
async def silent_uploads(api: Api, count: int) -> AsyncIterator[None]:
    """Begin uploads of which one byte comes, and give them up at the end."""
    begun = asyncio.Semaphore(0)

    async def one_byte() -> AsyncIterator[bytes]:
        begun.release()
        yield b"x"
        await asyncio.Event().wait()

    uploads = [asyncio.create_task(api.put(sha256("x"), one_byte())) for _ in range(count)]
    for _ in uploads:
        await begun.acquire()
    yield
    for upload in uploads:
        upload.cancel()
    await asyncio.gather(*uploads, return_exceptions=True)


def test_one_client_leaves_slots_for_others() -> None:
    limit = RequestLimit(3, 2)
    with limit.slot_for("10.0.0.1") as first, limit.slot_for("10.0.0.1") as second:
        assert (first, second) == (True, True)
        with limit.slot_for("10.0.0.1") as third:
            assert third is False
        with limit.slot_for("10.0.0.2") as other:
            assert other is True
            with limit.slot_for("10.0.0.3") as above:
                assert above is False
    with limit.slot_for("10.0.0.1") as again:
        assert again is True


def test_addresses_of_one_client_count_together() -> None:
    for one, other in (("fd00::1", "fd00::ffff:1"), ("10.0.0.1", "::ffff:10.0.0.1"), ("", "")):
        limit = RequestLimit(9, 1)
        with limit.slot_for(one), limit.slot_for(other) as is_free:
            assert is_free is False, (one, other)
        with limit.slot_for("fd00::1"), limit.slot_for("fd00:0:0:1::1") as is_free:
            assert is_free is True


async def test_a_body_that_trickles_is_given_up(tmp_path: Path) -> None:
    async def trickle() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0.02)

    async with api_over(tmp_path / "store", api_idle_seconds=0.2) as api:
        async with asyncio.timeout(60):
            answer = await api.put(sha256("x"), trickle())
        assert refusal(answer) == (408, "REQUEST_TIMEOUT")
        assert answer.headers["connection"] == "close"
        assert list((api.root / "attachments").rglob("*")) == []


def _asked() -> dict[str, Any]:
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/health/live",
        "raw_path": b"/health/live",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


async def test_a_client_that_takes_no_piece_of_its_answer_in_time_is_given_up(
    tmp_path: Path,
) -> None:
    async def send(_message: Message) -> None:
        await asyncio.Event().wait()

    async with api_over(tmp_path / "store", api_idle_seconds=0.05) as api:
        with pytest.raises(SlowClientError):
            async with asyncio.timeout(60):
                await api.app(_asked(), _nothing, send)


@pytest.mark.parametrize("fault", [None, OSError("gone"), asyncio.CancelledError()])
async def test_what_becomes_of_a_piece_that_has_to_wait_is_what_the_request_sees(
    tmp_path: Path, fault: BaseException | None
) -> None:
    sent = []

    async def send(message: Message) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        if fault is not None:
            raise fault
        sent.append(message["type"])

    async with api_over(tmp_path / "store") as api:
        if fault is None:
            await api.app(_asked(), _nothing, send)
            assert sent == ["http.response.start", "http.response.body"]
        else:
            with pytest.raises(type(fault)):
                await api.app(_asked(), _nothing, send)


async def test_a_piece_that_waits_is_cancelled_with_its_request(tmp_path: Path) -> None:
    waits, cancelled = asyncio.Event(), asyncio.Event()

    async def send(_message: Message) -> None:
        waits.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with api_over(tmp_path / "store") as api:
        asking = asyncio.create_task(api.app(_asked(), _nothing, send))
        async with asyncio.timeout(60):
            await waits.wait()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await cancelled.wait()
