"""The clients of the API in the docs do what they say, as the programs that a shop would run."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pipeline.broker.local.broker import LocalBroker
from tests.builders import encode, red_request, run_request
from tests.e2e.api_service import ApiService, api_service

pytestmark = pytest.mark.e2e

CLIENTS = Path(__file__).parents[2] / "docs" / "examples" / "clients"
COMMANDS = {
    "RunsClient": (sys.executable, "-W", "error", str(CLIENTS / "runs_client.py")),
    "curl and jq": ("sh", str(CLIENTS / "curl_jq.sh")),
}
CUT = ("echo", "cutting")
MAY_CUT, MUST_NOT_CUT, NOBODY_ANSWERED = 0, 4, 6


@pytest.fixture
async def api(broker: LocalBroker, tmp_path: Path) -> AsyncIterator[ApiService]:
    async with api_service(broker, tmp_path / "store") as service:
        yield service


async def run(client: str, url: str, request: Path) -> tuple[int | None, str]:
    more = CUT if client == "curl and jq" else ()
    process = await asyncio.create_subprocess_exec(
        *(*COMMANDS[client], url, str(request), *more),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


@pytest.mark.parametrize("client", COMMANDS)
async def test_a_client_cuts_only_where_it_may(
    api: ApiService, client: str, tmp_path: Path
) -> None:
    url = str(api.http.base_url)
    green, red = tmp_path / "green.json", tmp_path / "red.json"
    green.write_bytes(encode(run_request(run_id="run_green")))
    red.write_bytes(
        encode(
            red_request(
                run_id="run_red",
                feasibility={"risk_level": "RED", "block_reason": "\x1b]2;pwned\x07\u202e"},
            )
        )
    )
    status, text = await run(client, url, green)
    assert status == MAY_CUT, text
    assert ("cutting run_green\n" in text) is (client == "curl and jq")
    status, text = await run(client, url, red)
    assert status == MUST_NOT_CUT, text
    assert "SAFETY_BLOCKED" in text
    assert "cutting" not in text
    assert [bad for bad in "\x1b\x07\u202e" if bad in text] == []
    changed = run_request(run_id="run_green", notes="changed")
    green.write_bytes(encode(changed))
    status, text = await run(client, url, green)
    assert (status, "RUN_CONFLICT" in text, "cutting" in text) == (MUST_NOT_CUT, True, False)


@pytest.mark.parametrize("client", COMMANDS)
async def test_no_api_is_reported_and_nothing_is_cut(client: str, tmp_path: Path) -> None:
    request = tmp_path / "request.json"
    request.write_bytes(encode(run_request()))
    status, text = await run(client, "http://127.0.0.1:1", request)
    assert status == NOBODY_ANSWERED
    assert "does not answer" in text
    assert "cutting" not in text
