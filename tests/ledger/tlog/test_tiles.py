"""Tiles: coordinates and paths as C2SP tlog-tiles writes them, bundles, what an append changes."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.merkle import leaf_hash
from pipeline.ledger.tlog.tiles import (
    ENTRIES,
    ENTRY_LIMIT_BYTES,
    TILE_WIDTH,
    Tile,
    TileHashes,
    check_bundle,
    cut_tile,
    encode_entry,
    last_tiles,
    parse_bundle,
    parse_tile,
    parse_tile_path,
    rightmost_tiles,
    tiles_of_append,
)
from tests.laws import offenders
from tests.ledger.tlog.trees import root_by_definition

SIZES = st.integers(0, 70_000)


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "tile/0/000"),
        (Tile(0, 0, 1), "tile/0/000.p/1"),
        (Tile(1, 1_234_067), "tile/1/x001/x234/067"),  # the document's own example
        (Tile(63, 999, 255), "tile/63/999.p/255"),
        (Tile(ENTRIES, 1000, 9), "tile/entries/x001/000.p/9"),
        (Tile(ENTRIES, 123_456_789_012), "tile/entries/x123/x456/x789/012"),
    ],
)
def test_the_path_of_a_tile_and_back(tile: Tile, path: str) -> None:
    assert str(tile) == path
    assert parse_tile_path(path) == tile


@given(st.integers(ENTRIES, 63), st.integers(0, 2**56), st.integers(1, TILE_WIDTH))
def test_every_path_leads_back_to_its_tile(level: int, index: int, width: int) -> None:
    assert parse_tile_path(str(Tile(level, index, width))) == Tile(level, index, width)


def test_another_path_is_refused() -> None:
    def holds(path: str) -> None:
        with pytest.raises(EvidenceError, match="expected the path of a tile"):
            parse_tile_path(path)

    assert (
        offenders(
            holds,
            [
                "",
                "tile/0/0",
                "tile/0/00",
                "tile/0/0000",
                "tile/0/x000/000",  # a leading zero element
                "tile/0/001/000",
                "tile/0/x01/000",
                "tile/00/000",
                "tile/64/000",
                "tile/-1/000",
                "tile/data/000",
                "tile/0/000.p/0",
                "tile/0/000.p/01",
                "tile/0/000.p/256",
                "tile/0/000.p/999",
                "tile/0/000.p/",
                "tile/0/000.p",
                "tile/0/000/",
                "/tile/0/000",
                "tile/0/000\n",
                "tile/0/\u0660\u0660\u0660",
                "checkpoint",
            ],
        )
        == []
    )


def test_the_tiles_of_the_document_for_a_log_of_70000() -> None:
    tiles = list(tiles_of_append(0, 70_000))
    by_level = {level: [tile for tile in tiles if tile.level == level] for level in range(-1, 3)}
    for level in (ENTRIES, 0):
        assert [tile.width for tile in by_level[level]] == [256] * 273 + [112]
    assert by_level[1] == [Tile(1, 0), Tile(1, 1, 17)]
    assert by_level[2] == [Tile(2, 0, 1)]
    assert len(tiles) == sum(map(len, by_level.values()))


def test_the_tiles_of_the_document_for_a_log_of_256() -> None:
    assert list(tiles_of_append(0, 256)) == [Tile(ENTRIES, 0), Tile(0, 0), Tile(1, 0, 1)]


@given(SIZES, SIZES)
@example(0, 0)
@example(65_535, 65_536)
@example(255, 256)
@example(256, 511)
def test_growing_in_steps_gives_the_same_tiles(first: int, second: int) -> None:
    """What is there after two steps, without what was superseded, is what one step writes."""
    old, new = sorted((first, second))
    there = set(tiles_of_append(0, old)) | set(tiles_of_append(old, new))
    superseded = set(rightmost_tiles(old)) - set(rightmost_tiles(new))
    assert there - superseded == set(tiles_of_append(0, new))
    assert not superseded & set(tiles_of_append(0, new))


@given(SIZES, SIZES)
def test_no_tile_is_written_twice(first: int, second: int) -> None:
    old, new = sorted((first, second))
    assert not set(tiles_of_append(0, old)) & set(tiles_of_append(old, new))


@given(SIZES)
def test_the_rightmost_tiles_are_the_partial_ones(size: int) -> None:
    partial = {tile for tile in tiles_of_append(0, size) if tile.is_partial}
    assert set(rightmost_tiles(size)) == partial
    assert {tile for tile in last_tiles(size) if tile.is_partial} == partial
    assert set(last_tiles(size)) <= set(tiles_of_append(0, size))


@given(st.lists(st.binary(max_size=400), min_size=1, max_size=TILE_WIDTH))
def test_a_bundle_gives_its_entries_back(entries: list[bytes]) -> None:
    tile = Tile(ENTRIES, 0, len(entries))
    content = b"".join(map(encode_entry, entries))
    assert parse_bundle(tile, content) == entries
    for width in (len(entries) - 1, len(entries) + 1):
        with pytest.raises(EvidenceError, match=f"expected {width} entries"):
            parse_bundle(Tile(ENTRIES, 0, width), content)
    for cut in (content[:-1], content + b"\x00", content + b"\x00\x01"):
        with pytest.raises(EvidenceError, match=r"cut|entries in"):
            parse_bundle(tile, cut)


def test_the_length_of_an_entry_is_two_bytes_big_endian() -> None:
    assert encode_entry(b"\x07" * 258) == b"\x01\x02" + b"\x07" * 258
    assert encode_entry(b"") == b"\x00\x00"
    assert len(encode_entry(b"x" * ENTRY_LIMIT_BYTES)) == ENTRY_LIMIT_BYTES + 2
    with pytest.raises(EvidenceError, match="at most 65535 bytes, found 65536"):
        encode_entry(b"x" * (ENTRY_LIMIT_BYTES + 1))


@pytest.mark.parametrize("change", [-32, -1, 1, 32])
def test_a_tile_of_another_length_is_refused(change: int) -> None:
    tile = Tile(0, 0, 5)
    assert parse_tile(tile, b"\x01" * 160) == [b"\x01" * 32] * 5
    with pytest.raises(EvidenceError, match=r"expected 160 bytes in tile/0/000\.p/5"):
        parse_tile(tile, b"\x01" * (160 + change))


def test_a_bundle_that_does_not_hash_to_its_tile_is_refused() -> None:
    entries = [b"a", b"b", b"c"]
    hashes = [leaf_hash(entry) for entry in entries]
    check_bundle(Tile(ENTRIES, 2, 3), entries, hashes)
    with pytest.raises(EvidenceError, match=r"expected leaf 514 in tile/entries/002\.p/3"):
        check_bundle(Tile(ENTRIES, 2, 3), [b"a", b"b", b"d"], hashes)


@given(st.integers(1, 9), st.integers(1, 9))
def test_a_partial_tile_is_cut_from_a_wider_one(first: int, second: int) -> None:
    width, wider = sorted((first, second))
    entries = [b"entry %d" % number for number in range(wider)]
    for level, parts in (
        (ENTRIES, [encode_entry(entry) for entry in entries]),
        (0, [leaf_hash(entry) for entry in entries]),
    ):
        found = cut_tile(Tile(level, 0, width), Tile(level, 0, wider), b"".join(parts))
        assert found == b"".join(parts[:width])


def test_nodes_are_computed_from_tiles() -> None:
    leaves = [b"%d" % number for number in range(600)]
    tiles = {
        Tile(0, 0): leaves[:256],
        Tile(0, 1): leaves[256:512],
        Tile(0, 2, 88): leaves[512:],
    }
    contents = {tile: b"".join(map(leaf_hash, part)) for tile, part in tiles.items()}
    contents[Tile(1, 0, 2)] = root_by_definition(leaves[:256]) + root_by_definition(leaves[256:512])
    read: list[Tile] = []

    def read_tile(tile: Tile) -> bytes:
        read.append(tile)
        return contents[tile]

    hashes = TileHashes(600, read_tile)
    for level, index in ((0, 599), (3, 74), (7, 3), (8, 1), (9, 0), (4, 0)):
        covered = leaves[index << level : (index + 1) << level]
        assert hashes.node(level, index) == root_by_definition(covered), (level, index)
    assert len(read) == len(set(read))
