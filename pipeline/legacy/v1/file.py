"""The v1 store as a place to write: rows are added by replacing the whole file, atomically.

The procedure of a transaction, and what is left if the process dies after a step:

| step | if the process dies after it |
|---|---|
| 1. take the lock beside the file, read the file if it has changed | nothing |
| 2. write a new file beside it, flush it | the old file, and a new one that the next write drops |
| 3. rename the new file over the old one | the old file or the new one, whole either way |
| 4. flush the folder | the new file, for good |

A reader gets the old file or the new one, never a part. The lock holds only for programs
that take it: the program of v1 did not.
"""

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.core.json.strict import InvalidJsonError
from pipeline.disk.faults import store_faults
from pipeline.disk.locks import exclusive_lock
from pipeline.disk.regular_files import open_named
from pipeline.disk.small_files import open_over_leftover
from pipeline.disk.system_calls import LogSystemCalls
from pipeline.errors import StoreError
from pipeline.legacy.v1.text import format_row, format_rows, parse_rows

NEW_FILE_MODE = 0o644
_Identity = tuple[int, int, int, int]


class V1Transaction:
    """Rows that are there, and rows to add; all of these are written together.

    Attributes:
        texts: The text of each row that the file has, by run_id.
        added: The text of each row to add.
    """

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts = texts
        self.added: dict[str, str] = {}

    def add(self, run_id: str, value: Mapping[str, Any]) -> None:
        """Add a row under a run_id that the file has not: nothing is ever overwritten.

        Raises:
            ValueError: The run_id is there.
        """
        if run_id in self.texts or run_id in self.added:
            raise ValueError(f"expected a new run_id, found {run_id} in the v1 store")
        self.added[run_id] = format_row(value)


class V1Store:
    """The file of a v1 store. Transactions one at a time; other processes take turns by a lock."""

    def __init__(self, path: Path, calls: LogSystemCalls | None = None) -> None:
        """Prepare; nothing is read or made.

        Args:
            path: The file. Where it is a symbolic link, its target is replaced.
            calls: What is asked of the kernel.
        """
        self.path = path.resolve()
        self._calls = calls or LogSystemCalls()
        self._known: tuple[_Identity, dict[str, str]] | None = None

    def exists(self) -> bool:
        """Return whether the file is there.

        Raises:
            StoreError: It is unknown.
        """
        with store_faults(self.path):
            return self._stat() is not None

    def texts(self) -> Mapping[str, str]:
        """Return the text of every row, by run_id; none where there is no file.

        Raises:
            StoreError: The disk failed, or the file is no v1 store.
        """
        with store_faults(self.path):
            return self._read()

    def make(self) -> None:
        """Make a file without rows where there is none, so that its absence is a fault from now on.

        Raises:
            StoreError: The disk failed.
        """
        with self.locked() as replace:
            if self._stat() is None:
                replace(format_rows({}))

    @contextmanager
    def locked(self) -> Iterator[Callable[[bytes], _Identity]]:
        """Give what replaces the whole file, also an unreadable one; no other process writes.

        Raises:
            StoreError: The disk failed; the file is the old one or the new one.
        """
        lock = self.path.with_name(f"{self.path.name}.lock")
        with store_faults(self.path), exclusive_lock(lock):
            yield self._write

    @contextmanager
    def transaction(self) -> Iterator[V1Transaction]:
        """Add rows, all of them or none, while no other process does.

        Raises:
            StoreError: The disk failed, or the file is no v1 store; nothing may be acknowledged.
        """
        with self.locked() as replace:  # 1.
            transaction = V1Transaction(self._read())
            yield transaction
            if transaction.added:
                texts = {**transaction.texts, **transaction.added}
                self._known = (replace(format_rows(texts)), texts)

    def _stat(self) -> os.stat_result | None:
        try:
            return self.path.stat()
        except FileNotFoundError:
            return None

    def _read(self) -> dict[str, str]:
        try:
            with open_named(self.path) as file:
                identity = _identity(os.fstat(file.fileno()))
                if self._known is not None and self._known[0] == identity:
                    return self._known[1]
                body = file.read()
        except FileNotFoundError:
            return {}
        try:
            texts = {row.run_id: row.text for row in parse_rows(body)}
        except InvalidJsonError as error:
            raise StoreError(
                f"The v1 store {self.path} cannot be read: {error}; nothing was acknowledged; put "
                "back a whole copy of it, then start again."
            ) from error
        self._known = (identity, texts)
        return texts

    def _write(self, content: bytes) -> _Identity:
        self._known = None
        folder = self._calls.open_folder(str(self.path.parent))
        try:
            with self._new_name(folder) as name:
                identity = self._write_new(name, folder, content)  # 2.
                self._calls.replace(name, self.path.name, folder)  # 3.
            self._calls.fsync(folder)  # 4.
        finally:
            self._calls.close(folder)
        return identity

    @contextmanager
    def _new_name(self, folder: int) -> Iterator[str]:
        name = f".{self.path.name}.new"
        try:
            yield name
        except OSError:
            # On a full disk a part of a file would take the room that the next start needs.
            with suppress(OSError):
                self._calls.unlink(name, folder)
            raise

    def _write_new(self, name: str, folder: int, content: bytes) -> _Identity:
        before = self._stat()
        descriptor = open_over_leftover(self._calls, name, folder)
        try:
            self._calls.write_all(descriptor, content)
            mode = stat.S_IMODE(before.st_mode) if before is not None else NEW_FILE_MODE
            self._calls.set_mode(descriptor, mode)
            if before is not None and os.geteuid() == 0:
                # The program of v1 and our workers go on as the user that they were.
                os.fchown(descriptor, before.st_uid, before.st_gid)
            self._calls.fsync(descriptor)
            return _identity(os.fstat(descriptor))
        finally:
            self._calls.close(descriptor)


def _identity(status: os.stat_result) -> _Identity:
    """Return what changes where a file is replaced or written to."""
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
