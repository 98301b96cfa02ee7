"""`rmos runs export`: the ZIP, its summary, and how it ends."""

import zipfile
from pathlib import Path

import pytest

from tests.cli.command_line import CommandLine

SAW_1 = "runs/2025-12-18/saw_1.json"


def runs_in(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as bundle:
        return {Path(each).stem for each in bundle.namelist() if each.startswith("runs/")}


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ([], {"rosette_1", "router_1", "saw_red", "saw_2", "saw_1"}),
        (["--tool-id", "saw:rip_200"], {"saw_2"}),
        (["--workflow-session-id", "ws_42"], {"saw_red", "saw_2", "saw_1"}),
        (["--date-from", "2025-12-19", "--date-to", "2025-12-19"], {"saw_red"}),
        (["--date-to", "2025-12-18", "--tool-id-prefix", "saw:v"], {"saw_1"}),
        (["--status", "blocked"], {"saw_red"}),
    ],
)
def test_an_export_has_the_runs_that_fit(
    rmos_with_runs: CommandLine, tmp_path: Path, options: list[str], found: set[str]
) -> None:
    path = tmp_path / "runs.zip"
    done = rmos_with_runs("runs", "export", "--to", str(path), "--json", *options)
    assert done.status == 0, done.err
    assert runs_in(path) == found
    assert done.document == {
        "file": str(path),
        "size_bytes": path.stat().st_size,
        "runs": len(found),
        "links": 0,
        "attachments": 0,
        "missing": 0,
        "withheld": 0,
        "corrupt": [],
    }


def test_an_export_with_a_corrupt_run_names_it_and_ends_with_5(
    rmos_with_runs: CommandLine, tmp_path: Path
) -> None:
    (rmos_with_runs.data_dir / SAW_1).unlink()
    path = tmp_path / "runs.zip"
    done = rmos_with_runs("runs", "export", "--to", str(path))
    assert done.status == 5
    assert "saw_1: ARTIFACT_CORRUPT" in done.err
    assert "1 file not exported" in done.err
    assert runs_in(path) == {"rosette_1", "router_1", "saw_red", "saw_2"}
    told = rmos_with_runs("runs", "export", "--to", str(tmp_path / "again.zip"), "--json")
    assert told.status == 5
    assert [each["run_id"] for each in told.document["corrupt"]] == ["saw_1"]


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--date-to", "2001-01-01"], 3, "No run fits"),
        (["--date-from", "yesterday"], 2, "--date-from: "),
        (["--status", "GREEN"], 2, "--status: "),
    ],
)
def test_an_export_that_cannot_be_made_writes_nothing(
    rmos_with_runs: CommandLine, tmp_path: Path, options: list[str], status: int, said: str
) -> None:
    done = rmos_with_runs("runs", "export", "--to", str(tmp_path / "runs.zip"), *options)
    assert done.status == status
    assert said in done.sentence
    assert not (tmp_path / "runs.zip").exists()


def test_an_export_replaces_no_file(rmos_with_runs: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "runs.zip").write_bytes(b"evidence")
    done = rmos_with_runs("runs", "export", "--to", str(tmp_path / "runs.zip"))
    assert done.status == 2
    assert "name a new file" in done.sentence
    assert (tmp_path / "runs.zip").read_bytes() == b"evidence"
