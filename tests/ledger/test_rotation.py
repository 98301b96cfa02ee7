"""A new key takes over: every log is signed by both, whatever moment the rotation dies at."""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.store.contents import StoreContents
from pipeline.disk.contents import disk_contents
from pipeline.disk.log_store import DiskLogs, open_to_write
from pipeline.disk.store_identity import create_store
from pipeline.disk.system_calls import LogSystemCalls
from pipeline.errors import IntegrityError, StoreError, StoreNotReadyError
from pipeline.ledger import rotation as key_rotation
from pipeline.ledger.keys import (
    KeyInUse,
    earlier_keys,
    load_key,
    make_key,
    read_vkey,
    vkey_file_of,
    write_vkey,
)
from pipeline.ledger.log_id import signer_name
from pipeline.ledger.reader import LogReader
from pipeline.ledger.rotation import rotate_key
from pipeline.ledger.stored_log import StoredLog, find_logs
from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.notes import VerifierKey, parse_note
from pipeline.ledger.writer import Ledger
from tests.ledger.ledgers import LOG, OTHER_LOG, STORE_ID, WatchedLogCalls, damage, leaves

NAME = signer_name(STORE_ID)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give a store with two logs, whose key is `key_file`."""
    folder = tmp_path / "store"
    create_store(folder, cluster_id="cluster", prefix="rmos", store_id=STORE_ID)
    write_vkey(tmp_path / "ledger.pem", make_key(tmp_path / "ledger.pem", NAME).key)
    worker(folder).append_all({LOG: leaves(0, 300), OTHER_LOG: leaves(0, 3, OTHER_LOG)})
    return folder


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "ledger.pem"


def worker(root: Path) -> Ledger:
    """Open the ledger as a worker that starts now."""
    path = root.parent / "ledger.pem"
    in_use = KeyInUse(path)
    return Ledger(*open_to_write(root), STORE_ID, [load_key(path, NAME)], key_in_use=in_use)


def contents(root: Path, calls: LogSystemCalls | None = None) -> StoreContents:
    return replace(disk_contents(root), logs=DiskLogs(root, calls))


def trusted(key_file: Path) -> list[VerifierKey]:
    current = read_vkey(key_file, NAME)
    assert current is not None
    return [current, *earlier_keys(key_file, current)]


def check_readers(root: Path, key_file: Path) -> None:
    """Check that whoever reads the public files can check every log."""
    for log in find_logs(DiskLogs(root)):
        reader = LogReader.open(DiskLogs(root), log, STORE_ID, trusted(key_file))
        assert len(list(reader.entries())) == reader.size


def signers_of(root: Path, key_file: Path) -> list[set[int]]:
    """Return which of the trusted keys signed each log, by their number."""
    keys = [key.key_id for key in trusted(key_file)]
    notes = [
        StoredLog(DiskLogs(root), log).read_checkpoint() or b"" for log in find_logs(DiskLogs(root))
    ]
    return [{keys.index(each.key_id) for each in parse_note(note).signatures} for note in notes]


def test_both_keys_sign_every_log_and_the_new_one_alone_goes_on(root: Path, key_file: Path) -> None:
    old = load_key(key_file, NAME).key
    before = StoredLog(DiskLogs(root), LOG).read_checkpoint()
    done = rotate_key(contents(root), key_file)
    assert (done.old, done.logs) == (old, 2)
    assert trusted(key_file) == [done.new, old]
    assert load_key(key_file, NAME).key == done.new
    assert signers_of(root, key_file) == [{0, 1}, {0, 1}]
    # What was handed out before verifies with the old key as ever, and so does the new one.
    assert before is not None
    assert LogReader.open(DiskLogs(root), LOG, STORE_ID, [old]).size == 300
    worker(root).append_all({LOG: leaves(300, 301)})
    assert signers_of(root, key_file) == [{0}, {0, 1}]
    check_readers(root, key_file)


def test_keys_of_several_rotations_are_all_trusted(root: Path, key_file: Path) -> None:
    found = [load_key(key_file, NAME).key]
    for _ in range(3):
        found.insert(0, rotate_key(contents(root), key_file).new)
    assert trusted(key_file) == found
    assert sorted(path.name for path in key_file.parent.glob("*.rotation-*")) == [
        f"ledger.pem.rotation-{number}" for number in (1, 2, 3)
    ]
    check_readers(root, key_file)


def test_the_private_key_is_its_owners_alone_and_the_rest_is_public(
    root: Path, key_file: Path
) -> None:
    rotate_key(contents(root), key_file)
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in key_file.parent.iterdir()
        if path.is_file()
    }
    assert modes == {
        "ledger.pem": 0o600,
        "ledger.pem.vkey": 0o644,
        "ledger.pem.rotation-1": 0o644,
    }


def test_a_worker_that_was_running_stops_before_it_writes(root: Path, key_file: Path) -> None:
    running = worker(root)
    running.append_all({LOG: leaves(300, 301)})
    rotate_key(contents(root), key_file)
    before = StoredLog(DiskLogs(root), LOG).read_checkpoint()
    with pytest.raises(StoreError, match=r"ledger\.pem was replaced meanwhile.*start again"):
        running.append_all({LOG: leaves(301, 302)})
    assert StoredLog(DiskLogs(root), LOG).read_checkpoint() == before


def test_a_worker_whose_key_was_removed_goes_on(root: Path, key_file: Path) -> None:
    running = worker(root)
    key_file.rename(key_file.with_name("kept elsewhere"))
    running.append_all({LOG: leaves(300, 301)})


def test_a_log_that_the_key_did_not_sign_ends_the_rotation(root: Path, key_file: Path) -> None:
    damage(root / OTHER_LOG.path / "checkpoint")
    old = load_key(key_file, NAME).key
    with pytest.raises(IntegrityError, match="is not as it was written"):
        rotate_key(contents(root), key_file)
    assert trusted(key_file) == [old]
    assert load_key(key_file, NAME).key == old


def test_a_log_whose_tiles_do_not_fit_ends_the_rotation(root: Path, key_file: Path) -> None:
    damage(root / LOG.path / "tile/0/001.p/44")
    with pytest.raises(IntegrityError):
        rotate_key(contents(root), key_file)


class DiedError(Exception):
    """The process ends here."""


def dying(original: Callable[..., Any]) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Any:
        original(*args, **kwargs)
        raise DiedError

    return called


STEPS = ("_next_key", "_sign_by_both", "write_rotation", "write_vkey", "_take_over")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("works_between", [False, True])
def test_after_a_death_at_any_step_workers_and_readers_go_on_and_it_can_be_finished(
    root: Path,
    key_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    *,
    works_between: bool,
) -> None:
    old = load_key(key_file, NAME).key
    with monkeypatch.context() as patch:
        patch.setattr(key_rotation, step, dying(getattr(key_rotation, step)))
        with pytest.raises(DiedError):
            rotate_key(contents(root), key_file)
    check_readers(root, key_file)
    if works_between:
        worker(root).append_all({LOG: leaves(300, 310)})
        check_readers(root, key_file)
    done = rotate_key(contents(root), key_file)
    assert signers_of(root, key_file) == [{0, 1}, {0, 1}]
    worker(root).append_all({LOG: leaves(300, 320)})
    check_readers(root, key_file)
    # Only a rotation that had already ended is followed by another one.
    assert (done.old == old) is (step != "_take_over")
    assert not key_file.with_name("ledger.pem.next").exists()


def system_calls(root: Path, key_file: Path) -> Iterator[int]:
    made: list[str] = []
    calls = WatchedLogCalls()
    calls.before = lambda name, arguments: made.append(name)
    rotate_key(contents(root, calls), key_file)
    yield from range(len(made))


@pytest.mark.slow
def test_after_a_fault_of_any_call_on_the_logs_it_can_be_finished(
    root: Path, key_file: Path
) -> None:
    for nth in system_calls(root, key_file):
        left = [nth]

        def fail(name: str, arguments: tuple[Any, ...], left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(5, os.strerror(5))

        calls = WatchedLogCalls()
        calls.before = fail
        old = load_key(key_file, NAME).key
        with pytest.raises(StoreError):
            rotate_key(contents(root, calls), key_file)
        assert load_key(key_file, NAME).key == old
        check_readers(root, key_file)
        worker(root).append_all({LOG: leaves(299, 300)})
        rotate_key(contents(root), key_file)
        check_readers(root, key_file)


def test_a_note_that_is_not_what_was_written_is_refused(root: Path, key_file: Path) -> None:
    note = rotate_key(contents(root), key_file).note
    damage(note, 10)
    with pytest.raises(StoreNotReadyError, match=r"Expected the note of a change of key at .*-1"):
        trusted(key_file)


@pytest.mark.parametrize("content", [b"", b"rmos/0+00000000+AQ==", b"\xff", b"two\nlines\n"])
def test_a_public_key_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    vkey_file_of(tmp_path / "key").write_bytes(content)
    with pytest.raises(StoreNotReadyError, match="Expected the public key of the ledger at"):
        read_vkey(tmp_path / "key", NAME)


def test_the_public_key_of_another_store_is_refused(root: Path, key_file: Path) -> None:
    with pytest.raises(StoreNotReadyError, match="found that of rmos/0000"):
        read_vkey(key_file, "rmos/other")


def test_without_a_store_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(StoreNotReadyError, match="There is no store"):
        rotate_key(contents(tmp_path / "store"), tmp_path / "ledger.pem")
    assert list(tmp_path.iterdir()) == []


def test_evidence_error_is_what_a_stranger_gets(root: Path, key_file: Path) -> None:
    rotated = rotate_key(contents(root), key_file)
    worker(root).append_all({LOG: leaves(300, 301)})
    with pytest.raises(IntegrityError) as caught:
        LogReader.open(DiskLogs(root), LOG, STORE_ID, [rotated.old])
    assert isinstance(caught.value.__cause__, EvidenceError)
