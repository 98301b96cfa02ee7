"""Stores in a bucket with an index in PostgreSQL, written by two at once and in a storm of faults.

What is there afterwards is what one calm worker leaves on a disk.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

pytest.importorskip("psycopg", reason="the extra scale is not installed")

from pipeline.bucket.log_store import BucketLogsToWrite
from pipeline.bucket.objects import Objects
from pipeline.core.store.identity import STORE_FILE
from pipeline.errors import StoreAwayError, StoreNotReadyError
from pipeline.settings import Settings
from pipeline.storage import shared
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.ledger_key import open_store_logs
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import Store, create, init_key, open_to_read, open_to_write
from pipeline.store import open_store
from tests.bucket.buckets import IMPATIENT, shared_settings
from tests.bucket.faulty_proxy import one_in, standing_before
from tests.bucket.servers import point_at
from tests.conftest import Servers
from tests.ledger.ledgers import STORE_ID
from tests.postgres.proxy import FAULTS
from tests.postgres.proxy import standing_before as before_postgres
from tests.postgres.test_shared_store import (
    LIMIT,
    PARTITIONS,
    cut,
    kept,
    leave_out_locks,
    mixed,
    patiently,
    plain,
    store_all,
)
from tests.storage.stores import TOPIC, tombstone

__all__ = ["plain"]

LIMIT_BYTES = 1 << 30


@pytest.fixture
def settings(
    server: str, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """Give the settings of a store that was made, with its key."""
    point_at(monkeypatch, server)
    settings = shared_settings(tmp_path, servers)
    create(settings, cluster_id="cluster-1", store_id=STORE_ID)
    init_key(settings)
    monkeypatch.setattr(shared, "Objects", partial(Objects, patience=IMPATIENT))
    return settings


@contextmanager
def writing(settings: Settings) -> Iterator[RunStore]:
    """Open the store as a worker that has just started."""
    store, ledger = open_to_write(settings)
    with closing(RunStore(store, ledger=ledger)) as batches:
        yield batches


def files_of(store: Store) -> dict[str, bytes]:
    """Return every file but the identity and what shows where batches were cut."""
    return {
        path: store.files.read(path, LIMIT_BYTES)
        for path in store.files.paths_below("")
        if ".p/" not in path and path != STORE_FILE
    }


def check_same(settings: Settings, plain: dict[str, Any]) -> None:
    of_disk = {path: each for path, each in plain["files"].items() if not path.endswith("/lock")}
    with closing(open_to_read(settings)) as store:
        assert files_of(store) == of_disk
        assert kept(store.index) == plain["index"]


def work(settings: Settings, size: int) -> list[list[Any]]:
    """Take all records of all partitions, as who believes to own each of them."""
    outcomes: list[list[Any]] = [[] for _ in range(PARTITIONS)]
    with writing(settings) as store:
        for batches in zip(*(cut(mixed(p, 120), size) for p in range(PARTITIONS)), strict=True):
            records = [each for batch in batches for each in batch]
            result, _ = patiently(partial(store.commit, records, LIMIT))
            for each, outcome in zip(records, result.outcomes, strict=True):
                outcomes[each.source.id.partition].append(outcome)
    return outcomes


@pytest.mark.slow
@pytest.mark.parametrize("locks", ["with locks of rows", "without"])
def test_two_that_both_own_every_partition_make_what_one_makes(
    settings: Settings, plain: dict[str, Any], locks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if locks == "without":
        leave_out_locks(monkeypatch)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(partial(work, settings), (10, 24))) == [plain["outcomes"]] * 2
    check_same(settings, plain)


def overtake(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, batches: list[list[JudgedRecord]]
) -> None:
    """Let another worker store the next of `batches` before each swap of this one.

    What makes no row is held up by no row: the condition of the bucket alone is left.
    """
    leave_out_locks(monkeypatch)
    swap = BucketLogsToWrite.swap

    def overtaken(self: BucketLogsToWrite, swaps: Any) -> Any:
        if batches:
            taken, batches[:], left = batches[0], [], batches[1:]
            with writing(settings) as other:
                other.commit(taken)
            batches[:] = left
        return swap(self, swaps)

    monkeypatch.setattr(BucketLogsToWrite, "swap", overtaken)


def check_tombstones(settings: Settings, store: RunStore, count: int) -> None:
    (log,) = open_store_logs(settings, store.store).open_all()
    assert [leaf.offset for leaf in log.leaves()] == list(range(count))
    assert store.index.positions(1) == {(TOPIC, 0): count}


@pytest.mark.parametrize("taken", [30, 7])
def test_who_is_overtaken_at_its_swap_goes_on_by_itself_and_takes_no_leaf_back(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    records = [tombstone(offset) for offset in range(30)]
    overtake(settings, monkeypatch, [records[:taken]])
    with writing(settings) as zombie:
        found = zombie.commit(records[:10])
        assert [each.code for each in found.outcomes] == ["TOMBSTONE"] * 10
        check_tombstones(settings, zombie, max(taken, 10))


def test_who_is_overtaken_each_time_pauses_as_where_the_store_is_away(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [tombstone(offset) for offset in range(30)]
    overtake(settings, monkeypatch, [records[:count] for count in range(2, 7)])
    with writing(settings) as zombie:
        with pytest.raises(StoreAwayError, match="went on 5 times"):
            zombie.commit(records)
        zombie.commit(records)
        check_tombstones(settings, zombie, 30)


@pytest.mark.slow
def test_a_storm_of_faults_changes_nothing(
    settings: Settings,
    server: str,
    servers: Servers,
    plain: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the requests to the bucket one in twelve fails, and of the commits too."""

    def in_a_storm(partition: int) -> list[Any]:
        return [each for batch in cut(mixed(partition, 120), 10) for each in stored(batch)]

    folder = tmp_path_factory.mktemp("pg")
    with (
        standing_before(server, one_in(12, seed=1)) as bucket,
        before_postgres(servers.get("18"), folder) as database,
    ):
        point_at(monkeypatch, bucket.address)
        assert settings.index_url is not None
        url = SecretStr(database.url(settings.index_url.get_secret_value()))
        with writing(settings.model_copy(update={"index_url": url})) as store:
            commit_fails = one_in(12, seed=1, among=FAULTS)
            database.choose = lambda: commit_fails("COMMIT", "")

            def stored(batch: list[Any]) -> list[Any]:
                result, _ = patiently(partial(store.commit, batch, LIMIT))
                return list(result.outcomes)

            assert [in_a_storm(partition) for partition in range(PARTITIONS)] == plain["outcomes"]
        assert len(bucket.faults) > 3
        assert len(database.faults) == len(FAULTS)
    point_at(monkeypatch, server)
    check_same(settings, plain)


