"""The logs on a disk: read, locked, their checkpoints replaced by rename, partial tiles removed.

Beside the store's own `store.json`, a log's checkpoint is the one file that is ever replaced,
and its superseded partial tiles are the only ones ever removed.

A swap, and what is left if the process dies after a step:

| step | if the process dies after it |
|---|---|
| 1. write the checkpoints under another name, flush | the old checkpoints, and that name |
| 2. rename them over the old ones | the old or the new, each whole, whatever the power does |
| 3. flush | the new ones |

The flush of step 1 makes durable all that was linked before it, so the tiles of a checkpoint are
there whenever it is found.
"""

import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from pipeline.core.store.files import NotAFileError
from pipeline.core.store.log_store import (
    CHECKPOINT_FILE,
    LEDGER_FOLDER,
    TILE_LIMIT_BYTES,
    Head,
)
from pipeline.disk.durable_files import FILE_MODE, DurableFiles
from pipeline.disk.faults import store_faults
from pipeline.disk.locks import exclusive_lock
from pipeline.disk.regular_files import read_below, read_regular
from pipeline.disk.small_files import Folders, open_over_leftover
from pipeline.disk.system_calls import LogSystemCalls
from pipeline.errors import LogMovedError

LOCK_FILE = "lock"
NEW_CHECKPOINT_FILE = ".checkpoint.new"


