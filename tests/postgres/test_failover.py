"""A server that is killed, and a standby that is promoted without its last rows."""

from pathlib import Path
from typing import Any

import pytest

psycopg = pytest.importorskip("psycopg", reason="the extra scale is not installed")

from msgspec import structs

from pipeline.core.record import RecordId, RecordSource
from pipeline.errors import StoreAwayError
from pipeline.storage.run_store import RunStore
from tests.postgres.servers import VERSIONS, Server, running, standby_of, with_tables
from tests.postgres.test_database import values, wait_until
from tests.postgres.test_shared_store import (
    LIMIT,
    alone,
    cut,
    kept,
    mixed,
    patiently,
    shared,
    without_cuts,
)
from tests.storage.stores import TOPIC


def both(url: str, primary: Server, standby: Server) -> str:
    """Return the URL of a database that either server has."""
    return url.replace(str(primary.folder), f"{primary.folder},{standby.folder}")


def rows_of(url: str) -> int:
    return int(values(url, "SELECT count(*) FROM runs")[0][0])


@pytest.mark.parametrize("version", VERSIONS)
def test_a_worker_goes_on_with_a_standby_that_lacks_acknowledged_rows(
    tmp_path: Path, version: str
) -> None:
    records = mixed(0, 150)
    with alone(tmp_path / "plain") as store:
        wanted = committed(store, records[:100])
        # Of a run whose row is lost, and by another partition than its own.
        first = next(n for n in range(50, 100) if wanted[n].kind == "persisted")
        again = structs.replace(records[first], source=RecordSource(1, RecordId(TOPIC, 1, 0)))
        wanted += committed(store, [again, *records[100:]])
        assert wanted[100].kind == "duplicate"
        index = kept(store.index)
    root = tmp_path / "store"
    with running(version) as primary, standby_of(primary) as standby:
        url = with_tables(primary)
        copy = url.replace(str(primary.folder), str(standby.folder))
        with shared(root, both(url, primary, standby)) as store:
            outcomes = committed(store, records[:50])
            wait_until(lambda: rows_of(copy) == store.index.count())
            standby.stop()
            outcomes += committed(store, records[50:100])
            acknowledged = store.index.count()
            primary.stop()
            standby.start()
            standby.promote()
            assert rows_of(copy) < acknowledged
            with pytest.raises(StoreAwayError):
                store.commit([again], LIMIT)
            result, _ = patiently(lambda: store.commit([again], LIMIT))
            outcomes += [*result.outcomes, *committed(store, records[100:])]
            assert outcomes == wanted
            assert kept(store.index) == index
    assert without_cuts(root) == without_cuts(tmp_path / "plain")


def committed(store: RunStore, records: list[Any]) -> list[Any]:
    return [o for batch in cut(records, 10) for o in store.commit(batch, LIMIT).outcomes]
