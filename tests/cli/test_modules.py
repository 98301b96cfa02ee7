"""`python -m` over our modules does what `rmos` does, and a foreign folder in the way is named."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def python(*arguments: str, folder: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=folder
    )


@pytest.mark.parametrize(
    "module",
    ["pipeline", "pipeline.cli", "pipeline.cli.__main__"],
    ids=["the package", "its command line", "its module"],
)
def test_a_package_runs_as_rmos_does(module: str) -> None:
    done = python("-m", module, "migrate", "status", "--from", "/nowhere/runs.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "/nowhere/runs.json" in done.stderr


@pytest.mark.parametrize("module", ["migrate", "dead_letters", "demo", "up"])
def test_a_module_of_a_command_runs_it(module: str) -> None:
    done = python("-m", f"pipeline.cli.{module}", "--no-such-option")
    assert done.returncode == 2
    assert f"Usage: rmos {module.replace('_', '-')} " in done.stderr


@pytest.mark.parametrize(
    ("module", "instead"),
    [
        ("services", "rmos up, rmos api, rmos worker"),
        ("commands", "rmos --help lists them all"),
        ("views.terminal", "rmos --help lists them all"),
        ("demo.requests", "rmos --help lists them all"),
        ("nowhere", "rmos --help lists them all"),
    ],
)
def test_a_module_without_a_command_says_so(module: str, instead: str) -> None:
    done = python("-m", f"pipeline.cli.{module}", "--help")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"pipeline.cli.{module} is no command: {instead}.\n"


def test_a_module_of_commands_takes_its_arguments() -> None:
    done = python("-m", "pipeline.cli.migrate", "status", "--from", "/nowhere/runs.json")
    assert done.returncode == 2
    assert "/nowhere/runs.json" in done.stderr


@pytest.mark.parametrize("name", ["schemas/__init__.py", "schemas.py"])
def test_a_folder_of_the_user_that_is_in_the_way_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    done = python("-c", "import pipeline.broker.publisher", folder=tmp_path)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: RMOS Runs needs its own package schemas in {REPOSITORY}")
    assert str(tmp_path / "schemas") in last
