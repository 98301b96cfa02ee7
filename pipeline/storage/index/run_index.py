"""The index: one row a run and one an advisory. It decides who was first.

It can be rebuilt. The database that keeps it is another's: `pipeline/disk/sqlite` on one disk.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
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
from pipeline.disk.sqlite.database import open_database, open_database_to_read
from pipeline.disk.volume import INDEX_NAME
from pipeline.ledger.log_id import LogId
from pipeline.storage.index import queries, tables
from pipeline.storage.index.database import Database, Reader, driver_text
from pipeline.storage.index.queries import LOOKUP_IDS, IndexTransaction, Question
from pipeline.storage.index.schema import SCHEMA
from pipeline.storage.index.tables import (
    IndexedRun,
    advisories,
    advisory_of_row,
    runs,
    stored_run_of_row,
)

INDEX_FILE = INDEX_NAME
"""Of a store on one disk, in its folder."""

_RUN_NAMES = tuple(runs.c.keys())
_ADVISORY_NAMES = tuple(advisories.c.keys())
_IS_RUN = runs.c.run_id == bindparam("run_id")
_RUN = select(runs).where(_IS_RUN)
# One statement, so one state, and a third of the calls in which a thread lets others go first.
_RUN_WITH_LINKS = (
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
    """The index of one store, over the database that keeps its rows.

    A fault of the database is a StoreError, and one of memory a MemoryError, whatever is read or
    written.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    @property
    def fails_over(self) -> bool:
        """Whether it may lose rows that it has committed, as another server takes its place."""
        return self.database.fails_over

    @property
    def was_replaced(self) -> bool:
        """Whether another index is in its place now, as after a rebuild."""
        return self.database.was_replaced

    def close(self) -> None:
        """Close every connection."""
        self.database.close()

    @contextmanager
    def transaction(
        self, places: Collection[LogId] = (), questions: Sequence[Question] = ()
    ) -> Iterator[IndexTransaction]:
        """Begin to write; commit at the end of the block, or roll back if it raises.

        Args:
            places: The partitions that the block goes on with: nobody else does meanwhile.
            questions: What it asks first.
        """
        name = self.database.dialect_name
        asked = [(driver_text(each.statement, name), each.values) for each in questions]
        with self.database.transaction(places, asked) as begun:
            yield IndexTransaction(begun, name)

    def reading(self) -> AbstractContextManager[Connection]:
        """Read one consistent state while the block runs."""
        return self.database.reading()

    def looking_up(self) -> AbstractContextManager[Reader]:
        """Lend a connection of the driver, which can only read; each statement reads one state."""
        return self.database.looking_up()

    def find(self, run_id: str) -> StoredRun | None:
        """Return the run, or None where the index has none."""
        with self.looking_up() as connection:
            row = connection.execute(
                driver_text(_RUN, connection.dialect_name), {"run_id": run_id}
            ).fetchone()
        return None if row is None else _run(row)

    def find_with_links(self, run_id: str) -> tuple[StoredRun | None, list[StoredAdvisory]]:
        """Return the run, and its linked advisories by (created_at_utc, advisory_id).

        A link that no record explains is none.
        """
        with self.looking_up() as connection:
            rows = connection.execute(
                driver_text(_RUN_WITH_LINKS, connection.dialect_name), {"run_id": run_id}
            ).fetchall()
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
    return RunIndex(open_database(root, SCHEMA))


def open_index_to_read(root: Path) -> RunIndex:
    """Open the index of the store at `root` to read it: who holds the lock may hold it for long.

    No file is made or changed: where no index was made yet, there is nothing in it. What an older
    version did not make is made now, for which the lock is taken.

    Raises:
        StoreNotReadyError: The index is missing or empty though there are runs, or damaged.
    """
    return RunIndex(open_database_to_read(root, SCHEMA))
