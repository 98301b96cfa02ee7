"""The index in a database of PostgreSQL, which many hosts share."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from typing import Final

from pipeline.core.store.identity import StoreIdentity
from pipeline.postgres.database import PostgresDatabase
from pipeline.postgres.scripts import refuse_missing
from pipeline.postgres.store_row import StoreRow, check_database
from pipeline.storage.index import tables
from pipeline.storage.index.queries import IndexTransaction
from pipeline.storage.index.replacement import Replacement
from pipeline.storage.index.run_index import RunIndex

_TAKEN_OVER: Final = {
    tables.accepted_losses,
    tables.claims_in_hand,
    tables.reported_claims,
    tables.topic_ids,
}
_MADE: Final = [each for each in reversed(tables.metadata.sorted_tables) if each not in _TAKEN_OVER]
"""What a rebuild makes anew, of files and leaves; what refers to a run before the runs."""


def store_row(identity: StoreIdentity, key: str | None) -> StoreRow:
    """Return the row of a store.

    Args:
        identity: Of the store.
        key: That verifies its new checkpoints.
    """
    return StoreRow(**asdict(identity), key=key)


def open_postgres_index(url: str, identity: StoreIdentity, key: str | None) -> RunIndex:
    """Open the index in the database at `url`, whose scripts have run.

    Args:
        url: Of libpq, as `postgresql://user@host-a,host-b/name`.
        identity: Of the store.
        key: That verifies its new checkpoints; None where no leaves are appended.

    Raises:
        StoreNotReadyError: A script of this version has not run, or it cannot be used as it is.
        StoreAwayError: It does not answer.
    """
    return RunIndex(_database(url, identity, key))


def _database(url: str, identity: StoreIdentity, key: str | None) -> PostgresDatabase:
    refuse_missing(url)
    row = store_row(identity, key)
    check_database(url, row)
    return PostgresDatabase(url, row, claimed=(tables.runs, tables.advisories))


@contextmanager
def replacing_postgres_rows(
    url: str, identity: StoreIdentity, key: str | None
) -> Iterator[Replacement]:
    """Let no batch begin while the block runs, and give what replaces all rows of an index.

    Args: As those of `open_postgres_index`.

    Raises:
        StoreNotReadyError: As `open_postgres_index`.
        StoreAwayError: It does not answer, or a batch takes too long.
    """
    with closing(_database(url, identity, key)) as database, database.replacing(_MADE) as begin:

        @contextmanager
        def replaced() -> Iterator[IndexTransaction]:
            with begin() as begun:
                yield IndexTransaction(begun, database.dialect_name)

        yield replaced
