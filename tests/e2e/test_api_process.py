"""`rmos api` as a process: how it starts, refuses, stops, and what a death leaves."""

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from pipeline.broker.admin.topics import partition_offsets
from pipeline.broker.local.broker import LocalBroker
from pipeline.core.hashing import sha256_of_bytes
from pipeline.settings import Settings
from tests.builders import attachment_ref, encode, run_request, sha256
from tests.e2e.api_service import JSON, RUNS
from tests.e2e.kafka_reading import new_settings, topics_and_store, wait_until
from tests.e2e.worker_processes import RMOS, WorkerPool, WorkerProcess, only_sentence

pytestmark = pytest.mark.e2e

BIG_BYTES = 1 << 30


@pytest.fixture
async def settings(broker: LocalBroker, tmp_path: Path) -> AsyncIterator[Settings]:
    settings = new_settings(broker, tmp_path / "store")
    async with topics_and_store(broker, settings):
        yield settings


async def started(workers: WorkerPool, settings: Settings, **environment: str) -> str:
    """Start an API on any free port; return its URL."""
    process = workers.fork([str(RMOS), "api"], settings, RMOS_API_PORT="0", **environment)
    return await url_of(process)


async def url_of(process: WorkerProcess) -> str:
    def is_started() -> bool:
        process.check()
        return bool(process.logged("api started"))

    await wait_until(is_started, "the API started")
    return f"http://{process.logged('api started')[0]['address']}"


async def refused(workers: WorkerPool, settings: Settings, **environment: str) -> tuple[int, str]:
    process = workers.fork([str(RMOS), "api"], settings, **environment)
    return await process.ended(), only_sentence(process.text)


async def test_a_signal_stops_it_in_order(workers: WorkerPool, settings: Settings) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        process = workers.fork([str(RMOS), "api"], settings, RMOS_API_PORT="0")
        url = await url_of(process)
        async with httpx.AsyncClient(base_url=url) as http:
            assert (await http.get("/health/ready")).json()["ready"] is True
            assert (await http.get("/openapi.json")).status_code == 200
            assert await process.stop(number) == 0
        assert process.logged("api stopped")


async def test_a_request_under_way_is_answered_before_it_stops(
    workers: WorkerPool, settings: Settings
) -> None:
    process = workers.fork(
        [str(RMOS), "api"], settings, RMOS_API_PORT="0", RMOS_RECEIPT_TIMEOUT_SECONDS="2"
    )
    async with httpx.AsyncClient(base_url=await url_of(process), timeout=60) as http:
        # No worker runs, so it waits for its event.
        asked = asyncio.create_task(http.post(RUNS, content=encode(run_request()), headers=JSON))
        await wait_until(lambda: is_published(settings), "a published request")
        process.send(signal.SIGTERM)
        assert (await asked).status_code == 202
        assert await process.ended() == 0


