"""Names in the folders of logs: checkpoints replaced by rename, partial tiles removed.

Beside the store's own `store.json`, a log's checkpoint is the one file that is ever replaced,
and its superseded partial tiles are the only ones ever removed.
"""

import errno
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from pipeline.disk.durable_files import FILE_MODE
from pipeline.disk.small_files import Folders, open_over_leftover
from pipeline.ledger.folder import CHECKPOINT_FILE, LedgerSystemCalls
from pipeline.ledger.log_id import LogId
from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.tiles import TILE_WIDTH, Tile, last_tiles, parse_tile_path

NEW_CHECKPOINT_FILE = ".checkpoint.new"
_FOLDER_TILES = 1000
"""Tiles of one folder; more than any batch has, so nothing older is left half removed."""


class CheckpointFiles:
    """Changes names in the folders of locked logs. Opened first, so a flush reports every fault."""

    def __init__(
        self, root: Path, calls: LedgerSystemCalls, held: ExitStack, *, group_commits: bool
    ) -> None:
        """Open the folder of the store; `held` closes what is opened.

        Attributes:
            folders: The descriptors of what was opened.
        """
        self._calls = calls
        self._group_commits = group_commits
        self.folders = self._folders = Folders(root, calls, held)

    def write_checkpoints(self, notes: Mapping[LogId, bytes]) -> None:
        """Write checkpoints under another name, and flush: a rename must find their bytes.

        The same flush makes the names of the tiles durable, which the caller has linked.
        """
        for log, note in notes.items():
            self._write_new(self._folders.open(log.path), note)
        if self._group_commits:
            self._calls.syncfs(self._folders.root)

    def _write_new(self, folder: int, note: bytes) -> None:
        descriptor = open_over_leftover(self._calls, NEW_CHECKPOINT_FILE, folder)
        try:
            self._calls.write_all(descriptor, note)
            self._calls.set_mode(descriptor, FILE_MODE)
            if not self._group_commits:
                self._calls.fsync(descriptor)
        finally:
            self._calls.close(descriptor)

    def publish_checkpoints(self, logs: Iterable[LogId]) -> None:
        """Give the new checkpoints their name; the old ones go."""
        for log in logs:
            self._calls.replace(NEW_CHECKPOINT_FILE, CHECKPOINT_FILE, self._folders.open(log.path))

    def flush(self, logs: Iterable[LogId]) -> None:
        """Make the names in the folders of `logs` durable."""
        if self._group_commits:
            self._calls.syncfs(self._folders.root)
            return
        for log in logs:
            self._calls.fsync(self._folders.open(log.path))

    def tiles_with_leftovers(self, log: LogId, size: int) -> Iterator[Tile]:
        """Yield tiles near the end of a log of `size` leaves that have partial forms on disk.

        A killed process left them in its last batch. That may have had more leaves than were
        stored since: a tile beyond the end has a width of 0. Drops a new name of a checkpoint.
        """
        self._unlink(NEW_CHECKPOINT_FILE, self._folders.open(log.path))
        last = list(last_tiles(size))
        above = Tile(max(tile.level for tile in last) + 1, 0, 0)
        for tile in [*last, above]:
            before = Tile(tile.level, max(tile.index - _FOLDER_TILES, 0))
            after = Tile(tile.level, tile.index + 1)
            for folder in dict.fromkeys([before.folder, tile.folder, after.folder]):
                yield from self._with_partials(log, folder, tile)

    def _with_partials(self, log: LogId, folder: str, last: Tile) -> Iterator[Tile]:
        for name in self._list(f"{log.path}/{folder}"):
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

    def remove_known(self, log: LogId, tile: Tile, width: int) -> None:
        """Remove the partial form of `tile` that has `width`, and its folder where `tile` is full.

        tlog-tiles ("Partial Tiles") lets a log drop a partial tile once the full one is there. One
        that a wider partial tile begins with goes too: so the files of a log depend on its leaves
        alone, and not on how they were batched.
        """
        self._remove_partials(log, tile, [str(width)])

    def remove_narrower(self, log: LogId, tile: Tile) -> bool:
        """Remove each partial form that is narrower than `tile`; return whether none is wider.

        A wider one is of a batch that a killed process did not finish. It goes once the log has
        grown beyond it.
        """
        widths = [
            name
            for name in self._list(f"{log.path}/{tile.partials}")
            if name.isascii() and name.isdigit() and int(name) < TILE_WIDTH
        ]
        self._remove_partials(log, tile, [name for name in widths if int(name) < tile.width])
        return all(int(name) <= tile.width for name in widths)

    def _remove_partials(self, log: LogId, tile: Tile, widths: Iterable[str]) -> None:
        path = f"{log.path}/{tile.partials}"
        for width in widths:
            self._unlink(width, self._folders.open(path))
        if tile.width == TILE_WIDTH:
            self._remove_folder(path)

    def _list(self, path: str) -> list[str]:
        try:
            return sorted(self._calls.list_folder(self._folders.open(path)))
        except FileNotFoundError:
            return []

    def _unlink(self, name: str, folder: int) -> None:
        with suppress(FileNotFoundError):
            self._calls.unlink(name, folder)

    def _remove_folder(self, path: str) -> None:
        above, _, name = path.rpartition("/")
        try:
            self._calls.remove_folder(name, self._folders.open(above))
        except OSError as error:
            # Not there, or something unexpected is in it, which an audit names.
            if error.errno not in {errno.ENOENT, errno.ENOTEMPTY}:
                raise
