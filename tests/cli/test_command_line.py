"""What holds for every command: its help, its version, completion, and mistyped settings."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from itertools import pairwise

import pytest

from pipeline.cli import commands, main
from pipeline.cli.commands import COMMANDS, imported
from tests.cli.command_line import CommandLine
from tests.e2e.worker_processes import RMOS


def groups_and_commands() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = [()]
    for name in COMMANDS:
        found.append((name,))
        below = getattr(imported(name), "commands", {}).items()
        found += [(name, word) for word, each in below if not each.hidden]
    return found


def test_every_command_answers_h_as_it_answers_help(rmos: CommandLine) -> None:
    def fault(words: tuple[str, ...]) -> str | None:
        short = rmos(*words, "-h")
        if short.status or "Usage: rmos" not in short.text:
            return short.text + short.err
        return None if short == rmos(*words, "--help") else "-h and --help differ"

    asked = groups_and_commands()
    assert len(asked) > 50
    assert {" ".join(words): found for words in asked if (found := fault(words))} == {}


def test_each_paragraph_of_a_help_fills_the_lines_of_a_terminal(
    rmos: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 80)
    said = rmos("archive", "create", "--help").text
    lines = [line.strip() for line in said.splitlines()]
    first = next(at for at, line in enumerate(lines) if line.startswith("Nothing is removed."))
    paragraph = lines[first : lines.index("", first)]
    for line, following in pairwise(paragraph):
        assert len(f" {line} {following.split()[0]} ") > 80, line


def test_the_version_is_that_of_the_package(rmos: CommandLine) -> None:
    done = rmos("--version")
    assert (done.status, done.text) == (0, f"rmos {version('rmos-runs')}\n")


def test_a_mistyped_setting_is_one_sentence_whatever_the_command(rmos: CommandLine) -> None:
    rmos.set("RMOS_DATADIR", "elsewhere")
    done = rmos("broker", "status")
    assert done.status == 2
    assert "did you mean RMOS_DATA_DIR?" in done.sentence


def test_another_unknown_variable_is_named_once_and_the_command_goes_on(rmos: CommandLine) -> None:
    rmos.set("RMOS_NEIGHBOUR", "/srv/runs")
    done = rmos("broker", "status")
    assert done.status == 3
    assert done.err.count("RMOS_NEIGHBOUR") == 1
    assert done.out == b""


def test_a_variable_of_the_original_is_named_once_with_what_to_set(rmos: CommandLine) -> None:
    rmos.set("RMOS_RUNS_DIR", "/srv/runs")
    done = rmos("broker", "status")
    assert done.status == 3
    assert "RMOS_RUNS_DIR is of the original system, and not read: set RMOS_DATA_DIR" in done.err
    assert done.err.count("RMOS_RUNS_DIR") == 1


@pytest.mark.parametrize("service", ["api", "worker persist"])
def test_a_service_names_both_once_in_its_log(rmos: CommandLine, service: str) -> None:
    rmos.set("RMOS_NEIGHBOUR", "/srv/runs")
    rmos.set("RMOS_RUNS_DIR", "/srv/runs")
    done = rmos(*service.split())
    original, other = (json.loads(line) for line in done.err.splitlines()[:2])
    assert (original["level"], other["level"]) == ("warning", "warning")
    assert original["instead"]["RMOS_RUNS_DIR"].startswith("set RMOS_DATA_DIR")
    assert other["names"] == ["RMOS_NEIGHBOUR"]
    assert done.err.count("RMOS_RUNS_DIR") == done.err.count("RMOS_NEIGHBOUR") == 1


@pytest.mark.parametrize(("typed", "offered"), [("rmos wor", "worker"), ("rmos runs sh", "show")])
def test_a_shell_completes_commands(typed: str, offered: str) -> None:
    asked = {
        "_RMOS_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(typed.count(" ")),
    }
    done = subprocess.run(
        [str(RMOS)], env={**os.environ, **asked}, capture_output=True, check=False
    )
    assert done.stdout.decode().split() == [offered]


def test_ctrl_c_before_the_command_begins_is_one_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "run", interrupted)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "Stopped.\n"


def test_a_thread_that_cannot_be_started_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_thread() -> None:
        message = "can't start new thread"  # as Python words it
        raise RuntimeError(message)

    monkeypatch.setattr(commands, "app", no_thread)
    with pytest.raises(SystemExit) as ended:
        commands.run()
    assert ended.value.code == 6
    said = capsys.readouterr().err
    assert said.startswith("Error: No thread can be started; nothing was acknowledged: give this")
    assert "Traceback" not in said


def test_a_command_is_listed_with_what_its_own_help_begins_with() -> None:
    own = {
        name: (each.name, each.hidden, " ".join((each.help or "").split("\n\n")[0].split()))
        for name, each in ((name, imported(name)) for name in COMMANDS)
    }
    assert own == {name: (name, False, listed) for name, (_, listed) in COMMANDS.items()}


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("offset", "offsets"), ("workr", "worker"), ("dead-leters", "dead-letters")],
)
def test_a_mistyped_command_is_answered_with_the_one_that_is_meant(
    rmos: CommandLine, typed: str, offered: str
) -> None:
    done = rmos(typed)
    assert done.status == 2
    assert f"No such command '{typed}'. Did you mean '{offered}'?" in done.err


FRAMEWORKS = {"fastapi", "faststream", "uvicorn", "sqlalchemy"}
LIBRARIES = FRAMEWORKS | {"aiokafka", "pydantic", "structlog"}
"""What takes most of a second, and no list of commands needs."""

IMPORTED = """
import atexit, json, sys
from pipeline.cli import main
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))
main()
"""


def imported_by(*words: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, *words], capture_output=True, text=True, check=False
    )
    imported = set(json.loads(done.stderr.splitlines()[-1]))
    assert "typer" in imported
    return imported


def test_a_list_of_commands_imports_no_library() -> None:
    # A name that is mistyped is answered by Typer, which takes pydantic for options.
    asked = {"--help": LIBRARIES, "--version": LIBRARIES, "offset": LIBRARIES - {"pydantic"}}
    assert {word: found for word, no in asked.items() if (found := imported_by(word) & no)} == {}


def test_the_help_of_no_command_imports_a_framework() -> None:
    # In one process: a framework that the first imports, all others would be told to import.
    code = f"""
