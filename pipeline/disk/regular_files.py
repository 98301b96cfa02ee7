"""The one open for every read of a store: regular files only, no links, no waiting.

A pipe, a device or a link in the place of a file would make a reader wait for ever, read without
end, or read what is not in the store. So below the store's root no name is followed that is a
symbolic link, of a file or of a folder, and never are more bytes read than the file should have.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO, Final

from pipeline.core.store.files import NotAFileError
from pipeline.disk.system_calls import SystemCalls

_KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}
# A symbolic link, what we may not read, a socket: what is there is not the file.
_NOT_THE_FILE: Final = {errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENXIO}
_CALLS: Final = SystemCalls()
_FOLDER: Final = os.O_DIRECTORY | os.O_CLOEXEC
_TO_LIST: Final = _FOLDER | os.O_RDONLY
# Where the system has it, a folder on the way needs no right to be listed.
_TO_PASS: Final = _FOLDER | getattr(os, "O_PATH", os.O_RDONLY)


def state_of(name: str, folder: int | None = None) -> os.stat_result | None:
    """Return the state of a regular file; None where there is nothing.

    Raises:
        NotAFileError: There is something else, or it is unknown.
    """
    try:
        state = os.stat(name, dir_fd=folder, follow_symlinks=False)  # by descriptor
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise NotAFileError(error.strerror) from error
    check_regular(state)
    return state


def state_of_any(path: Path) -> os.stat_result:
    """Return the state of whatever has this name; a symbolic link is not followed.

    Raises:
        OSError: There is nothing, or it is unknown.
    """
    return path.lstat()


def check_regular(state: os.stat_result) -> None:
    """Refuse what is no regular file.

    Raises:
        NotAFileError: It is something else.
    """
    if not stat.S_ISREG(state.st_mode):
        raise NotAFileError(_KINDS.get(stat.S_IFMT(state.st_mode), "a device"))


def open_regular(
    name: str, folder: int | None = None, calls: SystemCalls = _CALLS
) -> tuple[int, os.stat_result]:
    """Open a regular file for reading, relative to a folder if given; the caller closes it.

    Raises:
        FileNotFoundError: There is nothing.
        NotAFileError: There is something else, or we may not open it.
    """
    try:
        descriptor = calls.open_existing(name, folder)
    except OSError as error:
        if error.errno not in _NOT_THE_FILE:
            raise
        # A symbolic link or a socket fails in a way of its own; its state shows what it is.
        state_of(name, folder)
        raise NotAFileError(error.strerror) from error
    try:
        state = os.fstat(descriptor)
        check_regular(state)
    except BaseException:
        calls.close(descriptor)
        raise
    return descriptor, state


def open_below(root: Path, path: str, calls: SystemCalls = _CALLS) -> tuple[int, os.stat_result]:
    """Open the regular file at `path`, relative to the store; the caller closes it.

    Raises:
        FileNotFoundError: There is nothing.
        NotADirectoryError: Likewise: a file has the place of a folder.
        NotAFileError: There is something else, a folder on the way is a symbolic link, or we may
            not open it.
    """
    folder, _, name = path.rpartition("/")
    try:
        with folder_below(root, folder) as descriptor:
            return open_regular(name, descriptor, calls)
    except PermissionError as error:
        raise NotAFileError(error.strerror) from error


@contextmanager
def folder_below(root: Path, path: str, *, to_list: bool = False) -> Iterator[int]:
    """Hold the folder at `path`, relative to the store, open.

    Raises:
        FileNotFoundError: There is none.
        NotADirectoryError: There is something else.
        NotAFileError: It, or a folder on the way, is a symbolic link.
        OSError: The disk failed, or we may not pass.
    """
    flags = _TO_LIST if to_list else _TO_PASS
    descriptor = os.open(root, flags)
    try:
        for name in path.split("/") if path else ():
            above, descriptor = descriptor, _open_folder(name, descriptor, flags)
            os.close(above)
        yield descriptor
    finally:
        os.close(descriptor)


def _open_folder(name: str, above: int, flags: int) -> int:
    try:
        return os.open(name, flags | os.O_NOFOLLOW, dir_fd=above)
    except NotADirectoryError:
        state = os.stat(name, dir_fd=above, follow_symlinks=False)  # by descriptor
        if stat.S_ISLNK(state.st_mode):
            raise NotAFileError(f"a symbolic link in place of the folder {name}") from None
        raise


@contextmanager
def opened(root: Path, path: str) -> Iterator[tuple[int, os.stat_result] | None]:
    """Hold the regular file at `path`, relative to the store, open; None where there is nothing.

    Raises:
        NotAFileError: There is something else, or it cannot be opened.
    """
    try:
        found = open_below(root, path)
    except (FileNotFoundError, NotADirectoryError):
        found = None
    except NotAFileError:
        raise
    except OSError as error:
        raise NotAFileError(error.strerror) from error
    try:
        yield found
    finally:
        if found is not None:
            os.close(found[0])


def read_below(root: Path, path: str, limit_bytes: int, calls: SystemCalls = _CALLS) -> bytes:
    """Return the bytes of the regular file at `path`, relative to the store.

    Raises:
        NotAFileError: As `open_below`, or it has more bytes than the limit.
    """
    return _read_and_close(open_below(root, path, calls), limit_bytes, calls)


def read_regular(name: str, folder: int, limit_bytes: int, calls: SystemCalls = _CALLS) -> bytes:
    """Return the bytes of a regular file in a folder that is open.

    Raises:
        FileNotFoundError: There is nothing.
        NotAFileError: As `open_regular`, or it has more bytes than the limit.
    """
    return _read_and_close(open_regular(name, folder, calls), limit_bytes, calls)


def _read_and_close(
    opened_file: tuple[int, os.stat_result], limit_bytes: int, calls: SystemCalls
) -> bytes:
    descriptor, state = opened_file
    try:
        _check_size(state.st_size, limit_bytes)
        return read_open(descriptor, state.st_size)
    finally:
        calls.close(descriptor)


def size_and_sha256_on_disk(file: IO[bytes]) -> tuple[int, str]:
    """Return size in bytes and SHA-256 of an open file, which is at its start again afterwards.

    From the disk, where the system lets us: what was written just now is in memory too.
    """
    descriptor = file.fileno()
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    size_bytes, sha256 = os.fstat(descriptor).st_size, sha256_of_open(descriptor)
    file.seek(0)
    return size_bytes, sha256


def sha256_of_open(descriptor: int) -> str:
    """Return the SHA-256 of an open file, which stays open."""
    # A descriptor, not a path.
    with open(descriptor, "rb", closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_named(path: Path, limit_bytes: int) -> bytes:
    """Return the bytes of a regular file that an operator names, who may name it by a link.

    Raises:
        FileNotFoundError: There is nothing.
        NotAFileError: There is something else, or it has more bytes than the limit.
        OSError: It cannot be read.
    """
    with open_named(path) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        _check_size(size_bytes, limit_bytes)
        return read_open(file.fileno(), size_bytes)


def open_named(path: Path) -> BufferedReader:
    """Open a regular file that an operator names, who may name it by a link.

    Raises:
        FileNotFoundError: There is nothing.
        NotAFileError: There is something else.
        OSError: It cannot be read.
    """
    # Without waiting: a pipe in its place would hold us.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        check_regular(os.fstat(descriptor))
        return open(descriptor, "rb")  # noqa: PTH123  # a descriptor; the caller's to close
    except BaseException:
        os.close(descriptor)
        raise


def _check_size(size_bytes: int, limit_bytes: int) -> None:
    if size_bytes > limit_bytes:
        raise NotAFileError(f"a file of {size_bytes:,} bytes, more than {limit_bytes:,}")


def read_open(descriptor: int, size_bytes: int) -> bytes:
    """Return the bytes of an open file that had this size a moment ago, at most one more."""
    # One byte more shows that it ends there; mostly this is the only call.
    content = os.read(descriptor, size_bytes + 1)
    while len(content) < size_bytes and (
        piece := os.read(descriptor, size_bytes + 1 - len(content))
    ):
        content += piece
    return content


def entries_below(root: Path, folder: str = "") -> list[tuple[str, bool]]:
    """Return the path of each entry of a folder of the store, in order, and whether it is a folder.

    Where there is no such folder, or a symbolic link in its place, there are none.

    Raises:
        OSError: The disk failed, or we may not list it.
    """
    try:
        with (
            folder_below(root, folder, to_list=True) as descriptor,
            os.scandir(descriptor) as entries,
        ):
            listed = sorted((each.name, each.is_dir(follow_symlinks=False)) for each in entries)
    except (FileNotFoundError, NotADirectoryError, NotAFileError):
        return []
    return [(f"{folder}/{name}" if folder else name, is_folder) for name, is_folder in listed]


def names_below(root: Path, folder: str) -> Iterator[str]:
    """Yield the names in a folder of the store as the disk has them; none where it is missing.

    Raises:
        OSError: The disk failed, or we may not list it.
    """
    try:
        with os.scandir(root / folder) as entries:
            for entry in entries:
                yield entry.name
    except (FileNotFoundError, NotADirectoryError):
        return


def is_regular_below(root: Path, path: str) -> bool:
    """Return whether there is a regular file at `path`, relative to the store, that we may open."""
    try:
        with opened(root, path) as found:
            return found is not None
    except NotAFileError:
        return False
