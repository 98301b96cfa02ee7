"""Whom a worker refuses because of the store's ledger, and what is no misfit of it."""

import shutil
import signal
import sys
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from msgspec import structs

from pipeline.app.persist import persist_worker
from pipeline.broker.connection import admin_client
from pipeline.consumers.start import ledger_checks
from pipeline.disk.store_identity import read_store
from pipeline.errors import IntegrityError, StoreNotReadyError
from pipeline.ledger.leaf import LedgerLeaf, parse_leaf
from pipeline.ledger.log_id import LogId
from pipeline.settings import Settings
from pipeline.storage.ledger_key import open_ledger
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import open_store_to_write
from tests.e2e.commands import rmos
from tests.e2e.kafka_reading import SHORT_SESSION_MS, commit, committed, produce, wait_until
from tests.e2e.store_audit import audit_store
from tests.e2e.test_persist_start import PARTITION, consume_all, in_transaction, refusal, runs
from tests.e2e.worker_processes import WorkerPool

pytestmark = pytest.mark.e2e


def log_of(settings: Settings, epoch: int = 1) -> LogId:
    return LogId(epoch, settings.topics.run_requests, PARTITION)


def folder_of(settings: Settings, epoch: int = 1) -> Path:
    return settings.data_dir / log_of(settings, epoch).path


def leaves_of(settings: Settings, epoch: int = 1) -> list[LedgerLeaf]:
    ledger = open_ledger(settings)
    assert ledger is not None
    reader = ledger.reader(log_of(settings, epoch))
    return [] if reader is None else [parse_leaf(entry) for entry in reader.entries()]


def offsets_of(settings: Settings, epoch: int = 1) -> list[int]:
    return [leaf.offset for leaf in leaves_of(settings, epoch)]


def rewrite_log(settings: Settings, leaves: list[LedgerLeaf]) -> None:
    """Put another log in place, signed by the same key."""
    shutil.rmtree(folder_of(settings))
    ledger = open_ledger(settings)
    assert ledger is not None
    ledger.append_all({log_of(settings): leaves})


async def remove_records(settings: Settings, before: int) -> None:
    place = TopicPartition(settings.topics.run_requests, PARTITION)
    async with admin_client(settings) as admin:
        await admin.delete_records({place: RecordsToDelete(before_offset=before)})


async def refused_even_if_accepted(settings: Settings) -> str:
    said = await refusal(settings)
    with pytest.raises(StoreNotReadyError) as caught:
        await consume_all(settings, accept_loss=True)
    assert str(caught.value) == said
    return said


async def test_leaves_beyond_the_end_of_the_log_are_refused(store_settings: Settings) -> None:
    settings = store_settings
    await produce(settings, runs(3))
    await consume_all(settings)
    leaves = leaves_of(settings)
    rewrite_log(settings, [*leaves, structs.replace(leaves[-1], offset=7)])
    said = await refused_even_if_accepted(settings)
    assert said == (
        f"The ledger has records up to offset 8 of {settings.topics.run_requests}, partition "
        f"{PARTITION}, the log ends at 3: the broker has lost records or is another; run rmos "
        "store new-epoch, then start with --accept-loss."
    )


async def test_a_store_without_a_log_of_what_it_consumed_is_refused(
    store_settings: Settings,
) -> None:
    settings = store_settings
    await produce(settings, runs(3))
    await consume_all(settings)
    shutil.rmtree(folder_of(settings))
    said = await refused_even_if_accepted(settings)
    assert f"records up to offset 3 of {settings.topics.run_requests}, partition 4" in said
    assert said.endswith("but no log of them: run rmos ledger init.")


async def test_a_log_put_back_from_an_older_copy_is_refused(
    store_settings: Settings, tmp_path: Path
) -> None:
    settings = store_settings
    await produce(settings, runs(3))
    await consume_all(settings)
    shutil.copytree(folder_of(settings), tmp_path / "older")
    await produce(settings, runs(3, start=3))
    await consume_all(settings)
    shutil.move(folder_of(settings), tmp_path / "latest")
    shutil.copytree(tmp_path / "older", folder_of(settings))
    said = await refused_even_if_accepted(settings)
    assert "records up to offset 6" in said
    assert "its log ends before offset 3: it was cut or replaced" in said
    assert f"put back the latest copy of {log_of(settings).path}" in said
    assert "rmos replay restore" in said

    shutil.rmtree(folder_of(settings))
    shutil.move(tmp_path / "latest", folder_of(settings))
    await consume_all(settings)


async def test_a_log_that_ends_before_what_retention_removed_goes_on(
    store_settings: Settings, tmp_path: Path
) -> None:
    settings = store_settings
    await produce(settings, runs(3))
    await consume_all(settings)
    shutil.copytree(folder_of(settings), tmp_path / "older")
    await produce(settings, runs(3, start=3))
    await consume_all(settings)
    await remove_records(settings, before=6)
    shutil.rmtree(folder_of(settings))
    shutil.copytree(tmp_path / "older", folder_of(settings))
    # What the broker cannot show, nobody can tell from marks of transactions.
    await produce(settings, runs(1, start=6))
    await consume_all(settings)
    assert offsets_of(settings) == [0, 1, 2, 6]


