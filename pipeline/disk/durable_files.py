"""Group commit of write-once files: each appears under its name whole and durable, or not at all.

States of a file, and what is left if the process dies there:

| state | if the process dies here |
|---|---|
| written, without a name | nothing; the kernel frees it |
| flushed, without a name | nothing; the kernel frees it |
| linked | the whole file, or no name for it after a power cut; a redelivery finds or makes it |
| linked and flushed | the whole file, for good |

One flush makes the contents of a round durable and one its names, whatever the number of files
and folders. A file costs four system calls: open with its mode, write, link, close. Contents may
be written ahead, in another thread, while an earlier round is flushed and linked: the round that
creates them writes only the others.
"""

import resource
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Self

from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.store.files import Creation, NewFile, NotAFileError, WrittenAhead
from pipeline.disk.owner import refuse_as_root
from pipeline.disk.regular_files import open_regular
from pipeline.disk.small_files import Folders, NewFileHandle, remove_leftovers
from pipeline.disk.stored_files import StoredFiles, has_bytes
from pipeline.disk.system_calls import SystemCalls, supports_unnamed_files
from pipeline.disk.uploads import UPLOAD_SUFFIX, DiskUpload, upload_faults

ROUND_FILES = 256
"""Most files that a round writes itself; 256 files a flush measured within 15 % of 1,024."""

AHEAD_FILES = 8192
"""Most files of one `write`: those of 512 runs, each with fifteen blobs."""

_OPEN_BESIDE = 1536
"""Descriptors for all else: 256 files of a round with two folders each, connections, the index."""

FILE_MODE = 0o444
PRIVATE_FILE_MODE = 0o400
"""Whatever the umask."""


