"""Rows of an older store on the real broker: carried over once, kept as history, found again."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.app.persist import persist_worker
from pipeline.audit.audited_store import audited_folder
from pipeline.audit.rules.finding import Finding
from pipeline.audit.store_audit import StoreAudit
from pipeline.disk.store_identity import read_store
from pipeline.errors import InputError, IntegrityError, RefusedError
from pipeline.recovery.rebuild.index import rebuild_index
from pipeline.settings import Settings
from pipeline.storage.ledger_key import verifier_keys
from pipeline.storage.reader import open_reader
from schemas.audit_request import AuditRequest
from tests.builders import attachment_ref, run_request, sha256
from tests.e2e.forked import ForkedProcess
from tests.e2e.kafka_reading import (
    produce,
    read_topic,
    sending,
    wait_until,
    wait_until_consumed,
)
from tests.e2e.migrations import command, differences, environment, migrate, rmos_migrate
from tests.e2e.store_audit import index_rows, store_files
from tests.e2e.worker_processes import REPOSITORY, STOP_SECONDS
from tests.legacy_rows import bare_row, original_v2_row, unknown_row, v1_file, v1_row

pytestmark = [pytest.mark.e2e, pytest.mark.every_topic]
DATA = Path(__file__).parents[3] / "shared" / "data" / "v1" / "runs.json"


@pytest.fixture
def home(store_settings: Settings) -> Settings:
    """Give settings whose topics, store and key are there."""
    return store_settings


@pytest.fixture
def v1(tmp_path: Path) -> Path:
    """Give a v1 store of three rows in a folder of its own."""
    path = tmp_path / "old" / "runs.json"
    path.parent.mkdir()
    fill(path, v1_row(), unknown_row(), bare_row())
    return path


def fill(path: Path, *rows: dict[str, Any]) -> None:
    path.write_bytes(v1_file(*rows))


def content(path: Path) -> bytes:
    return path.read_bytes()


def artifacts(settings: Settings) -> dict[str, dict[str, Any]]:
    found = (json.loads(path.read_bytes()) for path in settings.data_dir.glob("runs/*/*.json"))
    return {each["run_id"]: each for each in found}


def codes_of_an_audit(settings: Settings) -> set[str]:
    keys = verifier_keys(settings, read_store(settings.data_dir))
    request = AuditRequest.model_validate({"audit_id": "a", "scope": {"all": True}, "mode": "full"})
    with StoreAudit(audited_folder(settings.data_dir), request, keys) as audit:
        return {found.code for found in audit.run() if isinstance(found, Finding)}


async def legacy_records(settings: Settings) -> list[str]:
    records = await read_topic(settings, settings.topics.legacy_runs)
    return sorted(record.key.decode() for record in records)


async def test_rows_become_history_and_the_second_run_does_nothing(
    home: Settings, v1: Path
) -> None:
    before = content(v1)
    first = await migrate(home, v1)
    assert first.result.counts["outcomes"] == {"persisted": 3}
    assert set(first.states.values()) == {"published"}
    stored = artifacts(home)
    verdicts = {
        run_id: (each["status"], each["decision"]["risk_level"]) for run_id, each in stored.items()
    }
    assert verdicts == {
        v1_row()["run_id"]: ("OK", "GREEN"),
        unknown_row()["run_id"]: ("BLOCKED", "UNKNOWN"),
        bare_row()["run_id"]: ("OK", "UNKNOWN"),
    }
    events = await read_topic(home, home.topics.run_events)
    told = [json.loads(event.value) for event in events]
    assert [(each["outcome"], each["may_cut"]) for each in told] == [("persisted", False)] * 3
    assert {each["source"]["topic"] for each in told} == {home.topics.legacy_runs}
    logs = list(home.data_dir.glob(f"ledger/1/{home.topics.legacy_runs}-*/checkpoint"))
    assert logs
    assert differences(home, v1) == []

    # A lock and a killed migration's files are no news for an audit.
    assert codes_of_an_audit(home) == set()

    files = store_files(home.data_dir)
    again = await migrate(home, v1)
    assert set(again.states.values()) == {"already"}
    assert again.result.counts["outcomes"] == {}
    assert again.result.is_complete
    assert len(await legacy_records(home)) == 3
    assert len(await read_topic(home, home.topics.run_events)) == 3
    assert store_files(home.data_dir) == files
    assert content(v1) == before
    assert again.result.backup is not None
    assert content(again.result.backup) == before
    assert again.result.backup.name == f"runs.json.rmos-backup-{sha256(before)}"


async def test_a_migrated_run_is_shown_like_any_other(home: Settings, v1: Path) -> None:
    advisory = {"advisory_id": "adv_1", "kind": "explanation", "created_at_utc": ""}
    fill(v1, v1_row(advisory_inputs=[advisory]))
    await migrate(home, v1)
    reader = open_reader(home.data_dir)
    try:
        view = reader.find(v1_row()["run_id"]).view()
    finally:
        reader.close()
    assert view["advisory_inputs"] == [advisory]
    assert view["provenance"]["legacy"] is True


async def test_the_index_is_made_again_with_the_rows_of_both_topics(
    home: Settings, v1: Path
) -> None:
    await migrate(home, v1)
    requests = [run_request(run_id="run_new"), run_request(run_id=v1_row()["run_id"])]
    await produce(home, map(sending, requests))
    async with persist_worker(home):
        await wait_until_consumed(home)
    before = {run_id: tuple(row) for run_id, row in index_rows(home.data_dir).items()}
    report = await rebuild_index(home)
    assert report.is_clean
    assert (report.runs, report.without_record) == (4, [])
    assert {run_id: tuple(row) for run_id, row in index_rows(home.data_dir).items()} == before
    again = await migrate(home, v1)
    assert set(again.states.values()) == {"already"}


async def test_rows_that_cannot_be_carried_are_reported_and_hold_up_no_other(
    home: Settings, v1: Path
) -> None:
    rows = [
        v1_row(run_id="run_good"),
        v1_row(run_id="run_date", created_at_utc="soon"),
        v1_row(run_id="run_status", status="DONE"),
        v1_row(run_id="run/path"),
        v1_row(run_id="run_nan", feasibility={"score": float("nan")}),
    ]
    fill(v1, *rows)
    done = rmos_migrate(home, "run", "--from", v1)
    assert done.status == 4
    codes = {line["run_id"]: line.get("code") for line in done.documents[:-1]}
    assert codes == {
        "run_good": None,
        "run_date": "BAD_DATE",
        "run_status": "BAD_STATUS",
        "run/path": "BAD_RUN_ID",
        "run_nan": "UNREADABLE",
    }
    assert artifacts(home).keys() == {"run_good"}
    assert await legacy_records(home) == ["run_good"]
    found = {(each.run_id, each.code) for each in differences(home, v1)}
    assert found == {(run_id, code) for run_id, code in codes.items() if code}


async def test_a_run_of_the_same_run_id_is_never_touched(home: Settings, v1: Path) -> None:
    first = await migrate(home, v1)
    files = store_files(home.data_dir)
    fill(v1, v1_row(notes="another note"), unknown_row(), bare_row())
    again = await migrate(home, v1)
    assert again.states[v1_row()["run_id"]] == "conflict"
    assert not again.result.is_complete
    assert store_files(home.data_dir) == files
    assert len(await legacy_records(home)) == len(first.rows) == 3
    found = {(each.run_id, each.code) for each in differences(home, v1)}
    run_id = v1_row()["run_id"]
    assert found == {(run_id, "DIFFERENT"), (run_id, "NOT_INDEXED")}


async def test_a_dry_run_writes_and_publishes_nothing(home: Settings, v1: Path) -> None:
    files = store_files(home.data_dir)
    done = rmos_migrate(home, "run", "--from", v1, "--dry-run")
    assert done.status == 0
    assert done.summary["risks_before"] == {"UNKNOWN": 3}
    assert done.summary["risks_after"] == {"GREEN": 1, "UNKNOWN": 2}
    assert done.summary["states"] == {"mapped": 3}
    assert store_files(home.data_dir) == files
    assert [path.name for path in v1.parent.iterdir()] == ["runs.json"]
    assert await legacy_records(home) == []


async def test_one_changed_byte_in_store_or_source_is_found(home: Settings, v1: Path) -> None:
    folder = v1.parent / "run_attachments"
    folder.mkdir()
    (folder / f"{sha256(b'trace')}.txt").write_bytes(b"trace")
    ref = attachment_ref(b"trace", kind="debug", mime="text/plain")
    fill(v1, v1_row(attachments=[ref]), unknown_row())
    await migrate(home, v1)
    assert differences(home, v1) == []
    stored = [path for area in BYTES for path in files_below(home.data_dir / area)]
    assert len(stored) == 4
    for path in (*stored, v1, *v1.parent.glob("*backup*"), *files_below(folder)):
        for position in (0, 0.3, 1):
            with changed_byte(path, position):
                assert is_found(home, v1), (path, position)
    with changed_byte(stored[0], 0.5):
        assert rmos_migrate(home, "verify", "--from", v1).status == 5
    with changed_byte(v1, 0.5):
        assert rmos_migrate(home, "verify", "--from", v1).status == 5
    done = rmos_migrate(home, "verify", "--from", v1)
    assert (done.status, done.summary) == (0, {"rows": 2, "differences": 0, "codes": {}})


BYTES = ("runs", "attachments", "quarantine")


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@contextmanager
def changed_byte(path: Path, position: float) -> Iterator[None]:
    """Flip one bit of a file for the length of a block."""
    original = path.read_bytes()
    changed = bytearray(original)
    changed[int(position * (len(original) - 1))] ^= 1
    path.chmod(0o600)
    path.write_bytes(changed)
    yield
    path.write_bytes(original)


def is_found(settings: Settings, source: Path) -> bool:
    try:
        return bool(differences(settings, source))
    except InputError:
        return True


@pytest.mark.slow
async def test_killed_again_and_again_it_goes_on_and_publishes_each_row_once(
    home: Settings, v1: Path, tmp_path: Path
) -> None:
    rows = [v1_row(run_id=f"run_{number:04}", notes="x" * 2000) for number in range(1500)]
    fill(v1, *rows)
    for number in range(3):
        await kill_midway(home, v1, tmp_path / f"killed-{number}")
    done = rmos_migrate(home, "run", "--from", v1, "--resume")
    assert done.status == 0, done.err
    assert await legacy_records(home) == [row["run_id"] for row in rows]
    assert artifacts(home).keys() == {row["run_id"] for row in rows}
    assert differences(home, v1) == []
    events = await read_topic(home, home.topics.run_events)
    assert len({json.loads(event.value)["event_id"] for event in events}) == 1500
    assert {json.loads(event.value)["outcome"] for event in events} == {"persisted"}


async def kill_midway(settings: Settings, source: Path, output: Path) -> None:
    """Run a migration, and kill it once it has printed a row that it published, or ended."""
    words = command("run", "--from", source, "--resume")
    process = ForkedProcess(words, environment(settings), REPOSITORY, output)
    await wait_until(
        lambda: b'"published"' in output.read_bytes() or process.poll() is not None,
        "a row is published",
    )
    process.kill()
    process.wait(STOP_SECONDS)


async def test_records_of_another_source_that_wait_are_not_stored_by_mistake(
    home: Settings, v1: Path
) -> None:
    await migrate(home, v1)
    record = json.loads((await read_topic(home, home.topics.legacy_runs))[0].value)
    waiting = sending(record | {"run_id": "run_other"})
    await produce(home, [waiting], topic=home.topics.legacy_runs)
    with pytest.raises(RefusedError, match="another source"):
        await migrate(home, v1)
    assert "run_other" not in artifacts(home)
    done = await migrate(home, v1, resume=True)
    assert done.result.counts["outcomes"] == {"persisted": 1}


async def test_what_no_migration_published_is_a_dead_letter(home: Settings, v1: Path) -> None:
    await produce(
        home,
        [sending(run_request(run_id="run_x"))],
        topic=home.topics.legacy_runs,
    )
    done = await migrate(home, v1, resume=True)
    assert done.result.counts["outcomes"] == {"persisted": 3, "rejected": 1}
    (letter,) = await read_topic(home, home.topics.run_dead_letters)
    headers = dict(letter.headers)
    assert headers["rmos-error-code"] == b"UNSUPPORTED_VERSION"
    assert headers["rmos-group"] == home.topics.migrate_group.encode()


async def test_attachments_are_checked_and_stored_under_our_names(home: Settings, v1: Path) -> None:
    canonical, pretty = b'{"a":[1,2]}', b'{\n  "a": [\n    1,\n    2\n  ]\n}'
    large = b"x" * 4_000_000
    folder = v1.parent / "run_attachments"
    (folder / "ab" / "cd").mkdir(parents=True)
    (folder / f"{sha256(canonical)}.json").write_bytes(pretty)
    (folder / "ab" / "cd" / sha256(b"raw")).write_bytes(b"raw")
    (folder / f"{sha256(large)}.nc").write_bytes(large)
    (folder / f"{sha256(b'named')}.txt").write_bytes(b"other")
    contents = (canonical, b"raw", large, b"named", b"gone")
    refs = [attachment_ref(each, kind="debug") for each in contents]
    fill(v1, v1_row(attachments=refs))
    done = await migrate(home, v1)
    states = list(done.rows[v1_row()["run_id"]].attachments.values())
    assert states == ["pretty-printed", "as named", "as named", "mismatch", "missing"]
    assert done.result.oversized == [sha256(large)]
    stored = {path.name: path.read_bytes() for path in home.data_dir.glob("attachments/*/*/*")}
    assert stored == {sha256(each): each for each in (canonical, b"raw", large)}
    assert differences(home, v1) == []
    reader = open_reader(home.data_dir)
    try:
        verification = reader.verify_attachments(v1_row()["run_id"])
    finally:
        reader.close()
    errors = [each["error"] for each in verification["verification"]["results"]]
    assert errors == [None, None, None, "blob_not_found", "blob_not_found"]


async def test_a_folder_of_the_original_v2_code_is_carried_over(
    home: Settings, tmp_path: Path
) -> None:
    root = tmp_path / "rmos"
    gcode = attachment_ref(b"G0 X1\n", kind="gcode", mime="text/plain", filename="a.nc")
    row = original_v2_row(attachments=[gcode])
    write(root / "2025-12-18" / f"{row['run_id']}.json", row)
    link = {"advisory_id": "adv_1", "kind": "note", "created_at_utc": "2025-12-19T00:00:00Z"}
    write(root / "2025-12-18" / f"{row['run_id']}_advisory_adv_1.json", link)
    write(root / "2025-12-18" / "run_lost_advisory_adv_2.json", link)
    for date in ("2025-12-20", "2025-12-21"):
        write(root / date / "run_twice.json", original_v2_row(run_id="run_twice"))
    write(root / "_index.json", {})
    (root / "2025-12-18" / "run_broken.json").write_bytes(b"{")
    blobs = tmp_path / "run_attachments" / sha256(b"G0 X1\n")[:2] / sha256(b"G0 X1\n")[2:4]
    blobs.mkdir(parents=True)
    (blobs / f"{sha256(b'G0 X1' + bytes([10]))}.nc").write_bytes(b"G0 X1\n")
    done = await migrate(home, root)
    codes = {run_id: each.code for run_id, each in done.rows.items()}
    assert codes == {
        row["run_id"]: None,
        "run_lost": "NO_RUN",
        "run_twice": "TWICE",
        "run_broken": "UNREADABLE",
    }
    (document,) = artifacts(home).values()
    assert document["outputs"] == {"gcode_text": "G0 X1\n"}
    assert document["advisory_inputs"] == [link]
    assert [each["kind"] for each in document["attachments"]] == ["gcode"]
    assert {each.run_id for each in differences(home, root)} == codes.keys() - {row["run_id"]}


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2))


@pytest.mark.skipif(
    not DATA.is_file(), reason="the shop's data (shared/data beside the repository) are not here"
)
async def test_the_shops_own_rows_are_carried_over(home: Settings, tmp_path: Path) -> None:
    path = tmp_path / "runs.json"
    path.write_bytes(DATA.read_bytes())
    rows = json.loads(DATA.read_text())
    done = rmos_migrate(home, "run", "--from", path)
    assert done.status == 0, done.err
    stored = artifacts(home)
    assert stored.keys() == rows.keys()
    for run_id, row in rows.items():
        safety = (row["feasibility"] or {}).get("safety", {})
        decision = stored[run_id]["decision"]
        assert stored[run_id]["status"] == row["status"]
        assert decision["risk_level"] == safety.get("risk_level", "UNKNOWN")
        assert decision.get("block_reason") == safety.get("block_reason")
    files = store_files(home.data_dir)
    again = rmos_migrate(home, "run", "--from", path)
    assert again.status == 0, again.err
    assert again.summary["states"] == {"already": 13}
    assert store_files(home.data_dir) == files
    assert rmos_migrate(home, "verify", "--from", path).status == 0


async def test_a_backup_that_is_not_what_its_name_says_stops_before_anything(
    home: Settings, v1: Path
) -> None:
    backup = v1.with_name(f"runs.json.rmos-backup-{sha256(content(v1))}")
    backup.write_bytes(b"{}")
    with pytest.raises(IntegrityError, match="Expected the backup"):
        await migrate(home, v1)
    assert await legacy_records(home) == []
    assert artifacts(home) == {}
