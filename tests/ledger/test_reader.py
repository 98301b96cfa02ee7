"""Whoever holds an old checkpoint finds what was changed since, and is told what it was."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import IntegrityError
from pipeline.ledger.log_id import LogId
from pipeline.ledger.tlog.checkpoints import Checkpoint
from pipeline.ledger.tlog.tiles import ENTRIES, Tile, encode_entry, tiles_of_append
from tests.ledger.ledgers import (
    LOG,
    TOPIC,
    check_whole,
    damage,
    leaves,
    ledger,
    reader,
    rewrite_log,
    tile_path,
)

SIZE = 300
HELD = 200


@pytest.fixture
def held(tmp_path: Path) -> Checkpoint:
    """Return the checkpoint of 200 leaves that an auditor keeps of a log of 300."""
    writer = ledger(tmp_path)
    kept = writer.append_all({LOG: leaves(0, HELD)})[LOG]
    writer.append_all({LOG: leaves(HELD, SIZE)})
    return kept


def test_a_log_that_only_grew_is_consistent(tmp_path: Path, held: Checkpoint) -> None:
    assert reader(tmp_path).prove_consistency(held)


def _altered(entries: list[bytes]) -> list[bytes]:
    return [*entries[:50], entries[50].replace(b"run", b"nur", 1), *entries[51:]]


def _deleted(entries: list[bytes]) -> list[bytes]:
    return [*entries[:50], *entries[51:]]


def _inserted(entries: list[bytes]) -> list[bytes]:
    return [*entries[:50], entries[9], *entries[50:]]


def _swapped(entries: list[bytes]) -> list[bytes]:
    return [*entries[:50], entries[51], entries[50], *entries[52:]]


@pytest.mark.parametrize("attack", [_altered, _deleted, _inserted, _swapped])
def test_a_log_rebuilt_and_signed_with_the_stolen_key_is_found_from_a_trusted_checkpoint(
    tmp_path: Path, held: Checkpoint, attack: Callable[[list[bytes]], list[bytes]]
) -> None:
    entries = list(reader(tmp_path).entries())
    rewrite_log(tmp_path, attack(entries))
    found = reader(tmp_path)
    # By itself the forged log is whole: only the held checkpoint shows it.
    assert list(found.entries()) == attack(entries)
    with pytest.raises(IntegrityError, match=f"expected the root {held.root.hex()}"):
        found.prove_consistency(held)


def test_a_tail_cut_below_the_trusted_checkpoint_is_found(tmp_path: Path, held: Checkpoint) -> None:
    entries = list(reader(tmp_path).entries())
    rewrite_log(tmp_path, entries[: HELD - 1])
    with pytest.raises(IntegrityError, match="expected at least 200 leaves, found 199"):
        reader(tmp_path).prove_consistency(held)


def test_a_tail_cut_above_the_trusted_checkpoint_is_not_found_from_it(
    tmp_path: Path, held: Checkpoint
) -> None:
    """Why checkpoints are handed out often; the broker's offsets show it as well."""
    entries = list(reader(tmp_path).entries())
    rewrite_log(tmp_path, entries[: HELD + 1])
    reader(tmp_path).prove_consistency(held)


def test_a_checkpoint_of_another_log_says_nothing(tmp_path: Path, held: Checkpoint) -> None:
    other = Checkpoint(LogId(1, TOPIC, 9).origin("0" * 32), held.size, held.root)
    with pytest.raises(IntegrityError, match="expected a log rmos/"):
        reader(tmp_path).prove_consistency(other)


@pytest.mark.parametrize("tile", list(tiles_of_append(0, SIZE)), ids=str)
@pytest.mark.parametrize("what", ["first bit", "last bit", "cut", "missing", "folder"])
def test_a_tile_that_is_not_as_written_is_found_by_reading_it(
    tmp_path: Path, held: Checkpoint, tile: Tile, what: str
) -> None:
    path = tile_path(tmp_path, tile)
    if what.endswith("bit"):
        damage(path, 0 if what == "first bit" else -1)
    else:
        content = path.read_bytes()
        path.unlink()
        if what == "cut":
            path.write_bytes(content[:-1])
        elif what == "folder":
            path.mkdir()
    with pytest.raises(IntegrityError, match="is not as it was written"):
        # The hash over the first tile stands in the second leaf's path alone.
        [list(reader(tmp_path).entries(start)) for start in (0, 256)]


def test_bundle_and_tile_that_agree_are_held_against_the_root(tmp_path: Path) -> None:
    """Two files forged together hash to each other, and not to what was signed."""
    from pipeline.ledger.tlog.merkle import leaf_hash

    ledger(tmp_path).append_all({LOG: leaves(0, SIZE)})
    forged = [each.encode() for each in leaves(0, 256, body="forged")]
    for tile, content in (
        (Tile(ENTRIES, 0), b"".join(map(encode_entry, forged))),
        (Tile(0, 0), b"".join(map(leaf_hash, forged))),
    ):
        path = tile_path(tmp_path, tile)
        path.unlink()
        path.write_bytes(content)
    with pytest.raises(IntegrityError, match="expected the root"):
        reader(tmp_path).leaf(7)
    # The other bundle is as it was.
    assert reader(tmp_path).leaf(299) == leaves(299, 300)[0]


def test_a_leaf_that_is_no_leaf_is_named(tmp_path: Path) -> None:
    ledger(tmp_path).append_all({LOG: leaves(0, 3)})
    rewrite_log(tmp_path, [b"{}", b"{}", b"{}"])
    with pytest.raises(IntegrityError, match="expected the fields of a leaf"):
        reader(tmp_path).leaf(0)


def test_a_whole_log_is_checked_from_its_files(tmp_path: Path, held: Checkpoint) -> None:
    assert check_whole(tmp_path).size == SIZE
    assert held.size == HELD


def test_a_reader_keeps_its_checkpoint(tmp_path: Path) -> None:
    writer = ledger(tmp_path)
    writer.append_all({LOG: leaves(0, 5)})
    found = reader(tmp_path)
    writer.append_all({LOG: leaves(5, 9)})
    assert (found.size, len(list(found.entries()))) == (5, 5)
    assert found.index_of(7) is None
