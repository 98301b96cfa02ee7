"""The database of an index on one disk: an SQLite file, and the lock by which writers take turns.

SQLite in WAL mode with `synchronous=FULL`, so a committed row survives a power cut.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, Table

from pipeline.disk.faults import store_faults
from pipeline.disk.locks import INDEX_LOCK, exclusive_lock
from pipeline.disk.owner import refuse_as_root
from pipeline.disk.sqlite import file
from pipeline.disk.sqlite.reading import (
    ReadConnection,
    checked,
    open_beside,
    open_nothing,
    open_to_read,
)
from pipeline.disk.sqlite.schema import Schema
from pipeline.disk.volume import INDEX_NAME
from pipeline.errors import StoreError, StoreNotReadyError


class SqliteTransaction:
    """What is written between a begin and a commit: all of it at once."""

    def __init__(
        self, connection: Connection, questions: Sequence[tuple[str, Mapping[str, Any]]]
    ) -> None:
        self.connection = connection
        self.may_lack_rows = False
        self.answers: list[Sequence[Mapping[Any, Any]]] = [
            connection.exec_driver_sql(query, values).mappings().all()
            for query, values in questions
        ]

    def claim(self, table: Table, rows: Sequence[tuple[Any, ...]]) -> Sequence[tuple[Any, ...]]:
        """Insert `rows`, all of them the first of their key: nobody else writes meanwhile."""
        self.insert(table, rows)
        return ()

    def insert(self, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert whole rows, each in the order of the columns."""
        # Straight to the driver: binding 26 named values a row took longer than the insert.
        self.connection.exec_driver_sql(_insert(table.name, len(table.c)), list(rows))

    def write(self, statement: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run a statement for each of `rows`."""
        self.connection.exec_driver_sql(statement, rows)


class SqliteDatabase:
    """The index file of one store. Its writers take turns by the lock of the store.

    A fault of the disk or of the file is a StoreError, and one of memory a MemoryError, whatever
    is read or written.
    """

    dialect_name: Final = "sqlite"

    def __init__(self, path: Path, schema: Schema, *, may_be_new: bool = True) -> None:
        """Open the file at `path`, made where it is missing or empty.

        Args:
            path: The file. Opened by SQLite alone: who closes a file ends every lock of its process
                on it (POSIX), those of SQLite too. Another process would then delete the log that a
                writer goes on to write into.
            schema: Its tables.
            may_be_new: Whether an index without anything in it can be the right one.

        Raises:
            StoreNotReadyError: The file is damaged, of another format, or empty and may not be.
        """
        self._file: tuple[int, int] | None = None
        self._hold(path, partial(open_beside, path), file.open_engine(path))
        try:
            file.check_is_file(path)
            file.prepare(self._writer, path, schema, may_be_new=may_be_new)
            self._file = _identity(path)
        except BaseException:
            self.close()
            raise

    @classmethod
    def to_read(cls, path: Path, schema: Schema, *, is_made: bool) -> "SqliteDatabase":
        """Open the file at `path` for reading alone, or none where none is made yet."""
        opened = cls.__new__(cls)
        connect = partial(open_to_read, path) if is_made else partial(open_nothing, schema.metadata)
        opened._hold(path, connect)
        opened._file = _identity(path) if is_made else None
        return opened

    def _hold(
        self, path: Path, connect: Callable[[], ReadConnection], writer: Engine | None = None
    ) -> None:
        self._path = path
        self._root = path.parent
        self.engine = file.open_reading_engine(connect)
        self._writer = writer or self.engine
        self._look_ups = file.ReadConnections(connect)

    @property
    def fails_over(self) -> bool:
        """Never: what is committed is on the disk. An older file is one that somebody put there."""
        return False

    @property
    def was_replaced(self) -> bool:
        """Whether another file is under the index's name now, as after a rebuild or a mount.

        Where there was none, it is to be looked for each time: nothing in it is no lasting answer.
        """
        try:
            return _identity(self._path) != self._file
        except FileNotFoundError:
            return True

    def close(self) -> None:
        """Close every connection."""
        self._look_ups.close()
        self.engine.dispose()
        self._writer.dispose()

    @contextmanager
    def transaction(
        self,
        places: Collection[object] = (),
        questions: Sequence[tuple[str, Mapping[str, Any]]] = (),
    ) -> Iterator[SqliteTransaction]:
        """Begin to write; commit at the end of the block, or roll back if it raises.

        Args:
            places: What the block goes on with, alone. One disk knows one lock for all of them;
                without any the block waits for SQLite's own.
            questions: What it asks first: queries, and their values by name.
        """
        turn = self._turn() if places else nullcontext()
        with store_faults(self._root), turn, self._writer.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield SqliteTransaction(connection, questions)
                connection.exec_driver_sql("COMMIT")
            except BaseException:
                # Not by a statement: after a fault of the disk SQLite may have rolled back by
                # itself, and the complaint about that would hide the fault.
                connection.rollback()
                raise

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Hold the lock of the store."""
        # SQLite's own waiting starves a second writer.
        with exclusive_lock(self._root / INDEX_LOCK):
            if self.was_replaced:
                raise StoreError(
                    f"The index of the store {self._root} was rebuilt or removed meanwhile; "
                    "nothing was acknowledged; start again."
                )
            yield

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Read one consistent state while the block runs."""
        with store_faults(self._root), self.engine.connect() as connection:
            driver = connection.connection.driver_connection
            reader = driver if isinstance(driver, ReadConnection) else None
            connection.exec_driver_sql("BEGIN")
            try:
                with nullcontext() if reader is None else checked(reader):
                    yield connection
            finally:
                connection.rollback()

    @contextmanager
    def looking_up(self) -> Iterator[ReadConnection]:
        """Lend a connection of the driver, which can only read; each statement reads one state."""
        with store_faults(self._root), self._look_ups.borrowed() as connection:
            yield connection

    def fold_log(self) -> None:
        """Move everything from the write-ahead log into the file itself, durably."""
        with store_faults(self._root), self._writer.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


@cache
def _insert(table: str, width: int) -> str:
    # The name is a constant of ours; values are bound.
    return f"INSERT INTO {table} VALUES ({', '.join('?' * width)})"  # noqa: S608


def open_database(root: Path, schema: Schema) -> SqliteDatabase:
    """Open the index of the store at `root`; a new store has none yet.

    Raises:
        StoreNotReadyError: The index is missing or empty though there are runs, or damaged.
    """
    path = root / INDEX_NAME
    refuse_as_root(root)
    with store_faults(root), exclusive_lock(root / INDEX_LOCK):
        has_runs = any((root / "runs").glob("*/*"))
        if has_runs and not path.exists():
            raise StoreNotReadyError(
                f"The index of the store {root} is missing: run rmos index rebuild."
            )
        return SqliteDatabase(path, schema, may_be_new=not has_runs)


def open_database_to_read(root: Path, schema: Schema) -> SqliteDatabase:
    """Open the index of the store at `root` to read it: who holds the lock may hold it for long.

    No file is made or changed: where no index was made yet, there is nothing in it. What an older
    version did not make is made now, for which the lock is taken.

    Raises:
        StoreNotReadyError: The index is missing or empty though there are runs, or damaged.
    """
    path = root / INDEX_NAME
    with store_faults(root):
        made = file.what_is_made(path, schema)
        if made is file.Made.PARTS:
            open_database(root, schema).close()
        elif made is file.Made.NOTHING and any((root / "runs").glob("*/*")):
            found = (
                f"The index {path} is empty, but there are runs"
                if path.exists()
                else f"The index of the store {root} is missing"
            )
            raise StoreNotReadyError(f"{found}: run rmos index rebuild.")
        return SqliteDatabase.to_read(path, schema, is_made=made is not file.Made.NOTHING)


def _identity(path: Path) -> tuple[int, int]:
    """Return which file it is: a copy of its volume has one with the same inode."""
    state = path.stat()
    return state.st_dev, state.st_ino
