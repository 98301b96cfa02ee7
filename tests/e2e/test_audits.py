"""Audits on the real broker: asked for by a record, told on topics, written beside the store."""

import json
import shutil
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pipeline.app.audit import audit_worker
from pipeline.broker.local.broker import LocalBroker
from pipeline.errors import StoreError
from pipeline.ledger.tlog.checkpoints import write_trusted
from pipeline.settings import Settings
from tests.e2e import audits
from tests.e2e.audits import ask, asking, audit_request, auditing
from tests.e2e.kafka_reading import commit, header_dict, produce, read_topic

pytestmark = pytest.mark.e2e


@pytest.fixture
async def store(broker: LocalBroker, tmp_path: Path) -> AsyncIterator[Settings]:
    async with audits.store_to_audit(broker, tmp_path) as settings:
        yield settings


async def test_a_clean_store_has_a_clean_report_and_nothing_else_is_written(
    store: Settings,
) -> None:
    before = audits.files_of(store)
    async with auditing(store):
        places = await ask(store, asking(audit_request()))
        (report,) = await audits.wait_for_reports(store)
        await audits.wait_until_committed(store, places)
    assert report.codes == {}
    results = {name: each["result"] for name, each in report.verdicts.model_dump().items()}
    assert results == {
        "integrity": "ok",
        "completeness": "ok",
        "anchored": "unknown",
        "late": "ok",
    }
    assert report.counts.artifacts == 6
    assert report.counts.quarantined == 2
    assert await audits.findings(store) == []
    assert audits.files_of(store) == before
    path = store.data_dir / "audits" / "a1.json"
    for each in (path, path.with_suffix(".ndjson")):
        assert stat.S_IMODE(each.stat().st_mode) == 0o444
    (message,) = await read_topic(store, store.topics.audit_reports)
    assert message.value == path.read_bytes()
    assert message.key == b"a1"
    headers = header_dict(message)
    assert headers["ce_type"] == b"rmos.audit.report.v1"
    assert headers["ce_source"] == b"/rmos/audit"
    assert headers["ce_subject"] == b"a1"


async def test_one_flipped_bit_is_named_on_the_topic_in_the_journal_and_in_the_report(
    store: Settings,
) -> None:
    damaged = audits.stored_runs(store)[3]
    audits.flip(damaged)
    async with auditing(store):
        await ask(store, asking(audit_request()))
        (report,) = await audits.wait_for_reports(store)
    (finding,) = await audits.findings(store)
    assert finding["code"] == "BYTES_DIFFER"
    assert finding["path"] == damaged.relative_to(store.data_dir).as_posix()
    assert finding in audits.journal_lines(store)
    assert report.codes == {"BYTES_DIFFER": 1}
    assert report.verdicts.integrity.result == "failed"
    assert report.verdicts.completeness.result == "ok"


async def test_the_same_request_again_is_answered_by_the_same_report(store: Settings) -> None:
    audits.flip(audits.stored_runs(store)[0])
    async with auditing(store):
        await ask(store, asking(audit_request()))
        await audits.wait_for_reports(store)
        same = {"scope": {"all": True, "dates": None}, "mode": "full", "audit_id": "a1"}
        await ask(store, asking(same))
        first, second = await audits.wait_for_reports(store, 2)
    assert first == second
    messages = await read_topic(store, store.topics.audit_reports)
    assert {header_dict(each)["ce_id"] for each in messages} == {header_dict(messages[0])["ce_id"]}
    # Nothing was audited again.
    assert len(await audits.findings(store)) == 1


async def test_what_can_be_no_audit_is_a_dead_letter_and_holds_up_nothing(
    store: Settings,
) -> None:
    async with auditing(store):
        bad = [
            asking(audit_request("a1", mode="deep")),
            asking(audit_request("a1"), key=b"a2"),
            asking(audit_request("a1", scope={})),
        ]
        await ask(store, *bad, asking(audit_request("a1", mode="quick")))
        await audits.wait_for_reports(store)
        places = await ask(store, asking(audit_request("a1", mode="full")))
        letters = await audits.dead_letters(store, 4)
        await audits.wait_until_committed(store, places)
    codes = [each["rmos-error-code"] for each in letters]
    assert sorted(codes) == ["AUDIT_CONFLICT", *["INVALID_AUDIT"] * 3]
    assert {each["rmos-group"] for each in letters} == {store.topics.audit_group}
    (report,) = await audits.reports(store)
    assert report.mode == "quick"


async def test_a_record_that_was_consumed_without_a_leaf_is_found(store: Settings) -> None:
    (place,) = await produce(store, [audits.requests(7)[6]])
    await commit(store, {place.partition: place.offset + 1})
    async with auditing(store):
        await ask(store, asking(audit_request(mode="quick")))
        (report,) = await audits.wait_for_reports(store)
    assert report.codes == {"OFFSET_WITHOUT_LEAF": 1}
    assert report.verdicts.completeness.result == "failed"
    assert report.verdicts.integrity.result == "ok"
    (finding,) = await audits.findings(store)
    assert finding["path"].endswith(f"/{store.topics.run_requests}-{place.partition}")
    assert f"offset {place.offset}," in finding["found"]
    assert json.dumps(finding) in map(json.dumps, audits.journal_lines(store))


async def test_checkpoints_that_somebody_holds_anchor_the_logs_or_tell_that_they_were_made_anew(
    store: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "trusted"
    folder.mkdir()
    notes = [path.read_bytes() for path in store.data_dir.glob("ledger/*/*/checkpoint")]
    (folder / "monday.checkpoints").write_bytes(write_trusted(notes))
    trusting = store.model_copy(update={"audit_trusted_dir": folder})
    async with auditing(trusting):
        await ask(store, asking(audit_request("a1")))
        (anchored,) = await audits.wait_for_reports(store)
        assert anchored.verdicts.anchored.result == "ok"
        assert anchored.counts.anchored_leaves == anchored.counts.leaves == 6
        # Somebody takes a log away: the store has no trace of it, the checkpoint has.
        shutil.rmtree(next(store.data_dir.glob("ledger/*/*")))
        await ask(store, asking(audit_request("a2", mode="quick")))
        found = {each.audit_id: each for each in await audits.wait_for_reports(store, 2)}
    assert found["a2"].verdicts.anchored.result == "failed"
    assert found["a2"].codes["ANCHOR_BROKEN"] == 1


async def test_a_disk_that_fails_ends_the_worker_and_commits_nothing(store: Settings) -> None:
    (store.data_dir / "audits").write_bytes(b"")
    async with audit_worker(store) as worker:
        await ask(store, asking(audit_request("a1")))
        with pytest.raises(StoreError, match="audits"):
            await worker.faults[0]
    (store.data_dir / "audits").unlink()
    async with auditing(store):
        (report,) = await audits.wait_for_reports(store)
    assert report.codes == {}
