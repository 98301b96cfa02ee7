"""Trusted checkpoints against the logs of now: the attacks of whoever has the disk, and the key."""

import shutil
from functools import cache
from pathlib import Path

import pytest

from pipeline.disk.contents import disk_contents
from pipeline.disk.log_store import open_to_write
from pipeline.ledger.reader import StoreLogs
from pipeline.ledger.tlog.checkpoints import parse_trusted, write_trusted
from pipeline.ledger.witnessed import ComparedLog, compare_trusted
from pipeline.ledger.writer import Ledger
from tests.ledger.ledgers import (
    KEYS,
    LOG,
    OTHER_LOG,
    SIGNER,
    STORE_ID,
    damage,
    leaves,
    ledger,
    reader,
    rewrite_log,
)
from tests.ledger.tlog.signers import signer
from tests.storage.stores import make_store

HELD = 600
SIZE = 900
THIEF = signer(SIGNER.name, seed=2)


def store(root: Path, size: int, *, body: str = "body") -> Path:
    """Make a store whose one log has `size` leaves, and another one some."""
    make_store(root)
    ledger(root).append_all({LOG: leaves(0, size, body=body), OTHER_LOG: leaves(0, 3, OTHER_LOG)})
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return store(tmp_path / "store", SIZE)


def checkpoints_at(tmp_path: Path, size: int = HELD) -> bytes:
    """Return the file that was printed when the log had `size` leaves."""
    before = store(tmp_path / f"trusted-{size}", size)
    return checkpoints_now(before)


def checkpoints_now(root: Path) -> bytes:
    return write_trusted(each.note for each in StoreLogs(disk_contents(root), KEYS).open_all())


def compared(root: Path, trusted: bytes, keys: object = None) -> dict[str, ComparedLog]:
    logs = StoreLogs(disk_contents(root), KEYS if keys is None else keys)  # type: ignore[arg-type]
    return {each.origin: each for each in compare_trusted(logs, parse_trusted(trusted))}


def fault(root: Path, trusted: bytes) -> str:
    found = compared(root, trusted)
    assert found[OTHER_LOG.origin(STORE_ID)].fault is None
    message = found[LOG.origin(STORE_ID)].fault
    assert message is not None
    return message


@cache
def entries() -> list[bytes]:
    return [leaf.encode() for leaf in leaves(0, SIZE)]


def test_logs_that_went_on_begin_with_the_trusted_checkpoint(root: Path, tmp_path: Path) -> None:
    for size in (1, 255, 256, 257, HELD, SIZE):
        found = compared(root, checkpoints_at(tmp_path, size))
        assert found[LOG.origin(STORE_ID)] == ComparedLog(LOG.origin(STORE_ID), size, SIZE, None)


def test_a_log_without_leaves_has_a_trusted_checkpoint_too(root: Path) -> None:
    empty = ledger(root)._sign_empty(LOG)
    assert compared(root, empty)[LOG.origin(STORE_ID)].fault is None


@pytest.mark.parametrize(
    ("attack", "new"),
    [
        ("altered", [*entries()[:7], leaves(7, 8, body="other")[0].encode(), *entries()[8:]]),
        ("deleted", [*entries()[:7], *entries()[8:]]),
        ("inserted", [*entries()[:7], leaves(7, 8, body="x")[0].encode(), *entries()[7:]]),
        ("swapped", [*entries()[:7], entries()[8], entries()[7], *entries()[9:]]),
        ("rebuilt", [leaf.encode() for leaf in leaves(0, SIZE, body="other")]),
        ("back-dated", [leaves(SIZE, SIZE + 1)[0].encode(), *entries()]),
        ("last trusted", [*entries()[: HELD - 1], b"{}", *entries()[HELD:]]),
    ],
)
def test_a_log_rewritten_and_signed_with_the_stolen_key_has_another_root(
    root: Path, tmp_path: Path, attack: str, new: list[bytes]
) -> None:
    del attack
    trusted = checkpoints_at(tmp_path)
    old = parse_trusted(trusted)[0].checkpoint.root.hex()
    rewrite_log(root, new)
    found = fault(root, trusted)
    assert found.startswith(f"other root: expected {old} over the first {HELD} leaves, found ")


def test_a_tail_cut_below_the_trusted_checkpoint_is_smaller(root: Path, tmp_path: Path) -> None:
    trusted = checkpoints_at(tmp_path)
    shutil.rmtree(root / LOG.path / "tile")
    rewrite_log(root, entries()[: HELD - 1])
    assert fault(root, trusted) == (
        "smaller than held: expected at least 600 leaves, found 599; its tail was cut off"
    )


