"""A file of a store that one process at a time appends to, until it is sealed.

The lock ends with the process. What is appended is durable once it is flushed; until then a power
cut may take it, or a part of it, so the next to take the file looks where the whole of it ends.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from pipeline.disk.durable_files import FILE_MODE
from pipeline.disk.regular_files import folder_below
from pipeline.disk.small_files import FOLDER_MODE, PRIVATE_FOLDER_MODE, flush_folder
from pipeline.disk.system_calls import SystemCalls

_NEW_MODE: Final = 0o644
_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
# A folder, a symbolic link, a socket.
_NO_FILE: Final = {errno.EISDIR, errno.ELOOP, errno.ENXIO}
_CALLS: Final = SystemCalls()


class SealedError(Exception):
    """The file is sealed, or something else is in its place. Nothing was touched."""


class AppendOnlyFile:
    """The file, open and locked. Use one thread at a time. Every method raises OSError."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, root: Path, path: str) -> Self | None:
        """Open the file, made with its folder where it is missing; None where another has it.

        Args:
            root: Folder of the store.
            path: Relative to the store.

        Raises:
            SealedError: It may not be appended to.
            OSError: The disk failed.
        """
        folder = (root / path).parent
        _make_folder(folder)
        descriptor = _open(root, path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            flush_folder(folder)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor)

    def lines(self) -> Iterator[bytes]:
        """Yield its lines, each with its end."""
        with open(self._descriptor, "rb", closefd=False) as file:
            yield from file

    def cut(self, size_bytes: int) -> None:
        """Cut off what is behind so many bytes."""
        os.ftruncate(self._descriptor, size_bytes)

    def append(self, content: bytes) -> None:
        """Append all of `content`."""
        _CALLS.write_all(self._descriptor, content)

    def flush(self) -> None:
        """Make what was appended durable."""
        _CALLS.fsync(self._descriptor)

    def close(self) -> None:
        """Close it; another process may take it."""
        os.close(self._descriptor)


def make_private_folder(folder: Path) -> None:
    """Make a folder beside a store, with those above, where it is missing: ours alone.

    Raises:
        OSError: The disk failed.
    """
    folder.mkdir(mode=PRIVATE_FOLDER_MODE, parents=True, exist_ok=True)


def remove_file(root: Path, path: str) -> None:
    """Remove an append-only file that is beside a store; that there is none is no fault.

    Raises:
        OSError: The disk failed.
    """
    (root / path).unlink(missing_ok=True)


def seal_file(root: Path, path: str) -> None:
    """Make an append-only file read-only, for good; that there is none is no fault.

    Raises:
        OSError: The disk failed.
    """
    above, _, name = path.rpartition("/")
    with suppress(FileNotFoundError), folder_below(root, above) as folder:
        descriptor = os.open(name, os.O_RDONLY | _FLAGS, dir_fd=folder)
        try:
            _CALLS.set_mode(descriptor, FILE_MODE)
        finally:
            os.close(descriptor)


def _open(root: Path, path: str) -> int:
    above, _, name = path.rpartition("/")
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | _FLAGS
    try:
        with folder_below(root, above) as folder:
            descriptor = os.open(name, flags, _NEW_MODE, dir_fd=folder)
    except OSError as error:
        is_sealed = error.errno == errno.EACCES and (root / path).exists()
        if is_sealed or error.errno in _NO_FILE:
            raise SealedError from error
        raise
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode) or stat.S_IMODE(mode) == FILE_MODE:
        os.close(descriptor)
        raise SealedError
    return descriptor


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(mode=FOLDER_MODE)
    except FileExistsError:
        return
    flush_folder(path.parent)