import contextlib, io, json, sys
import typer
from pipeline.cli.commands import app
found = {{}}
for words in {groups_and_commands()!r}:
    sys.argv = ["rmos", *words, "--help"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        app()
    found[" ".join(words)] = sorted({FRAMEWORKS!r} & set(sys.modules))
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert len(found) > 50
    assert {words: imported for words, imported in found.items() if imported} == {}


def test_a_worker_starts_without_the_web_framework() -> None:
    # It serves no HTTP but metrics, which the standard library does.
    code = "import pipeline.app, sys; sys.exit(bool({'fastapi', 'starlette'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_ctrl_c_while_a_command_is_imported_is_one_word(
    rmos: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_place: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "resolve_name", interrupted)
    done = rmos("broker", "status")
    assert (done.status, done.text, done.err) == (130, "", "Stopped.\n")


@pytest.mark.parametrize(
    ("former", "now"),
    [
        ("worker advise", "worker advisories"),
        ("ledger sums", "ledger checksums"),
        ("offsets undo persist --kept x", "offsets undo persist --snapshot x"),
        ("ledger verify --held x", "ledger verify --trusted x"),
    ],
)
def test_a_former_name_does_the_same_and_is_not_offered(
    rmos: CommandLine, former: str, now: str
) -> None:
    assert rmos(*former.split()) == rmos(*now.split())
    group, word, *_ = former.split()
    listed = rmos(group, "--help").text + rmos(*now.split()[:2], "--help").text
    assert now.split()[-2 if "--" in now else -1] in listed
    gone = former.split()[-2] if "--" in former else word
    assert not re.search(rf"^\W*{gone}\b", listed, re.MULTILINE)
