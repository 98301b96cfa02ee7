"""An index made again is, row for row, the one that was lost; what is wrong is told."""

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from pipeline.app.advise import advise_worker
from pipeline.app.persist import persist_worker
from pipeline.broker.connection import admin_client
from pipeline.broker.local.broker import LocalBroker
from pipeline.broker.reading import ranges as single_records
from pipeline.consumers import claims as advisory_claims
from pipeline.disk.store_identity import read_store
from pipeline.errors import IntegrityError, StoreNotReadyError
from pipeline.recovery.rebuild.index import rebuild_index
from pipeline.settings import Settings
from pipeline.storage.index_check import check_index
from pipeline.storage.ledger_key import verifier_keys
from pipeline.storage.reader import open_reader
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import open_store_to_write
from schemas.run_filter import RunFilter
from tests.audit.audited import audit
from tests.builders import run_request
from tests.e2e.advisories import (
    NEVER,
    advisory_of,
    links,
    publish,
    run_of,
    store_of,
    wait_for,
    wait_until_all_told,
    wait_until_persisted,
)
from tests.e2e.kafka_reading import EVERY_TOPIC, Sending, produce, sending, wait_until_consumed
from tests.e2e.prepared_store import prepare_store
from tests.storage.stores import rows

pytestmark = [pytest.mark.e2e, pytest.mark.every_topic]


def differences(settings: Settings) -> list[tuple[str, str]]:
    store = RunStore(open_store_to_write(settings.data_dir))
    try:
        return [(each.path, each.found) for each in check_index(store.store, store.index)]
    finally:
        store.close()


def derived(tables: dict[str, Any]) -> dict[str, Any]:
    """Return what files and topics tell: no reject window, and no place where nothing was read."""
    return {
        "runs": tables["runs"],
        "attachments": tables["attachments"],
        "advisories": tables["advisories"],
        "positions": [each for each in tables["positions"] if each["next_offset"]],
    }


async def test_a_lost_index_is_made_again_row_for_row(
    broker: LocalBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advisory_claims, "LOOK_SECONDS", NEVER)
    async with store_of(broker, tmp_path / "s", NEVER, EVERY_TOPIC) as settings:
        async with persist_worker(settings), advise_worker(settings):
            await produce(settings, [run_of(f"run_{n}") for n in range(20)])
            await wait_until_persisted(settings, 20)
            sent = [
                *(advisory_of(f"run_{n}", advisory_id=f"adv_{n % 3}") for n in range(20)),
                advisory_of("run_1", advisory_id="adv_1", title="a duplicate"),
                advisory_of("run_2", advisory_id="adv_2", kind="note"),
                advisory_of("run_later"),
                advisory_of("run_never"),
                Sending(b"run_1", b"{"),
            ]
            places = await publish(settings, *sent)
            await wait_until_all_told(settings, places)
            with pytest.raises(StoreNotReadyError, match="Stop the workers"):
                await rebuild_index(settings)
            await produce(settings, [sending(run_request(run_id="run_later"))])
            await wait_until_consumed(settings)
        before = rows(settings.data_dir)
        assert len(before["advisories"]) == 22
        assert differences(settings) == []
        for path in settings.data_dir.glob("index.sqlite3*"):
            path.unlink()
        report = await rebuild_index(settings)
        assert (report.runs, report.advisories, report.is_clean) == (21, 22, True)
        assert report.links_to_make == ["run_later adv_1"]
        assert derived(rows(settings.data_dir)) == derived(before)
        assert differences(settings) == []
        monkeypatch.setattr(advisory_claims, "LOOK_SECONDS", 0.1)
        async with advise_worker(settings):
            (place,) = await publish(settings, advisory_of("run_later"))
            await wait_for(settings, place, "duplicate")
            await wait_for(settings, places[-3], "linked")
        assert "run_later_advisory_adv_1.json" in links(settings)


async def test_links_that_are_lost_changed_or_unexpected_are_found_without_a_ledger_too(
    broker: LocalBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advisory_claims, "LOOK_SECONDS", NEVER)
    async with store_of(broker, tmp_path / "s", NEVER, EVERY_TOPIC) as with_ledger:
        settings = with_ledger.model_copy(update={"ledger_enabled": False})
        async with persist_worker(settings), advise_worker(settings):
            await produce(settings, [run_of(f"run_{n}") for n in range(3)])
            await wait_until_persisted(settings, 3)
            sent = [advisory_of(f"run_{n}") for n in range(3)]
            await wait_until_all_told(settings, await publish(settings, *sent))
        folder = settings.data_dir / "runs/2025-12-18"
        lost, changed = (folder / f"run_{n}_advisory_adv_1.json" for n in range(2))
        content = lost.read_bytes()
        lost.unlink()
        changed.chmod(0o644)
        changed.write_bytes(changed.read_bytes().replace(b"Why", b"How"))
        (folder / "run_2_advisory_foreign.json").write_bytes(content)
        assert sorted(path.rpartition("/")[2] for path, _ in differences(settings)) == [
            "run_0_advisory_adv_1.json",
            "run_1_advisory_adv_1.json",
            "run_2_advisory_foreign.json",
        ]
        report = await rebuild_index(settings)
        assert report.links_to_make == ["run_0 adv_1"]
        assert report.links_changed == ["run_1 adv_1"]
        assert [each.path.rpartition("/")[2] for each in report.unexpected] == [
            "run_2_advisory_foreign.json"
        ]
        assert not report.is_clean


