"""What becomes of a record: every line of the design's table, on the real broker."""

import hashlib
import json
import os
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka import ConsumerRecord

from pipeline.app.persist import persist_worker
from pipeline.broker.local.broker import LocalBroker
from pipeline.core.runs import verdict
from pipeline.settings import Settings
from schemas.run_event import RunEvent
from schemas.timestamps import parse_timestamp
from tests.builders import (
    attachment,
    encode,
    incomplete_request,
    judged,
    record,
    red_request,
    router_request,
    run_request,
    sha256,
)
from tests.e2e.kafka_reading import (
    RUN_TOPICS,
    Place,
    Sending,
    committed,
    header_dict,
    new_settings,
    produce,
    sending,
    topics_and_store,
    wait_until_consumed,
)
from tests.e2e.store_audit import StoreAudit, audit_store

pytestmark = pytest.mark.e2e

VALUE_LIMIT_BYTES = 4_194_304
BROKER_LIMIT_BYTES = 5 * 1024 * 1024
TRACEPARENT = ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
AWKWARD_HEADERS = (("latin", b"caf\xe9"), ("nothing", None), ("empty", b""), TRACEPARENT)
INLINE = b"G0 X1\nG1 X2 F300\n"


def named(run_id: str, **changes: Any) -> dict[str, Any]:
    return run_request(run_id=run_id, **changes)


def padded(request: dict[str, Any], size_bytes: int) -> Sending:
    """Return a record of exactly so many bytes; white space at the end changes nothing."""
    key, value = record(request)
    return Sending(key, value.ljust(size_bytes))


ACCEPTED = {
    "ok": sending(named("run_ok"), AWKWARD_HEADERS),
    "ok_yellow": sending(router_request()),
    "ok_largest": padded(named("run_largest"), VALUE_LIMIT_BYTES),
    "ok_attachment": sending(
        named("run_attachment", attachments=[attachment(INLINE, kind="gcode", mime="text/plain")])
    ),
    "duplicate": sending(named("run_ok")),
    "duplicate_other_spelling": Sending(b"run_ok", json.dumps(named("run_ok"), indent=1).encode()),
    "red": sending(red_request(run_id="run_red")),
    "red_attachment": sending(
        red_request(run_id="run_red_attachment", attachments=[attachment(INLINE, kind="gcode")])
    ),
    "red_says_ok": sending(red_request(run_id="run_red_says_ok", status="OK")),
    "unknown": sending(named("run_unknown", feasibility={"score": 99})),
    "unknown_word": sending(named("run_unknown_word", feasibility={"risk_level": "fine"})),
    "error": sending(named("run_error", feasibility={"risk_level": "ERROR"})),
    "worst_counts": sending(
        named("run_worst", feasibility={"risk_level": "GREEN", "safety": {"risk_level": "RED"}})
    ),
    "producer_blocked": sending(named("run_p_blocked", status="BLOCKED")),
    "blocking": sending(
        named("run_blocking", feasibility={"risk_level": "GREEN", "blocking": True})
    ),
    "producer_error": sending(named("run_p_error", status="ERROR")),
    "incomplete": sending(incomplete_request(run_id="run_incomplete")),
    "incomplete_extra": sending(named("run_extra", colour="red", mode=7)),
}
# Each of these is a dead letter; the prefix of its name is its code.
REFUSED = {
    "RUN_CONFLICT": sending(named("run_ok", mode="router"), AWKWARD_HEADERS),
    "RUN_CONFLICT blocked": sending(named("run_red")),
    "TOMBSTONE": Sending(b"run_ok", None),
    "TOMBSTONE without key": Sending(None, None, AWKWARD_HEADERS, partition=3),
    "TOO_LARGE": padded(named("run_too_large"), VALUE_LIMIT_BYTES + 1),
    "INVALID_JSON": Sending(b"run_x", b'{"run_id": "run_x",}'),
    "INVALID_JSON empty": Sending(b"run_x", b""),
    "INVALID_JSON not utf-8": Sending(b"\xff\xfe", b"\xff\xfe\x00", AWKWARD_HEADERS),
    "INVALID_JSON doubled": Sending(b"run_x", b'{"run_id": "run_x", "run_id": "run_x"}'),
    "INVALID_JSON list": Sending(b"run_x", b"[]"),
    "INVALID_JSON NaN": Sending(b"run_x", b'{"score": NaN}'),
    "INVALID_IDENTITY": Sending(b"../x", encode(named("../x"))),
    "INVALID_IDENTITY no time": sending(named("run_no_time", created_at_utc="yesterday")),
    "INVALID_IDENTITY no run": Sending(b"run_x", b"{}"),
    "KEY_MISMATCH": Sending(b"run_y", encode(named("run_x"))),
    "KEY_MISMATCH without key": Sending(None, encode(named("run_x")), partition=5),
    "UNSUPPORTED_VERSION": sending(named("run_v9", schema_version="rmos.run_request/9")),
    "UNSUPPORTED_VERSION legacy": sending(named("run_l", schema_version="rmos.legacy_run/1")),
    "INTERNAL_ERROR": sending(named("run_internal")),
}
COMPRESSED = {"TOO_LARGE compressed": padded(named("run_huge"), BROKER_LIMIT_BYTES + 1)}
SENT = ACCEPTED | REFUSED | COMPRESSED