def test_a_tail_cut_above_the_trusted_checkpoint_is_not_seen(root: Path, tmp_path: Path) -> None:
    """The window of exposure: a newer checkpoint or Kafka's offsets see it, this one cannot."""
    trusted = checkpoints_at(tmp_path)
    shutil.rmtree(root / LOG.path / "tile")
    rewrite_log(root, entries()[: HELD + 1])
    assert compared(root, trusted)[LOG.origin(STORE_ID)].fault is None


def test_a_log_that_is_gone_is_missing(root: Path, tmp_path: Path) -> None:
    trusted = checkpoints_at(tmp_path)
    shutil.rmtree(root / LOG.path)
    assert fault(root, trusted) == "origin missing: the store has no such log"


def test_the_log_of_another_store_is_missing(root: Path) -> None:
    other = signer("rmos/" + "1" * 32)
    note = Ledger(*open_to_write(root), "1" * 32, [other])._sign_empty(LOG)
    logs = StoreLogs(disk_contents(root), [*KEYS, other.key])
    (found,) = compare_trusted(logs, parse_trusted(note))
    assert found.fault == "origin missing: the store has no such log"


def test_a_trusted_checkpoint_by_an_unknown_key_is_said_so(root: Path, tmp_path: Path) -> None:
    make_store(tmp_path / "forged")
    ledger(tmp_path / "forged", signers=[THIEF]).append_all({LOG: leaves(0, HELD)})
    note = (tmp_path / "forged" / LOG.path / "checkpoint").read_bytes()
    (found,) = compare_trusted(StoreLogs(disk_contents(root), KEYS), parse_trusted(note))
    assert found.fault is not None
    assert found.fault.startswith("the trusted checkpoint is signed by an unknown key: ")


def test_a_log_signed_by_an_unknown_key_now_is_said_so(root: Path, tmp_path: Path) -> None:
    trusted = checkpoints_at(tmp_path)
    rewrite_log(root, entries(), THIEF)
    assert "expected a signature of" in fault(root, trusted)
    assert "The log ledger/1/rmos.runs.requests-0 is not as it was written" in fault(root, trusted)


def test_a_checkpoint_that_is_gone_is_said_so(root: Path, tmp_path: Path) -> None:
    trusted = checkpoints_at(tmp_path)
    (root / LOG.path / "checkpoint").unlink()
    assert fault(root, trusted) == "The log ledger/1/rmos.runs.requests-0 has no checkpoint."


def test_an_old_checkpoint_put_back_is_smaller_than_a_newer_trusted_one(
    root: Path, tmp_path: Path
) -> None:
    trusted = checkpoints_now(root)
    old = tmp_path / f"trusted-{HELD}"
    store(old, HELD)
    shutil.rmtree(root / LOG.path)
    shutil.copytree(old / LOG.path, root / LOG.path)
    assert fault(root, trusted).startswith(
        "smaller than held: expected at least 900 leaves, found 600"
    )


def test_a_damaged_tile_is_not_called_another_history(root: Path, tmp_path: Path) -> None:
    trusted = checkpoints_at(tmp_path)
    opened = reader(root)
    assert opened.size == SIZE
    damage(root / LOG.path / "tile/0/003.p/132", 0)
    found = fault(root, trusted)
    assert found == "expected tiles of the root of the log's own checkpoint, found others"


@pytest.mark.parametrize("bundle", ["000", "001", "002"])
@pytest.mark.parametrize("place", [2, 5_000, -1])
def test_a_changed_leaf_below_the_trusted_checkpoint_is_found_though_the_hashes_go_on(
    root: Path, tmp_path: Path, bundle: str, place: int
) -> None:
    trusted = checkpoints_at(tmp_path)
    damage(root / LOG.path / f"tile/entries/{bundle}", place)
    assert f"tile/entries/{bundle}" in fault(root, trusted)


def test_a_bundle_that_is_gone_is_found_though_the_hashes_go_on(root: Path, tmp_path: Path) -> None:
    trusted = checkpoints_at(tmp_path)
    (root / LOG.path / "tile/entries/001").unlink()
    assert "expected tile/entries/001, found no such file" in fault(root, trusted)


def test_leaves_above_the_trusted_checkpoint_are_not_read(root: Path, tmp_path: Path) -> None:
    """What is newer than the checkpoint is not what the holder asks about; an audit reads it."""
    trusted = checkpoints_at(tmp_path)
    read: list[int] = []
    damage(root / LOG.path / "tile/entries/003.p/132")
    logs, kept = StoreLogs(disk_contents(root), KEYS), parse_trusted(trusted)
    found = list(compare_trusted(logs, kept, lambda _what, done, _total: read.append(done)))
    assert [each.fault for each in found] == [None, None]
    assert read == [256, 512, 600, 603]
