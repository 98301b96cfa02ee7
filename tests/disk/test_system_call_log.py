"""The order of a batch as the kernel sees it: bytes, flush, names, flush, then the index."""

import shutil
import sys

import pytest

from tests.disk.system_call_log import Call, parse_log, traced

PROGRAM = """
import os, sys
from pathlib import Path
from tests.builders import attachment, red_request, run_request
from tests.ledger.ledgers import ledger
from tests.storage.stores import judged_record, make_store, opened

root = Path(sys.argv[1])
make_store(root)
with opened(root, ledger=ledger(root) if sys.argv[2:] else None) as store:
    if store.ledger:
        store.commit([judged_record(run_request(run_id="run_0"), 0)])
    batch = [
        judged_record(run_request(run_id="run_1", attachments=[attachment(b"part")]), 1),
        judged_record(red_request(run_id="run_2"), 2),
    ]
    os.write(1, b"the batch begins")
    store.commit(batch)
    os.write(1, b"the batch is acknowledged")
"""
CALLS = (
    *("write", "pwrite64", "fchmod", "syncfs", "fsync", "fdatasync", "flock"),
    *("linkat", "link", "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdirat"),
)


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> list[Call]:
    """Give the calls of one batch of a new process, without a ledger."""
    return calls_of_batch(tmp_path_factory, request)


def calls_of_batch(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest, *options: str
) -> list[Call]:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    folder = tmp_path_factory.mktemp("traced")
    program = [sys.executable, "-c", PROGRAM, str(folder / "store"), *options]
    made = traced(program, folder / "log", CALLS, folder=request.config.rootpath)
    begin = place(made, "write", "the batch begins")
    end = place(made, "write", "the batch is acknowledged")
    return made[begin + 1 : end]


def places(calls: list[Call], name: str, part: str = "") -> list[int]:
    return [n for n, call in enumerate(calls) if call.is_of(name, part)]


def place(calls: list[Call], name: str, part: str) -> int:
    (found,) = places(calls, name, part)
    return found


def test_bytes_are_flushed_then_linked_then_flushed_then_indexed(calls: list[Call]) -> None:
    first_flush, last_flush = places(calls, "syncfs")
    written = [*places(calls, "write"), *places(calls, "fchmod")]
    named = [*places(calls, "mkdirat"), *places(calls, "linkat")]
    indexed = places(calls, "pwrite64", "index.sqlite3-wal")
    flushed = [*places(calls, "fdatasync", "-wal"), *places(calls, "fsync", "-wal")]
    assert len(places(calls, "write")) == 4
    assert len(places(calls, "linkat")) == 4
    assert max(written) < first_flush < min(named)
    assert max(named) < last_flush < min(indexed)
    assert max(indexed) < max(flushed)


def test_with_a_ledger_each_of_three_flushes_has_its_place(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> None:
    """Bytes, names and new checkpoints, checkpoints in place; then the index. No fourth."""
    calls = calls_of_batch(tmp_path_factory, request, "ledger")
    contents, names, replacement = places(calls, "syncfs")
    linked, indexed = places(calls, "linkat"), places(calls, "pwrite64", "index.sqlite3-wal")
    (checkpoint,) = places(calls, "write", "/.checkpoint.new>")
    (replaced,) = [
        *places(calls, "rename"),
        *places(calls, "renameat"),
        *places(calls, "renameat2"),
    ]
    unnamed = [place for place in places(calls, "write") if place != checkpoint]
    assert max(unnamed) < contents < min(linked)
    assert any("/tile/entries/" in calls[place].arguments for place in linked)
    assert max(linked) < checkpoint < names < replaced < replacement < min(indexed)
    assert max(indexed) < max(
        [*places(calls, "fdatasync", "-wal"), *places(calls, "fsync", "-wal")]
    )


def test_the_lock_is_held_before_anything_is_written(calls: list[Call]) -> None:
    assert calls[0].is_of("flock", "LOCK_EX")
    assert "index.lock" in calls[0].arguments
    assert len(places(calls, "flock")) == 1


def test_files_are_flushed_twice_for_the_batch_and_the_index_alone_by_itself(
    calls: list[Call],
) -> None:
    assert len(places(calls, "syncfs")) == 2
    single = [call for call in calls if call.name in {"fsync", "fdatasync"}]
    # The first commit after opening also makes the log's own name durable.
    own = {call.arguments for call in single if "index.sqlite3" not in call.arguments}
    assert all(arguments.endswith("/store>") for arguments in own)


def test_no_name_is_replaced_or_removed(calls: list[Call]) -> None:
    unwanted = {"rename", "renameat", "renameat2", "unlink", "unlinkat", "link"}
    assert not [call for call in calls if call.name in unwanted]
    for call in calls:
        if call.name == "linkat":
            assert "AT_EMPTY_PATH" in call.arguments or "/proc/self/fd/" in call.arguments


def test_blobs_get_their_names_before_the_artifacts(calls: list[Call]) -> None:
    linked = [call.arguments for call in calls if call.name == "linkat"]
    areas = [
        next(area for area in ("attachments", "quarantine", "runs") if f"/{area}/" in arguments)
        for arguments in linked
    ]
    assert areas == ["attachments", "quarantine", "runs", "runs"]


def test_a_log_of_strace_is_read_line_by_line() -> None:
    text = (
        '12345 write(3</a>, "x) = y", 6)   = 6\n'
        "[pid 7] syncfs(4</b> <unfinished ...>\n"
        "[pid 7] <... syncfs resumed>)           = 0\n"
        "fsync(5</c>) = -1 EIO (Input/output error)\n"
        "+++ exited with 0 +++\n"
    )
    assert parse_log(text) == [
        Call("write", '3</a>, "x) = y", 6'),
        Call("syncfs", "4</b>"),
        Call("fsync", "5</c>"),
    ]