@dataclass(frozen=True)
class Table:
    """Every record of the table, sent, consumed and looked at."""

    settings: Settings
    places: dict[str, Place]
    audit: StoreAudit

    def event(self, name: str) -> dict[str, Any]:
        return self.audit.event(self.places[name])

    def event_record(self, name: str) -> ConsumerRecord:
        (found,) = self.audit.events[self.places[name]]
        return found

    def request(self, name: str) -> ConsumerRecord:
        place = self.places[name]
        (found,) = [
            each
            for each in self.audit.requests
            if (each.partition, each.offset) == (place.partition, place.offset)
        ]
        return found

    def artifact(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.audit.files[self.event(name)["artifact_path"]])
        return document


@pytest.fixture(scope="module")
def failing_judge() -> Iterator[None]:
    """Let our own program fail for one run."""
    judged = verdict.judged_run

    def judged_run(run_id: str, *rest: Any) -> Any:
        if run_id == "run_internal":
            raise KeyError(run_id)
        return judged(run_id, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verdict, "judged_run", judged_run)
        yield


@pytest.fixture(scope="module")
async def table(
    broker: LocalBroker, tmp_path_factory: pytest.TempPathFactory, failing_judge: None
) -> AsyncIterator[Table]:
    # The judge that fails is this process's own.
    settings = new_settings(
        broker, tmp_path_factory.mktemp("table") / "store", judge_in_child_process=False
    )
    async with topics_and_store(broker, settings, RUN_TOPICS):
        placed = await produce(settings, [*ACCEPTED.values(), *REFUSED.values()])
        placed += await produce(settings, COMPRESSED.values(), compression="lz4")
        async with persist_worker(settings):
            await wait_until_consumed(settings)
        yield Table(settings, dict(zip(SENT, placed, strict=True)), await audit_store(settings))


async def test_every_record_leaves_its_trace_and_nothing_else(table: Table) -> None:
    table.audit.assert_whole()
    assert sum(table.audit.outcomes().values()) == len(SENT)
    assert len(table.audit.artifacts()) == len(ACCEPTED) - 2
    refused = {table.places[name] for name in REFUSED | COMPRESSED}
    assert table.audit.letters.keys() == refused


