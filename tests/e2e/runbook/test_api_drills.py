"""Drills about the HTTP API, as `docs/runbook/api.md` has them."""

import shutil

import pytest

from pipeline.broker.local.loopback import free_port
from tests.builders import sha256
from tests.e2e.runbook.drill import Drill
from tests.e2e.runbook.shop import change_a_byte, consume, runs

pytestmark = pytest.mark.e2e

PAGE = "api.md"


@pytest.fixture
def api_drill(drill: Drill) -> Drill:
    port = free_port()
    drill.words["127.0.0.1:8080"] = f"127.0.0.1:{port}"
    drill.units.enabled = ["rmos-api"]
    drill.units.own["rmos-api"] = {"RMOS_API_PORT": str(port)}
    return drill


async def test_the_api_answers_500_503_or_507(api_drill: Drill) -> None:
    drill = api_drill
    drill.read(PAGE, "The API answers 500, 503 or 507")
    await consume(drill.settings, runs(10))
    store = drill.settings.data_dir
    shutil.copytree(store, store.parent / "backup" / "store")
    change_a_byte(store / "runs/2025-12-18/run_7.json")
    drill.units.start("rmos-api")
    await drill.answers("http://127.0.0.1:8080/health/live")
    await drill.you_see()
    await drill.run()
    await drill.then()


async def test_the_api_does_not_start(api_drill: Drill) -> None:
    drill = api_drill
    drill.read(PAGE, "The API does not start")
    tokens = drill.folder / "etc" / "rmos" / "tokens.txt"
    drill.units.own["rmos-api"]["RMOS_API_HOST"] = "0.0.0.0"
    drill.units.start("rmos-api")
    assert await drill.units.ended("rmos-api") == 2
    await drill.you_see()
    drill.units.own["rmos-api"]["RMOS_API_TOKENS_FILE"] = str(tokens)
    await drill.run()
    await drill.then()


async def test_a_token_got_into_wrong_hands(api_drill: Drill) -> None:
    drill = api_drill
    drill.read(PAGE, "A token got into wrong hands")
    tokens = drill.folder / "etc" / "rmos" / "tokens.txt"
    tokens.write_text(f"cam_1 publish {sha256('TOKEN')}\ncam_2 read {sha256('OTHER')}\n")
    drill.units.own["rmos-api"]["RMOS_API_TOKENS_FILE"] = str(tokens)
    drill.units.start("rmos-api")
    await drill.answers("http://127.0.0.1:8080/health/live")
    await drill.answers("-H 'Authorization: Bearer TOKEN' http://127.0.0.1:8080/api/rmos/runs")
    await drill.you_see()
    await drill.run()
    await drill.then()
