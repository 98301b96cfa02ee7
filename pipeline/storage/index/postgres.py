"""The index in a database of PostgreSQL, which many hosts share."""

from dataclasses import asdict

from pipeline.core.store.identity import StoreIdentity
from pipeline.postgres.database import PostgresDatabase
from pipeline.postgres.scripts import refuse_missing
from pipeline.postgres.store_row import StoreRow, check_database
from pipeline.storage.index.run_index import RunIndex
from pipeline.storage.index.tables import advisories, runs


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
    refuse_missing(url)
    row = store_row(identity, key)
    check_database(url, row)
    return RunIndex(PostgresDatabase(url, row, claimed=(runs, advisories)))
