"""What an audit finds: each code alone, in a store in which one thing was changed."""

import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_args

import pytest

from pipeline.audit.checks.logs import AuditedLog, BrokerView, offsets_without_leaf
from pipeline.audit.rules.finding import MEANINGS
from pipeline.core.json.canonical import canonical_json
from pipeline.disk.contents import disk_contents
from pipeline.disk.stored_files import StoredFiles
from pipeline.ledger.leaf import LedgerLeaf, parse_leaf
from pipeline.ledger.log_id import LogId
from pipeline.ledger.tlog.checkpoints import Checkpoint
from pipeline.ledger.tlog.tiles import Tile
from pipeline.storage.store import open_store_to_write
from schemas.audit_finding import AuditCode
from tests.audit.audited import (
    ADVISORIES,
    DRAWING,
    LARGE_GCODE,
    LINK,
    LOG,
    RED,
    RUN,
    WITH_DRAWING,
    WITH_LARGE_GCODE,
    add_advisories,
    add_file,
    add_runs,
    advisory,
    advisory_record,
    audit,
    blob,
    flip,
    overwrite,
    run,
    run_record,
)
from tests.builders import sha256
from tests.ledger.ledgers import KEYS, reader, rewrite_log
from tests.storage.stores import TOPIC, change_index, files, opened

RUN_LOG = LogId(1, TOPIC, 0)
HELD = Checkpoint("rmos/" + "0" * 32 + f"/1/{TOPIC}/0", 3, b"\1" * 32)


def no_record(log: LogId, start: int, end: int) -> list[int]:
    del log, start, end
    return []


def test_a_store_as_it_was_written_has_no_finding(store: Path) -> None:
    before = files(store)
    found = audit(store)
    assert found.findings == []
    assert found.parts == [
        "ledger",
        *("2025-12-18", "2025-12-19", "2025-12-20"),
        *("attachments", "quarantine", "places"),
    ]
    assert found.results == {
        "integrity": "ok",
        "completeness": "unknown",
        "anchored": "unknown",
        "late": "ok",
    }
    assert files(store) == before, "an audit changes nothing"


def test_the_report_shows_how_much_was_looked_at(store: Path) -> None:
    counts = audit(store).report["counts"]
    on_disk = [path for path in files(store) if path.startswith(("runs", "att", "quar"))]
    size = sum(len(content) for path, content in files(store).items() if path in on_disk)
    assert counts == {
        "days": 3,
        "artifacts": 12,
        "links": 2,
        "attachments": 4,
        "quarantined": 2,
        "files_read": len(on_disk),
        "bytes_read": size,
        "findings": 0,
        "logs": 3,
        "leaves": 19,
        "anchored_leaves": 0,
    }


@pytest.mark.parametrize("mode", ["quick", "sampled"])
def test_a_store_as_it_was_written_has_no_finding_in_the_other_modes(
    store: Path, mode: str
) -> None:
    found = audit(store, mode)
    assert found.findings == []
    assert found.report["counts"]["artifacts"] == 12


def test_a_quarantined_request_of_a_run_that_is_ok_is_not_unexpected(
    store: Path,
) -> None:
    before = set((store / "quarantine").rglob("*"))
    large = {"gcode_text": LARGE_GCODE, "gcode_path": "/jobs/17.nc"}
    add_runs(store, [run_record(run("given", outputs=large), 11)])
    (kept,) = [path for path in (store / "quarantine").rglob("*/*/*") if path not in before]
    assert audit(store).findings == []
    flip(kept, 9)
    assert [each.code for each in audit(store).findings] == ["QUARANTINE_DIFFERS"]


