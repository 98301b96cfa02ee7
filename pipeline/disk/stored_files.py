"""The files of a store on a disk, for reading."""

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from pipeline.core.store.files import (
    ExpectedFile,
    FoundName,
    Item,
    NotAFileError,
    Presence,
    Result,
)
from pipeline.disk.faults import store_faults
from pipeline.disk.regular_files import (
    entries_below,
    is_regular_below,
    open_below,
    read_below,
    sha256_of_open,
    state_of_any,
)
from pipeline.disk.system_calls import SystemCalls


class OpenDiskFile:
    """A file opened for reading; it stays the same file whatever happens to its name."""

    __slots__ = ("descriptor", "size_bytes")

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        self.descriptor = descriptor
        self.size_bytes = size_bytes

    @classmethod
    def of(cls, descriptor: int) -> "OpenDiskFile":
        """Return the file that a descriptor is of."""
        return cls(descriptor, os.fstat(descriptor).st_size)

    def read(self, offset: int, limit_bytes: int) -> bytes:
        """Return at most so many bytes from `offset` on; none behind the end that it had."""
        wanted = min(limit_bytes, self.size_bytes - offset)
        return os.pread(self.descriptor, wanted, offset) if wanted > 0 else b""

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.descriptor)


class StoredFiles:
    """The files below one root folder. Any number of threads may read them at once."""

    def __init__(self, root: Path, calls: SystemCalls | None = None) -> None:
        self._root = root
        self._calls = calls or SystemCalls()

    @property
    def name(self) -> str:
        """The folder."""
        return str(self._root)

    def faults(self) -> AbstractContextManager[None]:
        """Translate a fault of the disk into StoreError while the block runs."""
        return store_faults(self._root)

    def presence(self, expected: Iterable[ExpectedFile]) -> dict[str, Presence]:
        """Return for each path what is where the file should be; nothing is written.

        Raises:
            OSError: We may not or cannot look, so it is unknown.
        """
        return {file.path: self._presence_of(file) for file in expected}

    def _presence_of(self, expected: ExpectedFile) -> Presence:
        try:
            descriptor, _ = open_below(self._root, expected.path, self._calls)
            try:
                same = has_bytes(descriptor, expected.sha256, expected.size_bytes)
            finally:
                self._calls.close(descriptor)
        except (FileNotFoundError, NotADirectoryError):
            return Presence.MISSING
        except NotAFileError:
            return Presence.DIFFERENT
        except OSError as error:
            # A bad sector under one old file is a fault of that file. Stopping would meet it
            # again at every start, and hold up every record behind this one.
            if error.errno == errno.EIO:
                return Presence.DIFFERENT
            raise
        return Presence.SAME if same else Presence.DIFFERENT

    def present(self, paths: Iterable[str]) -> set[str]:
        """Return those of `paths` under which there is anything at all.

        Raises:
            OSError: We may not look.
        """
        return {path for path in paths if self._is_present(path)}

    def _is_present(self, path: str) -> bool:
        try:
            (self._root / path).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def readable(self, paths: Iterable[str]) -> set[str]:
        """Return those of `paths` under which there is a file that we may read; none is read."""
        return {path for path in paths if is_regular_below(self._root, path)}

    def has_folder(self, folder: str) -> bool:
        """Return whether there is such a folder: without it nothing can be below."""
        return (self._root / folder).is_dir()

    def names(self, folder: str) -> list[FoundName]:
        """Return what is in a folder, in order; nothing where there is no such folder.

        Raises:
            OSError: The disk failed, or we may not list it.
        """
        return [FoundName(*entry) for entry in entries_below(self._root, folder)]

    def paths_below(self, folder: str) -> Iterator[str]:
        """Yield the path of everything below a folder that is no folder, in order."""
        for found in self.names(folder):
            if found.is_folder:
                yield from self.paths_below(found.path)
            else:
                yield found.path

    def at_once(
        self, function: Callable[[Item], Result], items: Iterable[Item]
    ) -> Iterator[Result]:
        """Yield what `function` returns for each of `items`, one after the other."""
        return map(function, items)

    def written_ns(self, folder: str) -> dict[str, int]:
        """Return when each file in a folder was written last, in ns since 1970, by its path.

        Raises:
            OSError: The disk failed, or we may not look.
        """
        return {
            path: state_of_any(self._root / path).st_mtime_ns
            for path, is_folder in entries_below(self._root, folder)
            if not is_folder
        }

    def read(self, path: str, limit_bytes: int) -> bytes:
        """Return the bytes of a file.

        Raises:
            FileNotFoundError: There is nothing.
            NotADirectoryError: Likewise: a file has the place of a folder.
            NotAFileError: There is something else, or it has more bytes than the limit.
        """
        return read_below(self._root, path, limit_bytes, self._calls)

    def open(self, path: str) -> OpenDiskFile:
        """Open a file for reading; the caller closes it. Raises as `read` does."""
        descriptor, state = open_below(self._root, path, self._calls)
        return OpenDiskFile(descriptor, state.st_size)


def has_bytes(descriptor: int, sha256: str, size_bytes: int | None) -> bool:
    """Return whether an open file has these bytes."""
    size_fits = size_bytes in {None, os.fstat(descriptor).st_size}
    return size_fits and sha256_of_open(descriptor) == sha256
