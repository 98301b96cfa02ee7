"""What an audit asks about the files of a store on a disk: modes, links, what is beside them."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pipeline.core.store.files import (
    FileState,
    FoundName,
    History,
    NotAFileError,
)
from pipeline.core.store.log_store import LEDGER_FOLDER
from pipeline.disk.locks import INDEX_LOCK, MIGRATION_LOCK
from pipeline.disk.log_store import LOCK_FILE, NEW_CHECKPOINT_FILE
from pipeline.disk.regular_files import (
    entries_below,
    folder_below,
    names_below,
    open_regular,
    opened,
    read_open,
    state_of,
    state_of_any,
)
from pipeline.disk.stored_files import OpenDiskFile
from pipeline.disk.volume import INDEX_NAME, NOT_OURS

_OWN_FILES: Final = {
    INDEX_LOCK,
    MIGRATION_LOCK,
    *(f"{INDEX_NAME}{end}" for end in ("", "-wal", "-shm", "-journal", ".rebuilt")),
    *(f"{INDEX_NAME}.rebuilt{end}" for end in ("-wal", "-shm", "-journal")),
}
# An upload, or a file on a file system without O_TMPFILE, on its way; or what a killed one left.
_OWN: Final = re.compile(
    rf"\.[0-9a-f]{{32}}\.(tmp|upload)"
    rf"|{LEDGER_FOLDER}/[^/]+/[^/]+/({LOCK_FILE}|{re.escape(NEW_CHECKPOINT_FILE)})"
)


class _OpenedFile:
    """A file that is open: a generator would take as long as the file is read."""

    __slots__ = ("_descriptor", "_found")

    def __init__(self, descriptor: int, found: os.stat_result) -> None:
        self._descriptor = descriptor
        self._found = found

    def __enter__(self) -> tuple[FileState, Callable[[], bytes]]:
        return _state(self._found), self._read

    def __exit__(self, *_exception: object) -> None:
        os.close(self._descriptor)

    def _read(self) -> bytes:
        return read_open(self._descriptor, self._found.st_size)


class DiskFolder:
    """A folder that is open."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def state(self, name: str) -> FileState | None:
        """Return the state of a file; None where there is nothing.

        Raises:
            NotAFileError: There is something else, or it is unknown.
        """
        found = state_of(name, self._descriptor)
        return None if found is None else _state(found)

    def opened(self, name: str) -> "_OpenedFile":
        """Hold a file open: its state, and what reads all of it.

        Raises:
            FileNotFoundError: There is nothing.
            OSError: There is something else, or it cannot be read.
        """
        return _OpenedFile(*open_regular(name, self._descriptor))


def _state(found: os.stat_result) -> FileState:
    return FileState(found.st_size, found.st_mode)


class DiskInspection:
    """What an audit asks about the files of a store on a disk."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def folder(self, path: str, _first: str, _last: str) -> Iterator[DiskFolder]:
        """Hold a folder open.

        Raises:
            OSError: There is none, or a symbolic link; or we may not pass.
        """
        with folder_below(self._root, path) as descriptor:
            yield DiskFolder(descriptor)

    @contextmanager
    def opened(self, path: str) -> Iterator[tuple[OpenDiskFile, int] | None]:
        """Hold a file open, with its mode; None where there is nothing.

        Raises:
            NotAFileError: There is something else, or it cannot be opened.
        """
        with opened(self._root, path) as found:
            if found is None:
                yield None
            else:
                descriptor, state = found
                yield OpenDiskFile(descriptor, state.st_size), state.st_mode

    def each_name(self, folder: str) -> Iterator[str]:
        """Yield the names in a folder, as the disk has them."""
        return names_below(self._root, folder)

    def below(self, folder: str, descends: Callable[[str], bool]) -> Iterator[FoundName]:
        """Yield what lies below a folder, in order, and in the folders that `descends` takes."""
        for entry in entries_below(self._root, folder):
            found = FoundName(*entry)
            yield found
            if found.is_folder and descends(found.path):
                yield from self.below(found.path, descends)

    def mode(self, path: str) -> int:
        """Return the mode of whatever has this path; a symbolic link is not followed.

        Raises:
            OSError: There is nothing, or it is unknown.
        """
        return state_of_any(self._root / path).st_mode

    def kind_of(self, path: str) -> str:
        """Return what has this path, in a few words."""
        try:
            state_of(str(self._root / path))
        except NotAFileError as error:
            return str(error)
        return "a file"

    def is_own(self, path: str, *, is_folder: bool) -> bool:
        """Return whether it is a lock, the index, what is on its way, or not of the store."""
        if is_folder:
            return path in NOT_OURS
        return path in _OWN_FILES or _OWN.fullmatch(path) is not None

    def keeps_versions(self, _paths: Iterable[str]) -> None:
        """Return that there can be none."""

    def histories(self, _folder: str) -> Iterator[History]:
        """Yield nothing."""
        return iter(())

    def newest_versions(self, _path: str, _most: int) -> list[str]:
        """Return none."""
        return []

    def read_version(self, _path: str, _version: str) -> Iterator[bytes]:
        """Yield nothing."""
        return iter(())
