"""Stores on one disk whose index is in PostgreSQL: the same as with SQLite, and by many at once.

No setting opens this pair. It is made here, to ask the batches about an index that is shared.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

psycopg = pytest.importorskip("psycopg", reason="the extra scale is not installed")

from msgspec import structs

from pipeline.consumers.start import checks
from pipeline.core.advisories.verdict import judge_advisory_record
from pipeline.core.record import RecordId, RecordSource
from pipeline.disk.contents import disk_contents_to_write
from pipeline.errors import IntegrityError, StoreError, StoreNotReadyError
from pipeline.postgres.database import PostgresDatabase
from pipeline.settings import Settings
from pipeline.storage.advisory_store import AdvisoryStore
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.batch_store import RejectLimit
from pipeline.storage.index.listing import list_runs
from pipeline.storage.index.postgres import open_postgres_index
from pipeline.storage.index.run_index import RunIndex
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import Store, open_store_to_write
from schemas.run_filter import RunFilter
from tests.builders import (
    GCODE,
    advisory_request,
    attachment,
    incomplete_request,
    record,
    red_request,
    run_request,
)
from tests.conftest import Servers
from tests.ledger.ledgers import ledger
from tests.postgres.servers import IDENTITY, VERSIONS, Server, with_tables
from tests.storage.stores import TIMESTAMP_MS, TOPIC, files, judged_record, make_store, tombstone

PARTITIONS = 3
ADVISORIES = "rmos.advisories.requests"


@pytest.fixture(params=VERSIONS)
def url(request: pytest.FixtureRequest, servers: Servers) -> str:
    server: Server = servers.get(request.param)
    return with_tables(server)


@contextmanager
def shared(root: Path, url: str, kind: type = RunStore) -> Iterator[Any]:
    """Open the store at `root` over the index at `url`, as a process that has just started."""
    if not (root / "store.json").exists():
        make_store(root)
    contents = disk_contents_to_write(root)
    opened = partial(open_postgres_index, url, IDENTITY, None)
    store = Store(contents.identity, contents.files, contents.logs, contents.lock, opened(), opened)
    with closing(kind(store, ledger=ledger(root))) as batches:
        yield batches


@contextmanager
def alone(root: Path) -> Iterator[RunStore]:
    """Open the store at `root` over SQLite."""
    make_store(root)
    with closing(RunStore(open_store_to_write(root), ledger=ledger(root))) as store:
        yield store


def mixed(partition: int, count: int) -> list[JudgedRecord]:
    """Return records of every kind: new runs, duplicates, conflicts, and what is no run."""
    chance = random.Random(partition)
    records = []
    for offset in range(count):
        run_id = f"run_{partition}_{chance.randrange(count // 2)}"
        requests: list[dict[str, Any]] = [
            run_request(run_id=run_id, tool_id=chance.choice(["saw:a", "Saw:b", "säge\x00"])),
            run_request(run_id=run_id, created_at_utc="2025-12-19T00:00:00Z"),
            red_request(run_id=run_id),
            incomplete_request(run_id=run_id),
            run_request(run_id=run_id, attachments=[attachment(GCODE.encode(), kind="gcode")]),
        ]
        if chance.random() < 0.1:
            records.append(tombstone(offset, partition=partition))
        else:
            records.append(judged_record(chance.choice(requests), offset, partition=partition))
    return records


def cut(records: Sequence[JudgedRecord], size: int) -> Iterator[list[JudgedRecord]]:
    for start in range(0, len(records), size):
        yield list(records[start : start + size])


LIMIT = RejectLimit("rmos.persist", accepted_rejects=10_000)


def store_all(store: RunStore, records: Sequence[JudgedRecord], size: int) -> list[Any]:
    return [o for batch in cut(records, size) for o in store.commit(batch, LIMIT).outcomes]


def without_cuts(root: Path) -> dict[str, bytes]:
    """Return the files of a store but those that show where its batches were cut."""
    return {name: content for name, content in files(root).items() if ".p/" not in name}


def kept(index: RunIndex) -> dict[str, Any]:
    """Return everything that an index answers."""
    with index.looking_up() as connection:
        pages = [
            list_runs(connection, RunFilter(**wanted)).as_json()
            for wanted in (
                {"limit": 1000},
                {"tool_id_prefix": "saw"},
                {"tool_id": "säge\x00", "limit": 3},
                {"status": "BLOCKED", "date_to": "2025-12-18"},
            )
        ]
    return {
        "runs": list(index.all_runs()),
        "advisories": list(index.all_advisories()),
        "positions": index.positions(1),
        "pages": pages,
    }


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what one worker makes of all records with SQLite, partition after partition."""
    root = tmp_path_factory.mktemp("plain") / "store"
    with alone(root) as store:
        outcomes = [store_all(store, mixed(partition, 120), 50) for partition in range(PARTITIONS)]
        index = kept(store.index)
    return {"outcomes": outcomes, "index": index, "files": without_cuts(root)}


