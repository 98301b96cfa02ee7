"""Partial tiles that a larger log has no use for: found, and removed.

tlog-tiles ("Partial Tiles") lets a log drop a partial tile once the full one is there. One that a
wider partial tile begins with goes too: so the files of a log depend on its leaves alone, and not
on how they were batched.
"""

from collections.abc import Iterator
from dataclasses import replace

from pipeline.core.store.log_store import LockedLogs
from pipeline.ledger.log_id import LogId
from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.tiles import TILE_WIDTH, Tile, last_tiles, parse_tile_path

_FOLDER_TILES = 1000
"""Tiles of one folder; more than any batch has, so nothing older is left half removed."""


def tiles_with_leftovers(store: LockedLogs, log: LogId, size: int) -> Iterator[Tile]:
    """Yield tiles near the end of a log of `size` leaves that have partial forms in the store.

    A killed process left them in its last batch. That may have had more leaves than were
    stored since: a tile beyond the end has a width of 0.
    """
    last = list(last_tiles(size))
    above = Tile(max(tile.level for tile in last) + 1, 0, 0)
    for tile in [*last, above]:
        before = Tile(tile.level, max(tile.index - _FOLDER_TILES, 0))
        after = Tile(tile.level, tile.index + 1)
        for folder in dict.fromkeys([before.folder, tile.folder, after.folder]):
            yield from _with_partials(store, log, folder, tile)


def _with_partials(store: LockedLogs, log: LogId, folder: str, last: Tile) -> Iterator[Tile]:
    for name in store.names(log.path, folder):
        if not name.endswith(".p"):
            continue
        try:
            tile = parse_tile_path(f"{folder}/{name.removesuffix('.p')}")
        except EvidenceError:
            continue  # Not ours; an audit names it.
        if tile.index < last.index:
            yield tile
        elif tile.index == last.index:
            yield last
        else:
            yield replace(tile, width=0)


def remove_known(store: LockedLogs, log: LogId, tile: Tile, width: int) -> None:
    """Remove the partial form of `tile` that has `width`, and its folder where `tile` is full."""
    store.remove(log.path, tile.partials, [str(width)], and_folder=tile.width == TILE_WIDTH)


def remove_narrower(store: LockedLogs, log: LogId, tile: Tile) -> bool:
    """Remove each partial form that is narrower than `tile`; return whether none is wider.

    A wider one is of a batch that a killed process did not finish. It goes once the log has
    grown beyond it.
    """
    widths = [
        name
        for name in store.names(log.path, tile.partials)
        if name.isascii() and name.isdigit() and int(name) < TILE_WIDTH
    ]
    narrower = [name for name in widths if int(name) < tile.width]
    store.remove(log.path, tile.partials, narrower, and_folder=tile.width == TILE_WIDTH)
    return all(int(name) <= tile.width for name in widths)
