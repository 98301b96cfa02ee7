"""Whom a persist worker refuses: each misfit is named in one sentence, and nothing is committed."""

import os
import shutil
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete

from pipeline.app.persist import persist_worker
from pipeline.broker.connection import admin_client
from pipeline.broker.local.broker import LocalBroker
from pipeline.consumers.start import partition_states
from pipeline.disk.locks import INDEX_LOCK, exclusive_lock
from pipeline.errors import StoreNotReadyError
from pipeline.settings import Settings
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import open_store_to_write
from tests.builders import run_request
from tests.e2e.kafka_reading import (
    Sending,
    commit,
    committed,
    produce,
    sending,
    wait_until,
    wait_until_consumed,
)
from tests.e2e.prepared_store import prepare_store
from tests.e2e.store_audit import audit_store
from tests.e2e.worker_processes import WITHOUT_RIGHTS, WorkerPool, only_sentence

pytestmark = pytest.mark.e2e

PARTITION = 4


def runs(count: int, start: int = 0) -> list[Sending]:
    return [
        sending(run_request(run_id=f"run_{number}"), partition=PARTITION)
        for number in range(start, start + count)
    ]


async def consume_all(settings: Settings, **options: Any) -> None:
    async with persist_worker(settings, **options):
        await wait_until_consumed(settings)


async def refusal(settings: Settings) -> str:
    """Return why a worker refuses to start; the group's offsets stay as they are."""
    before = await committed(settings)
    with pytest.raises(StoreNotReadyError) as caught:
        async with persist_worker(settings):
            pytest.fail("the worker started")
    assert caught.value.exit_status == 6
    assert await committed(settings) == before
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def copy_settings(settings: Settings, **changes: Any) -> Settings:
    return settings.model_copy(update=changes)


@pytest.mark.parametrize("there", [False, True])
async def test_a_folder_that_is_no_store_is_refused_and_left_alone(
    settings: Settings, workers: WorkerPool, *, there: bool
) -> None:
    if there:
        settings.data_dir.mkdir()
    worker = workers.start(settings)
    assert await worker.ended() == 6
    said = only_sentence(worker.text)
    assert said.startswith(f"There is no store at {settings.data_dir}: mount its volume, or make")
    assert settings.data_dir.exists() is there
    assert list(settings.data_dir.parent.glob("store/*")) == []


async def test_a_store_of_another_cluster_or_prefix_is_refused(
    settings: Settings, broker: LocalBroker, tmp_path: Path
) -> None:
    other, elsewhere = tmp_path / "other", tmp_path / "elsewhere"
    foreign = copy_settings(settings, data_dir=other)
    prepare_store(foreign, "AAAAAAAAAAAAAAAAAAAAAA")
    said = await refusal(foreign)
    assert "belongs to the Kafka cluster AAAAAAAAAAAAAAAAAAAAAA" in said
    assert "RMOS_BOOTSTRAP_SERVERS" in said

    prepare_store(copy_settings(settings, data_dir=elsewhere, prefix="other"), broker.cluster_id)
    said = await refusal(copy_settings(settings, data_dir=elsewhere))
    assert f"keeps the topics other.*, RMOS_PREFIX says {settings.prefix}" in said


async def test_a_store_ahead_of_the_log_is_refused_with_or_without_accept_loss(
    store_settings: Settings,
) -> None:
    settings = store_settings
    await produce(settings, runs(5))
    store = RunStore(open_store_to_write(settings.data_dir))
    with store.index.transaction() as transaction:
        transaction.advance(1, {(settings.topics.run_requests, PARTITION): 6})
    store.close()
    said = await refusal(settings)
    assert f"The store has records up to offset 6 of {settings.topics.run_requests}" in said
    assert f"partition {PARTITION}, the log ends at 5" in said
    assert "rmos store new-epoch" in said
    with pytest.raises(StoreNotReadyError, match="new-epoch"):
        await consume_all(settings, accept_loss=True)
    assert await committed(settings) == {}


async def test_a_group_ahead_of_the_log_is_refused(store_settings: Settings) -> None:
    settings = store_settings
    await produce(settings, runs(5))
    await commit(settings, {PARTITION: 9})
    said = await refusal(settings)
    assert "The group has committed offset 9" in said
    assert "the log ends at 5" in said
    assert "rmos store new-epoch" in said