class DurableFiles(StoredFiles):
    """Creates files below one root folder, durably and never over an existing one.

    One thread at a time, and one more for `write`; uploads by any number.
    """

    def __init__(self, root: Path, calls: SystemCalls | None = None) -> None:
        super().__init__(root, calls)
        self._unnamed: bool | None = supports_unnamed_files(root, self._calls)
        self._without_leftovers = False

    @classmethod
    def untried(cls, root: Path, calls: SystemCalls | None = None) -> "DurableFiles":
        """Try only at the first write what the file system has: a reader may not write."""
        files = cls.__new__(cls)
        StoredFiles.__init__(files, root, calls)
        files._unnamed = None
        files._without_leftovers = False
        return files

    @property
    def group_commits(self) -> bool:
        """Whether the file system has what the group commit needs; else each file is flushed."""
        if self._unnamed is None:
            self._unnamed = supports_unnamed_files(self._root, self._calls)
        return self._unnamed

    def begin_upload(self) -> DiskUpload:
        """Begin a file of any size; the first one removes what dead processes left of theirs.

        Raises:
            DiskFullError: There is no room for another file.
            StoreNotReadyError: We are root, and the store belongs to another user.
        """
        refuse_as_root(self._root)
        with upload_faults(self._root):
            if not self._without_leftovers:
                remove_leftovers(self._root, self._calls, UPLOAD_SUFFIX)
                self._without_leftovers = True
            unnamed = self.group_commits
        return DiskUpload(self._root, self._calls, unnamed=unnamed, mode=FILE_MODE)

    def remove(self, paths: Collection[str]) -> None:
        """Remove notes, which are no records; one that is not there is as removed."""
        for path in paths:
            with suppress(FileNotFoundError):
                (self._root / path).unlink()

    def write(self, files: Iterable[NewFile]) -> "WrittenFiles":
        """Write contents that `create` is likely to need; none of them has a name.

        Of two files of one path the first is written. None is where the file system has no files
        without a name, and not all are where more may not be open at once: `create` writes those.

        Raises:
            OSError: Something failed; nothing is left of what was written.
        """
        written = WrittenFiles(self._root, self._calls)
        room = _files_ahead() if self.group_commits else 0
        with written.open_files:
            for file in files:
                if len(written.files) < room and file.path not in written.files:
                    written.files[file.path] = (file, written.write(file))
            written.open_files = written.open_files.pop_all()
        return written

    def create(
        self, files: Iterable[NewFile], written: WrittenAhead | None = None
    ) -> dict[str, Creation]:
        """Create `files`, each of another path, in their order; return what came of each path.

        All are durable when this returns, also those that were there with the same bytes.

        Args:
            files: What is to be there.
            written: What was written ahead; it is closed, whatever was not needed is gone.

        Raises:
            OSError: Something failed; nothing may be taken as durable.
        """
        if not (wanted := list(files)):
            return {}
        with self._ahead(written) as ahead:
            creations = self._link_all(wanted, ahead)
            if self.group_commits:
                # Also where every file was there: its name may not be durable yet.
                self._calls.syncfs(ahead.root)
            return creations

    def link(
        self, files: Iterable[NewFile], written: WrittenAhead | None = None
    ) -> dict[str, Creation]:
        """Create `files` as `create` does, for a caller that makes the names durable.

        It flushes the file system, through a descriptor that it has opened before; so its own names
        or bytes share the flush. Where the file system has no group commit, nothing is left to do.
        """
        if not (wanted := list(files)):
            return {}
        with self._ahead(written) as ahead:
            return self._link_all(wanted, ahead)

    def _ahead(self, written: WrittenAhead | None) -> "WrittenFiles":
        if written is None:
            return WrittenFiles(self._root, self._calls)
        assert isinstance(written, WrittenFiles), "what another store has written is not here"
        return written

    def _link_all(self, wanted: list[NewFile], ahead: "WrittenFiles") -> dict[str, Creation]:
        creations: dict[str, Creation] = {}
        for batch in _rounds(wanted, ahead):
            with ExitStack() as open_files:
                folders = Folders(self._root, self._calls, open_files, opened=ahead.root)
                if self.group_commits:
                    self._link_unnamed(batch, ahead, folders, creations)
                else:
                    self._commit_named(batch, folders, creations)
        return creations

    def _link_unnamed(
        self,
        files: list[NewFile],
        ahead: "WrittenFiles",
        folders: "Folders",
        creations: dict[str, Creation],
    ) -> None:
        own = _UnnamedFiles(ahead.root, self._calls)
        try:
            descriptors = [
                own.write(file) if (found := ahead.descriptor_of(file)) is None else found
                for file in files
            ]
            self._calls.syncfs(ahead.root)
            for file, descriptor in zip(files, descriptors, strict=True):
                link = partial(self._link, descriptor)
                creations[file.path] = self._publish(file, folders, link, creations)
        finally:
            own.close()

    def _commit_named(
        self, files: Iterable[NewFile], folders: "Folders", creations: dict[str, Creation]
    ) -> None:
        """Create files where the file system lacks O_TMPFILE or syncfs: a flush for each."""
        for file in files:
            with ExitStack() as open_file:
                handle = NewFileHandle(folders.root, self._calls, open_file, unnamed=False)
                handle.write(file.content)
                self._calls.set_mode(handle.descriptor, _mode_of(file))
                self._calls.fsync(handle.descriptor)
                creations[file.path] = self._publish(file, folders, handle.link, creations)
        folders.flush()

    def _link(self, descriptor: int, name: str, folder: int) -> bool:
        """Give a file its name; False where there is one already."""
        try:
            self._calls.link_unnamed(descriptor, name, folder)
        except FileExistsError:
            return False
        return True

    def _publish(
        self,
        file: NewFile,
        folders: "Folders",
        link: Callable[[str, int], bool],
        creations: dict[str, Creation],
    ) -> Creation:
        if file.needs and any(creations[path] is Creation.DIFFERENT for path in file.needs):
            return Creation.NOT_MADE
        folder, name = folders.of(file.path, private=file.private)
        if link(name, folder):
            return Creation.CREATED
        same = self._holds(name, folder, file.content)
        return Creation.SAME if same else Creation.DIFFERENT

    def _holds(self, name: str, folder: int, content: bytes) -> bool:
        """Return whether a file has exactly `content`; flush it, as its writer may have died."""
        try:
            descriptor, _ = open_regular(name, folder, self._calls)
        except NotAFileError:
            return False
        try:
            same = has_bytes(descriptor, sha256_of_bytes(content), len(content))
            if same and not self.group_commits:
                self._calls.fsync(descriptor)
            return same
        finally:
            self._calls.close(descriptor)


