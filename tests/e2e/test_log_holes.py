"""A log that was compacted has holes: they are found, named, and nobody decides across them."""

import shutil

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from pipeline.app.persist import persist_worker
from pipeline.broker.admin.topics import partition_offsets
from pipeline.broker.connection import admin_client
from pipeline.broker.reading.log_holes import find_holes
from pipeline.disk.store_identity import create_store, read_store
from pipeline.settings import Settings
from tests.builders import run_request
from tests.e2e.commands import rmos
from tests.e2e.kafka_reading import produce, sending, wait_until, wait_until_consumed
from tests.e2e.test_persist_start import PARTITION, in_transaction, runs
from tests.e2e.worker_processes import WorkerPool, only_sentence

pytestmark = [pytest.mark.e2e, pytest.mark.every_topic]

COMPACTED = {
    "cleanup.policy": "compact",
    "segment.ms": "50",
    "min.cleanable.dirty.ratio": "0",
    "min.compaction.lag.ms": "0",
    "delete.retention.ms": "0",
}


async def set_policy(settings: Settings, configs: dict[str, str]) -> None:
    topic = settings.topics.run_requests
    async with admin_client(settings) as admin:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs)])


async def holes(settings: Settings) -> list[tuple[int, int]]:
    ranges = await partition_offsets(settings, [settings.topics.run_requests])
    place = (settings.topics.run_requests, PARTITION)
    return (await find_holes(settings, {place: ranges[place]})).get(place, [])


async def compact(settings: Settings) -> None:
    """Have the broker remove the first request for `run_1`, for which there is a later one."""
    await set_policy(settings, COMPACTED)
    number = 0

    async def is_gone() -> bool:
        nonlocal number
        number += 1
        # A record rolls the segment before it, which alone is compacted.
        filler = sending(run_request(run_id=f"filler_{number}"), partition=PARTITION)
        await produce(settings, [filler])
        return bool(await holes(settings))

    await wait_until(is_gone, "the first request for run_1 is compacted away")
    await set_policy(settings, {"cleanup.policy": "delete"})


async def test_marks_and_aborted_records_are_no_holes(store_settings: Settings) -> None:
    settings = store_settings
    await produce(settings, runs(2))
    await in_transaction(settings, runs(2, start=2))
    await in_transaction(settings, runs(2, start=4), abort=True)
    await produce(settings, runs(1, start=6))
    assert await holes(settings) == []


@pytest.fixture
async def compacted(store_settings: Settings) -> Settings:
    """Give a store of which the broker has lost the record that made `run_1`."""
    return await compacted_store(store_settings)


async def compacted_store(settings: Settings) -> Settings:
    first = run_request(run_id="run_1", notes="first")
    refused = run_request(run_id="run_1", notes="refused")
    for request in (run_request(run_id="run_0"), first, refused):
        await produce(settings, [sending(request, partition=PARTITION)])
    async with persist_worker(settings):
        await wait_until_consumed(settings)
    await compact(settings)
    assert await holes(settings) == [(1, 2)]
    return settings


async def test_a_start_names_what_is_gone_and_refuses_what_was_not_consumed(
    store_settings: Settings, workers: WorkerPool
) -> None:
    settings = store_settings
    await produce(settings, [sending(run_request(run_id="run_0"), partition=PARTITION)])
    async with persist_worker(settings):
        await wait_until_consumed(settings)
    for notes in ("first", "refused"):
        request = run_request(run_id="run_1", notes=notes)
        await produce(settings, [sending(request, partition=PARTITION)])
    await compact(settings)
    assert await holes(settings) == [(1, 2)]
    worker = workers.start(settings)
    assert await worker.ended() == 6
    assert "before they were consumed: offsets 1 of" in only_sentence(worker.text)
    async with persist_worker(settings, accept_loss=True):
        await wait_until_consumed(settings)
    worker = workers.start(settings)
    await worker.wait_until_started()
    (line,) = worker.logged("records are gone from the log")
    assert line["gone"].startswith("offsets 1 of")


async def test_a_hole_far_behind_in_what_is_not_consumed_is_refused_too(
    store_settings: Settings, workers: WorkerPool
) -> None:
    settings = store_settings
    padded = [run_request(run_id=f"run_{n}", notes="x" * 900_000) for n in range(3)]
    for request in [*padded, run_request(run_id="run_3"), run_request(run_id="run_3", notes="2")]:
        await produce(settings, [sending(request, partition=PARTITION)])
    await compact(settings)
    assert await holes(settings) == [(3, 4)]
    worker = workers.start(settings)
    assert await worker.ended() == 6
    assert "before they were consumed: offsets 3 of" in only_sentence(worker.text)


async def test_without_leaves_a_hole_is_named_by_what_would_decide_who_was_first(
    store_settings: Settings,
) -> None:
    settings = await compacted_store(store_settings.model_copy(update={"ledger_enabled": False}))
    before = (settings.data_dir / "index.sqlite3").stat().st_ino
    rebuilt = await rmos(settings, "index", "rebuild")
    assert rebuilt.status == 6
    assert "offsets 1 of" in rebuilt.err
    assert "put back the folder ledger" in rebuilt.err
    assert (settings.data_dir / "index.sqlite3").stat().st_ino == before

    settings = settings.model_copy(update={"ledger_enabled": True})
    refused = await rmos(settings, "ledger", "init")
    assert refused.status == 6
    assert "offsets 1 of" in refused.err
    assert "from the middle of the log" in refused.err
    built = await rmos(settings, "ledger", "init", "--accept-loss")
    assert built.status == 0, built.err


async def test_a_refused_request_never_wins_across_a_hole(compacted: Settings) -> None:
    settings = compacted
    place = f"{settings.topics.run_requests}/{PARTITION}:1-2"
    planned = await rmos(settings, "replay", "plan", "--json")
    assert [each["holes"] for each in planned.documents if each.get("holes")] == [
        [{"from": 1, "to": 2}]
    ]
    assert planned.documents[-1]["summary"]["holes"] == 1
    verified = await rmos(settings, "replay", "verify", "--json")
    assert verified.status == 5
    assert ("missing", "record", place) in [
        (each.get("finding"), each.get("what"), each.get("path")) for each in verified.documents
    ]

    # The leaves say who was first: what is there can be made again, the rest is named.
    shutil.rmtree(settings.data_dir / "runs")
    with_leaves = await rmos(settings, "replay", "restore", "--json")
    assert with_leaves.status == 5
    assert [each["path"] for each in with_leaves.documents if each.get("what") == "record"]
    assert (settings.data_dir / "runs/2025-12-18/run_0.json").exists()
    assert not (settings.data_dir / "runs/2025-12-18/run_1.json").exists()

    identity = read_store(settings.data_dir)
    shutil.rmtree(settings.data_dir)
    create_store(
        settings.data_dir,
        cluster_id=identity.cluster_id,
        prefix=identity.prefix,
        store_id=identity.store_id,
        epoch=identity.epoch,
    )
    for options in ((), ("--accept-loss",)):
        refused = await rmos(settings, "replay", "restore", *options)
        assert refused.status == 6
        assert "offsets 1 of" in refused.err
        assert "who was first" in refused.err
    assert not (settings.data_dir / "runs").exists()
