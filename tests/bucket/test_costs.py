"""What a run costs in requests, counted; the table of the document is computed from it."""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("psycopg", reason="the extra scale is not installed")

from pipeline.bucket.objects import Objects
from pipeline.settings import Settings
from pipeline.storage import shared
from pipeline.storage.batch_plan import JudgedRecord, next_offsets
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import create, init_key
from tests.bucket.buckets import HASTE, shared_settings
from tests.bucket.faulty_proxy import standing_before
from tests.bucket.servers import point_at
from tests.bucket.test_many_hosts import writing
from tests.builders import red_request, run_request
from tests.conftest import Servers
from tests.docs.test_documents import rows_of, section, text_of
from tests.storage.stores import judged_record

PARTITIONS = 12
CHUNK = 512
ONE_IN_QUARANTINE = 50
PUT_DOLLARS = 0.005 / 1000
"""Also for a listing; aws.amazon.com/s3/pricing, us-east-1."""
GET_DOLLARS = 0.0004 / 1000
"""A removal costs nothing."""


@pytest.fixture
def requests(
    quick_server: str, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Settings, RunStore, Counter[str]]]:
    """Give a store of many hosts, and what counts the requests of its bucket."""
    counted: Counter[str] = Counter()

    def count(method: str, path: str) -> None:
        counted["LIST" if "list-type=2" in path else method] += 1

    with standing_before(quick_server, count) as proxy:
        point_at(monkeypatch, proxy.address)
        # A request that is sent again would be counted again.
        monkeypatch.setattr(shared, "Objects", partial(Objects, patience=HASTE))
        settings = shared_settings(tmp_path, servers)
        create(settings, cluster_id="cluster-1")
        init_key(settings)
        with writing(settings) as store:
            yield settings, store, counted


def records(first: int, count: int) -> list[JudgedRecord]:
    """Return new runs, spread over the partitions; one in fifty is withheld."""
    return [
        judged_record(
            (red_request if number % ONE_IN_QUARANTINE == 0 else run_request)(
                run_id=f"run_{number}"
            ),
            number // PARTITIONS,
            partition=number % PARTITIONS,
        )
        for number in range(first, first + count)
    ]


@pytest.mark.slow
def test_the_costs_in_the_document_are_those_of_the_requests_that_were_counted(
    requests: tuple[Settings, RunStore, Counter[str]],
) -> None:
    settings, store, counted = requests
    sent = 0

    def counts_of(batches: list[int], store: RunStore = store) -> Counter[str]:
        nonlocal sent
        counted.clear()
        for size in batches:
            store.commit(records(sent, size))
            sent += size
        return Counter(counted)

    began = counts_of([PARTITIONS * 4])
    found = {
        "busy": (counts_of([CHUNK] * 2), 2 * CHUNK),
        "quiet": (counts_of([1] * 24), 24),
    }
    table = rows_of(section(text_of("many-hosts.md"), "What it costs"))
    for word, (counts, runs) in found.items():
        (row,) = (each for each in table if word in each[0])
        written = (counts["PUT"] + counts["LIST"]) * PUT_DOLLARS
        dollars = (written + counts["GET"] * GET_DOLLARS) / runs * 10**6
        assert row[1] == f"{counts['PUT'] / runs:.2f}", counts
        assert float(row[2].strip("$")) == pytest.approx(dollars, rel=0.02), counts
    with writing(settings) as started:
        counted.clear()
        started.follow_ledger(next_offsets(records(0, sent)))
        taken = f"{counted['LIST']} listings and {counted['GET']} GETs"
        following = counts_of([PARTITIONS * 4], started)
    more = (
        f"{began['PUT'] - following['PUT']} PUTs, {began['LIST']} listings and {began['GET']} GETs"
    )
    costs = " ".join(section(text_of("many-hosts.md"), "What it costs").split())
    assert taken in costs
    assert more in costs
    assert not following["LIST"]
    assert not following["GET"]
