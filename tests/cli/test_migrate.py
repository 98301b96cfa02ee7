"""`rmos migrate` where no broker answers: what it reads, tells and leaves alone."""

import json
from pathlib import Path

import pytest

from pipeline.core.record import RecordId, RecordSource
from pipeline.disk.store_identity import create_store
from pipeline.legacy.backup import make_backup
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import open_store_to_write
from tests.builders import sha256
from tests.cli.command_line import CommandLine
from tests.legacy_rows import bare_row, mapped, unknown_row, v1_file, v1_row
from tests.storage.stores import change_index

ROWS = (v1_row(), unknown_row(), bare_row())


@pytest.fixture
def v1(tmp_path: Path) -> Path:
    path = tmp_path / "old" / "runs.json"
    path.parent.mkdir()
    path.write_bytes(v1_file(*ROWS))
    return path


@pytest.fixture
def migrated(rmos: CommandLine) -> CommandLine:
    """Give the command line over a store into which two of the rows were carried."""
    create_store(rmos.data_dir, cluster_id="cluster", prefix="rmos")
    store = RunStore(open_store_to_write(rmos.data_dir))
    rows = [mapped(row) for row in ROWS[:2]]
    store.commit(
        [
            JudgedRecord.of(
                RecordSource(1, RecordId("rmos.runs.legacy", 0, offset)), row.judged, row.body, 1
            )
            for offset, row in enumerate(rows)
        ]
    )
    store.close()
    return rmos


def everything(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files}


def test_a_dry_run_needs_no_store_and_no_broker_and_writes_nothing(
    rmos: CommandLine, v1: Path, tmp_path: Path
) -> None:
    before = everything(tmp_path)
    done = rmos("migrate", "run", "--from", str(v1), "--dry-run", "--json")
    assert done.status == 0
    lines = [json.loads(line) for line in done.text.splitlines()]
    assert [line["state"] for line in lines[:-1]] == ["mapped"] * 3
    summary = lines[-1]["summary"]
    assert summary["dry_run"] is True
    assert summary["risks_before"] == {"UNKNOWN": 3}
    assert summary["risks_after"] == {"GREEN": 1, "UNKNOWN": 2}
    assert summary["hashes_after"] == {"agrees": 3}
    assert everything(tmp_path) == before
    assert not rmos.data_dir.exists()


def test_the_report_says_in_words_what_the_old_store_got_wrong(rmos: CommandLine, v1: Path) -> None:
    done = rmos("migrate", "run", "--from", str(v1), "--dry-run")
    assert done.status == 0
    assert "risk GREEN\t0\t1" in done.text
    assert "In 3 of 3 rows what was kept as the hash of the evaluation is not it." in done.text
    assert "1 of 3 rows were recorded as OK though nobody had evaluated them." in done.text


def test_rows_that_cannot_be_carried_are_reported_with_status_4(
    rmos: CommandLine, v1: Path
) -> None:
    v1.write_bytes(v1_file(v1_row(), v1_row(run_id="run_bad\x1b", status="DONE")))
    done = rmos("migrate", "run", "--from", str(v1), "--dry-run")
    assert done.status == 4
    assert "run_bad\\u001b: BAD_RUN_ID" in done.err.replace("\n", "")


def test_a_source_that_cannot_be_read_ends_with_2_and_nothing_is_written(
    migrated: CommandLine, v1: Path, tmp_path: Path
) -> None:
    wrong = {}
    for bad in (b"", b"[]", b"{", b'{"a": {}, "a": {}}', b'{"a": {"b": 1}', b"\xff{}", None):
        v1.unlink() if bad is None else v1.write_bytes(bad)
        before = everything(tmp_path)
        for command in ("run", "run --dry-run", "verify", "status"):
            done = migrated("migrate", *command.split(), "--from", str(v1))
            if done.status != 2 or "cannot be read" not in done.sentence:
                wrong[command, bad] = done
        assert everything(tmp_path) == before
    assert wrong == {}


def test_without_a_store_or_a_broker_nothing_is_begun(
    migrated: CommandLine, v1: Path, tmp_path: Path
) -> None:
    migrated.set("RMOS_DATA_DIR", str(tmp_path / "nowhere"))
    assert migrated("migrate", "run", "--from", str(v1)).status == 6
    for command in ("verify", "status"):
        assert migrated("migrate", command, "--from", str(v1)).status == 6
    migrated.set("RMOS_DATA_DIR", str(migrated.data_dir))
    migrated.set("RMOS_LEDGER_ENABLED", "false")
    assert migrated("migrate", "run", "--from", str(v1)).status == 6
    assert migrated("migrate", "rollback", "--to", str(v1)).status == 6
    assert [path.name for path in v1.parent.iterdir()] == ["runs.json"]