def test_a_key_of_another_host_is_refused(
    settings: Settings, tmp_path: Path, plain: dict[str, Any]
) -> None:
    del plain
    other = settings.model_copy(update={"ledger_key_file": tmp_path / "other.pem"})
    with pytest.raises(StoreNotReadyError, match="made on another host"):
        init_key(other)
    assert not (tmp_path / "other.pem").exists()
    with writing(settings) as store:
        store_all(store, mixed(0, 10), 10)


def test_python_reads_the_store_that_the_settings_name(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.store_url is not None
    assert settings.index_url is not None
    with writing(settings) as store:
        store_all(store, mixed(0, 30), 10)
        count = store.index.count()
    monkeypatch.setenv("RMOS_STORE_URL", settings.store_url)
    monkeypatch.setenv("RMOS_INDEX_URL", settings.index_url.get_secret_value())
    with open_store() as opened:
        runs = list(opened.runs())
        assert len(runs) == count > 0
        assert all(opened.run(run.run_id).run_id == run.run_id for run in runs)


def test_a_store_is_made_once(settings: Settings) -> None:
    with pytest.raises(StoreNotReadyError, match="belongs to the store"):
        create(settings, cluster_id="cluster-1")
    with writing(settings) as store:
        store_all(store, mixed(0, 10), 10)
    with pytest.raises(StoreNotReadyError, match="There is a store at"):
        create(settings, cluster_id="cluster-1")
