"""The same index over each database that may keep it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.storage.index.run_index import RunIndex
from tests.conftest import Servers
from tests.storage.stores import index_at

DATABASES = ("sqlite", "postgresql-18", "postgresql-15")


def _opened(database: str, servers: Servers, folder: Path) -> RunIndex:
    kind, _, version = database.partition("-")
    if kind == "sqlite":
        return index_at(folder / "index.sqlite3")
    server = servers.get(version)
    # Of the extra `scale`, without which the server skips.
    from pipeline.storage.index.postgres import open_postgres_index
    from tests.postgres.servers import IDENTITY, with_tables

    return open_postgres_index(with_tables(server), IDENTITY, None)


@pytest.fixture(params=DATABASES)
def any_index(
    request: pytest.FixtureRequest, servers: Servers, tmp_path: Path
) -> Iterator[RunIndex]:
    """Yield an empty index over each database."""
    index = _opened(request.param, servers, tmp_path)
    yield index
    index.close()


@pytest.fixture(scope="module", params=DATABASES)
def kept_index(
    request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunIndex]:
    """Yield one for all tests of a module."""
    index = _opened(request.param, servers, tmp_path_factory.mktemp("listing"))
    yield index
    index.close()