async def test_what_is_missing_has_its_row_from_the_record_of_its_leaf(
    broker: LocalBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advisory_claims, "LOOK_SECONDS", NEVER)
    monkeypatch.setattr(single_records, "_NEAR_OFFSETS", 3)
    async with store_of(broker, tmp_path / "s", NEVER, EVERY_TOPIC) as settings:
        async with persist_worker(settings), advise_worker(settings):
            runs = (run_request(run_id=f"run_{n}") for n in range(30))
            await produce(settings, [sending(each, partition=4) for each in runs])
            await wait_until_persisted(settings, 30)
            sent = [advisory_of(f"run_{n}") for n in range(5)]
            await wait_until_all_told(settings, await publish(settings, *sent))
        folder = settings.data_dir / "runs/2025-12-18"
        for name in ("run_3", "run_17", "run_4_advisory_adv_1"):
            (folder / f"{name}.json").unlink()
        before = rows(settings.data_dir)
        report = await rebuild_index(settings)
        assert report.without_file == ["run_17", "run_3"]
        assert report.links_to_make == ["run_4 adv_1"]
        assert (report.runs, report.lost, report.is_clean) == (30, [], False)
        (lost_link,) = [row for row in before["advisories"] if row["run_id"] == "run_4"]
        lost_link["link_path"] = None
        assert derived(rows(settings.data_dir)) == derived(before)


async def test_what_neither_file_nor_topic_reports_is_named(store_settings: Settings) -> None:
    settings = store_settings
    async with persist_worker(settings):
        sent = [sending(run_request(run_id=f"run_{n}"), partition=4) for n in range(6)]
        await produce(settings, sent)
        await wait_until_consumed(settings)
    place = TopicPartition(settings.topics.run_requests, 4)
    async with admin_client(settings) as admin:
        await admin.delete_records({place: RecordsToDelete(before_offset=3)})
    for name in ("run_1", "run_4"):
        (settings.data_dir / f"runs/2025-12-18/{name}.json").unlink()
    report = await rebuild_index(settings)
    assert (report.lost, report.without_file, report.is_clean) == (["run_1"], ["run_4"], False)
    assert report.runs == 5


async def test_files_of_a_batch_that_died_before_its_leaves_are_explained_by_their_records(
    store_settings: Settings, broker: LocalBroker, tmp_path: Path
) -> None:
    """Their records come again; then they are persisted, as they would have been."""
    settings = store_settings
    async with persist_worker(settings):
        await produce(settings, [sending(run_request(run_id="run_0"), partition=4)])
        await wait_until_consumed(settings)
    lost = sending(run_request(run_id="run_1"), partition=4)
    await produce(settings, [lost])
    other = settings.model_copy(update={"data_dir": tmp_path / "other"})
    prepare_store(other, broker.cluster_id)
    async with persist_worker(other, accept_loss=True):
        await wait_until_consumed(other)
    name = "runs/2025-12-18/run_1.json"
    shutil.copy(other.data_dir / name, settings.data_dir / name)
    report = await rebuild_index(settings)
    assert (report.runs, report.without_record, report.is_clean) == (2, [], True)
    (row,) = [row for row in rows(settings.data_dir)["runs"] if row["run_id"] == "run_1"]
    assert (row["source_partition"], row["source_offset"]) == (4, 1)


@pytest.mark.parametrize("ledger_enabled", [True, False])
async def test_a_forged_file_and_link_get_no_run_through_a_rebuild(
    store_settings: Settings, ledger_enabled: bool
) -> None:
    settings = store_settings.model_copy(update={"ledger_enabled": ledger_enabled})
    async with persist_worker(settings), advise_worker(settings):
        await produce(settings, [run_of("run_0")])
        await wait_until_persisted(settings, 1)
        await wait_until_all_told(settings, await publish(settings, advisory_of("run_0")))
    folder = settings.data_dir / "runs/2025-12-18"
    forge(folder, "run_0", "run_1")
    forge(folder, "run_0_advisory_adv_1", "run_0_advisory_adv_2")
    report = await rebuild_index(settings)
    assert (report.without_record, report.links_without_record) == (["run_1"], ["run_0 adv_2"])
    assert not report.is_clean
    assert [path.rpartition("/")[2] for path, _ in differences(settings)] == [
        "run_0_advisory_adv_2.json",
        "run_1.json",
    ]
    with closing(open_reader(settings.data_dir)) as reader:
        with pytest.raises(IntegrityError, match="RUN_UNEXPLAINED"):
            reader.find("run_1")
        listed = reader.list_runs(RunFilter(limit=5)).items
        advisories = reader.advisories("run_0")["advisories"]
    assert [each["run_id"] for each in listed] == ["run_0"]
    assert [each["advisory_id"] for each in advisories] == ["adv_1"]
    if ledger_enabled:
        keys = verifier_keys(settings, read_store(settings.data_dir))
        found = audit(settings.data_dir, keys=keys)
        assert {
            each.path.rpartition("/")[2]
            for each in found.findings
            if each.code == "FILE_UNEXPLAINED"
        } == {"run_0_advisory_adv_2.json", "run_1.json"}
        assert found.results["integrity"] == "failed"


def forge(folder: Path, name: str, forged: str) -> None:
    """Copy a file of the store under another id, which it tells itself too."""
    old, new = (each.rpartition("_advisory_")[2].encode() for each in (name, forged))
    content = (folder / f"{name}.json").read_bytes()
    (folder / f"{forged}.json").write_bytes(content.replace(old, new))
