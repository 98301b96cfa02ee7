"""An index made again is, row for row, the one that was lost; what is wrong is told."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.app import advise_worker, persist_worker
from pipeline.broker.local import LocalBroker
from pipeline.consumers import advisory_claims
from pipeline.errors import StoreNotReadyError
from pipeline.index_rebuild import rebuild_index
from pipeline.settings import Settings
from pipeline.storage.index_check import check_index
from pipeline.storage.run_store import RunStore
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
from tests.e2e.kafka_reading import Sending, produce, sending, wait_until_consumed
from tests.storage.stores import rows

pytestmark = pytest.mark.e2e


def differences(settings: Settings) -> list[tuple[str, str]]:
    store = RunStore(settings.data_dir)
    try:
        return [(each.path, each.found) for each in check_index(store)]
    finally:
        store.close()


def derived(tables: dict[str, Any]) -> dict[str, Any]:
    """Return what files and topics tell: no flood window, and no place where nothing was read."""
    return {
        "runs": tables["runs"],
        "attachments": tables["attachments"],
        "advisories": tables["advisories"],
        "positions": [each for each in tables["positions"] if each["next_offset"]],
    }


async def test_a_lost_index_is_made_again_row_for_row(
    broker: LocalBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advisory_claims, "SCAN_SECONDS", NEVER)
    async with store_of(broker, tmp_path / "s", (NEVER,) * 4) as settings:
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
            await wait_until_all_told(settings, await publish(settings, *sent))
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
        async with advise_worker(settings):
            place = next(each for each in await publish(settings, advisory_of("run_later")))
            await wait_for(settings, place, "duplicate")
        assert "run_later_advisory_adv_1.json" in links(settings)


async def test_links_that_are_lost_changed_or_strange_are_found(
    broker: LocalBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advisory_claims, "SCAN_SECONDS", NEVER)
    async with store_of(broker, tmp_path / "s", (NEVER,) * 4) as settings:
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
        assert [each.path.rpartition("/")[2] for each in report.strange] == [
            "run_2_advisory_foreign.json"
        ]
        assert not report.is_clean
