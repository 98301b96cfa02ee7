"""`rmos runs of-file`: exit 0 only where a run may be cut by exactly these bytes."""

from pathlib import Path

import pytest

from pipeline.storage.run_store import RunStore
from pipeline.storage.store import open_store_to_write
from tests.builders import GCODE, red_request, router_request, run_request, sha256
from tests.cli.command_line import CommandLine
from tests.storage.stores import judged_record, make_store

GREEN = b"G90\nG21\nG1 X10\nM30\n"
YELLOW = b"G90\nG21\nG1 X20\nM30\n"
RED = b"G90\nG21\nG1 X30\nM30\n"


@pytest.fixture
def shop(rmos: CommandLine) -> CommandLine:
    """Give the command line over a store with a GREEN, a YELLOW and a RED program."""
    make_store(rmos.data_dir)
    store = RunStore(open_store_to_write(rmos.data_dir))
    requests = [
        run_request(run_id="run_green", outputs={"gcode_text": GREEN.decode()}),
        router_request(run_id="run_yellow", outputs={"gcode_text": YELLOW.decode()}),
        red_request(run_id="run_red", outputs={"gcode_text": RED.decode()}),
    ]
    store.commit([judged_record(each, offset) for offset, each in enumerate(requests)])
    store.close()
    return rmos


def test_each_file_is_answered_in_one_sentence(shop: CommandLine, tmp_path: Path) -> None:
    part = tmp_path / "part.nc"
    answers = {
        GREEN: (0, "MAY CUT: these bytes are the program of the run run_green (GREEN)."),
        YELLOW: (0, "MAY CUT: these bytes are the program of the run run_yellow (YELLOW)."),
        RED: (4, "DO NOT CUT: rim speed above the blade's limit (the run run_red is BLOCKED)."),
        GREEN + b"\n": (3, "DO NOT CUT: no run knows these bytes."),
        GREEN.replace(b"\n", b"\r\n"): (3, "DO NOT CUT: no run knows these bytes."),
        GREEN.replace(b"X10", b"X11"): (3, "DO NOT CUT: no run knows these bytes."),
    }
    for program, (status, sentence) in answers.items():
        part.write_bytes(program)
        done = shop("runs", "of-file", str(part))
        assert (done.status, done.text) == (status, f"{part}: {sentence}\n")
        assert done.err == ""
        piped = shop("runs", "of-file", "-", given=program)
        assert (piped.status, piped.text) == (status, f"-: {sentence}\n")


def test_several_files_end_with_the_worst(shop: CommandLine, tmp_path: Path) -> None:
    named = {"green": GREEN, "yellow": YELLOW, "red": RED, "unknown": b""}
    paths = {name: tmp_path / name for name in named}
    for name, path in paths.items():
        path.write_bytes(named[name])

    def status_of(*names: str) -> int:
        return shop("runs", "of-file", *(str(paths[name]) for name in names)).status

    assert status_of("green", "yellow") == 0
    assert status_of("green", "unknown") == status_of("unknown", "green") == 3
    assert status_of("unknown", "red", "green") == status_of("red", "unknown") == 4


def test_the_document_has_every_verdict(shop: CommandLine, tmp_path: Path) -> None:
    for name, program in (("a.nc", GREEN), ("b.nc", b"M30\n")):
        (tmp_path / name).write_bytes(program)
    a, b = str(tmp_path / "a.nc"), str(tmp_path / "b.nc")
    done = shop("runs", "of-file", "--json", a, b)
    assert done.status == 3
    assert done.document == {
        "may_cut": False,
        "files": [
            {
                "file": a,
                "sha256": sha256(GREEN),
                "may_cut": True,
                "run_id": "run_green",
                "words": "MAY CUT: these bytes are the program of the run run_green (GREEN).",
            },
            {
                "file": b,
                "sha256": sha256(b"M30\n"),
                "may_cut": False,
                "run_id": None,
                "words": "DO NOT CUT: no run knows these bytes.",
            },
        ],
    }
    assert shop("runs", "of-file", "--json", a).document["may_cut"] is True


@pytest.mark.parametrize("name", ["", "missing.nc"])
def test_a_file_that_cannot_be_read_answers_for_none(
    shop: CommandLine, tmp_path: Path, name: str
) -> None:
    (tmp_path / "part.nc").write_bytes(GREEN)
    done = shop("runs", "of-file", str(tmp_path / "part.nc"), str(tmp_path / name))
    assert done.status == 2
    assert "cannot be read" in done.sentence


def test_without_a_store_nothing_may_be_cut(rmos: CommandLine) -> None:
    done = rmos("runs", "of-file", "-", given=GCODE.encode())
    assert done.status == 6
    assert done.sentence


def test_a_name_that_would_act_on_the_terminal_is_shown_escaped(
    shop: CommandLine, tmp_path: Path
) -> None:
    part = tmp_path / "a\u202e\x1b[2Jb.nc"
    part.write_bytes(GREEN)
    done = shop("runs", "of-file", str(part))
    assert (done.status, done.text.count("\n")) == (0, 1)
    assert "\x1b" not in done.text
    assert "\u202e" not in done.text
