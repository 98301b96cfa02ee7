"""Two processes that both own all partitions: one halts at each step, while the other goes on."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("psycopg", reason="the extra scale is not installed")

import psycopg
from pydantic import SecretStr

from pipeline.bucket.objects import Objects
from pipeline.ledger.tlog.merkle import leaf_hash, root_of_hashes
from pipeline.ledger.tlog.tiles import tiles_of_append
from pipeline.settings import Settings
from pipeline.storage import shared
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.ledger_key import open_store_logs
from pipeline.storage.run_store import RunStore
from tests.bucket.buckets import HASTE
from tests.bucket.test_many_hosts import check_same, settings, writing
from tests.bucket.worker_halted_at import BATCH, STEPS, batch
from tests.e2e.kafka_reading import wait_until
from tests.e2e.runbook.test_store_drills import is_stopped
from tests.e2e.worker_processes import WorkerPool, WorkerProcess, worker_pool
from tests.postgres.test_shared_store import LIMIT, cut, leave_out_locks, plain

__all__ = ["plain", "settings"]

AHEAD = 3
"""As many records more of each partition than the zombie's the other has taken meanwhile. With
none, it has signed what the zombie signs: its swap is refused, and finds its own bytes."""

# The server has ended its transaction meanwhile, so the wish to commit fails, or to roll back.
AWAY = ["StoreAwayError"]
MOVED = ["LogMovedError", "StoreAwayError"]
FAULTS: dict[str, list[str]] = {
    "1. locked": AWAY,
    # The checkpoints that it goes on from were read when it was locked.
    "2. rows inserted": MOVED,
    "3. leaves appended": MOVED,
    "4. some files created": MOVED,
    "4. files created": MOVED,
    "5. checkpoints signed": MOVED,
    # All of them, where its other requests were on their way.
    "5. some swapped": MOVED,
    "5. swapped": AWAY,
    "6. positions noted": AWAY,
    "7. to be committed": AWAY,
    "7. committed": [],
}
"""What a zombie meets on its way, where the other is ahead."""


@pytest.fixture
def server(moto: str) -> str:
    # It ends each connection with its answer: one that is kept may end while a zombie is halted,
    # which then meets silence where it would have met the other's checkpoint.
    return moto


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[WorkerPool]:
    with worker_pool(tmp_path) as pool:
        yield pool


def url_of(settings: Settings) -> str:
    assert settings.index_url is not None
    return settings.index_url.get_secret_value()


def end_transactions(settings: Settings) -> None:
    """End those of the zombie, as the server does by itself after its time for a silent one."""
    with psycopg.connect(url_of(settings)) as connection:
        connection.execute(
            """SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity
            WHERE application_name = 'zombie'"""
        )


def offset_of(record: JudgedRecord) -> int:
    return record.source.id.offset


def stored(store: RunStore, records: list[JudgedRecord]) -> list[str]:
    """Let the successor take the same records in other batches; return the outcome of each."""
    in_turn = sorted(records, key=offset_of)
    outcomes = [o for part in cut(in_turn, 8) for o in store.commit(part, LIMIT).outcomes]
    of_each = {each.source: repr(o) for each, o in zip(in_turn, outcomes, strict=True)}
    return [of_each[each.source] for each in records]


def check_whole(settings: Settings, store: RunStore, first: int) -> None:
    """Check that checkpoints cover leaves that are there once, their tiles, and their files."""
    for log in open_store_logs(settings, store.store).open_all():
        leaves = list(log.leaves())
        assert root_of_hashes([leaf_hash(each.encode()) for each in leaves]) == log.checkpoint.root
        assert [each.offset for each in leaves] == list(range(log.size))
        paths = {f"{log.log.path}/{tile}" for tile in tiles_of_append(0, log.size)}
        paths |= {each.path for each in leaves[first:] if each.kind == "run" and each.path}
        assert store.store.files.present(paths) == paths


class Zombies:
    """The processes of the program, one after another."""

    def __init__(self, program: WorkerProcess) -> None:
        self.program = program

    def said(self) -> list[Any]:
        whole = self.program.text.rpartition("\n")[0].splitlines()
        return [json.loads(line) for line in whole if line[0] == "{" or line.isdigit()]

    async def halted(self, number: int) -> int:
        """Wait until one has halted; return its id."""

        def is_halted() -> bool:
            self.program.check()
            said = self.said()
            return len(said) > 2 * number and is_stopped(said[2 * number])

        await wait_until(is_halted, f"zombie {number} has halted")
        return int(self.said()[2 * number])

    async def ended(self, number: int) -> dict[str, Any]:
        """Wait until one has ended; return what became of its batch."""
        at = 2 * number + 1
        await wait_until(lambda: len(self.said()) > at, f"zombie {number} has ended")
        return dict(self.said()[at])


@pytest.mark.slow
@pytest.mark.parametrize(("locks", "ahead"), [("with locks of rows", AHEAD), ("without", 0)])
async def test_a_zombie_that_wakes_up_at_any_step_changes_nothing(
    settings: Settings,
    plain: dict[str, Any],
    locks: str,
    ahead: int,
    workers: WorkerPool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if locks == "without":
        leave_out_locks(monkeypatch)
    program = workers.fork(
        [sys.executable, "-m", "tests.bucket.worker_halted_at", locks],
        settings.model_copy(
            update={"index_url": SecretStr(f"{url_of(settings)}&application_name=zombie")}
        ),
        RMOS_LEDGER_KEY_FILE=str(settings.ledger_key_file),
    )
    zombies = Zombies(program)
    # Nothing is silent here but the zombie.
    monkeypatch.setattr(shared, "Objects", partial(Objects, patience=HASTE))

    def calm(start: int, end: int) -> list[str]:
        return [repr(each) for outcomes in plain["outcomes"] for each in outcomes[start:end]]

    with writing(settings) as successor:
        for number, step in enumerate(STEPS):
            first, last = number * BATCH, (number + 1) * BATCH
            zombie = await zombies.halted(number)
            check_whole(settings, successor, first)
            # Without its row it is in nobody's way yet: its transaction lives on beside the other.
            is_free = (locks, step) == ("without", "1. locked")
            if not is_free:
                end_transactions(settings)
            assert stored(successor, batch(first, last + ahead)) == calm(first, last + ahead), step
            os.kill(zombie, signal.SIGCONT)
            found = await zombies.ended(number)
            assert found["outcomes"] == calm(first, last), step
            expected = [] if is_free else FAULTS[step] if ahead or FAULTS[step] == [] else AWAY
            failed = sorted(found["failed"])
            assert failed == expected or (step == "5. some swapped" and failed == AWAY), step
            assert set(found["failed"].values()) <= {1}, found
            check_whole(settings, successor, first)
        assert await program.ended() == 0
        stored(successor, batch(last, 120))
    check_same(settings, plain)