class DiskLogs:
    """The logs below one root folder, for reading, or locked for writing."""

    is_shared = False

    def __init__(
        self, root: Path, calls: LogSystemCalls | None = None, files: DurableFiles | None = None
    ) -> None:
        """Prepare; nothing is looked at.

        Args:
            root: Folder of the store.
            calls: System calls, for tests.
            files: Its files, which know what the file system has; None to ask at each lock.
        """
        self._root = root
        self._calls = calls or LogSystemCalls()
        self._files = files

    def faults(self) -> AbstractContextManager[None]:
        """Translate a fault of the disk into StoreError while the block runs."""
        return store_faults(self._root)

    def logs(self) -> list[str]:
        """Return the folders that logs may have, of all epochs, in order."""
        folders = (self._root / LEDGER_FOLDER).glob("*/*/")
        return sorted(folder.relative_to(self._root).as_posix() for folder in folders)

    def with_tiles(self, logs: Iterable[str]) -> set[str]:
        """Return those of `logs` to which anything was ever appended, or was going to be."""
        return {log for log in logs if (self._root / log / "tile").exists()}

    def heads(self, logs: Iterable[str]) -> dict[str, Head]:
        """Return the head of each of `logs`; one without a checkpoint is left out."""
        return _heads(self.tiles(f"{log}/{CHECKPOINT_FILE}" for log in logs))

    def tiles(self, paths: Iterable[str]) -> dict[str, bytes]:
        """Return the bytes of tiles by their paths; what is not there is left out."""
        found = {}
        for path in paths:
            with suppress(FileNotFoundError, NotADirectoryError, NotAFileError):
                found[path] = read_below(self._root, path, TILE_LIMIT_BYTES, self._calls)
        return found

    def names(self, folders: Iterable[str]) -> dict[str, list[str]]:
        """Return the names in each folder, in order; none where there is no such folder."""
        return {folder: self._names(folder) for folder in folders}

    def _names(self, folder: str) -> list[str]:
        try:
            return sorted(path.name for path in (self._root / folder).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    @contextmanager
    def locked(self, logs: Sequence[str]) -> Iterator["LockedDiskLogs"]:
        """Keep others from writing `logs` while the block runs, locked in this order."""
        with ExitStack() as held:
            for log in logs:
                held.enter_context(exclusive_lock(self._root / log / LOCK_FILE))
            files = self._files or DurableFiles(self._root, self._calls)
            yield LockedDiskLogs(self._root, self._calls, held, group_commits=files.group_commits)


def open_to_write(root: Path, calls: LogSystemCalls | None = None) -> tuple[DurableFiles, DiskLogs]:
    """Open the files and the logs of the store at `root`, whose names share their flushes.

    Raises:
        StoreError: The disk cannot be written.
    """
    calls = calls or LogSystemCalls()
    with store_faults(root):
        files = DurableFiles(root, calls)
    return files, DiskLogs(root, calls, files)


def _heads(notes: Mapping[str, bytes]) -> dict[str, Head]:
    return {path.rpartition("/")[0]: Head(note) for path, note in notes.items()}


class LockedDiskLogs:
    """Locked logs. Their folders stay open, the root first, so a flush reports every fault."""

    is_shared = False

    def __init__(
        self, root: Path, calls: LogSystemCalls, held: ExitStack, *, group_commits: bool
    ) -> None:
        """Open the folder of the store; `held` closes what is opened."""
        self._root = root
        self._calls = calls
        self._group_commits = group_commits
        self._folders = Folders(root, calls, held)
        # As nobody else writes, what was read once is what is there.
        self._found: dict[str, Head] = {}

    def faults(self) -> AbstractContextManager[None]:
        """Translate a fault of the disk into StoreError while the block runs."""
        return store_faults(self._root)

    def heads(self, logs: Iterable[str]) -> dict[str, Head]:
        """Return the head of each of `logs`; one without a checkpoint is left out."""
        found = _heads(self.tiles(f"{log}/{CHECKPOINT_FILE}" for log in logs))
        self._found |= found
        return found

    def tiles(self, paths: Iterable[str]) -> dict[str, bytes]:
        """Return the bytes of tiles by their paths; what is not there is left out."""
        found = {}
        for path in paths:
            folder, _, name = path.rpartition("/")
            with suppress(FileNotFoundError, NotADirectoryError, NotAFileError):
                found[path] = read_regular(
                    name, self._folders.open(folder), TILE_LIMIT_BYTES, self._calls
                )
        return found

    def names(self, folders: Iterable[str]) -> dict[str, list[str]]:
        """Return the names in each folder, in order; none where there is no such folder."""
        return {folder: self._names(folder) for folder in folders}

    def _names(self, folder: str) -> list[str]:
        try:
            return sorted(self._calls.list_folder(self._folders.open(folder)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def swap(self, swaps: Mapping[str, tuple[Head, bytes]]) -> dict[str, Head]:
        """Replace checkpoints; return the new heads. All names in the store are durable then.

        Raises:
            LogMovedError: A log has another head; nothing was written.
        """
        self._check(swaps)
        changed = {log: note for log, (head, note) in swaps.items() if note != head.note}
        if changed:
            self._write_checkpoints(changed)  # 1.
            self._publish_checkpoints(changed)  # 2.
        # Also where nothing changed: the process that wrote the checkpoint may have died here.
        self._flush(swaps)  # 3.
        swapped = {log: Head(note) for log, (_, note) in swaps.items()}
        self._found |= swapped
        return swapped

    def _check(self, swaps: Mapping[str, tuple[Head, bytes]]) -> None:
        self.heads(log for log in swaps if log not in self._found)
        for log, (head, _) in swaps.items():
            if self._found.get(log) != head:
                raise LogMovedError(
                    f"Another process went on with the log {log} meanwhile; nothing was "
                    "acknowledged; start again."
                )

    def _write_checkpoints(self, notes: Mapping[str, bytes]) -> None:
        """Write checkpoints under another name, and flush: a rename must find their bytes."""
        for log, note in notes.items():
            self._write_new(self._folders.open(log), note)
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

    def _publish_checkpoints(self, logs: Iterable[str]) -> None:
        """Give the new checkpoints their name; the old ones go."""
        for log in logs:
            self._calls.replace(NEW_CHECKPOINT_FILE, CHECKPOINT_FILE, self._folders.open(log))

    def _flush(self, logs: Iterable[str]) -> None:
        """Make the names in the folders of `logs` durable."""
        if self._group_commits:
            self._calls.syncfs(self._folders.root)
            return
        for log in logs:
            self._calls.fsync(self._folders.open(log))

    def remove(self, log: str, folder: str, names: Sequence[str], *, and_folder: bool) -> None:
        """Remove superseded tiles of one folder, and the folder; what is not there is as removed.

        Args:
            log: The log.
            folder: In it.
            names: Of the tiles.
            and_folder: Whether the folder goes too, unless something else is in it.
        """
        path = f"{log}/{folder}"
        with suppress(FileNotFoundError):
            opened = self._folders.open(path)
            for name in names:
                self._unlink(name, opened)
        if and_folder:
            self._remove_folder(path)

    def drop_unfinished(self, log: str) -> None:
        """Remove the new name of a checkpoint that a process left when it died."""
        self._unlink(NEW_CHECKPOINT_FILE, self._folders.open(log))

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
