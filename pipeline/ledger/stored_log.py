"""One log as the store holds it: its checkpoint and its tiles, as unchecked bytes."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from pipeline.core.store.log_store import Logs, LogStore
from pipeline.errors import IntegrityError
from pipeline.ledger.log_id import LogId, parse_log_path
from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.tiles import Tile, cut_tile


class StoredLog:
    """The bytes of one log.

    Attributes:
        store: Where it is kept.
        log: Which log.
        fetched: Tiles that were read ahead, for what is done next.
    """

    def __init__(self, store: Logs, log: LogId) -> None:
        """Look at `log`; a writer gives the logs that it holds locked."""
        self.store = store
        self.log = log
        self.fetched: dict[Tile, bytes] = {}

    def read_checkpoint(self) -> bytes | None:
        """Return the checkpoint; None where there is none."""
        head = self.store.heads([self.log.path]).get(self.log.path)
        return None if head is None else head.note

    def read_tile(self, tile: Tile) -> bytes:
        """Return the bytes of a tile or bundle; cut from a wider form where the exact one is gone.

        Raises:
            EvidenceError: There is no file, or the wider one has another form.
        """
        content = self._read(tile)
        if content is not None:
            return content
        for wider in self._wider_forms(tile):
            content = self._read(wider)
            if content is not None:
                return cut_tile(tile, wider, content)
        raise EvidenceError(f"expected {tile}, found no such file")

    def _read(self, tile: Tile) -> bytes | None:
        if tile in self.fetched:
            return self.fetched[tile]
        path = f"{self.log.path}/{tile}"
        return self.store.tiles([path]).get(path)

    def _wider_forms(self, tile: Tile) -> Iterator[Tile]:
        """Yield what a writer may have put in place of `tile` since its checkpoint was read."""
        if not tile.is_partial:
            return
        yield tile.full
        folder = f"{self.log.path}/{tile.partials}"
        names = self.store.names([folder])[folder]
        for width in sorted(int(name) for name in names if name.isascii() and name.isdigit()):
            if tile.width < width < tile.full.width:
                yield Tile(tile.level, tile.index, width)
        # Once more: it may have become full while we looked at the partial ones.
        yield tile.full


def fetch_tiles(wanted: Mapping[StoredLog, Callable[[], Iterable[Tile]]]) -> None:
    """Read the tiles of some logs of one store that are wanted next, all at once.

    Those that were fetched before go. A disk is asked for each tile when it is needed, as it is no
    other host: which tiles are wanted is not even found out.
    """
    first = next(iter(wanted), None)
    if first is None or not first.store.is_shared:
        return
    kept = {
        stored: {tile: stored.fetched.get(tile) for tile in tiles()}
        for stored, tiles in wanted.items()
    }
    missing = {
        f"{stored.log.path}/{tile}": (stored, tile)
        for stored, tiles in kept.items()
        for tile, content in tiles.items()
        if content is None
    }
    for path, content in first.store.tiles(missing).items():
        stored, tile = missing[path]
        kept[stored][tile] = content
    for stored, tiles in kept.items():
        stored.fetched = {tile: each for tile, each in tiles.items() if each is not None}


def find_logs(store: LogStore) -> list[LogId]:
    """Return the logs of a store, of all epochs, in the order of their folders."""
    found = []
    for folder in store.logs():
        try:
            found.append(parse_log_path(folder))
        except EvidenceError:
            continue  # Not ours; an audit names it.
    return found


@contextmanager
def ledger_faults(log: LogId) -> Iterator[None]:
    """Translate what is wrong with the files of a log.

    Raises:
        IntegrityError: They are not what was written.
    """
    try:
        yield
    except EvidenceError as error:
        raise IntegrityError(
            f"The log {log.path} is not as it was written: {error}. Nothing was repaired."
        ) from error
