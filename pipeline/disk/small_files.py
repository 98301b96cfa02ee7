"""Small files and folders: created, replaced or flushed, each whole and durable or not at all.

The one place for it: keys, identities, checkpoints and indexes come through here; and files that
are on their way to a name.
"""

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO
from uuid import uuid4

from pipeline.core.store.files import NotAFileError
from pipeline.disk.regular_files import open_regular
from pipeline.disk.system_calls import SystemCalls, supports_unnamed_files

TEMPORARY_SUFFIX = ".tmp"
FOLDER_MODE = 0o755
PRIVATE_FOLDER_MODE = 0o700


def temporary_name(suffix: str = TEMPORARY_SUFFIX) -> str:
    """Return a name that nothing else has, which `remove_leftovers` knows."""
    return f".{uuid4().hex}{suffix}"


def remove_leftovers(root: Path, calls: SystemCalls, suffix: str = TEMPORARY_SUFFIX) -> None:
    """Remove temporary names that processes left in the root when they died.

    A published file keeps its name, and so does a file whose writer is alive and holds its lock.
    """
    temporary = re.compile(rf"\.[0-9a-f]{{32}}{re.escape(suffix)}")
    names = [file.name for file in root.iterdir() if temporary.fullmatch(file.name)]
    if not names:
        return
    folder = calls.open_folder(str(root))
    try:
        for name in names:
            _remove_if_abandoned(name, folder, calls)
    finally:
        calls.close(folder)


def _remove_if_abandoned(name: str, folder: int, calls: SystemCalls) -> None:
    try:
        descriptor, _ = open_regular(name, folder, calls)
    except (FileNotFoundError, NotAFileError):
        return  # It ended meanwhile, or is none of ours.
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        calls.unlink(name, folder)
    except BlockingIOError:
        return  # Its process is alive.
    finally:
        calls.close(descriptor)


def create_file(path: Path, content: bytes, mode: int) -> bool:
    """Create the file whole and durable, or not at all; False where there is one already."""
    temporary = _write_temporary(path, content, mode)
    try:
        # link, unlike rename, refuses to replace an existing name.
        path.hardlink_to(temporary)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    flush_folder(path.parent)
    return True


def replace_file(path: Path, content: bytes, mode: int) -> None:
    """Put the file in place of what has its name, whole and durable."""
    _write_temporary(path, content, mode).replace(path)
    flush_folder(path.parent)


def flush_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _write_temporary(path: Path, content: bytes, mode: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(temporary_name())
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123  # a descriptor, not a path
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except OSError:
        temporary.unlink()
        raise
    return temporary


def open_over_leftover(calls: SystemCalls, name: str, folder: int) -> int:
    """Open a new file to write; what a killed process left under its name goes.

    The caller holds the lock of the folder, so no process is writing it.
    """
    try:
        return calls.open_new(name, folder)
    except FileExistsError:
        calls.unlink(name, folder)
    return calls.open_new(name, folder)


class NewFileHandle:
    """A new file on its way to its name, written whole or in pieces.

    Without a name where the file system supports that; else under a temporary one, with a lock
    that ends with the process. What has no name of its own at the end of `open_files` is gone.
    """

    __slots__ = ("_calls", "_root", "_temporary", "descriptor")

    def __init__(
        self,
        root: int,
        calls: SystemCalls,
        open_files: ExitStack,
        *,
        unnamed: bool,
        suffix: str = TEMPORARY_SUFFIX,
    ) -> None:
        self._root = root
        self._calls = calls
        self._temporary = None if unnamed else temporary_name(suffix)
        if self._temporary is None:
            self.descriptor = calls.open_unnamed(root)
        else:
            self.descriptor = calls.open_new(self._temporary, root)
            open_files.callback(calls.unlink, self._temporary, root)
        open_files.callback(calls.close, self.descriptor)
        if self._temporary is not None:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX)

    def write(self, content: bytes) -> None:
        """Write some of its bytes, or all."""
        self._calls.write_all(self.descriptor, content)

    def link(self, name: str, folder: int) -> bool:
        """Give it its name; False where there is one already."""
        try:
            if self._temporary is None:
                self._calls.link_unnamed(self.descriptor, name, folder)
            else:
                self._calls.link_named(self._temporary, name, self._root, folder)
        except FileExistsError:
            return False
        return True


@contextmanager
def new_file(path: Path, mode: int) -> Iterator[IO[bytes]]:
    """Yield a file to write, which gets its name after the block, whole and durable, or never.

    Raises:
        FileExistsError: There is one of this name by now; it was not touched.
        OSError: It cannot be written, or its file system gives no file a second name.
    """
    calls = SystemCalls()
    unnamed = supports_unnamed_files(path.parent, calls)
    with ExitStack() as open_files:
        folder = calls.open_folder(str(path.parent))
        open_files.callback(calls.close, folder)
        new = NewFileHandle(folder, calls, open_files, unnamed=unnamed)
        with open(os.dup(new.descriptor), "wb") as file:  # noqa: PTH123  # a descriptor, not a path
            yield file
        calls.set_mode(new.descriptor, mode)
        calls.fsync(new.descriptor)
        if not new.link(path.name, folder):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        calls.fsync(folder)


class Folders:
    """The folder descriptors of one round, opened once and kept."""

    def __init__(
        self, root: Path, calls: SystemCalls, open_files: ExitStack, *, opened: int | None = None
    ) -> None:
        """Open the root, before anything is written, where it is not `opened` already."""
        self._calls = calls
        self._open_files = open_files
        self._descriptors: dict[str, int] = {}
        if opened is None:
            self.root = self._keep("", calls.open_folder(str(root)))
        else:
            self.root = self._descriptors[""] = opened

    def of(self, path: str, *, private: bool = False) -> tuple[int, str]:
        """Return the descriptor of the file's folder, made where it is missing, and its name."""
        folder, _, name = path.rpartition("/")
        return self.open(folder, PRIVATE_FOLDER_MODE if private else FOLDER_MODE), name

    def flush(self) -> None:
        """Make the names in every folder of the round durable, one by one."""
        for descriptor in self._descriptors.values():
            self._calls.fsync(descriptor)

    def open(self, path: str, mode: int | None = None) -> int:
        """Return the descriptor of a folder; where it is missing it is made, if `mode` is given."""
        known = self._descriptors.get(path)
        if known is not None:
            return known
        above, _, name = path.rpartition("/")
        parent = self.open(above, mode)
        try:
            return self._keep(path, self._calls.open_folder(name, parent))
        except FileNotFoundError:
            if mode is None:
                raise
        with suppress(FileExistsError):  # another worker was faster
            self._calls.make_folder(name, parent, mode)
        return self._keep(path, self._calls.open_folder(name, parent))

    def _keep(self, path: str, descriptor: int) -> int:
        self._open_files.callback(self._calls.close, descriptor)
        self._descriptors[path] = descriptor
        return descriptor
