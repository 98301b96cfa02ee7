"""`rmos dead-letters`, from the refused record to the stored run, on the real broker."""

import base64
import json
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiokafka import ConsumerRecord

from pipeline.app.persist import persist_worker
from pipeline.broker.local.broker import LocalBroker
from pipeline.core.record import RecordId
from pipeline.core.runs import verdict
from pipeline.settings import Settings
from pipeline.topics import request_topics
from tests.builders import run_request
from tests.e2e.commands import Ended, rmos, rmos_process
from tests.e2e.dead_letters import bury, dead_letter_of
from tests.e2e.kafka_reading import (
    Place,
    Sending,
    header_dict,
    new_settings,
    produce,
    read_topic,
    sending,
    topics_and_store,
    wait_until_consumed,
)
from tests.e2e.store_audit import audit_store

pytestmark = [pytest.mark.e2e, pytest.mark.every_topic]

KINDS = (
    ("runs", "INVALID_JSON"),
    ("runs", "KEY_MISMATCH"),
    ("runs", "INTERNAL_ERROR"),
    ("advisories", "INVALID_ADVISORY"),
    ("audits", "INVALID_AUDIT"),
)
OF_A_KIND = 2000


async def dead_letters(settings: Settings, *arguments: str) -> Ended:
    return await rmos(settings, "dead-letters", *arguments)


async def test_a_corrected_program_brings_back_what_it_wrongly_refused(
    broker: LocalBroker, tmp_path: Path
) -> None:
    # The judge that fails is this process's own.
    settings = new_settings(broker, tmp_path / "store", judge_in_child_process=False)
    async with topics_and_store(broker, settings):
        request = sending(run_request(run_id="run_a"), (("traceparent", b"00-7"),))
        (refused,) = await produce(settings, [request])

        def fails(*_: Any) -> None:
            raise KeyError

        async def consume() -> None:
            async with persist_worker(settings):
                await wait_until_consumed(settings)

        source = f"{settings.topics.run_requests}/{refused.partition}/{refused.offset}"
        now = refused
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(verdict, "judged_run", fails)
            await consume()
            done = await dead_letters(settings, "redrive", source, "--json")
            assert done.status == 0, done.err
            # Not corrected yet: it is refused again, and its attempts are counted.
            await consume()
        listed = (await dead_letters(settings, "list", "--open", "--json")).documents
        (letter, summary) = listed
        assert summary == {"summary": {"count": 1, "codes": {"INTERNAL_ERROR": 1}}}
        assert (letter["attempt"], letter["source"]) == (2, done.documents[0]["redriven_as"])

        done = await dead_letters(settings, "redrive", "--code", "INTERNAL_ERROR", "--json")
        assert done.documents[-1] == {"summary": {"redriven before": 1, "redriven": 1}}
        (sent,) = [each for each in done.documents[:-1] if each["fate"] == "redriven"]
        now = Place(refused.partition, int(sent["redriven_as"].rpartition("/")[2]))
        assert now.offset > refused.offset
        await consume()

        audit = await audit_store(settings)
        assert audit.event(refused)["error"]["code"] == "INTERNAL_ERROR"
        event = audit.event(now)
        assert (event["outcome"], event["may_cut"]) == ("persisted", True)
        assert event["source"] == {
            "topic": settings.topics.run_requests,
            "partition": now.partition,
            "offset": now.offset,
        }
        assert header_dict(audit.events[now][0])["traceparent"] == b"00-7"
        assert audit.rows.keys() == {"run_a"}
        (record,) = [each for each in audit.requests if each.offset == now.offset]
        assert [name for name, _ in record.headers] == [
            "traceparent",
            *["rmos-redrive-of", "rmos-attempt"] * 2,
        ]
        assert header_dict(record)["rmos-attempt"] == b"3"
        assert (record.key, record.value) == (request.key, request.value)


def source_of(settings: Settings, area: str, number: int) -> RecordId:
    partitions = 3 if area == "audits" else 12
    return RecordId(f"{settings.prefix}.{area}.requests", number % partitions, number)


def record_of(area: str, code: str, number: int) -> tuple[bytes, bytes]:
    return f"{area}-{number}".encode(), f"{code} {number}".encode()


async def bury_all(settings: Settings) -> dict[str, list[RecordId]]:
    """Bury 10,000 refused records, each tenth twice; return their places by code."""
    places: dict[str, list[RecordId]] = {}
    letters: dict[str, list[Sending]] = {}
    for step, (area, code) in enumerate(KINDS):
        for number in range(step * OF_A_KIND, (step + 1) * OF_A_KIND):
            source = source_of(settings, area, number)
            key, value = record_of(area, code, number)
            letter = dead_letter_of(source, value, key=key, code=code, headers=(("h", key),))
            places.setdefault(code, []).append(source)
            letters.setdefault(area, []).extend([letter] * (1 + (number % 10 == 0)))
    for area, buried in letters.items():
        await bury(settings, buried, area)
    return places


