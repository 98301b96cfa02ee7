"""One file of a store, opened as what it should be: a regular file with a certain mode."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.core.audit_finding import Finding

READ_BYTES = 1 << 20

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


class NotAFileError(Exception):
    """There is something else in the file's place, or it cannot be opened; its text says what."""


def state_of(name: str, folder: int | None = None) -> os.stat_result | None:
    """Return the state of a regular file; None where there is nothing.

    Raises:
        NotAFileError: There is something else.
    """
    try:
        state = os.stat(name, dir_fd=folder, follow_symlinks=False)  # by descriptor
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise NotAFileError(error.strerror) from error
    check_regular(state)
    return state


def check_regular(state: os.stat_result) -> None:
    """Refuse what is no regular file.

    Raises:
        NotAFileError: It is something else.
    """
    if not stat.S_ISREG(state.st_mode):
        raise NotAFileError(_KINDS.get(stat.S_IFMT(state.st_mode), "a device"))


def open_regular(name: str, folder: int | None = None) -> tuple[int, os.stat_result] | None:
    """Open a regular file for reading; the caller closes it. None where there is nothing.

    Raises:
        NotAFileError: There is something else, or it cannot be opened.
    """
    # Without waiting: a pipe in its place would hold us.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(name, flags, dir_fd=folder)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        # A symbolic link or a socket fails in a way of its own; its state says what it is.
        state_of(name, folder)
        raise NotAFileError(error.strerror) from error
    try:
        state = os.fstat(descriptor)
        check_regular(state)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, state


@contextmanager
def opened(name: str) -> Iterator[tuple[int, os.stat_result] | None]:
    """Open a regular file for reading; None where there is nothing.

    Raises:
        NotAFileError: There is something else, or it cannot be opened.
    """
    found = open_regular(name)
    try:
        yield found
    finally:
        if found is not None:
            os.close(found[0])


def read_all(descriptor: int, size_bytes: int) -> bytes:
    """Return the bytes of an open file that had this size a moment ago.

    Raises:
        NotAFileError: The disk failed.
    """
    try:
        # One byte more tells that it ends there; mostly this is the only call.
        content = os.read(descriptor, size_bytes + 1)
        if len(content) == size_bytes:
            return content
        return content + b"".join(iter(lambda: os.read(descriptor, READ_BYTES), b""))
    except OSError as error:
        raise NotAFileError(error.strerror) from error


def mode_finding(path: str, mode: int, expected: int) -> list[Finding]:
    """Return the finding that a file or folder has another mode than it should, if it has."""
    found = stat.S_IMODE(mode)
    if found == expected:
        return []
    return [Finding("MODE_DIFFERS", path, f"mode {expected:04o}", f"mode {found:04o}")]