@pytest.mark.parametrize(
    ("name", "outcome", "status", "risk_level", "block_reason"),
    [
        ("ok", "persisted", "OK", "GREEN", None),
        ("ok_yellow", "persisted", "OK", "YELLOW", None),
        ("ok_largest", "persisted", "OK", "GREEN", None),
        ("ok_attachment", "persisted", "OK", "GREEN", None),
        ("duplicate", "duplicate", "OK", "GREEN", None),
        ("duplicate_other_spelling", "duplicate", "OK", "GREEN", None),
        ("red", "persisted", "BLOCKED", "RED", "rim speed above the blade's limit"),
        ("red_says_ok", "persisted", "BLOCKED", "RED", "rim speed above the blade's limit"),
        ("unknown", "persisted", "BLOCKED", "UNKNOWN", "RISK_UNKNOWN"),
        ("unknown_word", "persisted", "BLOCKED", "UNKNOWN", "RISK_UNKNOWN"),
        ("error", "persisted", "BLOCKED", "ERROR", "RISK_ERROR"),
        ("worst_counts", "persisted", "BLOCKED", "RED", "RISK_RED"),
        ("producer_blocked", "persisted", "BLOCKED", "GREEN", "PRODUCER_BLOCKED"),
        ("blocking", "persisted", "BLOCKED", "GREEN", "FEASIBILITY_BLOCKING"),
        ("producer_error", "persisted", "ERROR", "GREEN", "PRODUCER_ERROR"),
        ("incomplete", "persisted", "BLOCKED", "ERROR", "INCOMPLETE_REQUEST: tool_id"),
        ("incomplete_extra", "persisted", "BLOCKED", "ERROR", "INCOMPLETE_REQUEST: colour, mode"),
    ],
)
async def test_a_record_with_identity_becomes_an_artifact(
    table: Table,
    name: str,
    outcome: str,
    status: str,
    risk_level: str,
    block_reason: str | None,
) -> None:
    event, artifact = table.event(name), table.artifact(name)
    assert event["outcome"] == outcome
    for seen in (event, artifact | artifact["decision"]):
        assert seen["status"] == status
        assert seen["risk_level"] == risk_level
        assert seen.get("block_reason") == block_reason
    assert event["may_cut"] is (status == "OK")
    assert event["hashes"] == artifact["hashes"]
    assert "error" not in event
    content = table.audit.files[event["artifact_path"]]
    assert event["size_bytes"] == len(content)
    # A pure function of the body: computed here from the request alone.
    rendered = judged(json.loads(SENT[name].value or b""))
    assert content == rendered.built.content
    assert event["artifact_path"] == rendered.path


@pytest.mark.parametrize("name", ["red", "producer_error", "incomplete", "red_attachment"])
async def test_what_is_not_ok_is_withheld_and_kept_in_quarantine(table: Table, name: str) -> None:
    artifact = table.artifact(name)
    assert artifact["outputs"] == {}
    assert artifact["hashes"].keys() == {"feasibility_sha256"}
    assert "outputs.gcode_text" in artifact["provenance"]["withheld"]
    request_sha256 = artifact["provenance"]["request_sha256"]
    path = f"quarantine/{request_sha256[:2]}/{request_sha256[2:4]}/{request_sha256}"
    assert json.loads(table.audit.files[path]) == json.loads(SENT[name].value or b"")
    kept = table.settings.data_dir / path
    assert kept.stat().st_mode & 0o777 == 0o400
    assert kept.parent.stat().st_mode & 0o777 == 0o700


async def test_gcode_of_a_blocked_run_is_no_attachment(table: Table) -> None:
    digest = sha256(INLINE)
    assert [each["sha256"] for each in table.artifact("ok_attachment")["attachments"]] == [digest]
    blocked = table.artifact("red_attachment")
    assert blocked["attachments"] == []
    assert f"attachments.{digest}" in blocked["provenance"]["withheld"]
    path = f"attachments/{digest[:2]}/{digest[2:4]}/{digest}"
    assert table.audit.files[path] == INLINE


