"""The row of the store: whose index a database is, its epoch, and the key that signs now.

It is compared with the store's identity when the index is opened. Epoch and key are looked at in
each batch: a worker of another host would go on with those from before a change.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import astuple, dataclass, fields, replace
from typing import Any, Final

import psycopg

from pipeline.core.store.identity import StoreIdentity
from pipeline.errors import StoreAwayError, StoreError, StoreNotReadyError
from pipeline.postgres.connections import connect, name_of
from pipeline.postgres.faults import database_faults

STORE_LOCK: Final = 0x524D4F53
"""Advisory lock of the store: shared by batches, exclusive for what concerns the whole store."""

IN_FORCE: Final = "SELECT epoch, key FROM store"
_ROW: Final = "SELECT format, store_id, cluster_id, prefix, epoch, key FROM store"
_MAKE: Final = """INSERT INTO store (format, store_id, cluster_id, prefix, epoch, key)
    VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"""
_ALONE: Final = "SELECT pg_advisory_xact_lock(%s)"
_UNLOCK: Final = "SELECT pg_advisory_unlock(%s)"
_CHANGE: Final = "UPDATE store SET cluster_id = %s, epoch = %s"
_PUT_IN_FORCE: Final = """UPDATE store SET key = %s WHERE EXISTS (SELECT FROM pg_locks
    WHERE locktype = 'advisory' AND (classid, objid, objsubid) = (0, %s, 1)
        AND mode = 'ExclusiveLock' AND granted AND pid = pg_backend_pid())"""
_SET_KEY: Final = "UPDATE store SET key = %s WHERE key IS NULL"
_SETTINGS: Final = ("fsync", "synchronous_commit")
"""Off, each of them loses what was acknowledged: the first all of it, the second the last moments.
(postgresql.org/docs/current/runtime-config-wal.html)"""


@dataclass(frozen=True, slots=True)
class StoreRow(StoreIdentity):
    """What the row holds, in the order of its columns.

    Attributes:
        key: The public key that verifies new checkpoints; None where no leaves are appended.
    """

    key: str | None


class PostgresLock:
    """The lock of a store: a `StoreLock` of all hosts.

    It is the session's and not a transaction's, which the server would end after a minute.
    """

    def __init__(self, url: str) -> None:
        """Prepare; nothing is asked."""
        self._url = url
        self._alone: psycopg.Connection[Any] | None = None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let no batch of any host begin while the block runs.

        Raises:
            StoreAwayError: The wait was too long; or the server went away in the block, and what
                was done in it was not alone.
        """
        with database_faults(name_of(self._url)), connect(self._url) as connection:
            hold_alone(connection)
            self._alone = connection
            yield
            (was_held,) = connection.execute(_UNLOCK, (STORE_LOCK,)).fetchone() or (False,)
        self._refuse_unless(was_held)

    def key_in_force(self) -> str | None:
        """Return the key of the row."""
        return key_in_force(self._url)

    def put_in_force(self, key: str) -> None:
        """Change the key of the row, at which each batch looks, if this session is still alone."""
        assert self._alone is not None, "who calls it is alone"
        with database_faults(name_of(self._url)):
            changed = self._alone.execute(_PUT_IN_FORCE, (key, STORE_LOCK))
        self._refuse_unless(changed.rowcount == 1)

    def _refuse_unless(self, is_held: bool) -> None:
        if not is_held:
            raise StoreAwayError(
                f"The index {name_of(self._url)} let go of the lock of the store too early, so "
                "batches may have been written meanwhile: no pooler in transaction mode may stand "
                "before it. Run the command again."
            )

    def between_batches(self) -> AbstractContextManager[None]:
        """Do the same: the batches are those who share the lock."""
        return self.alone()


def hold_alone(connection: psycopg.Connection[Any]) -> None:
    """Let no batch of any host begin until this session lets go, or ends; it may be idle for long.

    Each statement of the session is by itself from now on.
    """
    connection.autocommit = True
    connection.execute("SET idle_session_timeout = 0")
    connection.execute("SELECT pg_advisory_lock(%s)", (STORE_LOCK,))