def test_other_batches_of_three_workers_make_the_same_files_checkpoints_and_rows(
    tmp_path: Path, url: str, plain: dict[str, Any]
) -> None:
    root = tmp_path / "store"
    make_store(root)

    def work(partition: int) -> list[Any]:
        with shared(root, url) as store:
            return store_all(store, mixed(partition, 120), (7, 13, 120)[partition])

    with ThreadPoolExecutor(PARTITIONS) as pool:
        assert list(pool.map(work, range(PARTITIONS))) == plain["outcomes"]
    assert without_cuts(root) == plain["files"]
    with shared(root, url) as store:
        assert kept(store.index) == plain["index"]
        # All of it again, in yet other batches.
        again = [store_all(store, mixed(partition, 120), 31) for partition in range(PARTITIONS)]
        assert again == plain["outcomes"]
        assert kept(store.index) == plain["index"]
    assert without_cuts(root) == plain["files"]


def patiently(work: Callable[[], Any]) -> tuple[Any, int]:
    """Do as a worker does that begins its batch again; return how often it did."""
    for times in range(100):
        try:
            return work(), times
        except IntegrityError:
            raise
        except StoreError:
            continue
    raise AssertionError("it did not come to pass")


def leave_out_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = PostgresDatabase._begin
    monkeypatch.setattr(
        PostgresDatabase,
        "_begin",
        lambda self, begun, _places, questions: begin(self, begun, [], questions),
    )


@pytest.mark.parametrize("locks", ["with locks of rows", "without"])
def test_two_that_both_own_every_partition_make_the_same(
    tmp_path: Path, url: str, plain: dict[str, Any], locks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "store"
    make_store(root)
    if locks == "without":
        leave_out_locks(monkeypatch)

    def work(size: int) -> list[list[Any]]:
        outcomes: list[list[Any]] = [[] for _ in range(PARTITIONS)]
        with shared(root, url) as store:
            for batches in zip(*(cut(mixed(p, 120), size) for p in range(PARTITIONS)), strict=True):
                records = [each for batch in batches for each in batch]
                result, _ = patiently(partial(store.commit, records, LIMIT))
                for each, outcome in zip(records, result.outcomes, strict=True):
                    outcomes[each.source.id.partition].append(outcome)
        return outcomes

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, (10, 24))) == [plain["outcomes"]] * 2
    assert without_cuts(root) == plain["files"]
    with shared(root, url) as store:
        assert kept(store.index) == plain["index"]


def test_one_run_that_comes_by_two_partitions_is_made_once(tmp_path: Path, url: str) -> None:
    """Which of both is first is decided by the index; the other is told so."""
    root = tmp_path / "store"
    make_store(root)
    numbers = range(60)

    def work(partition: int) -> list[str]:
        with shared(root, url) as store:
            records = [
                judged_record(run_request(run_id=f"run_{n}"), n, partition=partition)
                for n in (numbers if partition == 0 else reversed(numbers))
            ]
            records = [
                structs.replace(
                    each, source=RecordSource(1, RecordId(each.source.id.topic, partition, at))
                )
                for at, each in enumerate(records)
            ]
            found = []
            for batch in cut(records, 6):
                result, _ = patiently(partial(store.commit, batch))
                found += [outcome.kind for outcome in result.outcomes]
            return found if partition == 0 else found[::-1]

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(work, range(2))
    assert all({a, b} == {"persisted", "duplicate"} for a, b in zip(first, second, strict=True))
    with shared(root, url) as store:
        assert store.index.count() == len(numbers)