def _document(store: Path, path: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((store / path).read_bytes())
    return read


def _replace_logged(store: Path, path: str, content: bytes, to: str | None = None) -> None:
    """Put an artifact in place of another, as whoever has the key and the index can."""
    old, new = sha256((store / path).read_bytes()), sha256(content)
    place = to or path
    entries = []
    for entry in reader(store, RUN_LOG).entries():
        leaf = parse_leaf(entry)
        if leaf.path == path:
            changed = entry.replace(old.encode(), new.encode()).replace(
                f'"size_bytes":{leaf.size_bytes}'.encode(), f'"size_bytes":{len(content)}'.encode()
            )
            entries.append(changed.replace(path.encode(), place.encode()))
        else:
            entries.append(entry)
    rewrite_log(store, entries)
    (store / LOG / "checkpoint").chmod(0o444)
    for tile in (store / LOG / "tile").rglob("*"):
        if tile.is_file():
            tile.chmod(0o444)
    overwrite(store / path, content)
    if place != path:
        add_file(store / place, content)
        (store / path).unlink()
    statement = "UPDATE runs SET artifact_sha256 = ?, size_bytes = ?, artifact_path = ? WHERE "
    change_index(store, f"{statement} artifact_path = ?", new, len(content), place, path)


def unreadable(store: Path) -> str:
    (store / RUN).unlink()
    (store / RUN).symlink_to(store / WITH_DRAWING)
    return RUN


def a_folder(store: Path) -> str:
    (store / LINK).unlink()
    (store / LINK).mkdir()
    return LINK


def not_an_artifact(store: Path) -> str:
    document = _document(store, RUN)
    del document["provenance"]
    _replace_logged(store, RUN, canonical_json(document))
    return RUN


def not_canonical(store: Path) -> str:
    _replace_logged(store, RUN, json.dumps(_document(store, RUN), sort_keys=True).encode())
    return RUN


def edited(store: Path) -> str:
    content = (store / RUN).read_bytes()
    overwrite(store / RUN, content.replace(b'"saw"', b'"was"', 1))
    return RUN


def edited_link(store: Path) -> str:
    overwrite(store / LINK, (store / LINK).read_bytes() + b" ")
    return LINK


def truncated(store: Path) -> str:
    overwrite(store / RUN, (store / RUN).read_bytes()[:-1])
    return RUN


def other_hash(name: str) -> Callable[[Path], str]:
    def change(store: Path) -> str:
        path = WITH_LARGE_GCODE if name == "opplan_sha256" else RUN
        document = _document(store, path)
        document["hashes"][name] = "0" * 64
        _replace_logged(store, path, canonical_json(document))
        change_index(store, f"UPDATE runs SET {name} = ? WHERE artifact_path = ?", "0" * 64, path)
        return path

    change.__name__ = f"other_{name}"
    return change


def elsewhere(store: Path) -> str:
    place = RUN.replace("12-18", "12-17")
    (store / place).parent.mkdir()
    (store / LINK).rename(store / LINK.replace("12-18", "12-17"))
    _replace_logged(store, RUN, (store / RUN).read_bytes(), to=place)
    link = LINK.replace("12-18", "12-17")
    change_index(store, "UPDATE advisories SET link_path = ? WHERE link_path = ?", link, LINK)
    return place


def logged_twice(store: Path) -> str:
    entries = list(reader(store, RUN_LOG).entries())
    leaf = parse_leaf(entries[0])
    _rewrite(store, [*entries, _moved(leaf, 11)])
    return RUN


def _rewrite(store: Path, entries: list[bytes]) -> None:
    rewrite_log(store, entries)
    for path in (store / LOG).rglob("*"):
        if path.is_file() and path.name != "lock":
            path.chmod(0o444)


def _moved(leaf: LedgerLeaf, offset: int) -> bytes:
    return leaf.encode().replace(f'"offset":{leaf.offset}'.encode(), f'"offset":{offset}'.encode())


def copied(store: Path) -> str:
    place = RUN.replace("12-18", "12-19")
    add_file(store / place, (store / RUN).read_bytes())
    return place


def deleted(store: Path) -> str:
    (store / RUN).unlink()
    return RUN


def deleted_link(store: Path) -> str:
    (store / LINK).unlink()
    return LINK


def added(store: Path) -> str:
    content = (store / RUN).read_bytes().replace(b"run_0", b"run_9")
    add_file(store / "runs/2025-12-18/run_9.json", content)
    return "runs/2025-12-18/run_9.json"


def added_with_its_row(store: Path) -> str:
    row_added(store)
    return added(store)


def added_link(store: Path) -> str:
    path = LINK.replace("adv_0", "adv_9")
    add_file(store / path, (store / LINK).read_bytes().replace(b"adv_0", b"adv_9"))
    return path


def added_note(store: Path) -> str:
    add_file(store / "runs/2025-12-18/notes.txt")
    return "runs/2025-12-18/notes.txt"


def added_name_of_bytes(store: Path) -> str:
    path = os.fsdecode(b"runs/2025-12-18/run_\xff.json")
    add_file(store / path)
    return path


def added_beside_the_dates(store: Path) -> str:
    add_file(store / "runs/run_9.json")
    return "runs/run_9.json"


def added_blob_of_no_hash(store: Path) -> str:
    add_file(store / "attachments/ab/cd/readme")
    return "attachments/ab/cd/readme"


def added_blob_folder(store: Path) -> str:
    (store / "quarantine/old").mkdir(mode=0o700)
    return "quarantine/old"


def added_quarantine(store: Path) -> str:
    path = blob(b"{}", "quarantine")
    add_file(store / path, b"{}", 0o400)
    for folder in (store / path).parents[:2]:
        folder.chmod(0o700)
    return path


def link_of_nothing(store: Path) -> str:
    add_file(store / "runs/2025-12-18/run_9_advisory_adv_9.json", (store / LINK).read_bytes())
    return "runs/2025-12-18/run_9_advisory_adv_9.json"


def waiting(store: Path) -> str:
    add_runs(store, [run_record(run("that_has_not_come"), 11)])
    return "runs/2025-12-18/run_that_has_not_come_advisory_adv_2.json"


def attachment_missing(store: Path) -> str:
    (store / blob(DRAWING)).unlink()
    return blob(DRAWING)


def attachment_awaited(store: Path) -> str:
    path = attachment_missing(store)
    add_file(store / "awaited" / path.rpartition("/")[2], b"")
    return path


def content_missing(store: Path) -> str:
    path = blob(canonical_json([1]))
    (store / path).unlink()
    return path


def attachment_differs(store: Path) -> str:
    overwrite(store / blob(LARGE_GCODE), b"G0\n" + LARGE_GCODE.encode()[3:])
    return blob(LARGE_GCODE)


def _quarantined(store: Path) -> str:
    request_sha256 = _document(store, RED)["provenance"]["request_sha256"]
    return f"quarantine/{request_sha256[:2]}/{request_sha256[2:4]}/{request_sha256}"


def quarantine_missing(store: Path) -> str:
    (store / _quarantined(store)).unlink()
    return _quarantined(store)


def quarantine_differs(store: Path) -> str:
    overwrite(store / _quarantined(store), b"{}")
    return _quarantined(store)


def writable_artifact(store: Path) -> str:
    (store / RUN).chmod(0o644)
    return RUN


def readable_quarantine(store: Path) -> str:
    (store / "quarantine").chmod(0o755)
    return "quarantine"


def writable_blob(store: Path) -> str:
    (store / blob(DRAWING)).chmod(0o666)
    return blob(DRAWING)


def writable_tile(store: Path) -> str:
    (store / LOG / "tile/entries/000.p/11").chmod(0o644)
    return f"{LOG}/tile/entries/000.p/11"


def row_changed(store: Path) -> str:
    change_index(store, "UPDATE runs SET status = 'OK' WHERE run_id = 'run_red'")
    return RED


def row_of_another_hash(store: Path) -> str:
    change_index(store, "UPDATE runs SET artifact_sha256 = ? WHERE run_id = 'run_0'", "0" * 64)
    return RUN


def row_of_an_attachment_gone(store: Path) -> str:
    change_index(store, "DELETE FROM attachments WHERE run_id = 'run_drawing'")
    return WITH_DRAWING


def row_of_withheld_bytes_gone(store: Path) -> str:
    change_index(store, "DELETE FROM withheld_payloads WHERE run_id = 'run_red'")
    return RED


def row_of_withheld_bytes_added(store: Path) -> str:
    change_index(store, "INSERT INTO withheld_payloads VALUES (?, 'run_0')", "0" * 64)
    return RUN


def row_gone(store: Path) -> str:
    change_index(store, "DELETE FROM runs WHERE run_id = 'run_3'")
    return "runs/2025-12-18/run_3.json"


def row_of_another_record(store: Path) -> str:
    change_index(store, "UPDATE runs SET source_offset = 77 WHERE run_id = 'run_0'")
    return RUN


def row_added(store: Path) -> str:
    change_index(
        store,
        "INSERT INTO runs SELECT 'run_9', created_at_utc, created_at_us, event_type, status, mode,"
        " tool_id, material_id, machine_id, workflow_session_id, risk_level, score, block_reason,"
        " feasibility_sha256, toolpaths_sha256, gcode_sha256, opplan_sha256, gcode_known_by,"
        " legacy, artifact_sha256, 'runs/2025-12-18/run_9.json', size_bytes, request_sha256,"
        " source_epoch, source_topic, source_partition, 77 FROM runs WHERE run_id = 'run_0'",
    )
    return "runs/2025-12-18/run_9.json"


def link_row_changed(store: Path) -> str:
    change_index(store, "UPDATE advisories SET link_sha256 = ? WHERE advisory_id = 'adv_0'", "0")
    return LINK


def link_row_of_other_content(store: Path) -> str:
    change_index(store, "UPDATE advisories SET engine_id = 'x' WHERE advisory_id = 'adv_0'")
    return LINK


def link_row_gone(store: Path) -> str:
    change_index(store, "DELETE FROM advisories WHERE advisory_id = 'adv_0'")
    return LINK


def index_gone(store: Path) -> str:
    (store / "index.sqlite3").unlink()
    return "index.sqlite3"


def index_torn(store: Path) -> str:
    overwrite(store / "index.sqlite3", b"SQLite format 3\0" + bytes(range(256)) * 40)
    return "index.sqlite3"


def index_of_another_format(store: Path) -> str:
    change_index(store, "PRAGMA user_version=2")
    return "index.sqlite3"


def logs_gone(store: Path) -> str:
    shutil.rmtree(store / "ledger")
    return "ledger"


def checkpoint_gone(store: Path) -> str:
    (store / LOG / "checkpoint").unlink()
    return f"{LOG}/checkpoint"


def checkpoint_of_another_log(store: Path) -> str:
    note = (store / LOG.replace("-0", "-7") / "checkpoint").read_bytes()
    overwrite(store / LOG / "checkpoint", note)
    return f"{LOG}/checkpoint"


def checkpoint_of_other_leaves(store: Path) -> str:
    """Signed by the key of the store, over a root that its leaves do not give."""
    from pipeline.ledger.tlog.checkpoints import sign_checkpoint
    from tests.ledger.ledgers import SIGNER

    note = sign_checkpoint(Checkpoint(HELD.origin, 11, b"\1" * 32), [SIGNER])
    overwrite(store / LOG / "checkpoint", note)
    return f"{LOG}/checkpoint"


def tile_gone(store: Path) -> str:
    (store / LOG / str(Tile(0, 0, 11))).unlink()
    return f"{LOG}/tile/0/000.p/11"


def entry_changed(store: Path) -> str:
    path = store / LOG / "tile/entries/000.p/11"
    overwrite(path, path.read_bytes().replace(b"run_3", b"run_8"))
    return f"{LOG}/tile/entries/000.p/11"


def no_leaf(store: Path) -> str:
    _rewrite(store, [*reader(store, RUN_LOG).entries(), b'{"v":1}'])
    return f"{LOG}/tile/entries/000.p/12"


def leaves_swapped(store: Path) -> str:
    entries = list(reader(store, RUN_LOG).entries())
    _rewrite(store, [*entries[:6], entries[7], entries[6], *entries[8:]])
    return f"{LOG}/tile/entries/000.p/11"


def failed_once(store: Path) -> str:
    leaf = LedgerLeaf("rejected", TOPIC, 0, 11, 1, "0" * 64, code="INTERNAL_ERROR")
    _rewrite(store, [*reader(store, RUN_LOG).entries(), leaf.encode()])
    return f"{LOG}/tile/entries/000.p/12"


def late(store: Path) -> str:
    add_runs(store, [run_record(run("back_dated"), 11, seconds=86_401)])
    return "runs/2025-12-18/run_back_dated.json"


def future(store: Path) -> str:
    add_runs(store, [run_record(run("ahead"), 11, seconds=-301)])
    return "runs/2025-12-18/run_ahead.json"


def late_link(store: Path) -> str:
    add_advisories(store, [advisory_record(advisory(5, "run_0"), 5, seconds=86_401)])
    return "runs/2025-12-18/run_0_advisory_adv_5.json"


def unexpected_file(store: Path) -> str:
    add_file(store / "backup.tar")
    return "backup.tar"


def unexpected_file_in_a_log(store: Path) -> str:
    add_file(store / LOG / "tile/entries/readme")
    return f"{LOG}/tile/entries/readme"


def unexpected_folder_in_the_ledger(store: Path) -> str:
    (store / "ledger/1/old").mkdir()
    return "ledger/1/old"


def unexpected_report(store: Path) -> str:
    add_file(store / "audits/-.txt")
    return "audits/-.txt"


def tile_of_other_leaves(store: Path) -> str:
    """A wider form, beyond the checkpoint, that goes on from other leaves than are signed."""
    add_file(store / LOG / "tile/0/000.p/12", b"\0" * 32 * 12)
    return f"{LOG}/tile/0/000.p/12"


CHANGES: list[tuple[AuditCode, Callable[[Path], str]]] = [
    ("FILE_UNREADABLE", unreadable),
    ("FILE_UNREADABLE", a_folder),
    ("FILE_UNREADABLE", not_an_artifact),
    ("FILE_UNREADABLE", not_canonical),
    ("BYTES_DIFFER", edited),
    ("BYTES_DIFFER", edited_link),
    ("BYTES_DIFFER", truncated),
    ("HASH_DIFFERS", other_hash("feasibility_sha256")),
    ("HASH_DIFFERS", other_hash("toolpaths_sha256")),
    ("HASH_DIFFERS", other_hash("gcode_sha256")),
    ("HASH_DIFFERS", other_hash("opplan_sha256")),
    ("PATH_DIFFERS", elsewhere),
    ("RUN_ID_TWICE", logged_twice),
    ("RUN_ID_TWICE", copied),
    ("FILE_MISSING", deleted),
    ("FILE_MISSING", deleted_link),
    ("FILE_UNEXPLAINED", added),
    ("FILE_UNEXPLAINED", added_with_its_row),
    ("FILE_UNEXPLAINED", added_link),
    ("FILE_UNEXPLAINED", added_note),
    ("FILE_UNEXPLAINED", added_name_of_bytes),
    ("FILE_UNEXPLAINED", added_beside_the_dates),
    ("FILE_UNEXPLAINED", added_blob_of_no_hash),
    ("FILE_UNEXPLAINED", added_blob_folder),
    ("FILE_UNEXPLAINED", added_quarantine),
    ("LINK_WITHOUT_RUN", link_of_nothing),
    ("LINK_WAITING", waiting),
    ("ATTACHMENT_MISSING", attachment_missing),
    ("ATTACHMENT_MISSING", content_missing),
    ("ATTACHMENT_AWAITED", attachment_awaited),
    ("ATTACHMENT_DIFFERS", attachment_differs),
    ("QUARANTINE_MISSING", quarantine_missing),
    ("QUARANTINE_DIFFERS", quarantine_differs),
    ("MODE_DIFFERS", writable_artifact),
    ("MODE_DIFFERS", readable_quarantine),
    ("MODE_DIFFERS", writable_blob),
    ("MODE_DIFFERS", writable_tile),
    ("INDEX_DIFFERS", row_changed),
    ("INDEX_DIFFERS", row_of_another_hash),
    ("INDEX_DIFFERS", row_of_an_attachment_gone),
    ("INDEX_DIFFERS", row_of_withheld_bytes_gone),
    ("INDEX_DIFFERS", row_of_withheld_bytes_added),
    ("INDEX_DIFFERS", row_gone),
    ("INDEX_DIFFERS", row_of_another_record),
    ("INDEX_DIFFERS", row_added),
    ("INDEX_DIFFERS", link_row_changed),
    ("INDEX_DIFFERS", link_row_of_other_content),
    ("INDEX_DIFFERS", link_row_gone),
    ("INDEX_MISSING", index_gone),
    ("INDEX_MISSING", index_torn),
    ("INDEX_MISSING", index_of_another_format),
    ("LOG_MISSING", logs_gone),
    ("CHECKPOINT_DIFFERS", checkpoint_gone),
    ("CHECKPOINT_DIFFERS", checkpoint_of_another_log),
    ("CHECKPOINT_DIFFERS", checkpoint_of_other_leaves),
    ("TILE_DIFFERS", tile_gone),
    ("TILE_DIFFERS", entry_changed),
    ("LEAF_DIFFERS", no_leaf),
    ("LEAF_DIFFERS", leaves_swapped),
    ("INTERNAL_ERROR", failed_once),
    ("LATE", late),
    ("LATE", late_link),
    ("FUTURE", future),
    ("STRANGE_FILE", unexpected_file),
    ("STRANGE_FILE", unexpected_file_in_a_log),
    ("STRANGE_FILE", unexpected_folder_in_the_ledger),
    ("STRANGE_FILE", unexpected_report),
    ("STRANGE_FILE", tile_of_other_leaves),
]
ELSEWHERE: dict[AuditCode, str] = {
    "ADVISORY_ID_TWICE": "test_an_advisory_that_is_logged_twice_is_found",
    "OFFSET_WITHOUT_LEAF": "test_offsets_without_a_leaf_are_found_where_the_broker_shows_them",
    "ANCHOR_BROKEN": "test_a_log_that_does_not_go_on_from_a_trusted_checkpoint_is_found",
    "RUN_UNKNOWN": "test_a_run_that_nothing_knows_is_named",
}


def test_every_code_is_provoked_alone() -> None:
    assert {code for code, _ in CHANGES} | ELSEWHERE.keys() == set(get_args(AuditCode))
    assert MEANINGS.keys() == set(get_args(AuditCode))
    assert set(ELSEWHERE.values()) <= globals().keys()


# What only a full audit can see: the bytes of files.
READ = {
    *("not_an_artifact", "not_canonical", "edited", "edited_link", "late_link"),
    *(f"other_{name}_sha256" for name in ("feasibility", "toolpaths", "gcode", "opplan")),
    *("elsewhere", "attachment_differs", "quarantine_differs"),
    *("row_changed", "row_of_an_attachment_gone", "link_row_of_other_content"),
    *("row_of_withheld_bytes_gone", "row_of_withheld_bytes_added"),
    *("late", "future"),
}


@pytest.mark.parametrize(
    ("code", "change"), CHANGES, ids=[f"{code}-{change.__name__}" for code, change in CHANGES]
)
def test_one_change_is_found_alone_and_by_a_quick_audit_unless_it_is_in_a_file(
    store: Path, code: AuditCode, change: Callable[[Path], str]
) -> None:
    path = change(store)
    found = audit(store)
    assert [(each.code, each.path) for each in found.findings] == [(code, path)], found.findings
    verdict = MEANINGS[code].verdict
    failed = {name for name, result in found.results.items() if result == "failed"}
    assert failed == (set() if verdict is None else {verdict.value})
    assert found.report["codes"] == {code: 1}
    assert found.report["counts"]["findings"] == 1
    quick = audit(store, "quick")
    expected = [] if change.__name__ in READ else [(code, path)]
    assert [(each.code, each.path) for each in quick.findings] == expected
    assert quick.report["counts"]["bytes_read"] == 0


def test_an_advisory_that_is_logged_twice_is_found(store: Path) -> None:
    log = LogId(1, ADVISORIES, 0)
    entries = list(reader(store, log).entries())
    again = _moved(parse_leaf(entries[0]), 5)
    _rewrite_log(store, log, [*entries, again])
    found = audit(store)
    assert [(each.code, each.path) for each in found.findings] == [("ADVISORY_ID_TWICE", LINK)]
    assert "offset 5" in found.findings[0].found


def test_a_run_has_the_time_of_its_own_leaf_and_not_of_a_duplicate_in_a_log_before(
    store: Path,
) -> None:
    again = run_record(run("other_0", "2025-12-20"), 11, seconds=2 * 86_400)
    add_runs(store, [again])
    assert [parse_leaf(each).kind for each in reader(store, RUN_LOG).entries(11)] == ["duplicate"]
    assert audit(store).findings == []


def test_offsets_without_a_leaf_are_found_where_the_broker_shows_them(store: Path) -> None:
    add_runs(store, [run_record(run("after_a_gap"), 15)])
    shown = {11, 13, 14, 16, 17, 18}

    def show(log: LogId, start: int, end: int) -> list[int]:
        return sorted(shown & set(range(start, end))) if log == RUN_LOG else []

    found = audit(store, broker=BrokerView({RUN_LOG: 18, LogId(1, TOPIC, 3): 2}, show))
    assert [(each.code, each.path, each.found) for each in found.findings] == [
        ("OFFSET_WITHOUT_LEAF", LOG, "none of offset 11, which the broker shows"),
        ("OFFSET_WITHOUT_LEAF", LOG, "none of offsets 13 to 14, which the broker shows"),
        ("OFFSET_WITHOUT_LEAF", LOG, "none of offsets 16 to 17, which the broker shows"),
    ]
    assert found.results["completeness"] == "failed"
    assert found.results["integrity"] == "ok"


def test_a_partition_that_was_consumed_and_has_no_log_at_all_is_found(store: Path) -> None:
    gone = LogId(1, TOPIC, 3)
    view = BrokerView({gone: 2}, lambda log, start, end: range(start, end) if log == gone else ())
    (finding,) = audit(store, broker=view).findings
    assert (finding.code, finding.path) == ("OFFSET_WITHOUT_LEAF", gone.path)
    assert finding.found == "none of offsets 0 to 1, which the broker shows"


def test_gaps_that_the_broker_left_itself_are_none(store: Path) -> None:
    add_runs(store, [run_record(run("after_a_gap"), 15)])
    found = audit(store, broker=BrokerView({RUN_LOG: 99}, no_record))
    assert found.findings == []
    assert found.results["completeness"] == "ok"


def test_gaps_near_each_other_are_one_question_and_what_lies_far_between_is_not_read() -> None:
    """Every record in a transaction of its own leaves an offset out after it."""
    gaps = [*((n, n + 1) for n in range(1, 40, 2)), (900, 903)]
    log = AuditedLog(0, RUN_LOG, None, b"", 1_000, next_offset=1_100, gaps=gaps)
    asked = []

    def show(_: LogId, start: int, end: int) -> list[int]:
        asked.append((start, end))
        return [n for n in (0, 2, 4, 7, 8, 36, 901, 902) if start <= n < end]

    found = list(offsets_without_leaf([log], BrokerView({RUN_LOG: 1_100}, show)))
    assert asked == [(1, 40), (900, 903)]
    assert [each.found for each in found] == [
        "none of offset 7, which the broker shows",
        "none of offsets 901 to 902, which the broker shows",
    ]


def test_a_log_that_does_not_go_on_from_a_trusted_checkpoint_is_found(store: Path) -> None:
    found = audit(store, trusted=[HELD])
    assert [(each.code, each.path) for each in found.findings] == [("ANCHOR_BROKEN", LOG)]
    assert f"other root: expected {HELD.root.hex()}" in found.findings[0].found
    assert found.results["anchored"] == "failed"
    assert found.results["integrity"] == "ok"


def test_a_trusted_checkpoint_of_a_log_that_is_not_there_is_found(store: Path) -> None:
    other = Checkpoint(HELD.origin.replace("/0", "/3"), 2, HELD.root)
    (finding,) = audit(store, trusted=[other]).findings
    assert (finding.code, finding.path, finding.found) == ("ANCHOR_BROKEN", "ledger", "no such log")


def test_leaves_that_are_not_those_of_the_trusted_checkpoint_are_not_anchored(store: Path) -> None:
    """The hash tiles still go on from the checkpoint; the leaves are no longer what they hash."""
    trusted = reader(store, RUN_LOG).checkpoint
    (bundle,) = (store / LOG / "tile/entries").rglob("000.p/*")
    flip(bundle, 400)
    found = audit(store, trusted=[trusted])
    assert [each.code for each in found.findings] == ["TILE_DIFFERS", "ANCHOR_BROKEN"]
    assert (found.results["integrity"], found.results["anchored"]) == ("failed", "failed")


def test_trusted_checkpoints_say_how_many_leaves_are_anchored(store: Path) -> None:
    trusted = reader(store, RUN_LOG).checkpoint
    add_runs(store, [run_record(run("later"), 11)])
    found = audit(store, trusted=[trusted])
    assert found.findings == []
    assert found.results["anchored"] == "ok"
    assert found.report["counts"]["anchored_leaves"] == 11
    sizes = {each["origin"]: (each["size"], each["anchored_size"]) for each in found.report["logs"]}
    assert sizes[trusted.origin] == (12, 11)
    assert "11 of 20 leaves" in found.report["verdicts"]["anchored"]["reason"]


def test_a_run_that_nothing_knows_is_named(store: Path) -> None:
    found = audit(store, scope={"run_ids": ["run_0", "run_of_nobody"]})
    assert [(each.code, each.path) for each in found.findings] == [
        ("RUN_UNKNOWN", "runs/*/run_of_nobody.json")
    ]


def test_a_date_that_cannot_be_looked_into_ends_no_search_for_a_run(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = StoredFiles.present

    def present(self: StoredFiles, paths: Iterable[str]) -> set[str]:
        wanted = list(paths)
        if "runs/2025-12-18/run_of_nobody.json" in wanted:
            raise PermissionError(13, "Permission denied")
        return looked(self, wanted)

    monkeypatch.setattr(StoredFiles, "present", present)
    found = audit(store, scope={"run_ids": ["run_0", "run_of_nobody"]})
    assert [(each.code, each.path) for each in found.findings] == [
        ("RUN_UNKNOWN", "runs/*/run_of_nobody.json")
    ]


def _rewrite_log(store: Path, log: LogId, entries: list[bytes]) -> None:
    from pipeline.ledger.tlog.append import TreeAppender
    from pipeline.ledger.tlog.checkpoints import sign_checkpoint
    from tests.ledger.ledgers import SIGNER

    tree = TreeAppender()
    tree.extend(entries)
    folder = store / log.path
    shutil.rmtree(folder)
    for tile, content in tree.new_tiles().items():
        add_file(folder / str(tile), content)
    checkpoint = Checkpoint(log.origin("0" * 32), tree.size, tree.root())
    add_file(folder / "checkpoint", sign_checkpoint(checkpoint, [SIGNER]))


def test_a_quick_audit_finds_back_dating_by_the_date_alone_where_that_is_certain(
    store: Path,
) -> None:
    add_runs(store, [run_record(run("back_dated"), 11, seconds=3 * 86_400)])
    add_runs(store, [run_record(run("ahead"), 12, seconds=-86_400)])
    assert {(each.code, each.path) for each in audit(store, "quick").findings} == {
        ("LATE", "runs/2025-12-18/run_back_dated.json"),
        ("FUTURE", "runs/2025-12-18/run_ahead.json"),
    }


def test_history_may_come_as_late_as_it_likes(store: Path) -> None:
    record = run_record(run("legacy"), 0, seconds=10**7, topic="rmos.runs.legacy")
    add_runs(store, [record])
    assert audit(store).findings == []
    assert audit(store, "quick").findings == []


def test_a_full_audit_gives_the_store_root_that_the_sums_give(store: Path) -> None:
    from pipeline.ledger.reader import StoreLogs
    from pipeline.storage.checksums import store_root

    expected = store_root(StoreLogs(disk_contents(store), KEYS)).hex()
    assert audit(store).report["store_root"] == expected
    assert "store_root" not in audit(store, "quick").report
    assert "store_root" not in audit(store, scope={"dates": ["2025-12-18"]}).report
    deleted(store)
    assert "store_root" not in audit(store).report


def test_a_sample_is_seeded_by_the_audit_id(store: Path) -> None:
    def read(audit_id: str) -> set[int]:
        found = audit(store, "sampled", audit_id=audit_id, share=0.5)
        assert found.report["sample_share"] == 0.5
        return {found.report["counts"]["bytes_read"]}

    assert read("a") == read("a")
    assert set.union(*(read(f"audit_{number}") for number in range(8))) != read("a")


def test_a_sample_finds_what_it_reads(store: Path) -> None:
    edited(store)
    seen = [bool(audit(store, "sampled", audit_id=f"a{n}", share=0.5).findings) for n in range(16)]
    assert 0 < sum(seen) < 16
    assert audit(store, "sampled", share=1.0).codes == {"BYTES_DIFFER"}


def test_an_audit_of_dates_looks_at_these_alone(store: Path) -> None:
    edited(store)
    quarantine_differs(store)
    (store / "runs/2025-12-20/run_other_1.json").unlink()
    found = audit(store, scope={"dates": ["2025-12-20"]})
    assert found.paths == {"runs/2025-12-20/run_other_1.json"}
    assert found.report["counts"]["days"] == 1
    # The blobs that its files name are read as well.
    found = audit(store, scope={"dates": ["2025-12-19", "2026-01-01"]})
    assert found.codes == {"QUARANTINE_DIFFERS"}
    assert found.report["scope"] == {"dates": ["2025-12-19", "2026-01-01"]}


@pytest.mark.parametrize("mode", ["full", "quick"])
def test_an_audit_of_runs_looks_at_these_with_their_links_and_blobs(store: Path, mode: str) -> None:
    deleted_link(store)
    attachment_missing(store)
    copied(store)
    deleted_other = store / "runs/2025-12-18/run_3.json"
    deleted_other.unlink()
    found = audit(store, mode, {"run_ids": ["run_0", "run_drawing"]})
    assert {(each.code, each.path) for each in found.findings} == {
        ("FILE_MISSING", LINK),
        ("ATTACHMENT_MISSING", blob(DRAWING)),
        ("RUN_ID_TWICE", RUN.replace("12-18", "12-19")),
    }


def test_a_blob_that_several_files_name_is_missing_once(store: Path) -> None:
    attachment_missing(store)
    (finding,) = audit(store).findings
    assert finding.expected == f"the blob that {WITH_DRAWING} names"


def test_an_attachment_that_nothing_names_is_no_fault(store: Path) -> None:
    add_file(store / blob(b"uploaded, not yet named"), b"uploaded, not yet named")
    assert audit(store).findings == []


def test_pretty_printed_json_of_an_older_store_keeps_its_name(store: Path) -> None:
    content = b'{\n  "a": 1\n}'
    add_file(store / blob(canonical_json({"a": 1})), content)
    assert audit(store).findings == []


def test_an_audit_goes_on_after_the_last_whole_part(store: Path) -> None:
    edited(store)
    deleted_link(store)
    (store / "runs/2025-12-20/run_other_1.json").unlink()
    whole = audit(store)
    done = ["ledger", "2025-12-18"]
    rest = audit(store, skip=done)
    assert rest.parts == [part for part in whole.parts if part not in done]
    assert rest.findings == [each for each in whole.findings if "12-18" not in each.path]


def test_what_comes_while_an_audit_runs_is_not_unexplained(store: Path) -> None:
    """Runs, links, a link of an advisory that waited, and a quarantined request."""

    def write(event: object) -> None:
        if getattr(event, "name", None) != "ledger":
            return
        add_runs(store, [run_record(run("new"), 11), run_record(run("that_has_not_come"), 12)])
        red = run("new_red", feasibility={"risk_level": "RED"})
        add_runs(store, [run_record(red, 13)])
        add_advisories(store, [advisory_record(advisory(6, "run_0"), 5)])
        # The scan of the worker that makes links of advisories that waited.
        from pipeline.storage.advisory_store import AdvisoryStore
        from tests.ledger.ledgers import ledger

        advise = AdvisoryStore(open_store_to_write(store), ledger=ledger(store))
        advise.retry_links([advisory_record(advisory(2, "run_that_has_not_come"), 4)])
        advise.close()

    found = audit(store, while_running=write)
    assert found.findings == []
    assert found.report["counts"]["artifacts"] == 12
    assert audit(store).report["counts"]["artifacts"] == 15


def test_what_a_process_that_died_left_without_a_leaf_is_named(store: Path) -> None:
    """Files are linked before their leaves: until the worker starts again nothing explains one."""

    def write(event: object) -> None:
        if getattr(event, "name", None) == "ledger":
            added(store)

    assert audit(store, while_running=write).codes == {"FILE_UNEXPLAINED"}


def test_a_store_without_logs_is_compared_with_its_index(store: Path) -> None:
    logs_gone(store)
    edited(store)
    deleted_link(store)
    found = audit(store)
    assert {(each.code, each.path) for each in found.findings} == {
        ("LOG_MISSING", "ledger"),
        ("BYTES_DIFFER", RUN),
        ("FILE_MISSING", LINK),
    }


def test_a_row_leads_to_no_file_outside_the_store(store: Path) -> None:
    logs_gone(store)
    change_index(
        store, "UPDATE runs SET artifact_path = 'runs/2025-12-18/../../store.json' WHERE 1"
    )
    paths = audit(store).paths
    assert not any(".." in path or path == "store.json" for path in paths)


def test_without_an_index_leaves_are_enough(store: Path) -> None:
    index_gone(store)
    edited(store)
    assert audit(store).codes == {"INDEX_MISSING", "BYTES_DIFFER"}


def test_a_store_that_is_empty_has_no_finding(tmp_path: Path) -> None:
    from tests.storage.stores import make_store

    make_store(tmp_path / "store")
    found = audit(tmp_path / "store")
    assert found.codes == set()
    assert found.parts == ["ledger", "attachments", "quarantine", "places"]


def test_an_index_that_cannot_be_read_is_missing_in_an_empty_store_too(tmp_path: Path) -> None:
    from tests.storage.stores import make_store

    make_store(tmp_path / "store")
    (tmp_path / "store/index.sqlite3").write_bytes(b"no index" * 40)
    assert audit(tmp_path / "store").codes == {"INDEX_MISSING"}


def test_an_index_is_missing_where_runs_or_logs_show_that_there_was_one(store: Path) -> None:
    index_gone(store)
    shutil.rmtree(store / "runs")
    assert "INDEX_MISSING" in audit(store).codes


def test_an_index_is_missing_where_there_are_runs_without_a_log(store: Path) -> None:
    index_gone(store)
    logs_gone(store)
    assert {"INDEX_MISSING", "LOG_MISSING"} <= audit(store).codes


def test_a_store_that_workers_have_opened_and_nobody_has_used_has_no_finding(
    tmp_path: Path,
) -> None:
    with opened(tmp_path / "store"):
        pass
    found = audit(tmp_path / "store")
    assert found.findings == []
    assert found.results["integrity"] == "ok"


@pytest.mark.parametrize("scope", [{"all": True}, {"dates": ["2026-01-01"]}, {"run_ids": ["x"]}])
@pytest.mark.parametrize("topic", ["runs", "advisories"])
def test_a_store_whose_index_has_rows_and_that_has_no_log_is_reported(
    store: Path, topic: str, scope: dict[str, Any]
) -> None:
    logs_gone(store)
    shutil.rmtree(store / "runs")
    change_index(store, f"DELETE FROM {({'runs', 'advisories'} - {topic}).pop()}")
    assert "LOG_MISSING" in audit(store, scope=scope).codes


def test_no_room_for_the_plan_is_one_sentence(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource
    import tempfile

    from pipeline.errors import StoreError

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_192, before[1]))
    try:
        with pytest.raises(StoreError, match="temporary database of the audit failed"):
            audit(store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["store"], "the plan is gone"


def test_several_processes_find_the_same_in_the_same_order(store: Path) -> None:
    for change in (edited, deleted_link, attachment_differs, added, tile_gone):
        change(store)
    assert audit(store, processes=2).findings == audit(store).findings


def test_findings_are_documents_in_the_shape_that_is_published(store: Path) -> None:
    from schemas.audit_finding import AuditFinding

    added_name_of_bytes(store)
    edited(store)
    for finding in audit(store).findings:
        AuditFinding.model_validate(finding.document("audit_1"))
        canonical_json(finding.document("audit_1")).decode()
