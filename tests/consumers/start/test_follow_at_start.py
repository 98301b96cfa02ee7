"""A start over an index that fails over: what it has lost is made again first, beside the loop."""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.consumers.start import checks
from pipeline.core.record import Partition
from pipeline.disk.sqlite.database import SqliteDatabase
from pipeline.errors import StoreNotReadyError
from pipeline.settings import Settings
from pipeline.storage.run_store import RunStore
from tests.builders import run_request
from tests.ledger.ledgers import ledger
from tests.storage.stores import TOPIC, change_index, judged_record, opened


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunStore]:
    """Give a store whose index has lost its last rows, and is one that may."""
    with opened(tmp_path, ledger=ledger(tmp_path)) as store:
        store.commit([judged_record(run_request(run_id=f"run_{n}"), n) for n in range(3)])
        change_index(tmp_path, "DELETE FROM runs")
        change_index(tmp_path, "DELETE FROM positions")

        async def committed(*_: Any) -> dict[Partition, int]:
            return {(TOPIC, 0): 3}

        async def looked(*_: Any, **__: Any) -> Any:
            return SimpleNamespace(topic_id=None), [], set()

        monkeypatch.setattr(SqliteDatabase, "fails_over", True)
        monkeypatch.setattr(checks, "committed_offsets", committed)
        monkeypatch.setattr(checks, "look_at_start", looked)
        yield store


def start(store: RunStore, monkeypatch: pytest.MonkeyPatch, *, cluster_id: str) -> None:
    async def cluster(*_: Any) -> str:
        return cluster_id

    monkeypatch.setattr(checks, "describe_cluster", cluster)
    asyncio.run(
        checks.check_start(Settings(), store, topic=TOPIC, group="g", writes=(), accept_loss=False)
    )


def test_what_was_lost_is_made_again_while_the_loop_goes_on(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow = RunStore.follow_ledger
    threads = []

    def followed(self: RunStore, committed: Mapping[Partition, int]) -> None:
        threads.append(threading.current_thread())
        follow(self, committed)

    monkeypatch.setattr(RunStore, "follow_ledger", followed)
    start(store, monkeypatch, cluster_id="cluster-1")
    assert store.index.positions(1) == {(TOPIC, 0): 3}
    assert store.index.count() == 3
    # It may wait half a minute for a lock, and a signal must end it.
    assert threads != [threading.main_thread()]


def test_the_offsets_of_another_broker_are_followed_by_nothing(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreNotReadyError, match="cluster-2"):
        start(store, monkeypatch, cluster_id="cluster-2")
    assert store.index.positions(1) == {}
    assert store.index.count() == 0
