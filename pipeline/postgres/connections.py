"""Connections to the database of an index: to write, to read one state, and to look up."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import QueuePool

from pipeline.errors import InputError
from pipeline.postgres.text import adapt

_CONNECT_SECONDS: Final = 10
"""Longest wait for a connection; of several hosts, for each."""


_SILENCE_SECONDS: Final = 30
"""Longest time without an answer of the other side."""

_LIMITS: Final = "-c lock_timeout=30s -c idle_in_transaction_session_timeout=60s"
"""Of each connection: the wait for a lock, so that a worker that must stop can; and the pause
inside a transaction, so that a host that lost its network, or was halted, holds no partition of
others for longer. A batch writes its files meanwhile, which takes far less."""


class ReadConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection of the driver that can only read."""

    dialect_name: Final = "postgresql"

    @contextmanager
    def one_state(self) -> Iterator[None]:
        """Let all statements of a block read the same state."""
        self.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            yield
        finally:
            self.execute("ROLLBACK")


def name_of(url: str) -> str:
    """Return how sentences name a database: without a password.

    Raises:
        InputError: It is no URL of libpq, or has ports for some of its hosts alone.
    """
    try:
        parts = conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        raise InputError(
            "Expected the URL of a database, as postgresql://user@host-a,host-b/name, found "
            "something else."
        ) from error
    hosts, ports = (str(parts.get(name) or "").split(",") for name in ("host", "port"))
    if len(ports) == 1:  # That of every host.
        ports *= len(hosts)
    if len(ports) != len(hosts):
        raise InputError(
            "Expected the URL of a database to have one port, or one for each host, found "
            f"{len(ports)} ports for {len(hosts)} hosts."
        )
    where = ",".join(
        f"{host}:{port}" if port else host for host, port in zip(hosts, ports, strict=True)
    )
    return f"postgresql://{where}/{parts.get('dbname') or ''}"


def _settings(url: str) -> str:
    given = conninfo_to_dict(url)
    given.setdefault("connect_timeout", _CONNECT_SECONDS)
    # A network that swallows what is sent is noticed within half a minute.
    given.setdefault("tcp_user_timeout", _SILENCE_SECONDS * 1000)
    given.setdefault("keepalives_idle", _SILENCE_SECONDS // 3)
    given.setdefault("keepalives_interval", _SILENCE_SECONDS // 6)
    given.setdefault("keepalives_count", 4)
    # What the URL says comes last, so it holds.
    given["options"] = f"{_LIMITS} {given.get('options') or ''}"
    # Of several hosts the one that takes writes, also after another was promoted.
    given.setdefault("target_session_attrs", "primary")
    given.setdefault("application_name", "rmos")
    return make_conninfo("", **{**given, "client_encoding": "utf8"})


def connect(url: str) -> psycopg.Connection[tuple[Any, ...]]:
    """Open a connection that writes."""
    connection = psycopg.connect(_settings(url))
    adapt(connection)
    return connection


def open_to_read(url: str) -> QueuePool:
    """Return connections for look-ups that can only read; any number of threads may borrow one."""
    creator: Any = partial(_connect_to_read, url)  # SQLAlchemy's protocol has not all of psycopg's
    return QueuePool(creator, pool_size=0, reset_on_return=None)


def _connect_to_read(url: str) -> ReadConnection:
    connection = ReadConnection.connect(_settings(url), autocommit=True)
    connection.execute("SET default_transaction_read_only = on")
    adapt(connection)
    return connection


def open_engine(url: str, set_up: Callable[[psycopg.Connection[Any]], None]) -> Engine:
    """Return an engine whose connections write.

    Args:
        url: Of the database.
        set_up: Prepares each new connection.
    """

    def opened() -> psycopg.Connection[Any]:
        connection = connect(url)
        try:
            set_up(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    return create_engine("postgresql+psycopg://", creator=opened, poolclass=QueuePool)