def make_row(url: str, row: StoreRow) -> None:
    """Make a database that of a store; one that is its already stays as it is.

    Raises:
        StoreNotReadyError: It is another store's.
    """
    with database_faults(name_of(url)), connect(url) as connection:
        connection.execute(_MAKE, astuple(row))
        refuse_other(connection, row, name_of(url))


def change_row(url: str, row: StoreRow) -> None:
    """Put another epoch, of another cluster, in force, once no batch is on its way.

    A process that goes on with that from before is refused at its next batch. The key stays.

    Raises:
        StoreNotReadyError: The database is another store's.
    """
    with database_faults(name_of(url)), connect(url) as connection:
        connection.execute(_ALONE, (STORE_LOCK,))
        found = connection.execute(_ROW).fetchone()
        before = row
        if found is not None:
            before = replace(row, cluster_id=found[2], epoch=found[4], key=found[5])
        refuse_other(connection, before, name_of(url))
        connection.execute(_CHANGE, (row.cluster_id, row.epoch))


def refuse_taken(url: str) -> None:
    """Refuse a database, whose scripts have run, that is a store's already.

    Raises:
        StoreNotReadyError: It is.
    """
    with database_faults(name_of(url)), connect(url) as connection:
        if (found := connection.execute(_ROW).fetchone()) is not None:
            raise StoreNotReadyError(
                f"The index {name_of(url)} belongs to the store {found[1]} already: a store has a "
                "database of its own."
            )


def key_in_force(url: str) -> str | None:
    """Return the public key that verifies new checkpoints; None where there is none.

    Raises:
        StoreNotReadyError: The database has no tables of this version.
        StoreAwayError: It does not answer.
    """
    with database_faults(name_of(url)), connect(url) as connection:
        found = connection.execute(IN_FORCE).fetchone()
    return None if found is None else found[1]


def set_first_key(url: str, row: StoreRow) -> None:
    """Let the key of `row` be in force where none is.

    Raises:
        StoreNotReadyError: Another is, or the database is another store's.
    """
    with database_faults(name_of(url)), connect(url) as connection:
        connection.execute(_SET_KEY, (row.key,))
        refuse_other(connection, row, name_of(url))


def check_database(url: str, row: StoreRow) -> None:
    """Refuse a database that is not this store's, or that may lose what it has committed.

    Raises:
        StoreNotReadyError: It is.
    """
    with database_faults(name_of(url)), connect(url) as connection:
        for setting in _SETTINGS:
            (value,) = connection.execute("SELECT current_setting(%s)", (setting,)).fetchone() or (
                "off",
            )
            if value == "off":
                raise StoreNotReadyError(
                    f"The index {name_of(url)} has {setting} off: it would lose what was "
                    "acknowledged. Set it on, then start again."
                )
        refuse_other(connection, row, name_of(url))


def refuse_other(connection: psycopg.Connection[Any], row: StoreRow, name: str) -> None:
    """Refuse a database whose row is not `row`.

    Raises:
        StoreNotReadyError: It is another, or there is none.
    """
    found = connection.execute(_ROW).fetchone()
    if found is None:
        raise StoreNotReadyError(
            f"The index {name} belongs to no store yet: it is made by rmos store init."
        )
    for field, wanted, has in zip(fields(row), astuple(row), found, strict=True):
        if wanted != has and field.name == "key" and wanted and has:
            raise StoreNotReadyError(
                f"The index {name} says that {has} signs this store, and this host has the key "
                f"{wanted}: put a copy of the file of that key in its place, and of the files "
                "beside it."
            )
        if wanted != has:
            begun = found[1] == row.store_id and found[4] == row.epoch + 1
            way = ": run rmos store new-epoch again, which was not finished" if begun else ""
            raise StoreNotReadyError(
                f"Expected the index {name} to have the {field.name} {wanted} of this store, "
                f"found {has}{way}."
            )


def refuse_change(found: tuple[Any, ...] | None, row: StoreRow, name: str) -> None:
    """Refuse to go on where the epoch or the key was changed.

    Raises:
        StoreError: It was. Nothing was acknowledged.
    """
    if found != (row.epoch, row.key):
        raise StoreError(
            f"The epoch or the key of the store was changed meanwhile, as the index {name} says; "
            "nothing was acknowledged; start again."
        )
