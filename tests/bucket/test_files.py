"""What only a bucket's files and logs do: parts, copies, uploads, and removals that wait."""

import os
from collections.abc import Callable
from pathlib import Path
from threading import Barrier

import obstore
import pytest

from pipeline.bucket import objects as objects_module
from pipeline.bucket import open_object
from pipeline.bucket.files import BucketFiles
from pipeline.bucket.objects import Objects
from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.store.files import ExpectedFile, NewFile, NotAFileError, Presence
from pipeline.errors import StoreAwayError, StoreNotReadyError
from pipeline.ledger.writer import Ledger
from tests.bucket.buckets import contents_of, files_and_logs, objects_of, opened
from tests.bucket.faulty_proxy import Proxy
from tests.ledger.ledgers import LOG, OTHER_LOG, SIGNER, STORE_ID, leaves

LARGE = bytes(range(10)) * 3


@pytest.fixture
def objects(proxy: Proxy, request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    del proxy
    return opened(request, f"s3://shop/{tmp_path.name}")


@pytest.fixture
def in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a part of seven bytes for a large one."""
    for module in (objects_module, open_object):
        monkeypatch.setattr(module, "PIECE_BYTES", 7)


@pytest.mark.usefixtures("in_pieces")
def test_a_large_object_is_compared_and_copied_in_parts(objects: Objects) -> None:
    files = BucketFiles(objects)
    files.create([NewFile("blob", LARGE)])
    expected = ExpectedFile("blob", sha256_of_bytes(LARGE))
    assert files.presence([expected]) == {"blob": Presence.SAME}
    file = files.open("blob")
    try:
        assert os.pread(file.descriptor, 100, 0) == LARGE
        assert file.descriptor == file.descriptor
    finally:
        file.close()


def test_no_byte_of_another_object_is_given_for_the_one_that_was_opened(objects: Objects) -> None:
    files = BucketFiles(objects)
    files.create([NewFile("blob", LARGE)])
    file = files.open("blob")
    files.remove(["blob"])
    files.create([NewFile("blob", LARGE[::-1])])
    with pytest.raises(NotAFileError, match="another object"):
        file.read(0, 5)
    file.close()


def upload(files: BucketFiles, content: bytes) -> bool:
    sent = files.begin_upload()
    try:
        sent.write(content)
        return sent.publish("blob/x")
    finally:
        sent.end()


@pytest.mark.parametrize(
    ("fault", "created"),
    [
        ("503", True),
        ("409", True),
        ("cut before it was stored", True),
        # It is there, and the second answer does not say who has stored it.
        ("500 after it was stored", False),
        ("cut after it was stored", False),
    ],
)
def test_of_an_upload_that_failed_what_is_there_decides(
    objects: Objects, proxy: Proxy, fault: str, created: bool
) -> None:
    files, left = BucketFiles(objects), [fault]
    proxy.choose = lambda method, _: left.pop() if method == "PUT" and left else None
    assert upload(files, LARGE) is created
    assert proxy.faults == {fault: 1}
    assert files.read("blob/x", 100) == LARGE


@pytest.mark.parametrize(("fault", "error"), [("503", StoreAwayError), ("403", StoreNotReadyError)])
def test_an_upload_is_given_up(
    objects: Objects, proxy: Proxy, fault: str, error: type[Exception]
) -> None:
    proxy.choose = lambda method, _: fault if method == "PUT" else None
    with pytest.raises(error, match=fault):
        upload(BucketFiles(objects), LARGE)


@pytest.mark.slow
def test_an_upload_goes_by_a_copy_where_a_signed_put_has_no_condition(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Google's, whose emulator has no uploads in parts; Azurite has, and such copies."""
    objects = objects_of(request, "azurite")
    monkeypatch.setattr(objects, "signed_headers", lambda _: None)
    files = BucketFiles(objects)
    assert upload(files, LARGE) is True
    assert upload(files, LARGE[::-1]) is False
    assert contents_of(objects) == {"blob/x": LARGE}


@pytest.mark.parametrize("ask", ["read", "present", "tiles"])
def test_many_threads_ask_at_once_for_one_file_each(
    objects: Objects, proxy: Proxy, ask: str
) -> None:
    files, logs = files_and_logs(objects)
    paths = [f"many/{number}" for number in range(16)]
    files.create([NewFile(path, path.encode()) for path in paths])
    # None is answered before four have come.
    four = Barrier(4, timeout=30)
    proxy.choose = lambda *_: None if four.wait() >= 0 else "503"
    asks: dict[str, Callable[[str], object]] = {
        "read": lambda path: files.read(path, 99).decode(),
        "present": lambda path: files.present([path]).pop(),
        "tiles": lambda path: logs.tiles([path])[path].decode(),
    }
    assert list(files.at_once(asks[ask], paths)) == paths


def test_a_batch_asks_three_times_however_many_files_and_logs_it_has(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoints are read, all files created, all checkpoints swapped: each at once."""
    files, logs = files_and_logs(objects)
    writer = Ledger(files, logs, STORE_ID, [SIGNER])
    asked: list[int] = []
    run = objects._run
    for first in (0, 3, 6):
        batch = {log: leaves(first, first + 3, log) for log in (LOG, OTHER_LOG)}
        if first == 6:
            monkeypatch.setattr(objects, "_run", lambda work: (asked.append(1), run(work))[1])
            monkeypatch.setattr(obstore, "get", None)
            monkeypatch.setattr(obstore, "list_with_delimiter", None)
        with writer.appending(batch) as appended:
            new = [NewFile(f"runs/{first}-{number}", b"") for number in range(20)]
            appended.publish(files.link([*new, *appended.files]))
    assert len(asked) == 3


def test_own_tiles_are_not_read_back_and_superseded_ones_go_with_the_next_swap(
    objects: Objects, proxy: Proxy
) -> None:
    opened = files_and_logs(objects)
    asked: list[tuple[str, str]] = []
    writer = Ledger(*opened, STORE_ID, [SIGNER])
    writer.append_all({LOG: leaves(0, 3)})
    writer.append_all({LOG: leaves(3, 5)})

    def choose(method: str, path: str) -> None:
        asked.append((method, path.partition("/1/")[2]))

    proxy.choose = choose
    writer.append_all({LOG: leaves(5, 8)})
    log = LOG.path.rpartition("/")[2]
    assert [each for each in asked if "tile" in each[1] and each[0] == "GET"] == []
    removed = {path.removeprefix(f"{log}/") for method, path in asked if method == "DELETE"}
    assert removed == {"tile/0/000.p/3", "tile/entries/000.p/3"}
    opened[1].close()
    folder = f"{LOG.path}/tile/0/000.p"
    assert opened[1].names([folder]) == {folder: ["8"]}


def test_what_a_killed_process_left_goes_at_a_start_and_not_in_a_batch(objects: Objects) -> None:
    killed = Ledger(*files_and_logs(objects), STORE_ID, [SIGNER])
    for first in (0, 3, 5):
        killed.append_all({LOG: leaves(first, first + 3)})
    files, logs = files_and_logs(objects)
    folder = f"{LOG.path}/tile/0/000.p"
    started = Ledger(files, logs, STORE_ID, [SIGNER])
    assert logs.names([folder]) == {folder: ["6", "8"]}
    started.opened([LOG])
    started.sweep()
    assert logs.names([folder]) == {folder: ["8"]}
