"""A fault of the database in one sentence, by whose it is: the network's, or the operator's."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from psycopg import errors
from sqlalchemy.exc import DBAPIError, InterfaceError, SQLAlchemyError

from pipeline.errors import StoreAwayError, StoreError, StoreNotReadyError

_DENIED: Final = (
    errors.InsufficientPrivilege,
    errors.UndefinedTable,
    errors.UndefinedColumn,
)
"""What no waiting mends. Of a refused connection libpq gives words, and no code."""

_GOES_ON: Final = (
    psycopg.OperationalError,  # no connection, or none any more; it is at its limits, or stops
    psycopg.InterfaceError,  # a connection that is closed
    errors.DeadlockDetected,
    errors.LockNotAvailable,  # not within the time of a connection
    errors.SerializationFailure,
    errors.ReadOnlySqlTransaction,  # a standby, until it is promoted
    errors.IdleInTransactionSessionTimeout,
    TimeoutError,
)
"""What passes: the same work is done again."""


@contextmanager
def database_faults(name: str) -> Iterator[None]:
    """Translate the errors of a database.

    Args:
        name: Of the database, in sentences: without a password.

    Raises:
        StoreAwayError: It does not answer, or gave up; what was not committed is not kept.
        StoreNotReadyError: It refuses this user, or is not what it should be.
        StoreError: It failed in another way.
    """
    try:
        yield
    except (psycopg.Error, SQLAlchemyError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        said = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
        if isinstance(cause, _DENIED):
            raise StoreNotReadyError(
                f"The index {name} cannot be used ({said}); nothing was acknowledged."
            ) from error
        if isinstance(cause, _GOES_ON) or isinstance(error, InterfaceError):
            raise StoreAwayError(
                f"The index {name} does not answer ({said}); nothing was acknowledged."
            ) from error
        raise StoreError(
            f"The index {name} failed ({said}): nothing was acknowledged; look at its log."
        ) from error
