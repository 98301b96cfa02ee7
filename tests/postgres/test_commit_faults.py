"""A COMMIT whose answer is lost: whether it was done, the same batch finds out."""

from pathlib import Path

import pytest

pytest.importorskip("psycopg", reason="the extra scale is not installed")

from pipeline.errors import StoreAwayError
from pipeline.storage.advisory_store import AdvisoryStore
from tests.builders import run_request
from tests.conftest import Servers
from tests.postgres.proxy import BEFORE, DONE, FAULTS, SENT, standing_before
from tests.postgres.servers import VERSIONS, Server, with_tables
from tests.postgres.test_database import values, wait_until
from tests.postgres.test_shared_store import (
    LIMIT,
    advisory,
    alone,
    kept,
    mixed,
    shared,
    without_cuts,
)
from tests.storage.stores import judged_record


def positions_of(url: str) -> int:
    return int(values(url, "SELECT coalesce(max(next_offset), 0) FROM positions")[0][0])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("fault", FAULTS)
def test_the_same_batch_finds_out_whether_a_lost_commit_was_done(
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    servers: Servers,
    version: str,
    fault: str,
) -> None:
    server: Server = servers.get(version)
    records = mixed(0, 120)
    with alone(tmp_path / "plain") as store:
        wanted = [list(store.commit(records[at : at + 40], LIMIT).outcomes) for at in (0, 40, 80)]
        index = kept(store.index)
    url = with_tables(server)
    with (
        standing_before(server, tmp_path_factory.mktemp("pg")) as proxy,
        shared(tmp_path / "store", proxy.url(url)) as store,
    ):
        assert store.commit(records[:40], LIMIT).outcomes == wanted[0]
        faults = [fault]
        proxy.choose = lambda: faults.pop() if faults else None
        with pytest.raises(StoreAwayError, match="nothing was acknowledged"):
            store.commit(records[40:80], LIMIT)
        assert proxy.faults == {fault: 1}
        if fault == SENT:  # It is done at some time.
            wait_until(lambda: positions_of(url) == 80)
        assert positions_of(url) == (40 if fault == BEFORE else 80)
        assert store.commit(records[40:80], LIMIT).outcomes == wanted[1]
        assert store.commit(records[80:], LIMIT).outcomes == wanted[2]
        assert kept(store.index) == index
    assert without_cuts(tmp_path / "store") == without_cuts(tmp_path / "plain")


@pytest.mark.parametrize("fault", [BEFORE, DONE])
def test_a_claim_whose_commit_is_lost_waits_for_its_run_once(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, servers: Servers, fault: str
) -> None:
    server: Server = servers.get("18")
    claims = [advisory(n, run_id=f"run_{n}", advisory_id="adv") for n in range(3)]
    url, root = with_tables(server), tmp_path / "store"
    with (
        standing_before(server, tmp_path_factory.mktemp("pg")) as proxy,
        shared(root, proxy.url(url), AdvisoryStore) as store,
    ):
        proxy.choose = lambda: fault if not proxy.faults else None
        with pytest.raises(StoreAwayError):
            store.commit(claims)
        again = store.commit(claims)
        assert [each.kind for each in again.outcomes] == ["waiting"] * 3
        with shared(root, url) as runs:
            runs.commit([judged_record(run_request(run_id=f"run_{n}"), n) for n in range(3)])
        assert [each.link_path for each in store.index.all_advisories()] == [None] * 3
