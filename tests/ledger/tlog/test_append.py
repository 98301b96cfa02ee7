"""A growing log: its root and tiles are those of its leaves, however they were batched."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.append import TreeAppender
from pipeline.ledger.tlog.merkle import EMPTY_ROOT, root_of_hashes
from pipeline.ledger.tlog.tiles import (
    ENTRIES,
    ENTRY_LIMIT_BYTES,
    Tile,
    encode_entry,
    rightmost_tiles,
    tiles_of_append,
)
from tests.ledger.tlog.trees import root_by_definition

CUTS = st.lists(st.integers(0, 700), max_size=6)


def leaves_of(count: int) -> list[bytes]:
    return [b"leaf %d" % number for number in range(count)]


def appended(count: int) -> TreeAppender:
    log = TreeAppender()
    log.extend(leaves_of(count))
    return log


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 512, 1000])
def test_the_root_is_that_of_the_definition(size: int) -> None:
    assert appended(size).root() == root_by_definition(leaves_of(size))


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 511, 65_536, 66_000])
def test_the_new_tiles_of_a_new_log_are_those_of_its_size(size: int) -> None:
    tiles = appended(size).new_tiles()
    assert set(tiles) == set(tiles_of_append(0, size))
    for tile, content in tiles.items():
        if tile.level != ENTRIES:
            assert len(content) == 32 * tile.width


def test_a_tile_holds_the_roots_of_those_below_it() -> None:
    leaves = leaves_of(66_000)
    tiles = appended(66_000).new_tiles()
    assert tiles[Tile(ENTRIES, 257, 208)] == b"".join(map(encode_entry, leaves[65_792:]))
    for level in (1, 2):
        tile = next(tile for tile in tiles if tile.level == level)
        for place in range(tile.width):
            below = tiles[Tile(level - 1, tile.index * 256 + place)]
            nodes = [below[start : start + 32] for start in range(0, len(below), 32)]
            assert tiles[tile][32 * place : 32 * place + 32] == root_of_hashes(nodes)


@settings(max_examples=60)
@given(CUTS)
def test_batches_of_any_size_give_the_same_tiles_and_root(cuts: list[int]) -> None:
    """Each batch resumes from the tiles of the one before, as another process would."""
    sizes = sorted({*cuts, 700})
    disk: dict[Tile, bytes] = {}
    before = 0
    for size in sizes:
        log = TreeAppender.resume(before, disk.__getitem__)
        assert log.new_tiles() == {}
        log.extend(leaves_of(size)[before:])
        new = log.new_tiles()
        assert set(new) == set(tiles_of_append(before, size))
        disk |= new
        for tile in set(rightmost_tiles(before)) - set(rightmost_tiles(size)):
            del disk[tile]
        assert log.root() == appended(size).root()
        before = size
    assert disk == appended(700).new_tiles()


@settings(max_examples=60)
@given(CUTS)
def test_copies_in_memory_give_the_same_tiles_and_root(cuts: list[int]) -> None:
    log = TreeAppender()
    for size in sorted({*cuts, 700}):
        before = log.size
        root = log.root()
        following = log.copy()
        following.extend(leaves_of(size)[before:])
        assert set(following.new_tiles()) == set(tiles_of_append(before, size))
        assert (log.size, log.root()) == (before, root)
        log = following.copy()
    assert log.root() == appended(700).root()


def test_an_empty_log_has_the_root_of_nothing() -> None:
    log = TreeAppender()
    log.extend([])
    assert (log.size, log.root(), log.new_tiles()) == (0, EMPTY_ROOT, {})


def test_a_leaf_that_is_too_long_is_refused_and_nothing_appended() -> None:
    log = appended(3)
    log.extend([b"x" * ENTRY_LIMIT_BYTES])
    root = log.root()
    with pytest.raises(EvidenceError, match="at most 65535 bytes, found 65536"):
        log.extend([b"fits", b"x" * (ENTRY_LIMIT_BYTES + 1)])
    assert (log.size, log.root()) == (4, root)


@pytest.mark.parametrize("level", [ENTRIES, 0])
def test_a_log_is_not_resumed_from_leaves_that_are_not_those_of_the_tile(level: int) -> None:
    tiles = appended(300).new_tiles()
    (damaged,) = [tile for tile in rightmost_tiles(300) if tile.level == level]
    content = bytearray(tiles[damaged])
    content[-1] ^= 1
    tiles[damaged] = bytes(content)
    with pytest.raises(EvidenceError, match="expected leaf 299"):
        TreeAppender.resume(300, tiles.__getitem__)


def test_a_damaged_upper_tile_gives_another_root() -> None:
    tiles = appended(300).new_tiles()
    tiles[Tile(1, 0, 1)] = b"\x00" * 32
    assert TreeAppender.resume(300, tiles.__getitem__).root() != appended(300).root()