async def test_a_store_behind_its_group_is_refused_until_the_loss_is_accepted(
    store_settings: Settings, workers: WorkerPool
) -> None:
    settings = store_settings
    await produce(settings, runs(8))
    await commit(settings, {PARTITION: 5})
    said = await refusal(settings)
    assert "The group has committed offset 5" in said
    assert "the store has records up to 0" in said
    assert "--accept-loss" in said

    worker = workers.start(settings, "--accept-loss")
    await wait_until_consumed(settings, check=worker.check)
    (warning,) = worker.logged("loss accepted")
    assert warning["level"] == "warning"
    assert warning["lost"] in said
    assert await worker.stop() == 0
    # An accepted loss is not met again.
    await consume_all(settings)
    audit = await audit_store(settings)
    assert audit.rows.keys() == {"run_5", "run_6", "run_7"}
    assert len(audit.lost) == 5


async def in_transaction(settings: Settings, sent: list[Sending], *, abort: bool = False) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap_servers, transactional_id=f"{settings.prefix}-cam"
    )
    async with producer:
        await producer.begin_transaction()
        for each in sent:
            await producer.send_and_wait(
                settings.topics.run_requests, each.value, each.key, partition=each.partition
            )
        await (producer.abort_transaction() if abort else producer.commit_transaction())


async def test_transactions_of_producers_leave_no_misfit(store_settings: Settings) -> None:
    settings = store_settings
    await in_transaction(settings, runs(2), abort=True)
    await in_transaction(settings, runs(3, start=2))
    await consume_all(settings)
    # Two aborted, three stored, and two marks that no consumer is given.
    assert await committed(settings) == {PARTITION: 7} | dict.fromkeys(
        set(range(12)) - {PARTITION}, 0
    )
    await consume_all(settings)
    assert (await audit_store(settings)).rows.keys() == {"run_2", "run_3", "run_4"}


async def test_records_between_the_marks_of_transactions_are_missed(
    store_settings: Settings,
) -> None:
    settings = store_settings
    await in_transaction(settings, runs(1), abort=True)
    await in_transaction(settings, runs(1))
    await commit(settings, {PARTITION: 2})
    async with persist_worker(settings):
        pass
    await commit(settings, {PARTITION: 4})
    said = await refusal(settings)
    assert "The group has committed offset 4" in said


async def test_a_log_that_begins_after_the_group_is_refused_until_the_loss_is_accepted(
    store_settings: Settings,
) -> None:
    settings = store_settings
    await produce(settings, runs(4))
    await consume_all(settings)
    await produce(settings, runs(4, start=4))
    place = TopicPartition(settings.topics.run_requests, PARTITION)
    async with admin_client(settings) as admin:
        await admin.delete_records({place: RecordsToDelete(before_offset=6)})
    said = await refusal(settings)
    assert f"Offsets 4 to 5 of {place.topic}, partition {PARTITION} were removed" in said
    assert "--accept-loss" in said
    await consume_all(settings, accept_loss=True)
    await consume_all(settings)
    assert (await audit_store(settings)).rows.keys() == {f"run_{n}" for n in (0, 1, 2, 3, 6, 7)}


async def test_a_log_that_begins_after_zero_is_refused_by_a_group_that_is_new(
    store_settings: Settings,
) -> None:
    settings = store_settings
    await produce(settings, runs(4))
    place = TopicPartition(settings.topics.run_requests, PARTITION)
    async with admin_client(settings) as admin:
        await admin.delete_records({place: RecordsToDelete(before_offset=3)})
    assert "Offsets 0 to 2" in await refusal(settings)


def remove(index: Path) -> None:
    index.unlink()


def overwrite(index: Path) -> None:
    index.write_bytes(b"no database at all" * 400)


def truncate(index: Path) -> None:
    index.write_bytes(index.read_bytes()[:5000])


def empty(index: Path) -> None:
    index.write_bytes(b"")


@pytest.mark.parametrize("damage", [remove, overwrite, truncate, empty])
async def test_an_index_that_is_missing_or_damaged_over_runs_is_refused(
    store_settings: Settings, workers: WorkerPool, damage: Callable[[Path], None]
) -> None:
    settings = store_settings
    await produce(settings, runs(300))
    await consume_all(settings)
    await produce(settings, runs(3, start=300))
    for rest in settings.data_dir.glob("index.sqlite3-*"):
        rest.unlink()
    damage(settings.data_dir / "index.sqlite3")
    said = await refusal(settings)
    assert "run rmos index rebuild" in said
    assert str(settings.data_dir) in said