def lose(url: str, partition: int, position: int) -> None:
    """Let a database be as before the records from `position` on, as after a failover."""
    with psycopg.connect(url) as connection:
        for table in ("attachments", "withheld_blobs", "withheld_payloads"):
            connection.execute(
                f"""DELETE FROM {table} WHERE run_id IN (SELECT run_id FROM runs
                    WHERE source_partition = %s AND source_offset >= %s)""",
                (partition, position),
            )
        for table in ("runs", "advisories"):
            connection.execute(
                f"DELETE FROM {table} WHERE source_partition = %s AND source_offset >= %s",
                (partition, position),
            )
        connection.execute(
            "UPDATE positions SET next_offset = %s WHERE partition = %s", (position, partition)
        )


def test_rows_that_a_failover_lost_are_back_before_the_next_batch(
    tmp_path: Path, url: str, plain: dict[str, Any]
) -> None:
    root = tmp_path / "store"
    with shared(root, url) as store:
        for partition in range(PARTITIONS):
            store_all(store, mixed(partition, 120)[:100], 50)
        # While the worker runs: it does not start again.
        lose(url, 0, 10)
        lose(url, 1, 0)
        rest = [store_all(store, mixed(partition, 120)[100:], 7) for partition in range(PARTITIONS)]
        assert rest == [outcomes[100:] for outcomes in plain["outcomes"]]
        assert kept(store.index) == plain["index"]
    assert without_cuts(root) == plain["files"]


