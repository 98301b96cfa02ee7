"""A log recomputed from its leaves, and the tiles that differ from the signed root.

Two steps. From the leaves up, every tile is compared with the one that is there: where the root
comes out as signed, the leaves are right, and so a tile that differs is wrong. Where it does not,
from the signed root down: a tile that gives the hash in the tile above it is right, and a bundle
that does not give its tile is wrong.
"""

from collections.abc import Iterator, Sequence

from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.merkle import leaf_hash, peaks_of_hashes, root_of_hashes, root_of_peaks
from pipeline.ledger.tlog.proofs import root_of_size
from pipeline.ledger.tlog.tiles import (
    ENTRIES,
    TILE_WIDTH,
    Tile,
    TileHashes,
    TileReader,
    parse_bundle,
    parse_tile,
    rightmost_tiles,
)


class RootRecomputation:
    """The root of a log recomputed from its tiles of level 0, left to right.

    One row a level is kept, whatever the size.

    Attributes:
        differing: Tiles of level 1 and above that are not what the leaves give.
    """

    def __init__(self, read_tile: TileReader) -> None:
        self.differing: list[Tile] = []
        self._read_tile = read_tile
        self._rows: list[list[bytes]] = []
        self._full_tiles: list[int] = []

    def add_full(self, root: bytes) -> None:
        """Add the root of the next full tile of level 0."""
        self._push(0, root)

    def finish(self, partial: Sequence[bytes]) -> bytes:
        """Return the root, given the hashes of the partial tile of level 0 that ends the log."""
        peaks: list[bytes] = []
        for position in reversed(range(len(self._rows))):
            row = self._rows[position]
            if row:
                self._compare(Tile(position + 1, self._full_tiles[position], len(row)), row)
            peaks += peaks_of_hashes(row)
        return root_of_peaks([*peaks, *peaks_of_hashes(partial)])

    def _push(self, position: int, root: bytes) -> None:
        """Add a hash to the row of level `position + 1`."""
        if position == len(self._rows):
            self._rows.append([])
            self._full_tiles.append(0)
        row = self._rows[position]
        row.append(root)
        if len(row) == TILE_WIDTH:
            self._compare(Tile(position + 1, self._full_tiles[position]), row)
            self._full_tiles[position] += 1
            self._rows[position] = []
            self._push(position + 1, root_of_hashes(row))

    def _compare(self, tile: Tile, row: Sequence[bytes]) -> None:
        if read_hashes(tile, self._read_tile) != list(row):
            self.differing.append(tile)


def read_hashes(tile: Tile, read_tile: TileReader) -> list[bytes] | None:
    """Return the hashes of a tile; None where it is missing, or has another length."""
    try:
        return parse_tile(tile, read_tile(tile))
    except EvidenceError:
        return None


def tiles_that_differ(size: int, root: bytes, read_tile: TileReader) -> list[Tile] | None:
    """Return the tiles and bundles that the signed root of a log of `size` leaves does not cover.

    None where the tiles at the right edge do not give that root, so that nothing can be decided.
    """
    hashes = TileHashes(size, read_tile)
    try:
        if root_of_size(size, hashes.node) != root:
            return None
    except EvidenceError:
        return None
    found: list[Tile] = []
    for tile in rightmost_tiles(size):
        if tile.level != ENTRIES:
            found += _below(tile, hashes.tile(tile.level, tile.index), read_tile)
    return sorted(found)


def _below(tile: Tile, hashes: Sequence[bytes], read_tile: TileReader) -> Iterator[Tile]:
    """Yield what is wrong under a tile whose hashes are right."""
    if tile.level == 0:
        bundle = Tile(ENTRIES, tile.index, tile.width)
        if leaf_hashes(bundle, read_tile) != list(hashes):
            yield bundle
        return
    for position, expected in enumerate(hashes):
        child = Tile(tile.level - 1, tile.index * TILE_WIDTH + position)
        found = read_hashes(child, read_tile)
        if found is not None and root_of_hashes(found) == expected:
            yield from _below(child, found, read_tile)
            continue
        yield child
        if child.level == 0:
            bundle = Tile(ENTRIES, child.index)
            leaves = leaf_hashes(bundle, read_tile)
            if leaves is None or root_of_hashes(leaves) != expected:
                yield bundle


def leaf_hashes(bundle: Tile, read_tile: TileReader) -> list[bytes] | None:
    """Return the hashes of the leaves in a bundle; None where it cannot be read."""
    try:
        return [leaf_hash(entry) for entry in parse_bundle(bundle, read_tile(bundle))]
    except EvidenceError:
        return None
