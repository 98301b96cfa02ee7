"""Which tiles some work on a log reads, found out before: so all of them are read at once."""

from collections.abc import Callable, Iterable
from functools import partial

from pipeline.ledger.tlog.proofs import NodeReader, prove_consistency, prove_inclusion
from pipeline.ledger.tlog.tiles import (
    ENTRIES,
    TILE_HEIGHT,
    TILE_WIDTH,
    Tile,
    bundles_of,
    rightmost_tiles,
    tile_at,
)


def tiles_of_work(size: int, work: Callable[[NodeReader], object]) -> set[Tile]:
    """Return the tiles that some work on the nodes of a log of `size` leaves reads.

    The work is done with empty hashes, to find out which nodes it asks for.
    """
    tiles: set[Tile] = set()

    def node(level: int, index: int) -> bytes:
        tile_level, height = divmod(level, TILE_HEIGHT)
        tiles.add(tile_at(size, tile_level, (index << height) // TILE_WIDTH))
        return b""

    work(node)
    return tiles


def tiles_of_bundles(size: int, bundles: Iterable[int]) -> set[Tile]:
    """Return some bundles and the tiles that vouch for their leaves."""
    tiles: set[Tile] = set()
    for index in bundles:
        first = index * TILE_WIDTH
        tiles |= {tile_at(size, ENTRIES, index), tile_at(size, 0, index)}
        tiles |= tiles_of_work(size, partial(prove_inclusion, first, size))
    return tiles


def tiles_of_end(size: int, before: int) -> set[Tile]:
    """Return the tiles to go on with a log: its partial ones, and those that vouch for its end.

    Args:
        size: Number of its leaves.
        before: That of an older state, which it is proved to begin with; 0 for none.
    """
    tiles = {*rightmost_tiles(size), *tiles_of_bundles(size, range(bundles_of(size))[-1:])}
    if before <= size:
        tiles |= tiles_of_work(size, partial(prove_consistency, before, size))
    return tiles


def tiles_of_offsets(size: int, following: int, offsets: Iterable[int]) -> set[Tile]:
    """Return the tiles that the leaves of some offsets are in, if no offset is left out.

    Args:
        size: Number of leaves.
        following: The offset after that of the last leaf.
        offsets: Of records.
    """
    places = [max(size - (following - offset), 0) for offset in offsets if offset < following]
    # The last leaf is asked for its offset.
    bundles = {place // TILE_WIDTH for place in [*places, size - 1]} if places else set()
    return tiles_of_bundles(size, bundles)
