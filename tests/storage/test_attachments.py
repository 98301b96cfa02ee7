"""Blobs on a real disk: whole or not there, whatever fails, and found damaged where they are."""

import asyncio
import errno
import json
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.json.canonical import canonical_json
from pipeline.core.layout import attachment_path
from pipeline.disk.durable_files import DurableFiles
from pipeline.errors import (
    DiskFullError,
    HashMismatchError,
    IntegrityError,
    NotFoundError,
    StoreError,
)
from pipeline.storage.attachments import PIECE_BYTES, AttachmentFiles, OpenBlob
from tests.storage.stores import (
    NamedCalls,
    WatchedCalls,
    in_child,
    make_store,
    open_descriptors,
)

CONTENT = b"0\nSECTION\n"
NAME = sha256_of_bytes(CONTENT)
both = pytest.mark.parametrize("calls", [WatchedCalls, NamedCalls], ids=["unnamed", "named"])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_store(tmp_path / "store")
    return tmp_path / "store"


def blob_file(root: Path, sha256: str = NAME) -> Path:
    return root / attachment_path(sha256)


def left(root: Path) -> set[str]:
    """Return the names of all files but the store's own."""
    files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    return files - {"store.json", "index.lock"}


async def pieces(*given: bytes) -> AsyncIterator[bytes]:
    for piece in given:
        yield piece


def put(files: AttachmentFiles, content: bytes = CONTENT, name: str | None = None) -> bool:
    with files.begin() as upload:
        upload.write(content)
        return files.publish(upload, name).created


@both
def test_a_blob_lies_under_its_hash_and_cannot_be_written(
    root: Path, calls: type[WatchedCalls]
) -> None:
    files = AttachmentFiles(DurableFiles.untried(root, calls()))
    before = open_descriptors()
    assert put(files)
    assert not put(files)
    assert blob_file(root).read_bytes() == CONTENT
    assert blob_file(root).stat().st_mode & 0o777 == 0o444
    assert left(root) == {attachment_path(NAME)}
    assert open_descriptors() == before


@both
def test_bytes_of_another_hash_leave_nothing(root: Path, calls: type[WatchedCalls]) -> None:
    files = AttachmentFiles(DurableFiles.untried(root, calls()))
    before = open_descriptors()
    with pytest.raises(HashMismatchError, match=f"found {NAME}"):
        put(files, name="0" * 64)
    assert left(root) == set()
    assert open_descriptors() == before


@both
async def test_pieces_of_any_size_make_one_blob(root: Path, calls: type[WatchedCalls]) -> None:
    files = AttachmentFiles(DurableFiles.untried(root, calls()))
    content = os.urandom(3 * PIECE_BYTES + 17)
    given = [content[:1], b"", content[1 : 2 * PIECE_BYTES], content[2 * PIECE_BYTES :]]
    name = sha256_of_bytes(content)
    stored = await files.receive(name, pieces(*given), asyncio.to_thread)
    assert (stored.sha256, stored.size_bytes, stored.created) == (name, len(content), True)
    assert blob_file(root, name).read_bytes() == content


async def test_a_source_that_fails_leaves_nothing(root: Path) -> None:
    files = AttachmentFiles(DurableFiles.untried(root, NamedCalls()))
    before = open_descriptors()

    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * PIECE_BYTES
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await files.receive(NAME, broken(), asyncio.to_thread)
    assert left(root) == set()
    assert open_descriptors() == before


async def test_an_upload_that_is_cancelled_ends_after_its_thread(root: Path) -> None:
    calls = WatchedCalls()
    writing, go_on = threading.Event(), threading.Event()

    def slow(name: str, _arguments: tuple[Any, ...]) -> None:
        if name == "write":
            writing.set()
            assert go_on.wait(60)

    calls.before = slow
    files = AttachmentFiles(DurableFiles.untried(root, calls))
    before = open_descriptors()
    task = asyncio.create_task(files.receive(NAME, pieces(CONTENT), asyncio.to_thread))
    await asyncio.to_thread(writing.wait, 60)
    task.cancel()
    threading.Timer(0.05, go_on.set).start()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left(root) == set()
    assert open_descriptors() == before


@both
def test_two_uploads_at_a_time_make_one_file(root: Path, calls: type[WatchedCalls]) -> None:
    files = AttachmentFiles(DurableFiles.untried(root, calls()))
    with files.begin() as first, files.begin() as second:
        first.write(CONTENT)
        second.write(CONTENT)
        created = [files.publish(upload, NAME).created for upload in (second, first)]
    assert created == [True, False]
    assert left(root) == {attachment_path(NAME)}


def test_a_corrupt_blob_of_the_same_name_is_reported_and_not_touched(root: Path) -> None:
    files = AttachmentFiles(DurableFiles.untried(root))
    put(files)
    blob_file(root).chmod(0o644)
    blob_file(root).write_bytes(b"other")
    with pytest.raises(IntegrityError, match="ATTACHMENT_CORRUPT"):
        put(files)
    assert blob_file(root).read_bytes() == b"other"


def calls_of_an_upload(root: Path, calls: type[WatchedCalls]) -> list[str]:
    made: list[str] = []
    watched = calls()
    files = AttachmentFiles(DurableFiles.untried(root, watched))
    watched.before = lambda name, _arguments: made.append(name)
    put(files)
    return made


