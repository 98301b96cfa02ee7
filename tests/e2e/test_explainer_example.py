"""The explainer of the docs does what it says, as the program that a vendor would run."""

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.broker.local.broker import LocalBroker
from tests.builders import run_request
from tests.e2e.api_service import ApiService, api_service

pytestmark = pytest.mark.e2e

EXPLAINER = Path(__file__).parents[2] / "docs" / "examples" / "explainers" / "plain_explainer.py"
PATIENCE_SECONDS = 60


@pytest.fixture
async def api(broker: LocalBroker, tmp_path: Path) -> AsyncIterator[ApiService]:
    async with api_service(broker, tmp_path / "store") as service:
        yield service


async def started(api: ApiService, *options: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", str(EXPLAINER)),
        *(api.settings.bootstrap_servers, str(api.http.base_url)),
        *("--prefix", api.settings.prefix, *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, list[str]]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        output, complaints = await process.communicate()
    assert complaints.decode() == ""
    return process.returncode, sorted(output.decode().splitlines())


async def post_green_and_red(api: ApiService) -> None:
    green = await api.post(run_request(run_id="run_green"))
    assert green.status_code == 201, green.text
    red = run_request(
        run_id="run_red",
        feasibility={
            "risk_level": "RED",
            "score": 12,
            "block_reason": "rim speed <b>67</b> m/s\nis `too` high",
            "warnings": ["blade is old"],
        },
    )
    assert (await api.post(red)).status_code == 409


async def advisories(api: ApiService, run_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await api.get(f"/{run_id}/advisories")).json()["advisories"]
    return found


async def test_each_run_gets_one_explanation_however_often_it_is_started(api: ApiService) -> None:
    await post_green_and_red(api)
    assert (await api.get("/run_red")).json()["explanation_status"] == "NONE"
    first = await ended(await started(api, "--runs", "2"))
    assert first == (0, ["run_green: linked", "run_red: linked"])
    # Another group reads the same events again, as after a lost commit.
    again = await ended(await started(api, "--runs", "2", "--group", "another"))
    assert again == (0, ["run_green: duplicate", "run_red: duplicate"])
    for run_id in ("run_green", "run_red"):
        assert (await api.get(f"/{run_id}")).json()["explanation_status"] == "READY"
        (advisory,) = await advisories(api, run_id)
        assert advisory["kind"] == "explanation"
        assert (advisory["engine_id"], advisory["engine_version"]) == ("plain_explainer", "1")
        assert re.fullmatch("plain_explainer-[0-9a-f]{32}", advisory["advisory_id"])
    links = list((api.settings.data_dir / "runs").rglob("*_advisory_*.json"))
    assert len(links) == 2


async def test_the_explanation_says_why_and_quotes_what_a_producer_wrote(api: ApiService) -> None:
    await post_green_and_red(api)
    assert (await ended(await started(api, "--runs", "2")))[0] == 0
    assert await text_about(api, "run_green") == (
        "# Why this run is OK\n\n"
        "The worst risk that was found is GREEN, score 92.5. With GREEN and YELLOW the machine "
        "may cut.\n"
    )
    assert await text_about(api, "run_red") == (
        "# Why this run is BLOCKED\n\n"
        "The worst risk that was found is RED, score 12. Only GREEN and YELLOW may be cut.\n\n"
        "Reason: `rim speed <b>67</b> m/s is 'too' high`\n\n"
        "Warnings:\n* `blade is old`\n\n"
        "Withheld from the machine: `hashes.gcode_sha256`, `hashes.toolpaths_sha256`, "
        "`outputs.gcode_text`, `outputs.toolpaths`\n"
    )


async def text_about(api: ApiService, run_id: str) -> str:
    (advisory,) = await advisories(api, run_id)
    return (await api.http.get(advisory["download_url"])).text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_and_the_next_one_goes_on_behind_it(
    api: ApiService, number: signal.Signals
) -> None:
    await post_green_and_red(api)
    process = await started(api)
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_SECONDS):
        told = [await process.stdout.readline() for _ in range(2)]
    assert sorted(told) == [b"run_green: linked\n", b"run_red: linked\n"]
    process.send_signal(number)
    assert await ended(process) == (0, [])
    assert (await api.post(run_request(run_id="run_later"))).status_code == 201
    assert await ended(await started(api, "--runs", "1")) == (0, ["run_later: linked"])


async def test_a_run_that_cannot_be_read_is_reported_and_passed_over(api: ApiService) -> None:
    await post_green_and_red(api)
    file = next((api.settings.data_dir / "runs").rglob("run_red.json"))
    file.unlink()
    status, lines = await ended(await started(api, "--runs", "2"))
    assert status == 4
    assert lines == ["run_green: linked", "run_red: 500 ARTIFACT_CORRUPT"]
