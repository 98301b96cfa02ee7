"""The file of the index: opened with its settings, its format checked, damage named."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from functools import partial
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, Index, Table, create_engine, event
from sqlalchemy.exc import DatabaseError, DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from pipeline.core.store.files import NotAFileError
from pipeline.disk.regular_files import state_of
from pipeline.disk.sqlite.reading import LOCK_SECONDS, ReadConnection, checked, open_to_read
from pipeline.disk.sqlite.schema import Schema
from pipeline.errors import StoreNotReadyError

_CACHE_KIB = 16_384
"""Pages that are kept: those to which each run_id leads at random are read again less often."""

_SPILL_PAGES = 10_000
"""Pages of 4 KiB that one transaction may change before some go into the log ahead of its commit.

A chunk of 512 runs with random dates changes 5,000. What is spilled is read back and written again;
without a bound the one transaction of a rebuild would take the memory of the whole index. No
multiple of 256: SQLite reads the last byte as a switch too, and 0 as off.
"""

_CHECKPOINT_PAGES = 16_000
"""Pages in the log after which a commit copies them into the file: 64 MiB.

A page that changes often is copied once for all its changes. Every commit is durable by the log.
"""


def check_is_file(path: Path) -> None:
    """Refuse what SQLite would follow, or wait for."""
    try:
        state_of(str(path))
    except NotAFileError as error:
        raise StoreNotReadyError(
            f"Expected the index {path} to be a file, found {error}: run rmos index rebuild."
        ) from error


def open_engine(path: Path) -> Engine:
    """Return an engine that writes; its connection keeps the journal and the keys as it must."""
    # Transactions are begun by statements, so the driver must not begin any itself.
    engine = create_engine(
        # Not as text, in which a `?` of the path would begin options.
        URL.create("sqlite", database=str(path)),
        paramstyle="named",
        # Two that took turns would read all pages again each time, as the other has written.
        pool_size=1,
        connect_args={"timeout": LOCK_SECONDS, "check_same_thread": False, "isolation_level": None},
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, record: ConnectionPoolEntry) -> None:
        del record
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        connection.execute(f"PRAGMA cache_spill={_SPILL_PAGES}")
        connection.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")

    return engine


def open_reading_engine(connect: Callable[[], ReadConnection]) -> Engine:
    """Return an engine whose connections are those of `connect`; an outdated one is replaced."""
    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool, paramstyle="named")

    @event.listens_for(engine, "checkout")
    def replace_outdated(connection: ReadConnection, *_record: object) -> None:
        if not connection.is_current:
            raise DisconnectionError

    return engine


class ReadConnections:
    """Connections of the driver alone, for look-ups: each thread borrows one for a moment.

    SQLAlchemy takes about 100 us for a query of one row, SQLite and its driver 8.
    """

    def __init__(self, connect: Callable[[], ReadConnection]) -> None:
        """Prepare; nothing is opened.

        Args:
            connect: Opens a connection that can only read.
        """
        self._connect = connect
        self._idle: list[ReadConnection] = []
        self._is_closed = False

    @contextmanager
    def borrowed(self) -> Iterator[ReadConnection]:
        """Lend a connection that can only read; each statement reads one state.

        Raises:
            sqlite3.Error: The file cannot be opened.
            StoreError: A writer began meanwhile where nothing is locked.
        """
        connection = self._current()
        try:
            with checked(connection):
                yield connection
        except BaseException:
            # It may be inside a transaction that could not be rolled back.
            connection.close()
            raise
        # Appended first: of this and a close meanwhile, one finds it.
        self._idle.append(connection)
        if self._is_closed:
            self.close()

    def _current(self) -> ReadConnection:
        """Return one that is idle, or a new one; those that are out of date are closed."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self._connect()
            if connection.is_current:
                return connection
            connection.close()

    def close(self) -> None:
        """Close each connection, those that are lent when they come back."""
        self._is_closed = True
        while self._idle:
            # Of two that close at the same time each takes others.
            with suppress(IndexError):
                self._idle.pop().close()


def read_only(path: Path) -> ReadConnection:
    """Open the index at `path` as SQLite does by itself, so that nothing is made or changed.

    Raises:
        sqlite3.Error: There is none, or something that is no regular file.
    """
    try:
        state_of(str(path))
    except NotAFileError as error:
        raise sqlite3.OperationalError(str(error)) from error
    address = f"file:{quote(str(path))}?mode=ro"
    return ReadConnection(address, uri=True, check_same_thread=False)


class Made(Enum):
    """What of an index is there."""

    NOTHING = 0
    PARTS = 1
    """All but what this version adds."""
    ALL = 2


def what_is_made(path: Path, schema: Schema) -> Made:
    """Return what of an index is at `path`; nothing is made, and no writer is waited for.

    Raises:
        StoreNotReadyError: The file is damaged, or of another format.
    """
    if not path.exists():
        return Made.NOTHING
    check_is_file(path)
    engine = open_reading_engine(partial(open_to_read, path))
    try:
        with damage_reported(path), engine.connect() as connection:
            found = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            missing = _missing(connection, schema)
    finally:
        engine.dispose()
    if found == 0:
        return Made.NOTHING
    _check_format(found, path, schema)
    return Made.PARTS if missing else Made.ALL


def prepare(engine: Engine, path: Path, schema: Schema, *, may_be_new: bool) -> None:
    """Make the tables of a new file, check the format of an old one."""
    with damage_reported(path), engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        found = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        if found == schema.format:
            for each in _missing(connection, schema):
                each.create(connection)
        if found == 0 and may_be_new:
            schema.metadata.create_all(connection)
            connection.exec_driver_sql(f"PRAGMA user_version={schema.format}")
        connection.exec_driver_sql("COMMIT")
    if found == 0 and not may_be_new:
        raise StoreNotReadyError(
            f"The index {path} is empty, but there are runs: run rmos index rebuild."
        )
    if found != 0:
        _check_format(found, path, schema)


def _missing(connection: Connection, schema: Schema) -> list[Table | Index]:
    """Return what an older index of this format lacks, by one look: to check each takes 1 ms."""
    names = set(connection.exec_driver_sql("SELECT name FROM sqlite_master").scalars())
    return [each for each in schema.added if each.name not in names]


@contextmanager
def damage_reported(path: Path) -> Iterator[None]:
    """Turn what SQLite says of a damaged file into the way out."""
    try:
        yield
    except DatabaseError as error:
        if not _is_damaged(error):
            raise
        raise StoreNotReadyError(
            f"The index {path} cannot be read ({error.orig}): run rmos index rebuild."
        ) from error


def _check_format(found: int, path: Path, schema: Schema) -> None:
    if found != schema.format:
        raise StoreNotReadyError(
            f"Expected the index {path} to be of format {schema.format}, found {found}: "
            "run rmos index rebuild."
        )


def _is_damaged(error: DatabaseError) -> bool:
    code = getattr(error.orig, "sqlite_errorcode", None)
    # The low byte is the kind of error, the others give detail (sqlite.org/rescode.html).
    return code is not None and code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
