"""Partial tiles that a larger log has no use for: found, and removed.

tlog-tiles ("Partial Tiles") lets a log drop a partial tile once the full one is there. One that a
wider partial tile begins with goes too: so the files of a log depend on its leaves alone, and not
on how they were batched.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from pipeline.core.store.log_store import LockedLogs
from pipeline.ledger.log_id import LogId
from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.tiles import TILE_WIDTH, Tile, last_tiles, parse_tile_path

_FOLDER_TILES = 1000
"""Tiles of one folder; more than any batch has, so nothing older is left half removed."""


def sweep(
    store: LockedLogs, sizes: Mapping[LogId, int], made: Mapping[LogId, Iterable[Tile]]
) -> set[LogId]:
    """Remove what killed processes have left in some logs; return those with nothing left over.

    Args:
        store: Has the logs locked.
        sizes: Number of leaves of each.
        made: The tiles that each has got just now.
    """
    for log in sizes:
        store.drop_unfinished(log.path)
    leftovers = _tiles_with_leftovers(store, sizes)
    tiles = {log: dict.fromkeys([*made.get(log, ()), *leftovers[log]]) for log in sizes}
    return sizes.keys() - _remove_narrower(store, tiles)


def _tiles_with_leftovers(
    store: LockedLogs, sizes: Mapping[LogId, int]
) -> dict[LogId, dict[Tile, None]]:
    """Return tiles near the end of each log of so many leaves that have partial forms in the store.

    A killed process left them in its last batch. That may have had more leaves than were
    stored since: a tile beyond the end has a width of 0.
    """
    lasts = {
        f"{log.path}/{folder}": (log, tile)
        for log, size in sizes.items()
        for tile in _at_the_end(size)
        for folder in _folders_near(tile)
    }
    found: dict[LogId, dict[Tile, None]] = {log: {} for log in sizes}
    for folder, names in store.names(lasts).items():
        log, last = lasts[folder]
        found[log] |= dict.fromkeys(
            _with_partials(folder.removeprefix(f"{log.path}/"), names, last)
        )
    return found


def _at_the_end(size: int) -> list[Tile]:
    last = list(last_tiles(size))
    return [*last, Tile(max(tile.level for tile in last) + 1, 0, 0)]


def _folders_near(tile: Tile) -> Iterable[str]:
    before = Tile(tile.level, max(tile.index - _FOLDER_TILES, 0))
    after = Tile(tile.level, tile.index + 1)
    return dict.fromkeys([before.folder, tile.folder, after.folder])


def _with_partials(folder: str, names: Iterable[str], last: Tile) -> Iterator[Tile]:
    for name in names:
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


def _remove_narrower(store: LockedLogs, wanted: Mapping[LogId, Iterable[Tile]]) -> set[LogId]:
    """Remove each partial form that is narrower than its tile; return the logs with a wider one.

    A wider one is of a batch that a killed process did not finish. It goes once the log has
    grown beyond it.
    """
    folders = {
        f"{log.path}/{tile.partials}": (log, tile)
        for log, tiles in wanted.items()
        for tile in tiles
    }
    with_wider = set()
    for folder, names in store.names(folders).items():
        log, tile = folders[folder]
        widths = [each for each in names if each.isascii() and each.isdigit()]
        partial = [each for each in widths if int(each) < TILE_WIDTH]
        narrower = [each for each in partial if int(each) < tile.width]
        store.remove(log.path, tile.partials, narrower, and_folder=tile.width == TILE_WIDTH)
        if any(int(each) > tile.width for each in partial):
            with_wider.add(log)
    return with_wider