@pytest.mark.parametrize("name", sorted(REFUSED | COMPRESSED))
async def test_a_record_that_can_never_succeed_becomes_a_dead_letter(
    table: Table, name: str
) -> None:
    code, sent, place = name.split(maxsplit=1)[0], SENT[name], table.places[name]
    event, request = table.event(name), table.request(name)
    assert event["outcome"] == ("conflict" if code == "RUN_CONFLICT" else "rejected")
    assert event["error"]["code"] == code
    assert event["may_cut"] is False

    (letter,) = table.audit.letters[place]
    assert letter.key == sent.key
    assert tuple(letter.headers[: len(sent.headers)]) == tuple(sent.headers)
    expected = {
        "rmos-error-code": code,
        "rmos-error-message": event["error"]["message"],
        "rmos-source-topic": table.settings.topics.run_requests,
        "rmos-source-partition": str(place.partition),
        "rmos-source-offset": str(place.offset),
        "rmos-source-timestamp": str(request.timestamp),
        "rmos-group": table.settings.topics.persist_group,
        "rmos-attempt": "1",
    }
    if sent.value is not None:
        expected["rmos-body-sha256"] = sha256(sent.value)
    if name == "TOO_LARGE compressed":
        expected["rmos-body-size"] = str(BROKER_LIMIT_BYTES + 1)
        assert letter.value is None
        # The source topic keeps what the dead letter cannot carry.
        assert request.value == sent.value
    else:
        assert letter.value == sent.value
    ours = letter.headers[len(sent.headers) :]
    assert {header: value.decode() for header, value in ours} == expected


async def test_a_conflict_describes_the_stored_run(table: Table) -> None:
    for name, stored in (("RUN_CONFLICT", "ok"), ("RUN_CONFLICT blocked", "red")):
        event, first = table.event(name), table.event(stored)
        described = ("run_id", "status", "risk_level", "hashes", "artifact_sha256", "size_bytes")
        assert [event[each] for each in described] == [first[each] for each in described]
        assert event.get("block_reason") == first.get("block_reason")
        assert event["may_cut"] is False


@pytest.mark.parametrize("name", sorted(SENT))
async def test_events_are_cloud_events_of_their_record(table: Table, name: str) -> None:
    place, request, told = table.places[name], table.request(name), table.event_record(name)
    event = RunEvent.model_validate_json(told.value)
    topic = table.settings.topics.run_requests
    source = f"1/{topic}/{place.partition}/{place.offset}"
    assert event.event_id == hashlib.sha256(source.encode()).hexdigest()
    assert event.source.model_dump() == {
        "topic": topic,
        "partition": place.partition,
        "offset": place.offset,
    }
    assert told.partition == place.partition
    assert told.key == (event.run_id.encode() if event.run_id else None)

    headers = header_dict(told)
    time = parse_timestamp((headers.pop("ce_time") or b"").decode())
    assert time == datetime.fromtimestamp(request.timestamp / 1000, UTC)
    expected: dict[str, bytes | None] = {
        "ce_specversion": b"1.0",
        "ce_id": event.event_id.encode(),
        "ce_source": b"/rmos/persist",
        "ce_type": f"rmos.run.{event.outcome}.v1".encode(),
        "content-type": b"application/json",
    }
    if event.run_id:
        expected["ce_subject"] = event.run_id.encode()
    if TRACEPARENT in request.headers:
        expected["traceparent"] = TRACEPARENT[1]
    assert headers == expected


async def test_files_that_are_not_their_rows_are_reported_and_never_touched(
    store_settings: Settings,
) -> None:
    settings = store_settings
    runs = ("run_damaged", "run_missing", "run_foreign", "run_linked")
    damaged, missing, foreign, linked = (named(run_id) for run_id in runs)
    paths = {run_id: settings.data_dir / judged(named(run_id)).path for run_id in runs}
    async with persist_worker(settings):
        await produce(settings, [sending(damaged), sending(missing)])
        await wait_until_consumed(settings)
        os.chmod(paths["run_damaged"], 0o644)
        paths["run_damaged"].write_bytes(b"{}")
        paths["run_missing"].unlink()
        paths["run_foreign"].write_bytes(b"not ours")
        paths["run_linked"].symlink_to("run_foreign.json")
        again = [damaged, named("run_damaged", mode="other"), missing, foreign, foreign, linked]
        places = await produce(settings, map(sending, again))
        await wait_until_consumed(settings)
    audit = await audit_store(settings)
    for place in places:
        event, letter = audit.event(place), audit.letter(place)
        assert (event["outcome"], event["may_cut"]) == ("rejected", False)
        assert event["error"]["code"] == "ARTIFACT_CORRUPT"
        assert header_dict(letter)["rmos-error-code"] == b"ARTIFACT_CORRUPT"
    assert paths["run_damaged"].read_bytes() == b"{}"
    assert not paths["run_missing"].exists()
    assert paths["run_foreign"].read_bytes() == b"not ours"
    assert paths["run_linked"].is_symlink()
    # As if the file were right, so that later deliveries and a replay agree.
    rows = {run_id: row["artifact_sha256"] for run_id, row in audit.rows.items()}
    assert rows == {run_id: judged(named(run_id)).artifact_sha256 for run_id in runs}
    assert not list(settings.data_dir.rglob("*.tmp"))


