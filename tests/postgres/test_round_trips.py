"""How often a batch waits for the server: each wait is a way to another host and back."""

from pathlib import Path

import pytest

psycopg = pytest.importorskip("psycopg", reason="the extra scale is not installed")

from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.batch_store import RejectLimit
from tests.builders import attachment, red_request, run_request
from tests.conftest import Servers
from tests.postgres.proxy import standing_before
from tests.postgres.servers import VERSIONS, Server, with_tables
from tests.postgres.test_shared_store import shared
from tests.storage.stores import judged_record

PARTITIONS = 12
LIMIT = RejectLimit("rmos.persist")


def batch(first: int) -> list[JudgedRecord]:
    """Return 504 records of all partitions from `first` on, with rows in every table."""
    requests = [
        (run_request, {}),
        (red_request, {"attachments": [attachment(b"G1 X1", kind="gcode")]}),
        (run_request, {"attachments": [attachment(b"note", kind="debug")]}),
    ]
    records = []
    for number in range(42 * PARTITIONS):
        make, more = requests[0 if number % 16 else 1 + number // 16 % 2]
        request = make(run_id=f"run_{first}_{number}", **more)
        offset = first + number // PARTITIONS
        records.append(judged_record(request, offset, partition=number % PARTITIONS))
    return records


@pytest.mark.parametrize("version", VERSIONS)
def test_a_batch_waits_for_five_answers_and_one_that_is_known_for_two(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, servers: Servers, version: str
) -> None:
    server: Server = servers.get(version)
    url = with_tables(server)
    with (
        standing_before(server, tmp_path_factory.mktemp("pg")) as proxy,
        shared(tmp_path / "store", proxy.url(url)) as store,
    ):
        # The first makes positions and connections.
        store.commit(batch(0), LIMIT)
        following = batch(42)
        before = proxy.answers
        assert {each.kind for each in store.commit(following, LIMIT).outcomes} == {"persisted"}
        made = proxy.answers
        store.commit(following, LIMIT)
        assert (made - before, proxy.answers - made) == (5, 2)