async def test_a_start_brings_back_what_a_failover_lost_and_leaves_the_rest_to_its_batch(
    tmp_path: Path, url: str, plain: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "store"
    with shared(root, url) as store:
        for partition in range(PARTITIONS):
            store_all(store, mixed(partition, 120), 50)
        for partition in range(PARTITIONS):
            lose(url, partition, 10)
        place = (TOPIC, 0)

        async def committed(*_: Any) -> dict[Any, int]:
            return {place: 70, (TOPIC, 1): 5, (TOPIC, 2): 1000}

        async def cluster(*_: Any) -> str:
            return IDENTITY.cluster_id

        async def looked(*_: Any, **__: Any) -> Any:
            return SimpleNamespace(topic_id=None), [], set()

        monkeypatch.setattr(checks, "committed_offsets", committed)
        monkeypatch.setattr(checks, "describe_cluster", cluster)
        monkeypatch.setattr(checks, "look_at_start", looked)
        await checks.check_start(
            Settings(), store, topic=TOPIC, group="g", writes=(), accept_loss=False
        )
        # Not beyond what the group has committed, nor beyond the log.
        assert store.index.positions(1) == {place: 70, (TOPIC, 1): 10, (TOPIC, 2): 120}
        rest = [store_all(store, mixed(0, 120)[70:], 7), store_all(store, mixed(1, 120)[5:], 7)]
        assert rest == [plain["outcomes"][0][70:], plain["outcomes"][1][5:]]
        assert kept(store.index) == plain["index"]
    assert without_cuts(root) == plain["files"]


def test_a_file_that_is_not_what_its_leaf_says_makes_no_row(tmp_path: Path, url: str) -> None:
    root = tmp_path / "store"
    with shared(root, url) as store:
        store.commit([judged_record(run_request(run_id=f"run_{n}"), n) for n in range(3)])
        lose(url, 0, 1)
        path = root / "runs/2025-12-18/run_1.json"
        path.chmod(0o644)
        path.write_bytes(path.read_bytes().replace(b"GREEN", b"GREED"))
        with pytest.raises(IntegrityError, match=r"run_1\.json to have SHA-256"):
            store.commit([judged_record(run_request(run_id="run_3"), 3)])
        assert [run.run_id for run in store.index.all_runs()] == ["run_0"]


def advisory(offset: int, **changes: Any) -> JudgedRecord:
    key, value = record(advisory_request(**changes))
    place = RecordSource(1, RecordId(ADVISORIES, 0, offset))
    return JudgedRecord.of(place, judge_advisory_record(key, value), value, TIMESTAMP_MS)


def test_lost_advisories_are_back_and_only_a_claim_that_waits_needs_its_record(
    tmp_path: Path, url: str
) -> None:
    root = tmp_path / "store"
    with shared(root, url) as runs:
        runs.commit([judged_record(run_request(run_id="run_1"))])
    with shared(root, url, AdvisoryStore) as store:
        store.commit([advisory(n, run_id="run_1", advisory_id=f"adv_{n}") for n in range(3)])
        before = kept(store.index)
        lose_advisories(url, 1)
        store.commit([advisory(3, run_id="run_2", advisory_id="adv_3")])
        found = kept(store.index)
        assert [each for each in found["advisories"] if each.run_id == "run_1"] == before[
            "advisories"
        ]
        lose_advisories(url, 3)
        with pytest.raises(
            StoreNotReadyError, match=r"lacks the advisory of .*/0/3.* index rebuild"
        ):
            store.commit([advisory(4, run_id="run_1", advisory_id="adv_4")])


def lose_advisories(url: str, position: int) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("DELETE FROM advisories WHERE source_offset >= %s", (position,))
        connection.execute(
            "UPDATE positions SET next_offset = %s WHERE topic = %s", (position, ADVISORIES)
        )


def test_rows_that_another_log_lost_are_back_before_the_first_batch_of_a_connection(
    tmp_path: Path, url: str
) -> None:
    """A run comes again by another partition than that whose rows a failover lost."""
    root = tmp_path / "store"
    first = judged_record(run_request(run_id="run_1"))
    again = judged_record(run_request(run_id="run_1"), 0, partition=1)
    with shared(root, url) as store:
        store.commit([first])
        before = kept(store.index)["runs"]
    lose(url, 0, 0)
    with shared(root, url) as store:
        assert [each.kind for each in store.commit([again]).outcomes] == ["duplicate"]
        assert kept(store.index)["runs"] == before
        # That of its own worker, who finds the same as ever.
        assert store.index.positions(1) == {(TOPIC, 0): 0, (TOPIC, 1): 1}
        assert [each.kind for each in store.commit([first]).outcomes] == ["persisted"]


def test_lost_advisories_are_back_though_their_runs_were_lost_too(tmp_path: Path, url: str) -> None:
    root = tmp_path / "store"
    with shared(root, url) as runs:
        runs.commit([judged_record(run_request(run_id="run_1"))])
    with shared(root, url, AdvisoryStore) as store:
        store.commit([advisory(0, run_id="run_1", advisory_id="adv_0")])
        before = kept(store.index)
    lose(url, 0, 0)
    with shared(root, url, AdvisoryStore) as store:
        store.commit([advisory(1, run_id="run_1", advisory_id="adv_1")])
        found = kept(store.index)
        assert found["runs"] == before["runs"]
        assert found["advisories"][:1] == before["advisories"]
        assert [each.link_path is not None for each in found["advisories"]] == [True, True]


def test_a_claim_that_waits_in_another_log_is_left_to_its_own_worker(
    tmp_path: Path, url: str
) -> None:
    root = tmp_path / "store"
    with shared(root, url, AdvisoryStore) as store:
        store.commit([advisory(0, run_id="run_1", advisory_id="adv_0")])
    lose_advisories(url, 0)
    with shared(root, url) as store:
        store.commit([judged_record(run_request(run_id="run_1"))])
        assert kept(store.index)["advisories"] == []
    with shared(root, url, AdvisoryStore) as store, pytest.raises(StoreNotReadyError, match="/0/0"):
        store.commit([advisory(1, run_id="run_1", advisory_id="adv_1")])
