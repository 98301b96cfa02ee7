"""How often a batch waits for an answer of the bucket or of the database, one after the other."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import MemoryStore
from pydantic import SecretStr

pytest.importorskip("psycopg", reason="the extra scale is not installed")

from pipeline.bucket import connection
from pipeline.bucket.files import BucketFiles
from pipeline.bucket.objects import Objects
from pipeline.core.store.files import NewFile
from pipeline.settings import Settings
from pipeline.storage import shared
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import create, init_key, open_to_write
from tests.builders import red_request, run_request
from tests.conftest import Servers
from tests.e2e.equivalence.outcomes import key_file_in
from tests.postgres.proxy import Proxy, standing_before
from tests.postgres.test_round_trips import LIMIT, PARTITIONS, batch
from tests.storage.stores import TOPIC, judged_record

ASKED = ("get", "put", "head", "delete", "list_with_delimiter")


class Rounds:
    """Counts what is waited for: of requests that are sent together, the longest chain."""

    def __init__(self, patch: pytest.MonkeyPatch, proxy: Proxy) -> None:
        self.of_bucket = 0
        self._proxy = proxy
        self._chains: Counter[Any] = Counter()
        for name in ASKED:
            patch.setattr(obstore, name, partial(self._alone, getattr(obstore, name)))
            asked = f"{name}_async"
            patch.setattr(obstore, asked, partial(self._beside_others, getattr(obstore, asked)))
        patch.setattr(Objects, "all", self._together(Objects.all))
        patch.setattr(BucketFiles, "at_once", self._beside_each_other)

    def _alone(self, ask: Callable[..., Any], *given: Any, **named: Any) -> Any:
        self.of_bucket += 1
        return ask(*given, **named)

    async def _beside_others(self, ask: Callable[..., Any], *given: Any, **named: Any) -> Any:
        self._chains[asyncio.current_task()] += 1
        return await ask(*given, **named)

    def _together(self, all_: Callable[..., Any]) -> Callable[..., Any]:
        def ask(objects: Objects, calls: Any) -> Any:
            self._chains.clear()
            found = all_(objects, calls)
            self.of_bucket += max(self._chains.values(), default=0)
            return found

        return ask

    def _beside_each_other(
        self, function: Callable[[Any], Any], items: Iterable[Any]
    ) -> Iterator[Any]:
        """Run in turn what runs in threads, to count it: the longest is waited for."""
        begun, longest = self.of_bucket, 0
        for item in items:
            yield function(item)
            longest = max(longest, self.of_bucket - begun)
            self.of_bucket = begun
        self.of_bucket = begun + longest

    def of(self, work: Callable[[], Any]) -> tuple[int, int]:
        """Return how often some work waits for the bucket and for the database."""
        before = self.of_bucket, self._proxy.answers
        work()
        return self.of_bucket - before[0], self._proxy.answers - before[1]


@pytest.fixture
def proxy(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with standing_before(servers.get("18"), tmp_path_factory.mktemp("pg")) as proxy:
        yield proxy


@pytest.fixture
def settings(
    proxy: Proxy, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """Give a store in a bucket of this process: what is counted is not how it answers."""
    memory = MemoryStore()
    monkeypatch.setattr(connection, "S3Store", lambda *_, **__: memory)
    monkeypatch.setattr(shared, "ask_bucket", lambda _: [])
    url = proxy.url(servers.get("18").new_database())
    settings = Settings(
        store_url="s3://shop/rmos", index_url=SecretStr(url), ledger_key_file=key_file_in(tmp_path)
    )
    create(settings, cluster_id="cluster-1")
    init_key(settings)
    return settings


@contextmanager
def started(settings: Settings, following: int) -> Iterator[RunStore]:
    """Open the store as a worker whose group goes on at an offset of each partition."""
    store, ledger = open_to_write(settings)
    with closing(RunStore(store, ledger=ledger)) as batches:
        batches.follow_ledger(dict.fromkeys(((TOPIC, p) for p in range(PARTITIONS)), following))
        yield batches


def without_attachments(first: int) -> list[JudgedRecord]:
    """Return 504 runs of all partitions from `first` on, a few with a quarantined request."""
    return [
        judged_record(
            (red_request if number % 50 == 0 else run_request)(run_id=f"run_{first}_{number}"),
            first + number // PARTITIONS,
            partition=number % PARTITIONS,
        )
        for number in range(42 * PARTITIONS)
    ]


def test_a_batch_waits_eight_times_and_one_that_is_delivered_again_no_longer(
    settings: Settings, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started(settings, 0) as store:
        # So many that a log has full tiles, and tiles of more than one level.
        for first in range(0, 42 * 7, 42):
            store.commit(without_attachments(first), LIMIT)
    rounds = Rounds(monkeypatch, proxy)
    with started(settings, 42 * 6) as store:
        again, new, more = without_attachments(42 * 6), without_attachments(42 * 7), batch(42 * 8)
        assert rounds.of(lambda: store.commit(again, LIMIT)) == (4, 2)
        assert rounds.of(lambda: store.commit(new, LIMIT)) == (3, 5)
        # Whether their attachments were awaited is asked while the checkpoints are swapped.
        assert rounds.of(lambda: store.commit(more, LIMIT)) == (3, 5)
        assert rounds.of(lambda: store.commit(more, LIMIT)) == (5, 2)


def test_a_start_waits_as_often_however_many_logs_there_are(
    settings: Settings, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started(settings, 0) as store:
        store.commit(without_attachments(0), LIMIT)
    rounds = Rounds(monkeypatch, proxy)

    def start() -> None:
        with started(settings, 42):
            pass

    assert rounds.of(start) == (10, 28)


def test_a_start_removes_what_killed_processes_left_in_every_log(settings: Settings) -> None:
    with started(settings, 0) as batches:
        batches.commit(without_attachments(0), LIMIT)
        logs = batches.store.logs.logs()
        left = [f"{log}/tile/0/000.p/6" for log in logs]
        batches.store.files.create(NewFile(path, b"left") for path in left)
    assert len(logs) == PARTITIONS
    store, ledger = open_to_write(settings)
    with closing(RunStore(store, ledger=ledger)) as started_later:
        # Of one partition, in which the index is not behind.
        started_later.follow_ledger({(TOPIC, 0): 42})
        assert not store.files.present(left)
