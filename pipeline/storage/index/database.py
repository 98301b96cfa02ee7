"""What the index asks of the database that keeps its rows: one file, or a server for many hosts.

Queries are written once, and made into text for the driver of a database once.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, Protocol

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Dialect,
    Executable,
    String,
    Table,
    bindparam,
    literal_column,
)
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import TableValuedAlias


class Rows(Protocol):
    """What a statement has found."""

    def fetchone(self) -> Any: ...  # noqa: ANN401, D102 - as of the DB API

    def fetchall(self) -> list[Any]: ...  # noqa: D102 - as of the DB API

    def __iter__(self) -> Iterator[Any]: ...


class Reader(Protocol):
    """A connection of a driver that can only read; each statement reads one state.

    SQLAlchemy takes about 100 us for a query of one row, SQLite and its driver 8.
    """

    @property
    def dialect_name(self) -> str:
        """Of SQLAlchemy: `sqlite` or `postgresql`."""

    def execute(self, statement: str, values: Mapping[str, Any] = ..., /) -> Rows:
        """Run a statement, its values by name."""

    def one_state(self) -> AbstractContextManager[None]:
        """Let all statements of a block read the same state."""


Rowset = Sequence[Mapping[Any, Any]]
"""Rows by the names of their columns."""


class DatabaseTransaction(Protocol):
    """What is written between a begin and a commit. One thread.

    Attributes:
        may_lack_rows: Whether another server may have come since the last transaction, without
            the last rows of the one before. Set to False once they are there; kept by the commit.
    """

    may_lack_rows: bool

    @property
    def connection(self) -> Connection:
        """For queries: they see what was written before."""

    @property
    def answers(self) -> Sequence[Rowset]:
        """To what was asked at the begin, in its order."""

    def claim(self, table: Table, rows: Sequence[tuple[Any, ...]]) -> Sequence[tuple[Any, ...]]:
        """Insert those of `rows` that are the first of their key; return the others.

        Where nobody else can have come meanwhile, all of them are first.
        """

    def insert(self, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert whole rows, each in the order of the columns; by the commit at the latest."""

    def write(self, statement: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run a statement of the driver for each of `rows`; by the commit at the latest."""


class Database(Protocol):
    """Keeps the tables of one store's index. Any number of threads may use it at once."""

    @property
    def fails_over(self) -> bool:
        """Whether it may lose rows that it has committed, as another server takes its place."""

    @property
    def was_replaced(self) -> bool:
        """Whether another database is in its place now, as after a rebuild."""

    def close(self) -> None:
        """Close every connection."""

    @property
    def dialect_name(self) -> str:
        """Of SQLAlchemy: `sqlite` or `postgresql`."""

    def transaction(
        self, places: Collection[Any] = (), questions: Sequence[tuple[str, Mapping[str, Any]]] = ()
    ) -> AbstractContextManager[DatabaseTransaction]:
        """Begin to write; commit at the end of the block, or roll back if it raises.

        Args:
            places: The logs that the block goes on with: nobody else does meanwhile.
            questions: What it asks first: queries of the driver, and their values.

        Raises:
            StoreError: The database was replaced; or it failed, and nothing is kept.
        """

    def reading(self) -> AbstractContextManager[Connection]:
        """Read one consistent state while the block runs."""

    def looking_up(self) -> AbstractContextManager[Reader]:
        """Lend a connection of the driver."""


class _EachOf(FunctionElement[Any]):
    """What the array holds that is bound as one JSON text."""

    inherit_cache = True


class _Item(FunctionElement[str]):
    """One text of an array."""

    type = String()
    inherit_cache = True


class _Itself(FunctionElement[str]):
    """A text that an array holds."""

    type = String()
    inherit_cache = True


@compiles(_EachOf, "sqlite")
def _json_each(element: _EachOf, compiler: SQLCompiler, **how: Any) -> str:  # noqa: ANN401
    return f"json_each({compiler.process(element.clauses, **how)})"


@compiles(_Itself, "sqlite")
def _json_value(element: _Itself, compiler: SQLCompiler, **how: Any) -> str:  # noqa: ANN401
    return compiler.process(element.clauses, **how)


@compiles(_Item, "sqlite")
def _json_extract(element: _Item, compiler: SQLCompiler, **how: Any) -> str:  # noqa: ANN401
    array, place = element.clauses
    return f"json_extract({compiler.process(array, **how)}, '$[{compiler.process(place, **how)}]')"


@compiles(_EachOf, "postgresql")
def _json_array_elements(element: _EachOf, compiler: SQLCompiler, **how: Any) -> str:  # noqa: ANN401
    array = compiler.process(element.clauses, **how)
    return f"json_array_elements(CAST({array} AS json))"


@compiles(_Item, "postgresql")
def _json_item(element: _Item, compiler: SQLCompiler, **how: Any) -> str:  # noqa: ANN401
    array, place = element.clauses
    return f"({compiler.process(array, **how)} ->> {compiler.process(place, **how)})"


@compiles(_Itself, "postgresql")
def _json_text(element: _Itself, compiler: SQLCompiler, **how: Any) -> str:  # noqa: ANN401
    return f"({compiler.process(element.clauses, **how)} #>> '{{}}')"


def each_of(name: str) -> ColumnElement[str]:
    """Return the texts of the JSON array that is bound to `name`, as a column to select.

    One value for all of them: binding each took as long as finding it.
    """
    return _Itself(_each_of(name).c.value)


def each_pair_of(name: str) -> tuple[ColumnElement[str], ColumnElement[str]]:
    """Return the two texts of each array in the JSON array that is bound to `name`, likewise."""
    pair = _each_of(name).c.value
    return _Item(pair, literal_column("0")), _Item(pair, literal_column("1"))


def _each_of(name: str) -> TableValuedAlias:
    array: BindParameter[str] = bindparam(name, type_=String)
    return _EachOf(array).table_valued("value", name="json_each")


@cache
def _dialect(name: str) -> Dialect:
    if name == "sqlite":
        return sqlite_dialect(paramstyle="named")
    # A store on one disk has no use for it.
    from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg  # noqa: PLC0415

    return PGDialect_psycopg()  # type: ignore[no-untyped-call]


def text_for(statement: ClauseElement, dialect_name: str) -> str:
    """Return a statement as the driver of a database takes it, its values by name."""
    return str(statement.compile(dialect=_dialect(dialect_name)))


@cache
def driver_text(statement: Executable, dialect_name: str) -> str:
    """Return the same of a constant, made once: to make it takes longer than SQLite's answer."""
    assert isinstance(statement, ClauseElement)
    return text_for(statement, dialect_name)