@both
@pytest.mark.parametrize(
    ("number", "error"), [(errno.ENOSPC, DiskFullError), (errno.EIO, StoreError)]
)
def test_any_call_that_fails_leaves_no_half_blob(
    root: Path, tmp_path: Path, calls: type[WatchedCalls], number: int, error: type[StoreError]
) -> None:
    make_store(tmp_path / "measured")
    expected = calls_of_an_upload(tmp_path / "measured", calls)
    assert {"write", "fsync", "set_mode"} <= set(expected)
    for position, name in enumerate(expected):
        if name in {"close", "unlink"}:
            continue
        folder = tmp_path / f"store-{position}"
        make_store(folder)
        watched = calls()
        files = AttachmentFiles(DurableFiles.untried(folder, watched))
        before = open_descriptors()
        watched.before = failing_at(position, number)
        with pytest.raises(error) as failed:
            put(files)
        assert isinstance(failed.value, DiskFullError) is (number == errno.ENOSPC)
        watched.before = None
        assert left(folder) <= {attachment_path(NAME)}
        assert open_descriptors() == before
        # The next upload finds or makes the whole blob.
        put(files)
        assert files.check(NAME).error is None


def failing_at(position: int, number: int) -> Callable[[str, tuple[Any, ...]], None]:
    counter: Iterator[int] = iter(range(10_000))

    def fail(_name: str, _arguments: tuple[Any, ...]) -> None:
        if next(counter) == position:
            raise OSError(number, os.strerror(number))

    return fail


@both
def test_a_process_that_dies_in_the_middle_leaves_nothing(
    root: Path, calls: type[WatchedCalls]
) -> None:
    def die_before_the_link() -> bytes:
        watched = calls()
        files = AttachmentFiles(DurableFiles.untried(root, watched))

        def die(name: str, _arguments: tuple[Any, ...]) -> None:
            if name.startswith("link_"):
                os._exit(9)

        watched.before = die
        put(files)
        return b""

    status, _ = in_child(die_before_the_link)
    assert os.waitstatus_to_exitcode(status) == 9
    AttachmentFiles(DurableFiles.untried(root, calls())).begin().end()
    assert left(root) == set()


def test_an_upload_that_is_alive_is_no_leftover(root: Path) -> None:
    files = AttachmentFiles(DurableFiles.untried(root, NamedCalls()))
    with files.begin() as upload:
        upload.write(CONTENT)
        AttachmentFiles(DurableFiles.untried(root, NamedCalls())).begin().end()
        assert files.publish(upload).created
    assert left(root) == {attachment_path(NAME)}


def test_a_file_is_put_under_its_hash(root: Path, tmp_path: Path) -> None:
    (tmp_path / "part.dxf").write_bytes(CONTENT)
    stored = AttachmentFiles(DurableFiles.untried(root)).put(tmp_path / "part.dxf")
    assert (stored.sha256, stored.size_bytes, stored.created) == (NAME, len(CONTENT), True)


def test_an_empty_blob_is_a_blob(root: Path) -> None:
    files = AttachmentFiles(DurableFiles.untried(root))
    assert put(files, b"")
    assert files.check(sha256_of_bytes(b"")).rule == "raw"


def test_what_is_not_there_or_no_file_is_not_found(root: Path, tmp_path: Path) -> None:
    files = AttachmentFiles(DurableFiles.untried(root))
    with pytest.raises(NotFoundError):
        files.open(NAME)
    assert files.check(NAME).error == "blob_not_found"
    (tmp_path / "secret").write_bytes(CONTENT)
    blob_file(root).parent.mkdir(parents=True)
    blob_file(root).symlink_to(tmp_path / "secret")
    with pytest.raises(NotFoundError):
        files.open(NAME)


def written(root: Path, name: str, content: bytes) -> OpenBlob:
    path = blob_file(root, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    return AttachmentFiles(DurableFiles.untried(root)).open(name)


def rule_of(root: Path, name: str, content: bytes) -> str | None:
    blob = written(root, name, content)
    try:
        return blob.check().rule
    finally:
        blob.close()


@pytest.mark.parametrize("value", [{"a": [1, {"b": 2.5}]}, [1, 2], {"ä": "ö", "n": 10**40}])
def test_a_pretty_printed_blob_has_the_hash_of_its_canonical_form(root: Path, value: Any) -> None:
    name = sha256_of_bytes(canonical_json(value))
    assert rule_of(root, name, json.dumps(value, indent=2).encode()) == "canonical"
    assert rule_of(root, name, canonical_json(value)) == "raw"


@pytest.mark.parametrize(
    "content",
    [
        b'{"a": 2}',
        b'{"a": 1} x',
        b'{"a": 1, "a": 1}',
        b'{"a": NaN}',
        b'{"a": 1},"b":{"c":2}',
        b"",
        b"\xff",
        b"[" * 5000,
    ],
)
def test_other_json_or_none_is_a_mismatch(root: Path, content: bytes) -> None:
    assert rule_of(root, sha256_of_bytes(b'{"a":1}'), content) is None


def test_a_changed_byte_of_a_canonical_blob_is_found_though_its_value_is_the_same(
    root: Path,
) -> None:
    canonical = canonical_json({"a": "\x1f"})
    changed = canonical.replace(b"1f", b"1F")
    assert json.loads(changed) == json.loads(canonical)
    assert rule_of(root, sha256_of_bytes(canonical), changed) is None


@given(content=st.binary(min_size=1, max_size=200), data=st.data())
def test_any_flipped_bit_is_found(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, data: st.DataObject
) -> None:
    bit = data.draw(st.integers(0, len(content) * 8 - 1))
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    root = tmp_path_factory.mktemp("flipped")
    make_store(root / "store")
    assert rule_of(root / "store", sha256_of_bytes(content), bytes(changed)) is None
