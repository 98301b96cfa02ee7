"""`rmos store` and `rmos index` where there is no broker, and settings that cannot be."""

import os
import sqlite3
import sys
from contextlib import closing

import pytest

from pipeline.cli import main
from pipeline.cli.store import SHOWN_OF_A_KIND, _show_rebuilt
from pipeline.disk import locks
from pipeline.disk.locks import INDEX_LOCK, exclusive_lock
from pipeline.recovery.rebuild.index import RebuildReport
from pipeline.storage.artifacts import UnexpectedFile
from pipeline.storage.index.run_index import INDEX_FILE
from tests.cli.command_line import CommandLine
from tests.cli.test_runs import flip_bit
from tests.storage.stores import change_index

READING = [
    *("runs list", "runs show saw_1", "runs verify saw_1"),
    *("store status", "index check"),
]


def test_a_folder_without_a_store_is_refused_and_left_empty(rmos: CommandLine) -> None:
    rmos.data_dir.mkdir()
    reading = [*READING, "runs download x", "index rebuild"]
    done = [rmos(*command.split()) for command in reading]
    assert [each.status for each in done] == [6] * len(reading)
    assert {each.sentence for each in done} == {
        f"There is no store at {rmos.data_dir}: mount its volume, or make a new store with "
        "rmos store init."
    }
    assert list(rmos.data_dir.iterdir()) == []


def test_a_broker_that_does_not_answer_is_reported(rmos: CommandLine) -> None:
    for command in ("store init", "store new-epoch", "topics apply"):
        done = rmos(*command.split())
        assert (done.status, done.sentence[:26]) == (6, "No Kafka broker answers at"), command
    assert not rmos.data_dir.exists()


IMPOSSIBLE = {
    "RMOS_METRICS_PORT": "99999",
    "RMOS_BATCH_RECORDS": "many",
    "RMOS_PREFIX": "Not A Prefix",
    "RMOS_SECURITY_PROTOCOL": "TLS",
    "RMOS_STOP_TIMEOUT_SECONDS": "0",
}