async def test_a_hole_in_the_log_is_refused_where_its_record_comes_again(
    store_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = store_settings
    await produce(settings, runs(6))
    await consume_all(settings)
    rewrite_log(settings, [leaf for leaf in leaves_of(settings) if leaf.offset != 3])
    # Behind the group it is a finding of the audit; it does not come again.
    await consume_all(settings)
    await commit(settings, {PARTITION: 2})
    said = await refused_even_if_accepted(settings)
    assert said.startswith(f"Offset 3 of {settings.topics.run_requests}, partition {PARTITION} is")
    assert "to be consumed again and has no leaf, though its log goes on to offset 5" in said

    monkeypatch.setattr(ledger_checks, "GAPS_ASKED", 0)
    async with persist_worker(settings) as worker:
        await wait_until(worker.faults[0].done, "the ledger refused the record")
        with pytest.raises(IntegrityError, match="leaf of offset 3") as caught:
            worker.faults[0].result()
    assert caught.value.exit_status == 5
    assert (await committed(settings))[PARTITION] == 2


@pytest.mark.every_topic
async def test_a_group_moved_back_behind_leaves_goes_on_as_the_sentence_says(
    store_settings: Settings, tmp_path: Path
) -> None:
    settings = store_settings
    await produce(settings, runs(6))
    # As after somebody else has committed, and the worker went on over it.
    await commit(settings, {PARTITION: 3})
    await consume_all(settings, accept_loss=True)
    assert offsets_of(settings) == [3, 4, 5]
    await commit(settings, {PARTITION: 0})
    said = await refused_even_if_accepted(settings)
    assert "or run rmos replay restore into an empty store of the same store_id and epoch" in said
    assert "a worker that is started then consumes the rest" in said

    identity = read_store(settings.data_dir)
    settings.data_dir.rename(tmp_path / "aside")
    made = await rmos(
        settings, "store", "init", "--store-id", identity.store_id, "--epoch", str(identity.epoch)
    )
    assert made.status == 0, made
    restored = await rmos(settings, "replay", "restore")
    assert restored.status == 0, restored
    assert "not consumed yet, so left to the workers: 6 offsets" in restored.out
    await consume_all(settings)
    assert offsets_of(settings) == [0, 1, 2, 3, 4, 5]
    (await audit_store(settings)).assert_whole()
    assert (await rmos(settings, "replay", "verify")).status == 0


async def test_gaps_that_transactions_leave_are_no_holes(store_settings: Settings) -> None:
    settings = store_settings
    for number in range(4):
        await in_transaction(settings, runs(1, start=number), abort=number == 1)
    await produce(settings, runs(1, start=4))
    await consume_all(settings)
    # Two offsets each: the record and the mark; the second record was aborted.
    assert offsets_of(settings) == [0, 4, 6, 8]
    await commit(settings, {PARTITION: 0})
    await consume_all(settings)
    assert offsets_of(settings) == [0, 4, 6, 8]


async def test_an_accepted_loss_is_not_met_again_though_nothing_came_since(
    store_settings: Settings,
) -> None:
    settings = store_settings
    await produce(settings, runs(5))
    await commit(settings, {PARTITION: 5})
    assert "The group has committed offset 5" in await refusal(settings)
    for accept_loss in (True, False):
        async with persist_worker(settings, accept_loss=accept_loss):
            pass
    assert offsets_of(settings) == []
    await produce(settings, runs(1, start=5))
    await consume_all(settings)
    await consume_all(settings)
    assert offsets_of(settings) == [5]


async def test_a_worker_killed_between_checkpoint_and_index_starts_again(
    store_settings: Settings, workers: WorkerPool
) -> None:
    settings = store_settings
    driver = [sys.executable, "-m", "tests.e2e.worker_stopped_at", "SIGKILL"]
    killed = workers.fork(
        [*driver, "ledger written"],
        settings,
        RMOS_SESSION_TIMEOUT_MS=str(SHORT_SESSION_MS),
    )
    assert await killed.ended() == 0
    assert f"ledger written: -{int(signal.SIGKILL)}" in killed.text
    ledger = open_ledger(settings)
    assert ledger is not None
    store = RunStore(open_store_to_write(settings.data_dir), ledger=ledger)
    assert store.index.positions(1) == {}
    store.close()
    ahead = [ledger.reader(LogId(1, settings.topics.run_requests, n)) for n in range(12)]
    assert sum(reader.size for reader in ahead if reader is not None) > 0
    await consume_all(settings)
    assert (await audit_store(settings)).lost == []


async def test_after_a_new_epoch_old_logs_stay_closed_and_new_ones_begin(
    store_settings: Settings,
) -> None:
    settings = store_settings
    await produce(settings, runs(3))
    await consume_all(settings)
    closed = {
        path: path.read_bytes() for path in sorted(folder_of(settings).rglob("*")) if path.is_file()
    }
    assert (await rmos(settings, "store", "new-epoch")).status == 0
    assert read_store(settings.data_dir).epoch == 2
    await produce(settings, runs(2, start=3))
    said = await refusal(settings)
    assert "The group has committed offset 3" in said
    assert "the store has records up to 0" in said
    await consume_all(settings, accept_loss=True)
    await consume_all(settings)
    assert {path: path.read_bytes() for path in closed} == closed
    assert offsets_of(settings) == [0, 1, 2]
    assert offsets_of(settings, epoch=2) == [3, 4]