@dataclass(frozen=True)
class Mixed:
    """A thousand records of every kind, as a bad day brings them."""

    records: list[Sending]
    runs: int
    outcomes: dict[str, int]


def mixed_records(seed: int) -> Mixed:
    rng = random.Random(seed)
    counts = {
        "INVALID_JSON": 50,
        "RUN_CONFLICT": 50,
        "incomplete": 50,
        "TOMBSTONE": 30,
        "duplicate": 100,
    }
    fresh = [named(f"run_{seed}_{number}") for number in range(1000 - sum(counts.values()))]
    later: list[Sending] = [
        *(sending(each | {"mode": "other"}) for each in rng.sample(fresh, 50)),
        *(sending(each) for each in rng.choices(fresh, k=100)),
        *(Sending(f"bad_{number}".encode(), b'{"run_id": ') for number in range(50)),
        *(sending(incomplete_request(run_id=f"run_{seed}_i{number}")) for number in range(50)),
        *(Sending(None, None, partition=rng.randrange(12)) for _ in range(30)),
    ]
    rng.shuffle(later)
    records = [sending(each) for each in fresh] + later
    # The later ones among the fresh: a request still comes before what it meets.
    for position in range(720, 1000):
        records.insert(720 + (position - 720) // 2, records.pop(position))
    for number in rng.sample(range(1000), 20):
        each = records[number]
        records[number] = Sending(each.key, each.value, AWKWARD_HEADERS, each.partition)
    expected = {
        "persisted": len(fresh) + counts["incomplete"],
        "duplicate": counts["duplicate"],
        "conflict": counts["RUN_CONFLICT"],
        "INVALID_JSON": counts["INVALID_JSON"],
        "TOMBSTONE": counts["TOMBSTONE"],
    }
    return Mixed(records, expected["persisted"], expected)


async def test_a_thousand_mixed_records_are_each_stored_once_or_traced(
    store_settings: Settings,
) -> None:
    mixed = mixed_records(20251218)
    async with persist_worker(store_settings):
        places = await produce(store_settings, mixed.records)
        await wait_until_consumed(store_settings)
    audit = await audit_store(store_settings)
    audit.assert_whole()
    assert audit.outcomes() == mixed.outcomes
    assert len(audit.artifacts()) == mixed.runs
    assert len({place.partition for place in places}) == 12
    assert set(audit.events) == set(places)
    assert sum(map(len, audit.events.values())) == 1000
    assert (await committed(store_settings)).keys() == set(range(12))
    ok = [path for path, data in audit.artifacts().items() if json.loads(data)["status"] == "OK"]
    assert len(ok) == mixed.runs - 50


async def test_a_producer_that_sends_everything_twice_makes_each_run_once(
    store_settings: Settings, tmp_path: Path
) -> None:
    records = [sending(named(f"run_{number}")) for number in range(1000)]
    async with persist_worker(store_settings):
        await produce(store_settings, [each for each in records for _ in range(2)])
        await produce(store_settings, records[:200])
        await wait_until_consumed(store_settings)
    audit = await audit_store(store_settings)
    audit.assert_whole()
    assert audit.outcomes() == {"persisted": 1000, "duplicate": 1200}
    assert len(audit.artifacts()) == 1000
