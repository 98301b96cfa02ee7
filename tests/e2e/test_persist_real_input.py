"""What a real shop's CAM systems produced, as run requests through Kafka."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.app.persist import persist_worker
from pipeline.settings import Settings
from tests.builders import attachment, judged, run_request
from tests.e2e.kafka_reading import produce, sending, wait_until_consumed
from tests.e2e.store_audit import StoreAudit, audit_store

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"the real input is not at {DATA}"),
]

INLINE_LIMIT_BYTES = 204_800


async def stored(settings: Settings, requests: list[dict[str, Any]]) -> StoreAudit:
    async with persist_worker(settings):
        await produce(settings, map(sending, requests))
        await wait_until_consumed(settings)
    audit = await audit_store(settings)
    audit.assert_whole()
    assert audit.outcomes() == {"persisted": len(requests)}
    for request in requests:
        assert audit.files[judged(request).path] == judged(request).built.content
    return audit


def artifact_of(audit: StoreAudit, run_id: str) -> dict[str, Any]:
    row = audit.rows[run_id]
    document: dict[str, Any] = json.loads(audit.files[row["artifact_path"]])
    return document


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def test_gcode_programs_keep_their_bytes_inline_or_as_an_attachment(
    store_settings: Settings,
) -> None:
    programs = sorted((DATA / "gcode").iterdir())
    assert len(programs) == 7
    requests = [
        run_request(
            run_id=f"run_{program.stem}",
            outputs={"gcode_text": program.read_bytes().decode("utf-8")},
            hashes={"gcode_sha256": sha256(program.read_bytes())},
        )
        for program in programs
    ]
    audit = await stored(store_settings, requests)
    attached = 0
    for program, request in zip(programs, requests, strict=True):
        content = program.read_bytes()
        artifact = artifact_of(audit, request["run_id"])
        assert (artifact["status"], artifact["hashes"]["gcode_sha256"]) == ("OK", sha256(content))
        outputs = artifact["outputs"]
        if len(content) <= INLINE_LIMIT_BYTES:
            assert outputs["gcode_text"].encode() == content
            continue
        attached += 1
        assert outputs.keys() == {"gcode_path"}
        assert audit.files[outputs["gcode_path"]] == content
        (reference,) = artifact["attachments"]
        assert (reference["sha256"], reference["kind"]) == (sha256(content), "gcode")
        assert reference["size_bytes"] == len(content)
    assert attached == 1


def feasibility_blobs() -> list[tuple[str, dict[str, Any]]]:
    """Return name and content of every blob that holds a verdict."""
    found = []
    for path in sorted((DATA / "attachments").rglob("*.json")):
        blob = json.loads(path.read_bytes())
        if isinstance(blob, dict) and "risk_level" in json.dumps(blob):
            found.append((path.stem[:16], blob))
    return found


async def test_feasibility_results_decide_and_no_red_one_is_ever_ok(
    store_settings: Settings,
) -> None:
    blobs = feasibility_blobs()
    assert len(blobs) >= 3
    requests = [
        run_request(run_id=f"run_{name}", feasibility=blob, status="OK") for name, blob in blobs
    ]
    audit = await stored(store_settings, requests)
    levels = set()
    for request in requests:
        artifact = artifact_of(audit, request["run_id"])
        said = json.dumps(request["feasibility"])
        risk_level = artifact["decision"]["risk_level"]
        levels.add(risk_level)
        if '"RED"' in said:
            assert (artifact["status"], risk_level) == ("BLOCKED", "RED")
            assert artifact["outputs"] == {}
        assert artifact["feasibility"] == request["feasibility"]
    assert {"GREEN", "YELLOW", "RED"} <= levels


def scenario_requests() -> list[dict[str, Any]]:
    """Return each scenario with each decision that it expects."""
    scenarios = json.loads((DATA / "scenarios.json").read_bytes())["scenarios"]
    assert len(scenarios) == 30
    return [
        run_request(
            run_id=f"run_{scenario['id']}_{level}",
            mode="router",
            tool_id=f"router:{scenario['input']['tool']['type']}",
            request=scenario["input"],
            feasibility={"decision": {"risk_level": level}, "scenario": scenario["name"]},
        )
        for scenario in scenarios
        for level in decisions_of(scenario)
    ]


def decisions_of(scenario: dict[str, Any]) -> list[str]:
    decision = scenario["expected"]["decision"]
    return decision if isinstance(decision, list) else [decision]


async def test_every_scenario_is_decided_as_it_says_and_no_red_one_may_be_cut(
    store_settings: Settings,
) -> None:
    requests = scenario_requests()
    audit = await stored(store_settings, requests)
    events = {event["run_id"]: event for event in map(audit.event, audit.events)}
    for request in requests:
        level = request["feasibility"]["decision"]["risk_level"]
        artifact, event = artifact_of(audit, request["run_id"]), events[request["run_id"]]
        safe = level in {"GREEN", "YELLOW"}
        assert artifact["decision"]["risk_level"] == level
        assert artifact["status"] == ("OK" if safe else "BLOCKED")
        assert event["may_cut"] is safe
        assert ("gcode_text" in artifact["outputs"]) is safe
        assert artifact["request_summary"] == request["request"]
    reds = [event for event in events.values() if event["risk_level"] == "RED"]
    assert len(reds) >= 9
    assert not [event for event in reds if event["may_cut"] or event["status"] == "OK"]


async def test_blobs_and_drawings_travel_inline_and_keep_their_bytes(
    store_settings: Settings,
) -> None:
    paths = sorted(path for path in (DATA / "attachments").rglob("*") if path.is_file())
    paths += sorted((DATA / "geometry").iterdir())
    # A request is of 4 MiB at most, so one for each file.
    requests = [
        run_request(
            run_id=f"run_file_{number}",
            attachments=[attachment(path.read_bytes(), filename=path.name, kind="manifest")],
        )
        for number, path in enumerate(paths)
    ]
    audit = await stored(store_settings, requests)
    for path in paths:
        digest = sha256(path.read_bytes())
        assert audit.files[f"attachments/{digest[:2]}/{digest[2:4]}/{digest}"] == path.read_bytes()
