"""The page of the ledger, and the file that it hands out."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.audit.journal import write_report
from pipeline.disk.contents import disk_contents
from pipeline.disk.durable_files import DurableFiles
from pipeline.ledger.reader import StoreLogs
from pipeline.ledger.tlog.checkpoints import open_checkpoint, parse_trusted
from tests.audit.audit_reports import REPORT
from tests.evidence.proven_stores import proven_store
from tests.ledger.ledgers import KEYS
from tests.page.conftest import Element, Site, site_over

LOGS = 4
ROOT = "ab" * 32


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("pipeline.storage.ledger_key.verifier_keys", lambda *_: KEYS)
    return proven_store(tmp_path / "store")


def rows(page: Element) -> list[str]:
    return [row.words for row in page.one("tbody").all("tr")]


async def test_each_log_has_its_leaves_and_the_root_that_was_signed(store: Path) -> None:
    logs = list(StoreLogs(disk_contents(store), KEYS).open_all())
    async with site_over(store) as site:
        page = await site.page("/ledger")
    assert len(logs) == LOGS
    for shown, log in zip(rows(page), logs, strict=True):
        assert shown.startswith(f"{log.log.topic}/{log.log.partition} epoch 1 {log.size} ")
        assert f"good {KEYS[0].key_id.hex()} {log.checkpoint.root.hex()}" in shown
    assert str(KEYS[0]) in page.one("main").text


async def test_what_is_handed_out_is_every_checkpoint_signed(store: Path) -> None:
    async with site_over(store) as site:
        answer = await site.get("/ledger/checkpoint")
    assert answer.headers["content-disposition"].startswith('attachment; filename="checkpoints-')
    logs = {log.checkpoint.origin: log for log in StoreLogs(disk_contents(store), KEYS).open_all()}
    handed_out = parse_trusted(answer.content)
    assert {each.checkpoint.origin for each in handed_out} == logs.keys()
    for each in handed_out:
        assert open_checkpoint(each.note, KEYS) == logs[each.checkpoint.origin].checkpoint


async def test_a_log_that_was_changed_is_damaged_and_shows_no_root(store: Path) -> None:
    (log, *_) = StoreLogs(disk_contents(store), KEYS).open_all()
    file = store / log.log.path / "checkpoint"
    file.write_bytes(file.read_bytes().replace(f"\n{log.size}\n".encode(), b"\n77\n", 1))
    async with site_over(store) as site:
        page = await site.page("/ledger")
        handed_out = await site.get("/ledger/checkpoint")
    assert len(rows(page)) == LOGS - 1
    (damaged,) = page.all("p", class_="problem")
    assert damaged.words.startswith(f"DAMAGED {log.log.path}:")
    assert log.checkpoint.root.hex() not in page.text
    assert handed_out.status_code == 500


async def test_a_last_leaf_that_the_root_does_not_cover_is_damage(store: Path) -> None:
    (log, *_) = StoreLogs(disk_contents(store), KEYS).open_all()
    for file in (store / log.log.path / "tile" / "entries").rglob("*"):
        if file.is_file():
            file.chmod(0o600)
            file.write_bytes(file.read_bytes().replace(b'"offset":', b'"offsat":'))
    async with site_over(store) as site:
        page = await site.page("/ledger")
    (damaged,) = page.all("p", class_="problem")
    assert damaged.words.startswith(f"DAMAGED {log.log.path}:")


async def test_without_a_key_nothing_is_called_good(tmp_path: Path) -> None:
    root = proven_store(tmp_path / "store")
    async with site_over(root, ledger_key_file=tmp_path / "no.pem") as site:
        page = await site.page("/ledger")
        handed_out = await site.get("/ledger/checkpoint")
    assert "does not have the public key" in page.one("p", class_="problem").words
    assert not list(page.all(class_="good"))
    assert not list(page.all("table"))
    assert handed_out.status_code == 503


async def test_a_store_without_leaves_has_nothing_to_hand_out(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.storage.ledger_key.verifier_keys", lambda *_: KEYS)
    page = await site.page("/ledger")
    assert "there is nothing to hand out" in page.one("main").words
    await site.page("/ledger/checkpoint", 404)


async def test_the_store_root_is_that_of_the_last_audit_that_has_one(store: Path) -> None:
    def report(audit_id: str, **more: Any) -> None:
        write_report(DurableFiles(store), {**REPORT, "audit_id": audit_id, **more})

    report("whole", store_root=ROOT)
    report("later")
    async with site_over(store) as site:
        page = await site.page("/ledger")
    links = [link.attributes["href"] for link in page.one("main").all("a")]
    assert ROOT in page.one("main").text
    assert {"/audits/whole", "/audits/later"} <= set(links)
