"""The index opened by readers: no file is made or changed, and no lock of a writer is waited for.

In WAL mode SQLite keeps two files beside the index while anybody has it open: `-wal`, the log, and
`-shm`, by which processes share where in the log they are. Who may not write cannot make them, and
who may should not. So it depends on what is there:

| `-shm` | `-wal` | opened | why |
|---|---|---|---|
| yes | | `mode=ro` | SQLite's own way, beside writers that go on; after a killed writer too |
| no | yes | `vfs=unix-none`, the place in the log in memory | a copy: every writer has a `-shm` |
| no | no | `immutable=1` | nobody has it open, so the file is all |

In the two last cases nothing is locked: a writer may begin meanwhile. So the files are looked at
before and after each use, and what was read while they changed is refused (0043).
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Final
from urllib.parse import quote

from sqlalchemy import MetaData, create_engine
from sqlalchemy.pool import StaticPool

from pipeline.errors import StoreError

LOCK_SECONDS = 60.0
"""Longest wait for a lock of SQLite, which a writer holds for moments."""

_TRIES = 5
"""Writers that come and go while the index is opened."""

_FileState = tuple[int, int, int]


class Way(Enum):
    """How the index is read."""

    SHARED = "mode=ro"
    LOG_ALONE = "mode=ro&vfs=unix-none"
    STILL = "mode=ro&immutable=1"


@dataclass(frozen=True, slots=True)
class Files:
    """The files of an index at one moment."""

    index: _FileState | None
    log: _FileState | None
    is_shared: bool

    @classmethod
    def of(cls, path: Path) -> "Files":
        """Look at them."""
        return cls(_state(path), _state(f"{path}-wal"), is_shared=os.path.lexists(f"{path}-shm"))

    @property
    def way(self) -> Way:
        """How they are to be read."""
        if self.is_shared:
            return Way.SHARED
        return Way.STILL if self.log is None else Way.LOG_ALONE


def _state(path: str | Path) -> _FileState | None:
    try:
        found = os.stat(path)  # noqa: PTH116  # as text: two are looked at around each look-up
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


class ReadConnection(sqlite3.Connection):
    """A connection that can only read, and knows whether what it reads may have changed."""

    dialect_name: Final = "sqlite"
    path: Path | None = None
    files: Files | None = None

    @property
    def is_current(self) -> bool:
        """Whether it may be used: with locks always, else while the files are as they were."""
        if self.path is None or self.files is None or self.files.way is Way.SHARED:
            return True
        return Files.of(self.path) == self.files

    @contextmanager
    def one_state(self) -> Iterator[None]:
        """Let all statements of a block read the same state."""
        self.execute("BEGIN")
        try:
            yield
        finally:
            self.execute("ROLLBACK")

    def check(self) -> None:
        """Refuse what was read.

        Raises:
            StoreError: The files have changed since the connection was opened without locks.
        """
        if not self.is_current:
            raise StoreError(
                f"A worker began to write into the index {self.path} while it was read: ask again."
            )


def open_beside(path: Path) -> ReadConnection:
    """Open the index at `path` for look-ups of its own writer, which has its files open."""
    # Where there is no file, none is made.
    connection = _connected(path, "mode=rw")
    connection.execute("PRAGMA query_only=ON")
    return connection


def open_to_read(path: Path) -> ReadConnection:
    """Open the index at `path`, which is there.

    Raises:
        sqlite3.Error: It cannot be opened.
    """
    for _ in range(_TRIES - 1):
        files = Files.of(path)
        try:
            connection = _opened(path, files)
        except sqlite3.OperationalError:
            # A writer came or went: then it is another way.
            if Files.of(path).way is files.way:
                raise
            continue
        if connection.is_current:
            return connection
        connection.close()
    return _opened(path, Files.of(path))


def _opened(path: Path, files: Files) -> ReadConnection:
    connection = _connected(path, files.way.value)
    connection.path, connection.files = path, files
    try:
        if files.way is Way.LOG_ALONE:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("PRAGMA query_only=ON")
        # SQLite opens its files at the first look into them.
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _connected(path: Path, how: str) -> ReadConnection:
    return sqlite3.connect(
        f"file:{quote(str(path))}?{how}",
        uri=True,
        timeout=LOCK_SECONDS,
        check_same_thread=False,
        isolation_level=None,
        factory=ReadConnection,
    )


def open_nothing(metadata: MetaData) -> ReadConnection:
    """Return an index with nothing in the tables of `metadata`, for a store that has none yet."""
    connection = sqlite3.connect(
        ":memory:", check_same_thread=False, isolation_level=None, factory=ReadConnection
    )
    connection.deserialize(_nothing(metadata))
    return connection


@lru_cache(maxsize=1)
def _nothing(metadata: MetaData) -> bytes:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with engine.connect() as made:
        metadata.create_all(made)
        made.commit()
        driver = made.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)  # as SQLAlchemy has it
        content = driver.serialize()
    engine.dispose()
    return content


@contextmanager
def checked(connection: ReadConnection) -> Iterator[None]:
    """Refuse what a block has read, where it may have changed meanwhile."""
    yield
    connection.check()
