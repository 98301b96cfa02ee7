"""`rmos peek` shows what waits, with verdict and whatever tells who sends it."""

import pytest

from pipeline.broker.admin.groups import committed_offsets
from pipeline.settings import Settings
from tests.builders import incomplete_request, red_request, run_request
from tests.e2e.commands import rmos
from tests.e2e.kafka_reading import Sending, produce, sending

pytestmark = [pytest.mark.e2e, pytest.mark.every_topic]
GATEWAY = [("user-agent", b"cam-gateway/7 \x1b]2;owned\x07"), ("ce_source", b"/cam/saw-2")]


async def test_what_waits_is_shown_with_its_verdict_and_what_it_has_in_common(
    settings: Settings,
) -> None:
    flood = [Sending(f"gw-7-{number}".encode(), b"{", GATEWAY, 7) for number in range(30)]
    good = [
        sending(run_request(run_id="run_ok"), partition=2),
        sending(red_request(run_id="run_red"), partition=2),
        sending(incomplete_request(run_id="run_incomplete"), partition=2),
        Sending(None, None, (), 2),
    ]
    await produce(settings, [*flood, *good])
    shown = await rmos(settings, "peek", "persist", "--json")
    assert shown.status == 0
    *records, last = shown.documents
    summary = last["summary"]
    assert (summary["waiting"], summary["read"]) == (34, 34)
    assert summary["verdicts"] == {
        "INVALID_JSON": 30,
        "OK": 1,
        "BLOCKED": 1,
        "INCOMPLETE": 1,
        "TOMBSTONE": 1,
    }
    assert summary["keys"]["gw-..."] == 30
    assert summary["headers"]["ce_source: /cam/saw-2"] == 30
    first = next(each for each in records if each["verdict"] == "INVALID_JSON")
    assert first["record"] == f"{settings.topics.run_requests}/7/0"
    assert first["key"] == "gw-7-0"

    table = await rmos(settings, "peek", "--limit", "4")
    assert "4 read" in table.err
    assert table.out.count(f"{settings.topics.run_requests}/7/") == 2
    assert "\x1b]2;" not in table.out + table.err
    group = settings.topics.persist_group
    assert await committed_offsets(settings, group, [settings.topics.run_requests]) == {}


async def test_nothing_waits_and_no_such_group(settings: Settings) -> None:
    empty = await rmos(settings, "peek", "advise")
    assert (empty.status, "0 wait" in empty.err) == (0, True)
    assert (await rmos(settings, "peek", "nobody")).status == 2
