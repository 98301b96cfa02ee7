"""Blobs without a network: what is taken, what leaves nothing behind, and what is sent."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.api.routes.attachments import CHECKED_FIRST_LIMIT_BYTES
from pipeline.core.layout import attachment_path
from pipeline.disk.durable_files import DurableFiles
from pipeline.storage.attachments import AttachmentFiles
from tests.api.conftest import JSON, RUNS, Api, api_over
from tests.builders import attachment_ref, run_request, sha256
from tests.storage.stores import WatchedCalls, files

CONTENT = os.urandom(3 << 20)
NAME = sha256(CONTENT)


def blobs(api: Api) -> dict[str, bytes]:
    return {name: content for name, content in files(api.root).items() if name != "index.lock"}


async def chunks(content: bytes = CONTENT, size: int = 70_000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def test_a_blob_is_created_once_and_exists_from_then_on(api: Api) -> None:
    first, second = await api.put(NAME, CONTENT), await api.put(NAME, chunks())
    assert (first.status_code, second.status_code) == (201, 200)
    expected = {"sha256": NAME, "size_bytes": len(CONTENT)}
    assert first.json() == expected | {"status": "created"}
    assert second.json() == expected | {"status": "exists"}
    assert list(blobs(api).values()) == [CONTENT]


async def test_two_uploads_at_a_time_make_one_file(api: Api) -> None:
    answers = await asyncio.gather(*(api.put(NAME, chunks()) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]
    assert list(blobs(api).values()) == [CONTENT]


async def test_bytes_of_another_hash_leave_nothing(api: Api) -> None:
    answer = await api.put("0" * 64, CONTENT)
    assert (answer.status_code, answer.json()["error"]) == (422, "HASH_MISMATCH")
    assert blobs(api) == {}


async def test_an_empty_blob_is_a_blob(api: Api) -> None:
    assert (await api.put(sha256(b""), b"")).status_code == 201


@pytest.mark.parametrize("announced", [True, False])
async def test_a_blob_above_the_limit_is_refused(tmp_path: Path, announced: bool) -> None:
    async with api_over(tmp_path / "store", upload_limit_bytes=len(CONTENT) - 1) as api:
        answer = await api.put(NAME, CONTENT if announced else chunks())
        assert (answer.status_code, answer.json()["error"]) == (413, "TOO_LARGE")
        assert blobs(api) == {}
    async with api_over(tmp_path / "store", upload_limit_bytes=len(CONTENT)) as api:
        assert (await api.put(NAME, CONTENT)).status_code == 201


async def test_an_encoded_body_is_refused(api: Api) -> None:
    answer = await api.put(NAME, CONTENT, **{"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["error"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


async def test_a_client_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    async def silent() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(5)
        yield b"y"

    async with api_over(tmp_path / "store", api_idle_seconds=0.05) as api:
        answer = await api.put(NAME, silent())
        assert (answer.status_code, answer.json()["error"]) == (408, "REQUEST_TIMEOUT")
        assert blobs(api) == {}


async def test_a_full_disk_is_said_and_nothing_is_kept(api: Api) -> None:
    calls = WatchedCalls()
    api.deps.reader.attachments = AttachmentFiles(DurableFiles.untried(api.root, calls))

    def full(name: str, _arguments: tuple[Any, ...]) -> None:
        if name == "write":
            raise OSError(errno.ENOSPC, "No space left on device")

    calls.before = full
    answer = await api.put(NAME, CONTENT)
    assert (answer.status_code, answer.json()["error"]) == (507, "DISK_FULL")
    assert blobs(api) == {}
    calls.before = None
    assert (await api.put(NAME, CONTENT)).status_code == 201


async def test_a_corrupt_blob_of_the_same_name_is_reported(api: Api) -> None:
    await api.put(NAME, CONTENT)
    (name,) = blobs(api)
    (api.root / name).unlink()
    (api.root / name).write_bytes(b"other")
    answer = await api.put(NAME, CONTENT)
    assert (answer.status_code, answer.json()["error"]) == (500, "ATTACHMENT_CORRUPT")
    assert (api.root / name).read_bytes() == b"other"


async def test_a_body_that_cannot_be_published_is_refused_before_the_broker_is_asked(
    api: Api,
) -> None:
    for path, headers, body, status, code in (
        ("", {}, b"{}", 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("", {"content-type": "text/plain"}, b"{}", 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("", {"content-type": "application/json; charset=utf-16"}, b"{}", 415, None),
        ("", {"content-type": "application/json; charset=UTF-8"}, b"{}", 422, "INVALID_REQUEST"),
        ("", JSON, b"", 422, "INVALID_REQUEST"),
        ("", JSON, b"[]", 422, "INVALID_REQUEST"),
        ("", JSON, b'{"a": NaN}', 422, "INVALID_REQUEST"),
        ("", JSON, b'{"a":1,"a":1}', 422, "INVALID_REQUEST"),
        ("", JSON, b'{"run_id":"x"}', 422, "INVALID_REQUEST"),
        ("", JSON, b" " * (4 << 20) + b"{}", 413, "TOO_LARGE"),
        ("/nobody/attach-advisory", JSON, b"{}", 404, None),
        ("/../attach-advisory", JSON, b"{}", 404, None),
    ):
        answer = await api.http.post(RUNS + path, content=body, headers=headers)
        assert answer.status_code == status, (path, headers, body[:20])
        assert answer.json()["error"] == code or code is None


async def test_too_many_requests_at_a_time_are_told_so(tmp_path: Path) -> None:
    async with api_over(tmp_path / "store", api_requests=1) as api:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def waiting() -> AsyncIterator[bytes]:
            begun.set()
            yield b"x"
            await go_on.wait()

        first = asyncio.create_task(api.put(sha256(b"x"), waiting()))
        await begun.wait()
        answer = await api.get()
        assert (answer.status_code, answer.json()["error"]) == (503, "TOO_BUSY")
        assert answer.headers["retry-after"] == "1"
        go_on.set()
        assert (await first).status_code == 201
        assert (await api.get()).status_code == 200


@pytest.mark.parametrize("damage", [None, 0, -1])
async def test_a_blob_that_is_hashed_on_its_way_arrives_whole_only_if_it_is_right(
    api: Api, damage: int | None
) -> None:
    content = bytearray(CONTENT * 6)
    assert len(content) > CHECKED_FIRST_LIMIT_BYTES
    digest = sha256(bytes(content))
    ref = attachment_ref(bytes(content), kind="manifest")
    api.add_runs(run_request(run_id="saw_1", attachments=[ref]))
    await api.put(digest, bytes(content))
    if damage is not None:
        content[damage] ^= 1
        path = api.root / attachment_path(digest)
        path.unlink()
        path.write_bytes(content)
    answer = await api.get(f"/saw_1/attachments/{digest}")
    assert int(answer.headers["content-length"]) == len(content)
    assert (answer.content == content) is (damage is None)
    part = await api.get(f"/saw_1/attachments/{digest}", Range="bytes=2000000-4000000")
    assert part.content == content[2_000_000:4_000_001]