def _mode_of(file: NewFile) -> int:
    return PRIVATE_FILE_MODE if file.private else FILE_MODE


class _UnnamedFiles:
    """Files that have no name yet, open until they are closed.

    The mode is given when a file is opened. What a umask takes from it, it takes from all of them,
    so the first of each mode shows whether it must be set again.
    """

    def __init__(self, folder: int, calls: SystemCalls) -> None:
        self._folder = folder
        self._calls = calls
        self._descriptors: list[int] = []
        self._is_exact: dict[int, bool] = {}

    def write(self, file: NewFile) -> int:
        """Write a file; return its descriptor."""
        descriptor = self._calls.open_unnamed(self._folder, mode := _mode_of(file))
        self._descriptors.append(descriptor)
        self._calls.write_all(descriptor, file.content)
        if mode not in self._is_exact:
            self._is_exact[mode] = self._calls.mode_of(descriptor) == mode
        if not self._is_exact[mode]:
            self._calls.set_mode(descriptor, mode)
        return descriptor

    def close(self) -> None:
        """Close every one of them; a fault of one comes after all."""
        try:
            while self._descriptors:
                self._calls.close(self._descriptors.pop())
        except BaseException:
            with ExitStack() as rest:
                while self._descriptors:
                    rest.callback(self._calls.close, self._descriptors.pop())
            raise


class WrittenFiles:
    """Contents on the disk that have no name yet; those that get none are gone when it is closed.

    Attributes:
        root: The descriptor of the root folder; the flushes go through it.
        open_files: What is open.
        files: Each file that is written, by its path, with its descriptor.
    """

    def __init__(self, root: Path, calls: SystemCalls) -> None:
        """Open the root, before a byte is written.

        Linux reports a failed write-back once to each descriptor, for what failed since that was
        opened (syncfs(2)): a flush through an older one than the first byte misses nothing.
        """
        self.open_files = ExitStack()
        self.root = calls.open_folder(str(root))
        self.open_files.callback(calls.close, self.root)
        unnamed = _UnnamedFiles(self.root, calls)
        self.open_files.callback(unnamed.close)
        self.write = unnamed.write
        self.files: dict[str, tuple[NewFile, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close everything that is open; a second time nothing is."""
        self.open_files.close()

    def descriptor_of(self, file: NewFile) -> int | None:
        """Return what was written with these bytes and this mode, if anything was."""
        found, descriptor = self.files.get(file.path, (None, None))
        same = found and (found.content, found.private) == (file.content, file.private)
        return descriptor if same else None


def _rounds(files: Iterable[NewFile], ahead: WrittenFiles) -> Iterator[list[NewFile]]:
    """Cut `files` after so many as a round may write itself."""
    batch, unwritten = list[NewFile](), 0
    for file in files:
        if ahead.descriptor_of(file) is None:
            if unwritten == ROUND_FILES:
                yield batch
                batch, unwritten = [], 0
            unwritten += 1
        batch.append(file)
    yield batch


def _files_ahead() -> int:
    """Return how many files one `write` may open: a round has up to two folders of each beside."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    is_bound = limit != resource.RLIM_INFINITY
    return min(AHEAD_FILES, (limit - _OPEN_BESIDE) // 4) if is_bound else AHEAD_FILES