def test_status_counts_what_is_here(migrated: CommandLine, v1: Path) -> None:
    document = migrated("migrate", "status", "--from", str(v1), "--json").document
    assert document["rows"] == 3
    assert (document["migrated"], document["missing"], document["different"]) == (2, 1, 0)
    assert document["source_sha256"] == sha256(v1.read_bytes())
    v1.write_bytes(v1_file(v1_row(notes="other"), unknown_row(), v1_row(run_id="a", status="x")))
    document = migrated("migrate", "status", "--from", str(v1), "--json").document
    states = [document[name] for name in ("migrated", "missing", "different", "refused")]
    assert states == [1, 0, 1, 1]
    backups = [v1.with_name(f"runs.json.rmos-backup-{digit * 64}") for digit in "ab"]
    for backup in backups:
        backup.touch()
    lines = migrated("migrate", "status", "--from", str(v1)).text.splitlines()
    assert {f"backups        {backup}" for backup in backups} <= set(lines)


def test_verify_names_what_is_missing(migrated: CommandLine, v1: Path) -> None:
    done = migrated("migrate", "verify", "--from", str(v1), "--json")
    assert done.status == 5
    *found, summary = [json.loads(line) for line in done.text.splitlines()]
    assert [(each["run_id"], each["code"]) for each in found] == [
        (bare_row()["run_id"], "NOT_INDEXED"),
        (bare_row()["run_id"], "MISSING"),
    ]
    assert summary["summary"]["differences"] == 2
    v1.write_bytes(v1_file(*ROWS[:2]))
    assert migrated("migrate", "verify", "--from", str(v1)).status == 0


def test_verify_names_a_run_that_nobody_is_shown(migrated: CommandLine, v1: Path) -> None:
    v1.write_bytes(v1_file(*ROWS[:2]))
    forget = "UPDATE runs SET source_epoch = NULL, source_topic = NULL, source_partition = NULL, "
    forget += "source_offset = NULL WHERE run_id = ?"
    change_index(migrated.data_dir, forget, v1_row()["run_id"])
    done = migrated("migrate", "verify", "--from", str(v1), "--json")
    assert done.status == 5
    found, _ = [json.loads(line) for line in done.text.splitlines()]
    assert (found["run_id"], found["code"]) == (v1_row()["run_id"], "RUN_UNEXPLAINED")
    assert "nobody is shown the run" in found["reason"]
    assert "nobody is shown the run" in migrated("migrate", "verify", "--from", str(v1)).text
    counted = migrated("migrate", "status", "--from", str(v1), "--json").document
    assert (counted["migrated"], counted["unexplained"], counted["rows"]) == (1, 1, 2)


@pytest.mark.parametrize("area", ["runs", "quarantine"])
def test_verify_finds_one_changed_bit_of_a_file(migrated: CommandLine, v1: Path, area: str) -> None:
    v1.write_bytes(v1_file(*ROWS[:2]))
    path = next(path for path in (migrated.data_dir / area).rglob("*") if path.is_file())
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(changed)
    done = migrated("migrate", "verify", "--from", str(v1), "--json")
    assert done.status == 5
    found = json.loads(done.text.splitlines()[0])
    assert (found["code"], found["path"]) == (
        "DIFFERENT",
        str(path.relative_to(migrated.data_dir)),
    )


def test_verify_finds_a_source_whose_bytes_are_not_those_of_its_backup(
    migrated: CommandLine, v1: Path
) -> None:
    v1.write_bytes(v1_file(*ROWS[:2]))
    make_backup(v1, sha256(v1.read_bytes()))
    assert migrated("migrate", "verify", "--from", str(v1)).status == 0
    v1.write_bytes(v1.read_bytes() + b"\n")
    done = migrated("migrate", "verify", "--from", str(v1))
    assert done.status == 5
    assert "SOURCE_CHANGED" in done.text


def test_a_backup_can_be_verified_itself(migrated: CommandLine, v1: Path) -> None:
    v1.write_bytes(v1_file(*ROWS[:2]))
    backup = make_backup(v1, sha256(v1.read_bytes()))
    assert migrated("migrate", "verify", "--from", str(backup)).status == 0
    backup.chmod(0o600)
    backup.write_bytes(backup.read_bytes() + b"\n")
    assert migrated("migrate", "verify", "--from", str(backup)).status == 5


def test_the_source_is_the_setting_where_none_is_named(rmos: CommandLine, v1: Path) -> None:
    rmos.set("RMOS_RUN_STORE_PATH", str(v1))
    assert rmos("migrate", "run", "--dry-run").status == 0


def test_a_rollback_needs_a_broker_only_to_ask_who_runs(
    rmos_with_runs: CommandLine, tmp_path: Path
) -> None:
    to = tmp_path / "back" / "runs.json"
    to.parent.mkdir()
    command = ("migrate", "rollback", "--to", str(to), "--without-backup")
    asked = rmos_with_runs(*command)
    assert asked.status == 6
    assert "stop every worker yourself and give --without-broker" in asked.sentence
    assert not to.exists()
    done = rmos_with_runs(*command, "--without-broker")
    assert done.status == 0, done.err
    assert len(json.loads(to.read_bytes())) == 5
