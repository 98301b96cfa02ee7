"""The folder of one log: its checkpoint and its tiles, as unchecked bytes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.disk.regular_files import NotAFileError, read_below, read_regular
from pipeline.disk.small_files import Folders
from pipeline.disk.system_calls import SystemCalls
from pipeline.errors import IntegrityError
from pipeline.ledger.log_id import LogId, parse_log_path
from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.tiles import TILE_WIDTH, Tile, cut_tile


class LedgerSystemCalls(SystemCalls):
    """The system calls of the ledger: those of the durable writer, and three that change names."""

    def replace(self, old: str, new: str, folder: int) -> None:
        """Give a file the name of another in the same folder, which goes; at once (rename(2))."""
        os.replace(old, new, src_dir_fd=folder, dst_dir_fd=folder)

    def list_folder(self, folder: int) -> list[str]:
        """Return the names in a folder, in no order."""
        return os.listdir(folder)

    def remove_folder(self, name: str, parent: int) -> None:
        """Remove an empty folder."""
        os.rmdir(name, dir_fd=parent)


LEDGER_FOLDER = "ledger"
CHECKPOINT_FILE = "checkpoint"
LOCK_FILE = "lock"
_LIMIT_BYTES = TILE_WIDTH * (2 + 0xFFFF)
"""Of a bundle of the longest leaves, each behind its length; a checkpoint has far less."""


class LogFolder:
    """The files of one log."""

    def __init__(
        self,
        root: Path,
        log: LogId,
        calls: LedgerSystemCalls | None = None,
        folders: Folders | None = None,
    ) -> None:
        """Look at the folder of `log` in the store at `root`.

        Args:
            root: Folder of the store.
            log: Which log.
            calls: System calls, for tests.
            folders: Of a writer, which holds them open; None to open them for each read.
        """
        self._folders = folders
        self.root = root
        self.log = log
        self.path = root / log.path
        self._calls = calls or LedgerSystemCalls()

    @property
    def has_tiles(self) -> bool:
        """Whether anything was ever appended, or was going to be."""
        return (self.path / "tile").exists()

    def read_checkpoint(self) -> bytes | None:
        """Return the checkpoint; None where there is none."""
        return self._read(CHECKPOINT_FILE)

    def read_tile(self, tile: Tile) -> bytes:
        """Return the bytes of a tile or bundle; cut from a wider form where the exact one is gone.

        Raises:
            EvidenceError: There is no file, or the wider one has another form.
        """
        content = self._read(str(tile))
        if content is not None:
            return content
        for wider in self._wider_forms(tile):
            content = self._read(str(wider))
            if content is not None:
                return cut_tile(tile, wider, content)
        raise EvidenceError(f"expected {tile}, found no such file")

    def _wider_forms(self, tile: Tile) -> Iterator[Tile]:
        """Yield what a writer may have put in place of `tile` since its checkpoint was read."""
        if not tile.is_partial:
            return
        yield tile.full
        for width in _numbers_in(self.path / tile.partials):
            if tile.width < width < tile.full.width:
                yield Tile(tile.level, tile.index, width)
        # Once more: it may have become full while we looked at the partial ones.
        yield tile.full

    def _read(self, name: str) -> bytes | None:
        path = f"{self.log.path}/{name}"
        try:
            if self._folders is None:
                return read_below(self.root, path, _LIMIT_BYTES, self._calls)
            above, _, last = path.rpartition("/")
            return read_regular(last, self._folders.open(above), _LIMIT_BYTES, self._calls)
        except (FileNotFoundError, NotADirectoryError, NotAFileError):
            return None


def find_logs(root: Path) -> list[LogId]:
    """Return the logs of the store at `root`, of all epochs, in the order of their folders."""
    found = []
    for folder in (root / LEDGER_FOLDER).glob("*/*/"):
        try:
            found.append(parse_log_path(folder.relative_to(root).as_posix()))
        except EvidenceError:
            continue  # Not ours; an audit names it.
    return sorted(found, key=lambda log: log.path)


def _numbers_in(folder: Path) -> list[int]:
    try:
        names = [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())


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
