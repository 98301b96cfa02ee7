"""`rmos runs` over real files: listing, showing, downloading, and what it refuses."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pipeline.core.toolpath import read_toolpath
from tests.builders import GCODE, sha256
from tests.cli.command_line import CommandLine

NEWEST_FIRST = ["rosette_1", "router_1", "saw_red", "saw_2", "saw_1"]
ITEM_FIELDS = {
    "run_id",
    "created_at_utc",
    "event_type",
    "status",
    "mode",
    "tool_id",
    "material_id",
    "machine_id",
    "workflow_session_id",
    "risk_level",
    "score",
    "block_reason",
    "feasibility_sha256",
    "toolpaths_sha256",
    "gcode_sha256",
    "gcode_known_by",
    "artifact_sha256",
    "artifact_path",
    "may_cut",
    "advisory_count",
    "explanation_status",
}


def listed(rmos: CommandLine, *options: str) -> list[str]:
    done = rmos("runs", "list", "--json", *options)
    assert done.status == 0, done.err
    return [item["run_id"] for item in done.document["items"]]


def test_runs_are_listed_newest_first(rmos_with_runs: CommandLine) -> None:
    assert listed(rmos_with_runs) == NEWEST_FIRST


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--status", "ok"], ["rosette_1", "router_1", "saw_2", "saw_1"]),
        (["--status", "BLOCKED"], ["saw_red"]),
        (["--status", "ERROR"], []),
        (["--risk-level", "yellow"], ["router_1"]),
        (["--risk-level", "RED"], ["saw_red"]),
        (["--mode", "saw"], ["saw_red", "saw_2", "saw_1"]),
        (["--tool-id", "saw:rip_200"], ["saw_2"]),
        (["--tool-id-prefix", "saw:"], ["saw_red", "saw_2", "saw_1"]),
        (["--tool-id-prefix", "s_w"], []),
        (["--event-type", "approval"], ["router_1"]),
        (["--workflow-session-id", "ws_42"], ["saw_red", "saw_2", "saw_1"]),
        (["--gcode-sha256", sha256(GCODE)], NEWEST_FIRST),
        (["--gcode-sha256", sha256(GCODE), "--tool-id-prefix", "saw:r"], ["saw_2"]),
        (["--gcode-sha256", sha256(GCODE + "\n")], []),
        (["--date-from", "2025-12-19"], ["rosette_1", "router_1", "saw_red"]),
        (["--date-to", "2025-12-18"], ["saw_2", "saw_1"]),
        (["--date-from", "2025-12-19", "--date-to", "2025-12-19"], ["saw_red"]),
        (["--mode", "saw", "--status", "ok", "--limit", "1"], ["saw_2"]),
        (["--limit", "0"], ["rosette_1"]),
        (["--limit", "1000000"], NEWEST_FIRST),
    ],
    ids=" ".join,
)
def test_a_filter_keeps_what_fits(
    rmos_with_runs: CommandLine, options: list[str], found: list[str]
) -> None:
    assert listed(rmos_with_runs, *options) == found


def test_pages_by_cursor_give_every_run_once(rmos_with_runs: CommandLine) -> None:
    found: list[str] = []
    options: list[str] = []
    for _ in range(3):
        page = rmos_with_runs("runs", "list", "--json", "--limit", "2", *options).document
        found += [item["run_id"] for item in page["items"]]
        options = ["--cursor", page["next_cursor"] or ""]
    assert found == NEWEST_FIRST
    assert page["next_cursor"] is None


def test_the_page_has_the_published_shape(rmos_with_runs: CommandLine) -> None:
    page = rmos_with_runs("runs", "list", "--json").document
    assert page.keys() == {"items", "next_cursor", "limit"}
    assert page["limit"] == 50
    assert {frozenset(item) for item in page["items"]} == {frozenset(ITEM_FIELDS)}


def test_without_json_a_listing_is_tab_separated(rmos_with_runs: CommandLine) -> None:
    done = rmos_with_runs("runs", "list", "--limit", "2")
    heading, *rows = done.text.splitlines()
    assert heading.split("\t")[:3] == ["created_at_utc", "run_id", "status"]
    assert [row.split("\t")[1] for row in rows] == NEWEST_FIRST[:2]
    assert done.err.startswith("More: --cursor ")


def test_a_cursor_stays_on_its_line_however_narrow_the_terminal_is(
    rmos_with_runs: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    (line,) = rmos_with_runs("runs", "list", "--limit", "2").err.splitlines()
    cursor = line.removeprefix("More: --cursor ")
    rest = rmos_with_runs("runs", "list", "--cursor", cursor).text.splitlines()[1:]
    assert [row.split("\t")[1] for row in rest] == NEWEST_FIRST[2:]


def test_no_run_fits_is_no_error(rmos_with_runs: CommandLine) -> None:
    done = rmos_with_runs("runs", "list", "--mode", "laser")
    assert done.status == 0
    assert done.err == "No run fits.\n"


@pytest.mark.parametrize(
    "options",
    [
        ["--status", "MAYBE"],
        ["--risk-level", "BLUE"],
        ["--gcode-sha256", sha256(GCODE).upper()],
        ["--date-from", "yesterday"],
        ["--date-to", "2025-02-30"],
        ["--limit", "many"],
        ["--nonsense"],
    ],
    ids=" ".join,
)
def test_a_value_outside_a_closed_set_is_refused(
    rmos_with_runs: CommandLine, options: list[str]
) -> None:
    done = rmos_with_runs("runs", "list", *options)
    assert done.status == 2
    assert done.out == b""


def test_a_word_outside_a_closed_set_is_answered_with_the_words_in_it(
    rmos_with_runs: CommandLine,
) -> None:
    done = rmos_with_runs("runs", "list", "--status", "nope")
    assert done.sentence == "--status: Input should be 'OK', 'BLOCKED' or 'ERROR'."
    assert "OK|BLOCKED|ERROR" in rmos_with_runs("runs", "list", "--help").text


@pytest.mark.parametrize("cursor", ["!!!", "YWJj", "x"])
def test_a_cursor_that_is_none_of_ours_is_refused(rmos_with_runs: CommandLine, cursor: str) -> None:
    done = rmos_with_runs("runs", "list", "--cursor", cursor)
    assert done.status == 2
    assert done.sentence == "Expected a cursor from an earlier page of this listing."


def test_show_prints_the_artifact_itself(rmos_with_runs: CommandLine) -> None:
    document = rmos_with_runs("runs", "show", "saw_1", "--json").document
    assert document["run_id"] == "saw_1"
    assert document["schema_version"] == "rmos.run_artifact/2"


def test_show_begins_with_what_matters(rmos_with_runs: CommandLine) -> None:
    lines = rmos_with_runs("runs", "show", "saw_red").text.splitlines()
    pairs = dict(line.split(maxsplit=1) for line in lines[:8])
    assert pairs["status"] == "BLOCKED"
    assert pairs["may_cut"] == "false"
    assert pairs["risk_level"] == "RED"


@pytest.mark.parametrize("command", ["show", "download"])
@pytest.mark.parametrize("run_id", ["nobody", "../store", "", "a b"])
def test_an_unknown_run_is_not_found(
    rmos_with_runs: CommandLine, command: str, run_id: str
) -> None:
    done = rmos_with_runs("runs", command, run_id)
    assert done.status == 3
    assert done.sentence.startswith("RUN_NOT_FOUND: ")


@pytest.mark.parametrize("command", ["show", "download"])
def test_a_run_with_one_flipped_bit_is_an_integrity_fault(
    rmos_with_runs: CommandLine, command: str
) -> None:
    path = rmos_with_runs.data_dir / "runs/2025-12-18/saw_1.json"
    flip_bit(path)
    done = rmos_with_runs("runs", command, "saw_1")
    assert done.status == 5
    assert done.sentence.startswith("ARTIFACT_CORRUPT: ")


def test_a_run_whose_file_is_gone_is_an_integrity_fault(rmos_with_runs: CommandLine) -> None:
    (rmos_with_runs.data_dir / "runs/2025-12-18/saw_1.json").unlink()
    done = rmos_with_runs("runs", "show", "saw_1")
    assert done.status == 5
    assert "cannot be read (No such file or directory)" in done.sentence


def test_download_gives_the_exact_bytes(rmos_with_runs: CommandLine, tmp_path: Path) -> None:
    content = (rmos_with_runs.data_dir / "runs/2025-12-18/saw_1.json").read_bytes()
    assert rmos_with_runs("runs", "download", "saw_1").out == content
    copy = tmp_path / "copy.json"
    assert rmos_with_runs("runs", "download", "saw_1", "--to", str(copy)).status == 0
    assert copy.read_bytes() == content


def test_a_program_is_drawn_as_a_picture_with_its_words_beside_it(
    rmos_with_runs: CommandLine,
) -> None:
    done = rmos_with_runs("runs", "draw", "saw_1")
    assert done.status == 0
    picture = ElementTree.fromstring(done.text)
    title = f"What the program {sha256(GCODE.encode())} of the run saw_1 draws"
    assert picture.findtext("{http://www.w3.org/2000/svg}title") == title
    assert done.err.splitlines() == [
        "As programmed: no stock, no machine and no collisions; rapid moves are drawn straight.",
        "4 moves, an arc counted by its chords, "
        "in a box of 94.00 by 0.00 by 8.00 mm (X by Y by Z).",
        "102.0 mm at feed rate, 0.0 mm of rapid moves.",
        "Lines: 12. Not drawn: 2 of the moves: the program has not said from or to where. "
        "Time: 0.1 minutes at feed rate. Tools: none named. "
        "Feed rates: 300.0 to 1,200.0 mm/min. Spindle: 18,000 rpm.",
    ]
    listed = rmos_with_runs("runs", "draw", "saw_1", "--json")
    expected = read_toolpath(GCODE).document()
    assert listed.document == json.loads(json.dumps(expected)) | {
        "run_id": "saw_1",
        "gcode_sha256": sha256(GCODE.encode()),
    }
    assert listed.err == ""


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_what_is_withheld_or_damaged_is_not_drawn(
    rmos_with_runs: CommandLine, options: list[str]
) -> None:
    blocked = rmos_with_runs("runs", "draw", "saw_red", *options)
    assert blocked.status == 3
    assert blocked.sentence == (
        "PROGRAM_WITHHELD: The run saw_red is BLOCKED: what it would cut is withheld."
    )
    assert rmos_with_runs("runs", "draw", "saw_9", *options).status == 3
    flip_bit(rmos_with_runs.data_dir / "runs/2025-12-18/saw_1.json")
    damaged = rmos_with_runs("runs", "draw", "saw_1", *options)
    assert damaged.status == 5
    assert damaged.sentence.startswith("ARTIFACT_CORRUPT")


def test_download_never_overwrites(rmos_with_runs: CommandLine, tmp_path: Path) -> None:
    evidence = tmp_path / "evidence.json"
    evidence.write_bytes(b"from before")
    done = rmos_with_runs("runs", "download", "saw_1", "--to", str(evidence))
    assert done.status == 2
    assert done.sentence == f"{evidence} cannot be written: File exists; name a new file."
    assert evidence.read_bytes() == b"from before"


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
