"""The producers of the docs do what they say, as the programs that a vendor would run."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pipeline.app.persist import persist_worker
from pipeline.broker.local.broker import LocalBroker
from pipeline.settings import Settings
from tests.builders import encode, run_request
from tests.e2e.kafka_reading import RUN_TOPICS, new_settings, topics_and_store

pytestmark = pytest.mark.e2e

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
PRODUCERS = ("plain_aiokafka.py", "confluent_kafka_producer.py", "run_publisher.py")

MAY_CUT, MUST_NOT_CUT, NOBODY_ANSWERED = 0, 4, 6


@pytest.fixture
async def new(broker: LocalBroker, tmp_path: Path) -> AsyncIterator[Settings]:
    """Run the real persist worker over a new store."""
    settings = new_settings(broker, tmp_path / "store")
    async with topics_and_store(broker, settings, RUN_TOPICS), persist_worker(settings):
        yield settings


@pytest.fixture(scope="module")
async def shared(
    broker: LocalBroker, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Settings]:
    """Run one for all tests that ask for runs of their own, or for nothing that is there."""
    settings = new_settings(broker, tmp_path_factory.mktemp("shared") / "store")
    async with topics_and_store(broker, settings, RUN_TOPICS), persist_worker(settings):
        yield settings


async def run(settings: Settings, producer: str, *request: str) -> tuple[int | None, str]:
    paths = [str(EXAMPLES / "requests" / name) for name in request]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", str(EXAMPLES / "producers" / producer)),
        *(settings.bootstrap_servers, *paths, "--prefix", settings.prefix),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, complaints = await process.communicate()
    assert complaints == b""
    return process.returncode, output.decode()


def run_id_of(name: str) -> str:
    run_id: str = json.loads((EXAMPLES / "requests" / name).read_bytes())["run_id"]
    return run_id


@pytest.mark.parametrize("producer", PRODUCERS)
async def test_producer_may_cut_green_and_yellow_but_not_red(new: Settings, producer: str) -> None:
    status, line = await run(new, producer, "saw_green.json")
    assert (status, line) == (MAY_CUT, f"{run_id_of('saw_green.json')}: persisted OK\n")
    status, line = await run(new, producer, "router_yellow.json")
    assert (status, line) == (MAY_CUT, f"{run_id_of('router_yellow.json')}: persisted OK\n")
    status, line = await run(new, producer, "saw_red.json")
    assert status == MUST_NOT_CUT
    assert line == (
        f"{run_id_of('saw_red.json')}: persisted BLOCKED "
        "rim speed 67 m/s is above the 50 m/s of this blade\n"
    )


@pytest.mark.parametrize("producer", PRODUCERS)
async def test_producer_sends_its_own_example(shared: Settings, producer: str) -> None:
    status, line = await run(shared, producer)
    assert (status, line.partition(": ")[2]) == (MAY_CUT, "persisted OK\n")


async def test_same_request_of_three_clients_is_one_run_in_one_partition(
    new: Settings,
) -> None:
    found = [await run(new, producer, "saw_green.json") for producer in PRODUCERS]
    assert [status for status, _ in found] == [MAY_CUT] * 3
    assert [line.split()[1] for _, line in found] == ["persisted", "duplicate", "duplicate"]


@pytest.mark.parametrize(
    "producer",
    # That of librdkafka waits ten seconds for the topics, as a user would.
    [
        pytest.param(name, marks=pytest.mark.slow if name.startswith("confluent") else ())
        for name in PRODUCERS
    ],
)
async def test_no_broker_is_one_sentence(shared: Settings, producer: str) -> None:
    nobody = shared.model_copy(update={"bootstrap_servers": "127.0.0.1:1"})
    status, line = await run(nobody, producer)
    assert status == NOBODY_ANSWERED
    assert line.count("\n") == 1
    assert "Traceback" not in line


@pytest.mark.parametrize("producer", PRODUCERS)
async def test_a_prefix_without_topics_is_one_sentence(shared: Settings, producer: str) -> None:
    other = shared.model_copy(update={"prefix": "nobody-has-this"})
    status, line = await run(other, producer)
    assert status == NOBODY_ANSWERED
    assert line.count("\n") == 1
    assert "topic" in line


@pytest.mark.parametrize("producer", PRODUCERS)
async def test_a_reason_cannot_act_on_the_terminal(
    shared: Settings, producer: str, tmp_path: Path
) -> None:
    request, run_id = tmp_path / "request.json", f"run_red_{producer}"
    reason = "\x1b]2;pwned\x07\nrun_y: persisted OK\u202e"
    feasibility = {"risk_level": "RED", "block_reason": reason}
    request.write_bytes(encode(run_request(run_id=run_id, feasibility=feasibility)))
    status, line = await run(shared, producer, str(request))
    assert status == MUST_NOT_CUT
    assert line == f"{run_id}: persisted BLOCKED \\x1b]2;pwned\\x07\\nrun_y: persisted OK\\u202e\n"


async def test_incomplete_request_is_kept_and_must_not_cut(shared: Settings) -> None:
    status, line = await run(shared, PRODUCERS[2], "saw_incomplete.json")
    assert status == MUST_NOT_CUT
    assert "persisted BLOCKED INCOMPLETE_REQUEST: tool_id" in line
