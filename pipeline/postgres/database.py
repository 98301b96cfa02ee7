"""The database of an index that many hosts share.

A transaction begins with locks, in one order: the lock of the store, shared with all batches, and
the rows of the positions that the batch goes on with. So N hosts go on at the same time, and two
that both believe to own a partition take turns.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from typing import Any, Final

import psycopg
from sqlalchemy import Connection, Table

from pipeline.postgres.connections import ReadConnection, name_of, open_engine, open_to_read
from pipeline.postgres.faults import database_faults
from pipeline.postgres.store_row import (
    IN_FORCE,
    STORE_LOCK,
    StoreRow,
    hold_alone,
    refuse_change,
)
from pipeline.postgres.text import copy_as_is, kept_rows

_LOCK: Final = "SELECT pg_advisory_xact_lock_shared(%s)"
_KEYS: Final = "SELECT * FROM unnest(%s::int[], %s::text[], %s::int[])"
# The names are ours; values are bound.
_HOLD: Final = f"""SELECT epoch, topic, partition FROM positions
    WHERE (epoch, topic, partition) IN ({_KEYS}) ORDER BY epoch, topic, partition FOR UPDATE"""  # noqa: S608
_MAKE: Final = f"""INSERT INTO positions SELECT *, 0 FROM ({_KEYS}) AS missing ORDER BY 1, 2, 3
    ON CONFLICT DO NOTHING RETURNING epoch, topic, partition"""  # noqa: S608
_FORGET: Final = f"""DELETE FROM positions
    WHERE (epoch, topic, partition) IN ({_KEYS}) AND next_offset = 0"""  # noqa: S608

_IS_WHOLE: Final = "is_whole"
"""Of a connection: its server has the rows that the ledger knows."""

Place = tuple[int, str, int]


class PostgresTransaction:
    """What is written between a begin and a commit.

    All but claims is kept until the commit, or a query, and then sent at once: one answer of the
    server is waited for, not one for each statement.

    Attributes:
        driver: The connection of the driver.
        answers: To what was asked at the begin.
        may_lack_rows: Until it is set to False and committed once in a connection: one that is
            new may be to another server.
    """

    def __init__(self, connection: Connection) -> None:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)  # as SQLAlchemy has it
        self.driver: psycopg.Connection[Any] = driver
        self.answers: list[Sequence[Mapping[Any, Any]]] = []
        self.may_lack_rows = _IS_WHOLE not in connection.info
        self._connection = connection
        self._kept: list[tuple[str, Sequence[Any]]] = []

    @property
    def connection(self) -> Connection:
        """For queries: they see what was written before."""
        if self._kept:
            self._send()
        return self._connection

    def claim(self, table: Table, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Insert those of `rows` that are the first of their key; return the others.

        The row, which is not committed yet, is the claim: a rival that has the same key waits for
        this transaction, or this one for the rival's.
        """
        _copy(self.driver, f"waiting_{table.name}", rows)
        width = len(table.primary_key)
        first = {tuple(key) for key in self.driver.execute(_claim(table))}
        # Keys are the first columns.
        return [row for row in rows if row[:width] not in first]

    def insert(self, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert whole rows, each in the order of the columns, by the commit at the latest."""
        values = ", ".join(["%s"] * len(table.c))
        # The name is a constant of ours; values are bound.
        self._kept.append((f"INSERT INTO {table.name} VALUES ({values})", rows))  # noqa: S608

    def write(self, statement: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run a statement for each of `rows`, by the commit at the latest."""
        self._kept.append((statement, rows))

    def commit(self, made: Sequence[Place]) -> None:
        """Send what is kept, with the commit.

        Args:
            made: Positions that were made only to be locked; those that are still 0 go.
        """
        if made:
            self._kept.append((_FORGET, [_columns(made)]))
        with self.driver.pipeline():
            self._queue()
            self.driver.execute("COMMIT")

    def _send(self) -> None:
        with self.driver.pipeline():
            self._queue()

    def _queue(self) -> None:
        kept, self._kept = self._kept, []
        for statement, rows in kept:
            # One by one: `executemany` would wait for the answers to each statement.
            for row in rows:
                self.driver.execute(statement, row)


class PostgresDatabase:
    """The tables of one store's index. Any number of threads may use it at once.

    What fails is a StoreAwayError where it may pass, else a StoreError.
    """

    dialect_name: Final = "postgresql"

    def __init__(self, url: str, store: StoreRow, claimed: Sequence[Table] = ()) -> None:
        """Prepare to use a database whose scripts have run; nothing is opened.

        Args:
            url: Of libpq, as `postgresql://user@host-a,host-b/name`.
            store: Whose it is.
            claimed: The tables whose rows decide who is first.
        """
        self.name = name_of(url)
        self._store = store
        self.engine = open_engine(url, partial(_make_waiting_rooms, claimed))
        self._states = self.engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        self._look_ups = open_to_read(url)

    @property
    def fails_over(self) -> bool:
        """A standby that is promoted may lack the last rows."""
        return True

    @property
    def was_replaced(self) -> bool:
        """Never: a database is filled again in its place."""
        return False

    def close(self) -> None:
        """Close every connection; one that is lent goes with its reader."""
        self._look_ups.dispose()
        self.engine.dispose()

    @contextmanager
    def transaction(
        self,
        places: Collection[Place] = (),
        questions: Sequence[tuple[str, Mapping[str, Any]]] = (),
    ) -> Iterator[PostgresTransaction]:
        """Begin to write; commit at the end of the block, or roll back if it raises.

        Args:
            places: The epoch, topic and partition of each log that the block goes on with: their
                positions are locked, so nobody else does.
            questions: What it asks first: queries, and their values by name.
        """
        # READ COMMITTED, the locks first: another isolation would read the state from before the
        # wait, without the rows of the one that was waited for.
        with database_faults(self.name), self.engine.connect() as connection, connection.begin():
            begun = PostgresTransaction(connection)
            # The driver would wait for the answers to a BEGIN and a COMMIT of its own.
            begun.driver.autocommit = True
            made = self._begin(begun, sorted(places), questions)
            yield begun
            begun.commit(made)
            if not begun.may_lack_rows:
                connection.info[_IS_WHOLE] = True
            begun.driver.autocommit = False

    @contextmanager
    def replacing(
        self, tables: Sequence[Table]
    ) -> Iterator[Callable[[], AbstractContextManager[PostgresTransaction]]]:
        """Let no batch of any host begin while the block runs; give what replaces rows.

        That is a transaction in which `tables` are empty at first: others see their old rows until
        its commit. It has the lock's own session: where that ends, so does the transaction.
        """
        with database_faults(self.name), self.engine.connect() as connection:
            begun = PostgresTransaction(connection)
            try:
                hold_alone(begun.driver)
                yield partial(self._replaced, begun, tables)
            finally:
                # With its lock.
                connection.invalidate()

    @contextmanager
    def _replaced(
        self, begun: PostgresTransaction, tables: Sequence[Table]
    ) -> Iterator[PostgresTransaction]:
        begun.driver.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        refuse_change(begun.driver.execute(IN_FORCE).fetchone(), self._store, self.name)
        for table in tables:
            # The name is a constant of ours.
            begun.driver.execute(f"DELETE FROM {table.name}")  # noqa: S608
        yield begun
        begun.commit(())

    def _begin(
        self,
        begun: PostgresTransaction,
        places: Sequence[Place],
        questions: Sequence[tuple[str, Mapping[str, Any]]],
    ) -> list[Place]:
        """Wait for the locks and ask; return the positions that were made only to be locked."""
        driver = begun.driver
        # Sent at once: they run one after the other, each with the state after its wait.
        with driver.pipeline():
            driver.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
            driver.execute(_LOCK, (STORE_LOCK,))
            in_force = driver.execute(IN_FORCE)
            found = driver.execute(_HOLD, _columns(places)) if places else None
            asked = [driver.execute(query, values) for query, values in questions]
        refuse_change(in_force.fetchone(), self._store, self.name)
        begun.answers = list(map(_by_name, asked))
        held = set() if found is None else {(each[0], each[1], each[2]) for each in found}
        missing = [place for place in places if place not in held]
        if not missing:
            return []
        made = driver.execute(_MAKE, _columns(missing)).fetchall()
        driver.execute(_HOLD, _columns(places))
        # Where a rival made them, they are as it has left them by now.
        begun.answers = [_by_name(driver.execute(query, values)) for query, values in questions]
        return [(epoch, topic, partition) for epoch, topic, partition in made]

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Read one consistent state while the block runs."""
        with database_faults(self.name), self._states.connect() as connection:
            yield connection

    @contextmanager
    def looking_up(self) -> Iterator[ReadConnection]:
        """Lend a connection of the driver, which can only read; each statement reads one state."""
        with database_faults(self.name), closing(self._look_ups.connect()) as lent:
            assert isinstance(lent.driver_connection, ReadConnection)
            try:
                yield lent.driver_connection
            except BaseException:
                lent.invalidate()
                # After a restart of the server all of them are cut.
                self._look_ups.dispose()
                raise


def _by_name(cursor: psycopg.Cursor[Any]) -> Sequence[Mapping[str, Any]]:
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def _columns(places: Sequence[Place]) -> tuple[list[Any], list[Any], list[Any]]:
    epochs, topics, partitions = ([place[at] for place in places] for at in range(3))
    return epochs, topics, partitions


def _make_waiting_rooms(claimed: Sequence[Table], connection: psycopg.Connection[Any]) -> None:
    """Make a temporary table for each that rows are claimed in: COPY cannot ignore a conflict."""
    for table in claimed:
        connection.execute(
            f"CREATE TEMPORARY TABLE waiting_{table.name} (LIKE {table.name}) ON COMMIT DELETE ROWS"
        )
    connection.commit()


def _claim(table: Table) -> str:
    key = ", ".join(column.name for column in table.primary_key)
    # In the order of the keys, so that of two none waits for the other. The names are ours.
    return f"""WITH waiting AS (DELETE FROM waiting_{table.name} RETURNING *)
        INSERT INTO {table.name} SELECT * FROM waiting ORDER BY {key}
        ON CONFLICT DO NOTHING RETURNING {key}"""  # noqa: S608


def _copy(driver: psycopg.Connection[Any], table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    with driver.cursor() as cursor:
        copy_as_is(cursor)
        with cursor.copy(f"COPY {table} FROM STDIN") as copy:
            for row in kept_rows(rows):
                copy.write_row(row)
