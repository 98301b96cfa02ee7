"""AdvisoryPublisher and `rmos publish advisory` against the real worker."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from pipeline.app.advise import advise_worker
from pipeline.app.persist import persist_worker
from pipeline.broker.local.broker import LocalBroker
from pipeline.broker.publisher import AdvisoryPublisher
from pipeline.consumers import claims as advisory_claims
from pipeline.errors import InputError, ReceiptTimeoutError
from pipeline.settings import Settings
from schemas.advisory_request import AdvisoryRequest
from tests.builders import advisory_request, encode
from tests.e2e.advisories import NEVER, run_of, store_of, wait_until_persisted
from tests.e2e.kafka_reading import produce
from tests.e2e.worker_processes import worker_environment

pytestmark = [pytest.mark.e2e, pytest.mark.every_topic]


async def test_each_request_gets_the_last_event_of_its_own_offset(
    broker: LocalBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advisory_claims, "LOOK_SECONDS", 0.5)
    async with (
        store_of(broker, tmp_path / "s", NEVER) as settings,
        persist_worker(settings),
        advise_worker(settings),
        AdvisoryPublisher(settings) as publisher,
    ):
        await produce(settings, [run_of("run_1")])
        await wait_until_persisted(settings, 1)
        request = advisory_request(run_id="run_1")
        first = await publisher.publish_and_wait(request)
        again = await publisher.publish_and_wait(AdvisoryRequest.model_validate(request))
        other = await publisher.publish_and_wait(encode(request | {"kind": "note"}))
        outcomes = [event.outcome for event in (first, again, other)]
        assert outcomes == ["linked", "duplicate", "conflict"]
        assert first.link_path == "runs/2025-12-18/run_1_advisory_adv_1.json"
        receipt = await publisher.send(advisory_request(run_id="run_2"))
        early = await receipt.event(1.5)
        assert early.outcome == "waiting"
        await produce(settings, [run_of("run_2")])
        assert (await receipt.event(60)).outcome == "linked"


async def test_without_a_worker_the_time_is_over(settings: Settings) -> None:
    async with AdvisoryPublisher(settings) as publisher:
        with pytest.raises(ReceiptTimeoutError):
            await publisher.publish_and_wait(advisory_request(), 0.2)
        with pytest.raises(InputError):
            await publisher.publish(advisory_request(run_id="../x"))


async def rmos(settings: Settings, *arguments: str, body: bytes) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from pipeline.cli import main; main()",
        *arguments,
        env=worker_environment(settings, RMOS_RECEIPT_TIMEOUT_SECONDS="4"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(body)
    assert b"Traceback" not in err, err.decode()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_the_command_waits_for_each_and_says_what_became_of_it(
    broker: LocalBroker, tmp_path: Path
) -> None:
    async with (
        store_of(broker, tmp_path / "s", NEVER) as settings,
        persist_worker(settings),
        advise_worker(settings),
    ):
        await produce(settings, [run_of("run_1")])
        await wait_until_persisted(settings, 1)
        lines = [
            encode(advisory_request(run_id="run_1")),
            encode(advisory_request(run_id="run_1")),
            encode(advisory_request(run_id="run_9")),
        ]
        command = ("publish", "advisory", "-", "--wait")
        status, out = await rmos(settings, *command, body=b"\n".join(lines))
        assert status == 0
        assert [line.split()[2] for line in out.splitlines()] == [
            "linked",
            "duplicate",
            "waiting",
        ]
        conflict = encode(advisory_request(run_id="run_1", kind="note"))
        status, out = await rmos(settings, *command, "--json", body=conflict)
        assert status == 4
        event, summary = map(json.loads, out.splitlines())
        assert event["error"]["code"] == "ADVISORY_CONFLICT"
        assert summary == {"summary": {"published": 1, "conflict": 1, "refused": 1}}
        status, out = await rmos(settings, "publish", "advisory", "-", "--raw", body=b"x")
        assert status == 0
