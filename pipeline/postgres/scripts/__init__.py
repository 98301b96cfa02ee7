"""The numbered scripts of the database: each runs once, in order, and adds.

Where a file of SQLite is rebuilt in another format, a database of many hosts is changed in its
place: to fill it again would take days.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from itertools import takewhile
from typing import Any

import psycopg

from pipeline.errors import StoreNotReadyError
from pipeline.postgres.connections import connect, name_of
from pipeline.postgres.faults import database_faults

_LOCK = "SELECT pg_advisory_xact_lock(%s)"
_SCRIPTS_LOCK = 0x524D4F54
_TABLE = "CREATE TABLE IF NOT EXISTS scripts (number integer PRIMARY KEY)"
_RAN = "SELECT number FROM scripts ORDER BY number"
_EXISTS = "SELECT to_regclass('scripts') IS NOT NULL"
_NOTE = "INSERT INTO scripts VALUES (%s)"


@dataclass(frozen=True, slots=True)
class Script:
    """One script.

    Attributes:
        number: From 1.
        text: Its statements.
    """

    number: int
    text: str

    @property
    def what(self) -> str:
        """What it does: the comment that it begins with."""
        comment = takewhile(lambda line: line.startswith("-- "), self.text.splitlines())
        return " ".join(line.removeprefix("-- ") for line in comment)


def scripts() -> list[Script]:
    """Return those that this version has, in order."""
    folder = resources.files(__name__)
    names = sorted(each.name for each in folder.iterdir() if each.name.endswith(".sql"))
    return [
        Script(int(name.removesuffix(".sql")), (folder / name).read_text(encoding="utf-8"))
        for name in names
    ]


def missing_scripts(url: str) -> list[Script]:
    """Return the scripts that have not run in a database; nothing is changed.

    Raises:
        StoreNotReadyError: It has run one that this version does not know.
    """
    with _connected(url) as connection:
        return _missing(connection, url)


def run_scripts(url: str) -> list[Script]:
    """Run the scripts that have not run in a database, all of them or none; return them.

    Raises:
        StoreNotReadyError: It has run one that this version does not know.
    """
    with _connected(url) as connection:
        # Of two that do it at the same time the second finds nothing to do.
        connection.execute(_LOCK, (_SCRIPTS_LOCK,))
        connection.execute(_TABLE)
        missing = _missing(connection, url)
        for script in missing:
            connection.execute(script.text.encode())
            connection.execute(_NOTE, (script.number,))
    return missing


def refuse_missing(url: str) -> None:
    """Refuse a database in which a script has not run.

    Raises:
        StoreNotReadyError: One has not, or one has run that this version does not know.
    """
    if missing := missing_scripts(url):
        numbers = ", ".join(str(script.number) for script in missing)
        raise StoreNotReadyError(
            f"The index {name_of(url)} lacks the scripts {numbers} of this version: "
            "run rmos store upgrade."
        )


@contextmanager
def _connected(url: str) -> Iterator[psycopg.Connection[Any]]:
    with database_faults(name_of(url)), connect(url) as connection:
        yield connection


def _missing(connection: psycopg.Connection[Any], url: str) -> list[Script]:
    (is_there,) = connection.execute(_EXISTS).fetchone() or (False,)
    ran = {number for (number,) in connection.execute(_RAN)} if is_there else set()
    known = scripts()
    if unknown := ran - {script.number for script in known}:
        raise StoreNotReadyError(
            f"The index {name_of(url)} has run the script {max(unknown)}, which this version does "
            "not know: use the version that ran it, or a newer one."
        )
    return [script for script in known if script.number not in ran]
