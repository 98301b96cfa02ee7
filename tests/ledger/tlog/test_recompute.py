"""A log computed again from its leaves names the tiles that are not what was signed."""

import random

import pytest

from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.append import TreeAppender
from pipeline.ledger.tlog.merkle import leaf_hash, root_of_hashes
from pipeline.ledger.tlog.recompute import RootRecomputation, tiles_that_differ
from pipeline.ledger.tlog.tiles import ENTRIES, TILE_WIDTH, Tile, TileReader

SIZES = [1, 2, 255, 256, 257, 512, 1000, 65_536, 65_537]


def log_of(size: int) -> tuple[list[bytes], dict[Tile, bytes], bytes]:
    leaves = [f"leaf {number}".encode() for number in range(size)]
    tree = TreeAppender()
    tree.extend(leaves)
    return leaves, tree.new_tiles(), tree.root()


def reader(tiles: dict[Tile, bytes]) -> TileReader:
    def read(tile: Tile) -> bytes:
        if tile not in tiles:
            message = f"expected {tile}, found no such file"
            raise EvidenceError(message)
        return tiles[tile]

    return read


def recompute(leaves: list[bytes], tiles: dict[Tile, bytes]) -> tuple[bytes, list[Tile]]:
    check = RootRecomputation(reader(tiles))
    hashes = [leaf_hash(leaf) for leaf in leaves]
    full = len(hashes) // TILE_WIDTH * TILE_WIDTH
    for start in range(0, full, TILE_WIDTH):
        check.add_full(root_of_hashes(hashes[start : start + TILE_WIDTH]))
    return check.finish(hashes[full:]), check.differing


@pytest.mark.parametrize("size", SIZES)
def test_a_log_as_it_was_written_gives_its_root_and_no_tile(size: int) -> None:
    leaves, tiles, root = log_of(size)
    assert recompute(leaves, tiles) == (root, [])
    assert tiles_that_differ(size, root, reader(tiles)) == []


@pytest.mark.parametrize("size", SIZES)
def test_a_tile_above_the_leaves_that_differs_is_named(size: int) -> None:
    leaves, tiles, root = log_of(size)
    for tile in [tile for tile in tiles if tile.level >= 1]:
        changed = tiles | {tile: bytes([tiles[tile][0] ^ 1]) + tiles[tile][1:]}
        assert recompute(leaves, changed) == (root, [tile])
        gone = {other: content for other, content in tiles.items() if other != tile}
        assert recompute(leaves, gone) == (root, [tile])


@pytest.mark.parametrize("size", SIZES)
def test_a_bundle_that_does_not_give_its_tile_is_named_from_the_root_down(size: int) -> None:
    _, tiles, root = log_of(size)
    bundles = [tile for tile in tiles if tile.level == ENTRIES]
    for bundle in random.Random(size).sample(bundles, min(4, len(bundles))):
        changed = tiles | {bundle: tiles[bundle].replace(b"leaf", b"Leaf", 1)}
        assert tiles_that_differ(size, root, reader(changed)) == [bundle]


@pytest.mark.parametrize("size", [256, 300, 65_537])
def test_a_bundle_and_its_tile_forged_together_are_both_named(size: int) -> None:
    _, tiles, root = log_of(size)
    _, forged, _ = log_of(size)
    content = forged[Tile(ENTRIES, 0)].replace(b"leaf 7", b"leaf X", 1)
    entries = [f"leaf {number}".encode() for number in range(256)]
    entries[7] = b"leaf X"
    changed = tiles | {
        Tile(ENTRIES, 0): content,
        Tile(0, 0): b"".join(leaf_hash(entry) for entry in entries),
    }
    assert tiles_that_differ(size, root, reader(changed)) == [Tile(ENTRIES, 0), Tile(0, 0)]


@pytest.mark.parametrize("size", SIZES)
def test_where_the_right_edge_does_not_give_the_root_nothing_can_be_told(size: int) -> None:
    _, tiles, root = log_of(size)
    assert tiles_that_differ(size, bytes(32), reader(tiles)) is None
    edge = next(tile for tile in tiles if tile.level >= 0 and tile.is_partial)
    gone = {tile: content for tile, content in tiles.items() if tile != edge}
    assert tiles_that_differ(size, root, reader(gone)) is None