@pytest.mark.slow
async def test_ten_thousand_of_five_kinds_each_land_where_they_belong_once(
    settings: Settings,
) -> None:
    places = await bury_all(settings)

    *listed, summary = (await dead_letters(settings, "list", "--json")).documents
    assert summary["summary"] == {
        "count": len(KINDS) * OF_A_KIND,
        "codes": {code: OF_A_KIND for _, code in KINDS},
    }
    assert Counter(each["source"] for each in listed).most_common(1)[0][1] == 1
    assert Counter(each["letters"] for each in listed) == {1: 9000, 2: 1000}
    *filtered, _ = (
        await dead_letters(settings, "list", "--code", "KEY_MISMATCH", "--json")
    ).documents
    assert {each["source"] for each in filtered} == set(map(str, places["KEY_MISMATCH"]))
    area = f"{settings.prefix}.advisories.requests"
    *filtered, _ = (await dead_letters(settings, "list", "--topic", area, "--json")).documents
    assert {each["code"] for each in filtered} == {"INVALID_ADVISORY"}

    done = await dead_letters(settings, "redrive", "--code", "KEY_MISMATCH", "--json")
    assert done.documents[-1] == {"summary": {"redriven": OF_A_KIND}}
    landed = await landed_by_code(settings)
    assert {code: len(found) for code, found in landed.items()} == {"KEY_MISMATCH": OF_A_KIND}

    done = await dead_letters(settings, "redrive", "--all", "--json")
    assert done.documents[-1] == {
        "summary": {"redriven before": OF_A_KIND, "redriven": 4 * OF_A_KIND}
    }
    landed = await landed_by_code(settings)
    for area, code in KINDS:
        expected = Counter(
            (source.topic, source.partition, *record_of(area, code, source.offset), str(source))
            for source in places[code]
        )
        assert Counter(map(landing, landed[code])) == expected


async def landed_by_code(settings: Settings) -> dict[str, list[ConsumerRecord]]:
    found: dict[str, list[ConsumerRecord]] = {}
    for topic in request_topics(settings.prefix):
        for each in await read_topic(settings, topic):
            found.setdefault(each.value.split()[0].decode(), []).append(each)
    return found


def landing(each: ConsumerRecord) -> tuple[Any, ...]:
    headers = header_dict(each)
    assert headers == {
        "h": each.key,
        "rmos-redrive-of": headers["rmos-redrive-of"],
        "rmos-attempt": b"2",
    }
    came_from = (headers["rmos-redrive-of"] or b"").decode()
    return each.topic, each.partition, each.key, each.value, came_from


async def test_one_letter_is_shown_with_all_that_it_has_and_nothing_of_it_acts(
    settings: Settings,
) -> None:
    topic = settings.topics.run_requests
    source = RecordId(topic, 3, 17)
    await bury(
        settings,
        [
            dead_letter_of(
                source, b'{"run_id": "\\u001b[31mred"}', headers=(("x", b"\x1b]0;title"),)
            ),
            dead_letter_of(RecordId(topic, 4, 1), b"\x00\xff" * 3000, key=None),
            dead_letter_of(RecordId(topic, 5, 1), None, code="TOMBSTONE"),
        ],
    )
    shown = await dead_letters(settings, "show", str(source))
    assert shown.status == 0, shown.err
    assert "\x1b" not in shown.out
    assert shown.out.startswith("INVALID_JSON: The value is not one object in strict JSON.\n")
    for line in (
        "  x: \\u001b]0;title",
        "  rmos-source-offset: 17",
        '    "run_id": "\\u001b[31mred"',
    ):
        assert line in shown.out.splitlines()
    shown = await dead_letters(settings, "show", f"{topic}/4/1")
    assert "body, 6,000 bytes, not text" in shown.out
    assert f"00000000  {'00 ff ' * 8}" in shown.out
    assert "... cut; rmos dead-letters export writes all of it" in shown.out
    shown = await dead_letters(settings, "show", f"{topic}/5/1")
    assert shown.out.endswith("no body\n")
    shown = await dead_letters(settings, "show", f"{topic}/5/2")
    assert (shown.status, shown.out) == (3, "")
    assert f"There is no dead letter of {topic}/5/2." in shown.err
    (document,) = (await dead_letters(settings, "show", str(source), "--json")).documents
    assert base64.b64decode(document["value_base64"]) == b'{"run_id": "\\u001b[31mred"}'


async def test_an_export_has_every_byte(settings: Settings, tmp_path: Path) -> None:
    topic = settings.topics.run_requests
    values = {1: b"\xff\x00", 2: b"{}", 3: None}
    await bury(
        settings,
        [dead_letter_of(RecordId(topic, 3, offset), value) for offset, value in values.items()],
    )
    *written, summary = (await dead_letters(settings, "export")).documents
    assert summary == {"summary": {"count": 3}}
    assert [
        each["value_base64"] and base64.b64decode(each["value_base64"]) for each in written
    ] == list(values.values())
    assert base64.b64decode(written[0]["headers"][0]["value_base64"]) == b"INVALID_JSON"

    folder = tmp_path / "letters"
    done = await dead_letters(settings, "export", f"{topic}/3/1", "--to", str(folder))
    assert done.status == 0, done.err
    (line,) = (folder / "letters.ndjson").read_text().splitlines()
    assert (folder / json.loads(line)["value_file"]).read_bytes() == values[1]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    done = await rmos_process(settings, "dead-letters", "export", "--to", str(folder))
    assert done.status == 2
    assert done.err.startswith("Error: ")
    assert "is not empty: name a new folder" in done.err


async def test_letters_are_selected_by_when_they_were_refused(settings: Settings) -> None:
    topic = settings.topics.run_requests
    await bury(settings, [dead_letter_of(RecordId(topic, 3, 1))])
    for option, count in (("--since", 0), ("--until", 1)):
        done = await dead_letters(settings, "list", option, "2098-01-01T00:00:00Z", "--json")
        assert done.documents[-1]["summary"]["count"] == count
    for option, count in (("--since", 1), ("--until", 0)):
        done = await dead_letters(settings, "list", option, "2001-01-01T00:00:00+02:00", "--json")
        assert done.documents[-1]["summary"]["count"] == count
    done = await dead_letters(settings, "list", "--since", "yesterday")
    assert done.status == 2
    assert "--since cannot be 'yesterday': expected a time such as" in done.err