async def test_an_index_that_is_damaged_is_one_sentence_of_the_command(
    store_settings: Settings, workers: WorkerPool
) -> None:
    settings = store_settings
    await produce(settings, runs(3))
    await consume_all(settings)
    overwrite(settings.data_dir / "index.sqlite3")
    worker = workers.start(settings)
    assert await worker.ended() == 6
    assert "run rmos index rebuild" in only_sentence(worker.text)


async def test_an_empty_store_makes_its_index_by_itself(store_settings: Settings) -> None:
    await produce(store_settings, runs(1))
    await consume_all(store_settings)
    assert (await audit_store(store_settings)).rows.keys() == {"run_0"}


async def test_a_store_put_back_from_a_copy_is_behind_its_group(
    store_settings: Settings, tmp_path: Path
) -> None:
    settings = store_settings
    await produce(settings, runs(3))
    await consume_all(settings)
    shutil.copytree(settings.data_dir, tmp_path / "copy", symlinks=True)
    await produce(settings, runs(3, start=3))
    await consume_all(settings)
    said = await refusal(copy_settings(settings, data_dir=tmp_path / "copy"))
    assert "The group has committed offset 6" in said
    assert "the store has records up to 3" in said


async def test_workers_that_go_on_meanwhile_are_no_misfit(
    store_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = store_settings
    await produce(settings, runs(3))
    read = partition_states.committed_offsets, partition_states.partition_offsets
    number = [3]

    async def move_on() -> None:
        await produce(settings, runs(1, start=number[0]))
        number[0] += 1
        await wait_until_consumed(settings)

    def moving(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def moved(*args: Any) -> Any:
            result = await original(*args)
            await move_on()
            return result

        return moved

    async with persist_worker(settings):
        await wait_until_consumed(settings)
        monkeypatch.setattr(partition_states, "committed_offsets", moving(read[0]))
        monkeypatch.setattr(partition_states, "partition_offsets", moving(read[1]))
        async with persist_worker(settings):
            pass
    assert number[0] == 5


async def test_no_broker_is_one_sentence(store_settings: Settings, workers: WorkerPool) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        worker = workers.start(store_settings, RMOS_BOOTSTRAP_SERVERS=address)
        assert await worker.ended() == 6
    said = only_sentence(worker.text)
    assert said.startswith(f"No Kafka broker answers at {address}")
    assert "RMOS_BOOTSTRAP_SERVERS" in said
    assert "Traceback" not in worker.text


async def test_topics_that_are_missing_are_one_sentence(
    settings_without_topics: Settings, broker: LocalBroker, workers: WorkerPool
) -> None:
    settings = settings_without_topics
    prepare_store(settings, broker.cluster_id)
    worker = workers.start(settings)
    assert await worker.ended() == 6
    assert "run rmos topics apply" in only_sentence(worker.text)


@pytest.mark.parametrize("moment", ["start", "batch"])
async def test_a_worker_that_waits_for_the_lock_names_its_holder_and_can_be_stopped(
    store_settings: Settings, workers: WorkerPool, moment: str
) -> None:
    settings = store_settings
    with ExitStack() as held:
        lock = exclusive_lock(settings.data_dir / INDEX_LOCK)
        if moment == "start":
            held.enter_context(lock)
        worker = workers.start(settings)
        if moment == "batch":
            await worker.wait_until_started()
            held.enter_context(lock)
            await produce(settings, runs(1))
        holder = f"index.lock is held by process {os.getpid()} ("
        await wait_until(lambda: holder in worker.text, "the holder is named")
        worker.send(signal.SIGTERM)
        assert await worker.ended() == 0
    assert set((await committed(settings)).values()) <= {0}
    await consume_all(settings)


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can give folders away"
)
@pytest.mark.parametrize("closed", ["runs/2025-12-18", "runs", "ledger/1", "index.sqlite3"])
async def test_what_another_user_left_in_the_store_ends_the_worker_with_a_sentence(
    store_settings: Settings, workers: WorkerPool, closed: str
) -> None:
    """As after a command that was run once as another user."""
    settings = store_settings
    path = settings.data_dir / closed
    RunStore(open_store_to_write(settings.data_dir)).close()
    if path.name != "index.sqlite3":
        path.mkdir(parents=True, exist_ok=True)
    os.chown(path, 54_321, 54_321)
    worker = workers.start(settings, wrapper=WITHOUT_RIGHTS)
    await produce(settings, runs(1))
    assert await worker.ended() == 6
    said = only_sentence(worker.text)
    assert said.startswith(f"The store {settings.data_dir} cannot be used: Permission denied at ")
    assert "a command that was run as another user" in said
    os.chown(path, 0, 0)
    await consume_all(settings)
