"""The index: one row a run and one an advisory, in SQLite. It decides who was first.

It can be rebuilt. SQLite in WAL mode with `synchronous=FULL`, so a committed row survives a
power cut.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    Index,
    RowMapping,
    Select,
    Table,
    and_,
    bindparam,
    exists,
    func,
    or_,
    select,
)

from pipeline.core.advisories.outcome import StoredAdvisory
from pipeline.core.record import Partition
from pipeline.core.runs.outcome import StoredRun
from pipeline.disk.faults import store_faults
from pipeline.disk.locks import INDEX_LOCK, exclusive_lock
from pipeline.disk.store_identity import refuse_as_root
from pipeline.disk.volume import INDEX_NAME
from pipeline.errors import StoreNotReadyError
from pipeline.storage.index import engine, queries, tables
from pipeline.storage.index.queries import LOOKUP_IDS, IndexTransaction
from pipeline.storage.index.reading import (
    ReadConnection,
    checked,
    open_beside,
    open_nothing,
    open_to_read,
)
from pipeline.storage.index.tables import (
    IndexedRun,
    advisories,
    advisory_of_row,
    driver_text,
    runs,
    stored_run_of_row,
)

INDEX_FILE = INDEX_NAME
"""Opened by SQLite alone: who closes a file ends every lock of its process on it (POSIX), those of
SQLite too. Another process would then delete the log that a writer goes on to write into."""


# A listing leaves out the runs whose file no record explains.
Index(
    "runs_unexplained",
    runs.c.source_offset,
    runs.c.run_id,
    sqlite_where=runs.c.source_offset.is_(None),
)


Index(
    "advisories_unlinked",
    advisories.c.source_epoch,
    advisories.c.source_topic,
    advisories.c.source_partition,
    advisories.c.source_offset,
    sqlite_where=advisories.c.link_path.is_(None),
)


_RUN_NAMES = tuple(runs.c.keys())
_ADVISORY_NAMES = tuple(advisories.c.keys())
_IS_RUN = runs.c.run_id == bindparam("run_id")
_RUN = driver_text(select(runs).where(_IS_RUN))
# One statement, so one state, and a third of the calls in which a thread lets others go first.
_RUN_WITH_LINKS = driver_text(
    select(runs, advisories)
    .outerjoin(
        advisories,
        and_(
            advisories.c.run_id == runs.c.run_id,
            advisories.c.link_path.is_not(None),
            advisories.c.source_offset.is_not(None),
        ),
    )
    .where(_IS_RUN)
    .order_by(advisories.c.created_at_us, advisories.c.advisory_id)
)


class RunIndex:
    """The index file of one store. Its writers take turns by the lock of the store.

    A fault of the disk or of the file is a StoreError, and one of memory a MemoryError, whatever
    is read or written.
    """

    def __init__(self, path: Path, *, may_be_new: bool = True) -> None:
        """Open the index at `path`, made where it is missing or empty.

        Args:
            path: The file.
            may_be_new: Whether an index without anything in it can be the right one.

        Raises:
            StoreNotReadyError: The file is damaged, of another format, or empty and may not be.
        """
        self._inode: int | None = None
        self._hold(path, engine.open_engine(path), partial(open_beside, path))
        try:
            engine.check_is_file(path)
            engine.prepare(self._engine, path, may_be_new=may_be_new)
            self._inode = path.stat().st_ino
        except BaseException:
            self.close()
            raise

    @classmethod
    def to_read(cls, path: Path, *, is_made: bool) -> "RunIndex":
        """Open the index at `path` for reading alone, or none where none is made yet."""
        index = cls.__new__(cls)
        connect = partial(open_to_read, path) if is_made else open_nothing
        index._hold(path, engine.open_reading_engine(connect), connect)
        index._inode = path.stat().st_ino if is_made else None
        return index

    def _hold(self, path: Path, opened: Engine, connect: Callable[[], ReadConnection]) -> None:
        self._path = path
        self._root = path.parent
        self._engine = opened
        self._look_ups = engine.LookUps(connect)

    @property
    def was_replaced(self) -> bool:
        """Whether another file is under the index's name now, as after a rebuild.

        Where there was none, it is to be looked for each time: nothing in it is no lasting answer.
        """
        try:
            return self._path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    def close(self) -> None:
        """Close every connection."""
        self._look_ups.close()
        self._engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[IndexTransaction]:
        """Begin to write; commit at the end of the block, or roll back if it raises."""
        with store_faults(self._root), self._engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield IndexTransaction(connection)
                connection.exec_driver_sql("COMMIT")
            except BaseException:
                # Not by a statement: after a fault of the disk SQLite may have rolled back by
                # itself, and the complaint about that would hide the fault.
                connection.rollback()
                raise

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Read one consistent state while the block runs."""
        with store_faults(self._root), self._engine.connect() as connection:
            driver = connection.connection.driver_connection
            reader = driver if isinstance(driver, ReadConnection) else None
            connection.exec_driver_sql("BEGIN")
            try:
                with nullcontext() if reader is None else checked(reader):
                    yield connection
            finally:
                connection.rollback()

    @contextmanager
    def looking_up(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection of the driver, which can only read; each statement reads one state."""
        with store_faults(self._root), self._look_ups.borrowed() as connection:
            yield connection

    def find(self, run_id: str) -> StoredRun | None:
        """Return the run, or None where the index has none."""
        with self.looking_up() as connection:
            row = connection.execute(_RUN, {"run_id": run_id}).fetchone()
        return None if row is None else _run(row)

    def find_with_links(self, run_id: str) -> tuple[StoredRun | None, list[StoredAdvisory]]:
        """Return the run, and its linked advisories by (created_at_utc, advisory_id).

        A link that no record explains is none.
        """
        with self.looking_up() as connection:
            rows = connection.execute(_RUN_WITH_LINKS, {"run_id": run_id}).fetchall()
        if not rows:
            return None, []
        width = len(_RUN_NAMES)
        links = [_advisory(row[width:]) for row in rows if row[width] is not None]
        return _run(rows[0][:width]), links

    def find_all(self, run_ids: Sequence[str]) -> dict[str, StoredRun]:
        """Return those of `run_ids` that the index holds, by run_id."""
        with self.reading() as connection:
            return queries.known_runs(connection, run_ids)

    def positions(self, epoch: int) -> dict[Partition, int]:
        """Return the next offset of each topic and partition in `epoch`."""
        with self.reading() as connection:
            return queries.positions(connection, epoch)

    def accepted_losses(self, epoch: int) -> dict[Partition, int]:
        """Return up to which offset of each topic and partition a loss was accepted."""
        with self.reading() as connection:
            return queries.accepted_losses(connection, epoch)

    def kept_to(self, epoch: int) -> dict[Partition, int]:
        """Return before which offset of each partition everything is here or was given up."""
        with self.reading() as connection:
            kept = queries.positions(connection, epoch)
            for partition, given_up in queries.accepted_losses(connection, epoch).items():
                kept[partition] = max(given_up, kept.get(partition, 0))
        return kept

    def topic_ids(self, epoch: int) -> dict[str, str]:
        """Return the id of each topic that the store keeps in `epoch`, where it is known."""
        with self.reading() as connection:
            rows = connection.execute(select(tables.topic_ids).filter_by(epoch=epoch))
            return {row.topic: row.topic_id for row in rows}

    def all_runs(self) -> Iterator[StoredRun]:
        """Return every run, in the order of run_ids."""
        return map(stored_run_of_row, self._all(select(runs).order_by(runs.c.run_id)))

    def all_advisories(self) -> Iterator[StoredAdvisory]:
        """Return every advisory, linked or not, in the order of run_id and advisory_id."""
        query = select(advisories).order_by(advisories.c.run_id, advisories.c.advisory_id)
        return map(advisory_of_row, self._all(query))

    def _all(self, query: Select[Any]) -> Iterator[RowMapping]:
        with self.reading() as connection:
            found = connection.execution_options(yield_per=LOOKUP_IDS).execute(query)
            yield from found.mappings()

    def differing_columns(self, expected: IndexedRun) -> list[str]:
        """Return where the index differs from `expected` about a run, except in its source.

        A run that is not there differs in nothing: its path shows it.
        """
        run_id = expected.row[0]
        with self.reading() as connection:
            row = connection.execute(select(runs).where(runs.c.run_id == run_id)).one_or_none()
            if row is None:
                return []
            differing = [
                column.name
                for column, found, wanted in zip(runs.c, row, expected.row, strict=True)
                if found != wanted and not column.name.startswith("source_")
            ]
            parts = (
                (tables.attachments, expected.attachments),
                (tables.withheld_blobs, expected.withheld),
                (tables.withheld_payloads, expected.withheld_payloads),
            )
            for table, wanted_rows in parts:
                if wanted_rows is None:
                    continue
                query = select(table).where(table.c.run_id == run_id)
                found_rows = [tuple(each) for each in connection.execute(query)]
                if sorted(found_rows) != sorted(wanted_rows):
                    differing.append(table.name)
        return differing

    def is_withheld(self, sha256: str) -> bool:
        """Return whether any run names this blob, or had its bytes inline, without showing it."""
        withheld = (tables.withheld_blobs, tables.withheld_payloads)
        query = select(or_(*(exists().where(table.c.sha256 == sha256) for table in withheld)))
        with self.reading() as connection:
            return bool(connection.execute(query).scalar_one())

    def fold_log(self) -> None:
        """Move everything from the write-ahead log into the file itself, durably."""
        with store_faults(self._root), self._engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def count(self) -> int:
        """Return the number of runs."""
        return self._count(runs)

    def count_advisories(self) -> int:
        """Return the number of advisories, linked or not."""
        return self._count(advisories)

    def _count(self, table: Table) -> int:
        with self.reading() as connection:
            return connection.execute(select(func.count()).select_from(table)).scalar_one()


def _run(row: tuple[Any, ...]) -> StoredRun:
    return stored_run_of_row(dict(zip(_RUN_NAMES, row, strict=True)))


def _advisory(row: tuple[Any, ...]) -> StoredAdvisory:
    return advisory_of_row(dict(zip(_ADVISORY_NAMES, row, strict=True)))


def open_index(root: Path) -> RunIndex:
    """Open the index of the store at `root`; a new store has none yet.

    Raises:
        StoreNotReadyError: The index is missing or empty though there are runs, or damaged.
    """
    path = root / INDEX_FILE
    refuse_as_root(root)
    with store_faults(root), exclusive_lock(root / INDEX_LOCK):
        has_runs = any((root / "runs").glob("*/*"))
        if has_runs and not path.exists():
            raise StoreNotReadyError(
                f"The index of the store {root} is missing: run rmos index rebuild."
            )
        return RunIndex(path, may_be_new=not has_runs)


def open_index_to_read(root: Path) -> RunIndex:
    """Open the index of the store at `root` to read it: who holds the lock may hold it for long.

    No file is made or changed: where no index was made yet, there is nothing in it. What an older
    version did not make is made now, for which the lock is taken.

    Raises:
        StoreNotReadyError: The index is missing or empty though there are runs, or damaged.
    """
    path = root / INDEX_FILE
    with store_faults(root):
        made = engine.what_is_made(path)
        if made is engine.Made.PARTS:
            open_index(root).close()
        elif made is engine.Made.NOTHING and any((root / "runs").glob("*/*")):
            found = (
                f"The index {path} is empty, but there are runs"
                if path.exists()
                else f"The index of the store {root} is missing"
            )
            raise StoreNotReadyError(f"{found}: run rmos index rebuild.")
        return RunIndex.to_read(path, is_made=made is not engine.Made.NOTHING)
