"""The lines of docs/http-api.md work as they stand, and print what is shown below them."""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pipeline.api.http.tokens import Tokens
from pipeline.broker.local.broker import LocalBroker
from tests.e2e.api_service import ApiService, api_service

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "http-api.md").read_text(encoding="utf-8")
DEFAULT_URL = "http://127.0.0.1:8080"
LEFT_OUT = "..."

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")


@pytest.fixture
async def api(broker: LocalBroker, tmp_path: Path) -> AsyncIterator[ApiService]:
    async with api_service(broker, tmp_path / "store") as service:
        yield service


def section(heading: str) -> str:
    found = re.search(rf"^## {heading}\n(.*?)(?=^## )", TEXT, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def examples() -> list[tuple[str, list[str]]]:
    """Return every block of commands, and the lines that are shown below it."""
    pattern = r"^```sh\n(.*?)^```\n\n```\n(.*?)^```$"
    found = re.findall(pattern, section("Try it"), re.DOTALL | re.MULTILINE)
    return [(commands, shown.splitlines()) for commands, shown in found]


async def bash(script: str, folder: Path, **environment: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", script),
        cwd=folder,
        env={**os.environ, "NO_PROXY": "127.0.0.1", **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, complaints = await process.communicate()
    assert (process.returncode, complaints.decode()) == (0, "")
    return output.decode()


def missing_line(shown: list[str], printed: list[str]) -> str | None:
    """Return the first line that is shown and was not printed; only at `...` may lines be left out.

    Lines are compared without the white space around them.
    """
    rest = iter(printed)
    may_skip = False
    for line in shown:
        if line.strip() == LEFT_OUT:
            may_skip = True
            continue
        found = next((each for each in rest if each == line or not may_skip), None)
        if found != line:
            return line
        may_skip = False
    return None if may_skip or next(rest, None) is None else "the end"


@needs_curl
async def test_the_lines_print_what_is_shown(api: ApiService, tmp_path: Path) -> None:
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    blocks = examples()
    assert len(blocks) == section("Try it").count("```sh") == 7
    variables = ""
    for commands, shown in blocks:
        script = (variables + commands).replace(DEFAULT_URL, str(api.http.base_url).rstrip("/"))
        printed = (await bash(script, tmp_path)).replace("\r", "")
        assert missing_line(shown, printed.splitlines()) is None, printed
        # A person's shell keeps these for the next block.
        variables += "".join(re.findall(r"^[A-Z]+=.*\n", commands, re.MULTILINE))


def test_a_line_that_was_not_printed_is_found() -> None:
    assert missing_line(["a", "...", "c"], ["a", "b", "c"]) is None
    assert missing_line(["a", "..."], ["a", "b", "c"]) is None
    assert missing_line(["a", "c"], ["a", "b", "c"]) == "c"
    assert missing_line(["a", "...", "d"], ["a", "b", "c"]) == "d"
    assert missing_line(["a"], ["a", "b"]) == "the end"


async def test_the_lines_for_a_token_make_a_file_that_the_api_takes(tmp_path: Path) -> None:
    (script,) = re.findall(r"^```sh\n(.*?)^```$", section("Tokens"), re.DOTALL | re.MULTILINE)
    token = (await bash(script, tmp_path)).strip()
    found = Tokens(tmp_path / "tokens.txt").find(token)
    assert found is not None
    assert (found.name, found.role) == ("cam_1", "publish")
