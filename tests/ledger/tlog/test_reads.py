"""What a proof is read from is known before: with those tiles alone it is made, and verified."""

from functools import cache

import pytest

from pipeline.ledger.tlog.append import TreeAppender
from pipeline.ledger.tlog.checkpoints import Checkpoint
from pipeline.ledger.tlog.proofs import prove_consistency, verified_path, verify_consistency
from pipeline.ledger.tlog.reads import tiles_of_bundles, tiles_of_end, tiles_of_offsets
from pipeline.ledger.tlog.tiles import ENTRIES, Tile, TileHashes
from tests.ledger.tlog.test_append import appended


@cache
def tiles_of(size: int) -> dict[Tile, bytes]:
    return appended(size).new_tiles()


def hashes_of(size: int, wanted: set[Tile]) -> TileHashes:
    """Give the hashes of a log that has no other tiles."""
    return TileHashes(size, {tile: tiles_of(size)[tile] for tile in wanted}.__getitem__)


@pytest.mark.parametrize("size", [1, 255, 256, 257, 700, 65_536, 66_000])
def test_a_leaf_is_vouched_for_by_these_tiles(size: int) -> None:
    checkpoint = Checkpoint("log", size, appended(size).root())
    for bundle in {0, (size - 1) // 256, (size - 1) // 512}:
        wanted = tiles_of_bundles(size, [bundle])
        verified_path(bundle * 256, checkpoint, hashes_of(size, wanted).node)
        assert [each.index for each in wanted if each.level == ENTRIES] == [bundle]


@pytest.mark.parametrize(("before", "size"), [(0, 300), (256, 300), (300, 300), (255, 66_000)])
def test_a_log_goes_on_from_these_tiles(before: int, size: int) -> None:
    wanted = tiles_of_end(size, before)
    proof = prove_consistency(before, size, hashes_of(size, wanted).node)
    roots = appended(before).root(), appended(size).root()
    verify_consistency(before, size, proof, *roots)
    tiles = {tile: tiles_of(size)[tile] for tile in wanted}
    assert TreeAppender.resume(size, tiles.__getitem__).root() == roots[1]


def test_offsets_name_bundles_from_the_end_and_none_where_there_is_no_leaf() -> None:
    def bundles(*offsets: int) -> set[int]:
        return {each.index for each in tiles_of_offsets(700, 1700, offsets) if each.level < 0}

    assert bundles(1000, 1255) == {0, 2}
    assert bundles(1256) == {1, 2}
    assert bundles(10) == {0, 2}
    assert bundles(1700, 1800) == set()