async def test_a_port_that_is_taken_is_one_sentence(
    workers: WorkerPool, settings: Settings
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, sentence = await refused(workers, settings, RMOS_API_PORT=str(port))
    assert status == 6
    assert sentence.startswith(
        f"The API cannot listen at 127.0.0.1:{port} (Address already in use): set "
    )


async def test_beyond_loopback_it_refuses_to_start_without_tokens(
    workers: WorkerPool, settings: Settings, tmp_path: Path
) -> None:
    status, sentence = await refused(workers, settings, RMOS_API_HOST="0.0.0.0", RMOS_API_PORT="0")
    assert status == 2
    assert "RMOS_API_HOST=0.0.0.0 can be reached from other machines" in sentence
    tokens = tmp_path / "tokens"
    tokens.write_text(f"auditor read {sha256('secret')}\n")
    process = workers.fork(
        [str(RMOS), "api"],
        settings,
        RMOS_API_HOST="0.0.0.0",
        RMOS_API_PORT="0",
        RMOS_API_TOKENS_FILE=str(tokens),
    )
    url = (await url_of(process)).replace("0.0.0.0", "127.0.0.1")
    async with httpx.AsyncClient(base_url=url) as http:
        assert (await http.get(RUNS)).status_code == 401
        headers = {"Authorization": "Bearer secret"}
        assert (await http.get(RUNS, headers=headers)).status_code == 200
        assert (await http.post(RUNS, headers=headers)).status_code == 403
    await wait_until(lambda: len(process.logged("request")) == 3, "a log line for each request")
    assert "secret" not in process.text
    assert [line.get("token") for line in process.logged("request")] == [None, "auditor", "auditor"]


async def test_without_a_store_it_does_not_start(
    workers: WorkerPool, settings: Settings, tmp_path: Path
) -> None:
    nowhere = settings.model_copy(update={"data_dir": tmp_path / "nowhere"})
    status, sentence = await refused(workers, nowhere, RMOS_API_PORT="0")
    assert status == 6
    assert "There is no store at" in sentence


async def test_killed_during_an_upload_it_leaves_nothing(
    workers: WorkerPool, settings: Settings
) -> None:
    process = workers.fork([str(RMOS), "api"], settings, RMOS_API_PORT="0")
    url = await url_of(process)
    content = os.urandom(8 << 20)
    half, killed = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield content[: 4 << 20]
        half.set()
        await killed.wait()
        yield content[4 << 20 :]

    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        asked = asyncio.create_task(
            http.put(f"{RUNS}/attachments/{sha256(content)}", content=slow())
        )
        await half.wait()
        process.kill()
        killed.set()
        with pytest.raises(httpx.HTTPError):
            await asked
    left = {path.name for path in settings.data_dir.rglob("*") if path.is_file()}
    # It only reads but for blobs, so it makes no index either.
    assert left == {"store.json"}
    async with httpx.AsyncClient(base_url=await started(workers, settings), timeout=60) as http:
        answer = await http.put(f"{RUNS}/attachments/{sha256(content)}", content=content)
        assert answer.status_code == 201


async def test_killed_during_a_post_the_retry_gets_its_run(
    workers: WorkerPool, settings: Settings
) -> None:
    process = workers.fork([str(RMOS), "api"], settings, RMOS_API_PORT="0")
    url = await url_of(process)
    body = encode(run_request())
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        asked = asyncio.create_task(http.post(RUNS, content=body, headers=JSON))
        # No worker runs, so it is published and waits.
        await wait_until(lambda: is_published(settings), "a published request")
        process.kill()
        with pytest.raises(httpx.HTTPError):
            await asked
    worker = workers.start(settings)
    await worker.wait_until_started()
    async with httpx.AsyncClient(base_url=await started(workers, settings), timeout=60) as http:
        answer = await http.post(RUNS, content=body, headers=JSON)
    assert answer.status_code == 200
    assert answer.json()["outcome"] == "duplicate"
    assert await worker.stop() == 0


async def test_a_client_that_goes_away_during_an_upload_leaves_nothing(
    workers: WorkerPool, settings: Settings
) -> None:
    process = workers.fork([str(RMOS), "api"], settings, RMOS_API_PORT="0")
    host, port = (await url_of(process)).removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        request = f"PUT {RUNS}/attachments/{'0' * 64} HTTP/1.1"
        head = f"{request}\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\n"
        connection.sendall(head.encode() + b"x" * 5000)
    await wait_until(lambda: bool(process.logged("request")), "the request ended")
    assert not (settings.data_dir / "attachments").exists()
    assert await process.stop() == 0


@pytest.mark.slow
async def test_a_gibibyte_is_taken_and_given_without_being_held(
    workers: WorkerPool, settings: Settings
) -> None:
    process = workers.fork([str(RMOS), "api"], settings, RMOS_API_PORT="0")
    url = await url_of(process)
    piece = os.urandom(1 << 20)
    digest = repeated_sha256(piece, BIG_BYTES // len(piece))

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(BIG_BYTES // len(piece)):
            yield piece

    async with httpx.AsyncClient(base_url=url, timeout=600) as http:
        await http.get(RUNS)
        before = psutil.Process(process.pid).memory_info().rss
        with peak_rss(process.pid) as peak:
            answer = await http.put(f"{RUNS}/attachments/{digest}", content=pieces())
        assert answer.status_code == 201, answer.text
        assert answer.json()["size_bytes"] == BIG_BYTES
        grown = max(peak) - before
        print(json.dumps({"upload_grown_mb": round(grown / 1e6, 1)}))
        assert grown < 100_000_000
        worker = workers.start(settings)
        await worker.wait_until_started()
        named = attachment_ref(sha256=digest, size_bytes=BIG_BYTES)
        request = run_request(attachments=[named])
        posted = await http.post(RUNS, content=encode(request), headers=JSON)
        assert posted.status_code == 201, posted.text
        before = psutil.Process(process.pid).memory_info().rss
        with peak_rss(process.pid) as peak:
            given = hashlib.sha256()
            url = f"{RUNS}/{request['run_id']}/attachments/{digest}"
            async with http.stream("GET", url) as download:
                assert download.status_code == 200
                async for part in download.aiter_raw():
                    given.update(part)
        assert given.hexdigest() == digest
        assert max(peak) - before < 100_000_000
    assert await worker.stop() == 0
    assert await process.stop() == 0


async def is_published(settings: Settings) -> bool:
    offsets = await partition_offsets(settings, [settings.topics.run_requests])
    return sum(found.end for found in offsets.values()) == 1


def repeated_sha256(piece: bytes, times: int) -> str:
    digest = hashlib.sha256()
    for _ in range(times):
        digest.update(piece)
    return digest.hexdigest()


@contextlib.contextmanager
def peak_rss(pid: int) -> Iterator[list[int]]:
    """Give a list that is filled with the resident bytes of a process, ten times a second."""
    found: list[int] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.1):
            found.append(psutil.Process(pid).memory_info().rss)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def test_the_hash_of_repeated_pieces_is_that_of_the_whole() -> None:
    assert repeated_sha256(b"ab", 3) == sha256_of_bytes(b"ababab")