def test_a_setting_that_cannot_be_is_named(
    rmos_with_runs: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in IMPOSSIBLE.items():
        with monkeypatch.context() as alone:
            alone.setenv(name, value)
            done = rmos_with_runs("store", "status")
        begin = f"{name} cannot be '{value}': "
        assert (done.status, done.sentence[: len(begin)]) == (2, begin)


def test_status_reports_identity_runs_and_positions(rmos_with_runs: CommandLine) -> None:
    document = rmos_with_runs("store", "status", "--json").document
    assert document["format"] == "rmos.store/1"
    assert document["cluster_id"] == "cluster"
    assert document["runs"] == 5
    assert document["free_bytes"] > 0
    assert document["positions"] == [
        {"topic": "rmos.runs.requests", "partition": 0, "next_offset": 5}
    ]


def test_a_reader_waits_for_no_lock_of_another(rmos_with_runs: CommandLine) -> None:
    """Neither for the store's own nor for a writer's of the index, who may be paused."""
    root = rmos_with_runs.data_dir
    with (
        exclusive_lock(root / INDEX_LOCK),
        closing(sqlite3.connect(root / INDEX_FILE, isolation_level=None)) as writer,
    ):
        writer.execute("BEGIN IMMEDIATE")
        locks.end_waits()
        try:
            done = {command: rmos_with_runs(*command.split()).status for command in READING}
        finally:
            locks.allow_waits()
    assert set(done.values()) <= {0, 3}, done


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be refused as root")
def test_root_is_refused_in_the_store_of_another_user(rmos_with_runs: CommandLine) -> None:
    root = rmos_with_runs.data_dir
    for path in (root, *root.rglob("*")):
        os.chown(path, 54_321, 54_321)
    before = sorted(root.rglob("*"))
    writing = ("broker start", "index rebuild", "ledger init", "attachments put /etc/hostname")
    for command in (*writing, "worker persist", "up"):
        rmos_with_runs.set("RMOS_LEDGER_ENABLED", str(command == "ledger init"))
        done = rmos_with_runs(*command.split())
        assert done.status == 6, command
        assert f"The store {root} belongs to user 54321" in done.err, command
        assert sorted(root.rglob("*")) == before, command


def test_a_run_that_no_record_explains_is_a_difference(rmos_with_runs: CommandLine) -> None:
    change_index(
        rmos_with_runs.data_dir,
        "UPDATE runs SET source_epoch=NULL, source_offset=NULL "
        "WHERE run_id = (SELECT min(run_id) FROM runs)",
    )
    done = rmos_with_runs("index", "check", "--json")
    assert done.status == 5
    (difference,) = done.document["differences"]
    assert (difference["expected"], difference["found"]) == (
        "a leaf or a record that explains this run",
        "neither",
    )


def test_an_index_that_fits_its_files_is_said_so(rmos_with_runs: CommandLine) -> None:
    done = rmos_with_runs("index", "check")
    assert done.status == 0
    assert done.text == "5 runs as the index says\n"
    assert rmos_with_runs("index", "check", "--json").document == {
        "runs": 5,
        "advisories": 0,
        "archived": 0,
        "differences": [],
    }


def test_check_finds_a_flipped_bit_a_missing_and_a_foreign_file(
    rmos_with_runs: CommandLine,
) -> None:
    runs = rmos_with_runs.data_dir / "runs"
    flip_bit(runs / "2025-12-18/saw_1.json")
    (runs / "2025-12-18/saw_2.json").unlink()
    (runs / "2025-12-18/notes.txt").write_text("mine")
    done = rmos_with_runs("index", "check", "--json")
    assert done.status == 5
    found = {each["path"]: each for each in done.document["differences"]}
    assert found.keys() == {
        "runs/2025-12-18/saw_1.json",
        "runs/2025-12-18/saw_2.json",
        "runs/2025-12-18/notes.txt",
    }
    assert found["runs/2025-12-18/saw_2.json"]["found"] == "no file"
    assert found["runs/2025-12-18/notes.txt"]["expected"] == "nothing"
    assert rmos_with_runs("index", "check").status == 5


def test_check_finds_an_artifact_that_was_edited_with_care(rmos_with_runs: CommandLine) -> None:
    path = rmos_with_runs.data_dir / "runs/2025-12-18/saw_1.json"
    content = path.read_bytes()
    path.chmod(0o644)
    # Still canonical JSON, still an artifact.
    path.write_bytes(content.replace(b'"operator":"ana"', b'"operator":"eva"'))
    assert path.read_bytes() != content
    done = rmos_with_runs("index", "check", "--json")
    assert done.status == 5
    (found,) = done.document["differences"]
    assert found["path"] == "runs/2025-12-18/saw_1.json"
    assert found["expected"].startswith("SHA-256 ")
    assert found["found"].startswith("SHA-256 ")


def test_check_finds_an_artifact_without_a_row(rmos_with_runs: CommandLine) -> None:
    with sqlite3.connect(rmos_with_runs.data_dir / "index.sqlite3") as connection:
        connection.execute("DELETE FROM runs WHERE run_id = 'saw_1'")
    connection.close()
    done = rmos_with_runs("index", "check", "--json")
    assert done.status == 5
    (found,) = done.document["differences"]
    assert found["path"] == "runs/2025-12-18/saw_1.json"
    assert found["expected"] == "no file: the index has no such run"


def test_a_missing_index_over_runs_is_refused(rmos_with_runs: CommandLine) -> None:
    for file in rmos_with_runs.data_dir.glob("index.sqlite3*"):
        file.unlink()
    done = rmos_with_runs("runs", "list")
    assert done.status == 6
    assert done.sentence.endswith(" is missing: run rmos index rebuild.")


def test_a_damaged_index_is_refused(rmos_with_runs: CommandLine) -> None:
    (rmos_with_runs.data_dir / "index.sqlite3").write_bytes(b"no database, but long enough" * 9)
    done = rmos_with_runs("runs", "list")
    assert done.status == 6
    assert done.sentence.endswith(": run rmos index rebuild.")


def test_an_index_of_another_format_is_refused(rmos_with_runs: CommandLine) -> None:
    with sqlite3.connect(rmos_with_runs.data_dir / "index.sqlite3") as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    done = rmos_with_runs("index", "check")
    assert done.status == 6
    assert "found 99: run rmos index rebuild." in done.sentence


def test_a_rebuild_reports_ten_of_a_kind_and_how_many_more(
    capsys: pytest.CaptureFixture[str],
) -> None:
    many = [f"run_{number}" for number in range(SHOWN_OF_A_KIND + 3)]
    _show_rebuilt(
        RebuildReport(20, many, ["lost_1"], [UnexpectedFile("runs/a", "expected [a] date")])
    )
    out, err = capsys.readouterr()
    assert out == "20 runs in the new index\n"
    told = err.splitlines()
    assert len(told) == SHOWN_OF_A_KIND + 1 + 1 + 1
    assert told[SHOWN_OF_A_KIND] == "and 3 more; --json names all"
    assert told[-2:] == [
        "lost_1: its file is missing or has other bytes",
        "runs/a: expected [a] date",
    ]


def test_the_base_install_says_which_extra_the_commands_need(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # What find_spec sees of a module that is not installed.
    monkeypatch.setitem(sys.modules, "typer", None)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("The rmos commands need the extra server: ")


def test_no_command_shows_help(rmos: CommandLine) -> None:
    done = rmos()
    assert done.status == 2
    assert "Run requests become immutable artifacts" in done.text + done.err
