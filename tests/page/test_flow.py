"""The page of the flow: what came, what is stored, what is told, and who is at fault."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from aiokafka import ConsumerRecord

from pipeline.broker.admin.groups import GroupMember, GroupPosition
from pipeline.broker.admin.topics import OffsetRange
from pipeline.broker.event_reader import EventTail, TailEvent
from pipeline.broker.reading.looks import BrokerLooks, FlowLook, GroupLook, Rates
from pipeline.core.record import RecordId
from pipeline.page.flow import event_view, flow_view
from pipeline.settings import read_settings
from tests.page.conftest import site_over

REQUESTS = "rmos.runs.requests"
EVENTS = "rmos.runs.events"
HOSTILE = "</td><script>alert(1)</script>\u202egnp\u200b\"'&{{7*7}}"
SEEN = "</td><script>alert(1)</script>‹U+202E›gnp‹U+200B›\"'&{{7*7}}"
AT_MS = 1_766_066_602_123


def group(
    name: str = "persist",
    *,
    end: int = 100,
    committed: int | None = 100,
    begin: int = 0,
    holds: int = 2,
    oldest_ms: int | None = None,
    client: str = "rmos",
) -> GroupLook:
    topic = {"persist": REQUESTS, "advise": "rmos.advisories.requests"}.get(name, "x")
    places = [(topic, number) for number in range(2)]
    member = GroupMember("m", client, "10.0.0.7", tuple(places[:holds]))
    positions = [GroupPosition(*place, begin, end, committed) for place in places]
    return GroupLook(f"rmos.{name}", "Stable", [member] if holds else [], positions, oldest_ms)


def look(*groups: GroupLook, at: float = 0.0, letters: int = 0) -> FlowLook:
    return FlowLook(at, groups, {("rmos.runs.dead-letters", 0): OffsetRange(0, letters)})


def seen(*looks: FlowLook, stored: dict[tuple[str, int], int] | None = None) -> dict[str, Any]:
    """Return the view of the last of looks that were taken one after the other."""
    rates = Rates()
    for each in looks:
        rates.note(each.at, each.counts())
    return flow_view(looks[-1], stored, rates)


class Looks(BrokerLooks):
    def __init__(self, *looks: FlowLook, events: EventTail | None = None) -> None:
        super().__init__(read_settings(bootstrap_servers="127.0.0.1:1"), events or EventTail())
        self.looks = list(looks)

    async def flow(self) -> FlowLook:
        found = self.looks.pop(0)
        self.rates.note(found.at, found.counts())
        return found


def event(value: Any, offset: int = 0, at_ms: int = AT_MS) -> ConsumerRecord[Any, Any]:
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return ConsumerRecord(EVENTS, 0, offset, at_ms, 0, None, content, None, 0, 0, ())


def run_event(**changes: Any) -> dict[str, Any]:
    return {
        "outcome": "persisted",
        "status": "BLOCKED",
        "risk_level": "RED",
        "block_reason": "rim speed",
        "run_id": "run_1",
        "source": {"topic": REQUESTS, "partition": 3, "offset": 17},
        **changes,
    }


def test_what_is_stored_and_not_told_is_counted_apart() -> None:
    stored = {(REQUESTS, 0): 99, (REQUESTS, 1): 95}
    (view,) = seen(look(group(committed=90)), stored=stored)["groups"]
    assert (view.came, view.not_stored, view.not_told) == (200, 6, 20)
    assert (view.held, view.partitions) == (2, 2)
    assert view.came_rate is view.told_rate is None


def test_rates_are_those_between_the_looks() -> None:
    (view,) = seen(
        look(group(end=100, committed=100), at=0.0), look(group(end=130, committed=110), at=10.0)
    )["groups"]
    assert (view.came_rate, view.told_rate) == (6.0, 2.0)
    assert view.state == "flows"


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (group(holds=0), "has no worker"),
        (group(committed=3, begin=5), "has lost records"),
        (group(committed=90), "stands"),
        (group(committed=100), "flows"),
    ],
)
def test_what_is_at_fault_is_named(found: GroupLook, state: str) -> None:
    view = seen(look(found, at=0.0), look(found, at=3.0))
    assert view["groups"][0].state == state
    assert bool(view["faults"]) == (state != "flows")


@pytest.mark.parametrize(
    ("name", "age_seconds", "state"),
    [("persist", 90, "stands"), ("persist", 0, "flows"), ("audit", 90, "flows")],
)
def test_a_record_that_waits_too_long_is_a_fault(name: str, age_seconds: int, state: str) -> None:
    oldest_ms = int((time.time() - age_seconds) * 1000)
    (view,) = seen(look(group(name, committed=90, oldest_ms=oldest_ms)))["groups"]
    assert view.state == state


def test_a_partition_with_a_lag_and_no_worker_is_a_fault_while_another_flows() -> None:
    found = seen(look(group(committed=80, holds=1)), look(group(committed=90, holds=1), at=3.0))
    (view,) = found["groups"]
    assert (view.state, bool(view.told_rate)) == ("stands", True)
    assert found["faults"][0][1].startswith("1 of 2 partitions")


def test_a_flood_of_refusals_is_named_and_a_few_are_not() -> None:
    def is_flood(letters: int) -> bool:
        before = look(group(end=0, committed=0), at=0.0)
        after = look(group(end=50, committed=50), at=10.0, letters=letters)
        return bool(seen(before, after)["is_flood"])

    assert is_flood(60)
    assert not is_flood(20)
    assert not seen(look(group()))["is_flood"]


async def test_the_page_says_who_holds_what(tmp_path: Path) -> None:
    flow = look(group(client=HOSTILE), group("advise", holds=0), letters=1234)
    async with site_over(tmp_path / "store", broker=Looks(flow)) as site:
        page = await site.page("/flow")
    text = page.one("main").words
    assert "Advisories: No worker holds a partition: start one with rmos worker advisories." in text
    assert "1, with 2 of 2 partitions" in text
    assert "1,234 are kept" in text
    assert "It flows" not in text
    assert SEEN in page.one("main").text


@pytest.mark.parametrize("is_ready", [True, False])
async def test_it_flows_only_where_every_check_holds(is_ready: bool, tmp_path: Path) -> None:
    async def checks() -> dict[str, bool]:
        return {"broker answers": True, "index readable": is_ready}

    async with site_over(tmp_path / "store", broker=Looks(look(group()))) as site:
        object.__setattr__(site.api.deps, "checks", checks)
        text = (await site.page("/flow")).one("main").words
    assert ("It flows" in text) == is_ready


async def test_it_renews_itself_until_it_is_paused(tmp_path: Path) -> None:
    async with site_over(tmp_path / "store", broker=Looks(look(group()), look(group()))) as site:
        live, paused = await site.page("/flow"), await site.page("/flow?paused=true")
    section = live.one("section", id="flow")
    assert section.attributes["hx-trigger"] == "every 3s"
    assert section.attributes["hx-get"] == "/flow"
    assert live.one("a", id="pause").attributes["href"] == "/flow?paused=true"
    assert "hx-trigger" not in paused.one("section", id="flow").attributes
    for each in (live, paused):
        assert each.one("a", id="reload")


async def test_a_broker_that_is_away_is_said_and_the_rest_is_there(tmp_path: Path) -> None:
    events = EventTail()
    events.add(event(run_event()))
    away = BrokerLooks(read_settings(bootstrap_servers="127.0.0.1:1"), events)
    async with site_over(tmp_path / "store", broker=away) as site:
        page = await site.page("/flow", 503)
        renewed = await site.page("/flow", 200, **{"hx-request": "true"})
    assert "The broker does not answer." in renewed.one("p", class_="problem").words
    assert "The broker does not answer." in page.one("p", class_="problem").words
    assert "broker answers: no" in page.one("main").words
    assert "persisted BLOCKED RED run_1" in page.one("tbody").words


async def test_events_are_newest_first_and_texts(tmp_path: Path) -> None:
    events = EventTail()
    events.add(event(run_event(run_id="run_old"), 1, AT_MS))
    events.add(
        event(run_event(run_id=HOSTILE, outcome=HOSTILE, block_reason=HOSTILE), 2, AT_MS + 1)
    )
    events.add(event(b"\xff\x00<script>", 3, AT_MS + 2))
    async with site_over(tmp_path / "store", broker=Looks(look(), events=events)) as site:
        page = await site.page("/flow")
    body = list(page.all("tbody"))[-1]
    third, second, first = body.all("tr")
    assert "not readable" in third.words
    assert second.text.count(SEEN) == 2
    assert "run_old" in first.words
    record = "/search?q=rmos.runs.requests%2F3%2F17"
    links = [link.attributes["href"] for link in body.all("a")]
    assert links == [record, "/run/run_old", record]
    assert not [script for script in page.all("script") if "src" not in script.attributes]


@pytest.mark.parametrize(
    "value",
    [b"", b"[]", b"7", b"[" * 100_000, b'{"source":7,"error":[],"outcome":{"a":1}}', b"\xff"],
)
def test_any_event_can_be_shown(value: bytes) -> None:
    assert event_view(TailEvent(RecordId(EVENTS, 0, 1), -1, value)).place == f"{EVENTS}/0/1"


def tail_of(*records: Any) -> list[TailEvent]:
    tail = EventTail()
    for each in records:
        tail.add(each)
    return tail.newest_first()


def test_a_tail_is_bounded_in_number_and_in_bytes() -> None:
    found = tail_of(*(event({"n": n}, n, AT_MS + n) for n in range(80)))
    assert [each.place.offset for each in found] == list(range(79, 29, -1))
    (large,) = tail_of(event(b"x" * (EventTail.EVENT_LIMIT_BYTES + 1)))
    assert large.value == b""


def test_a_conflict_does_not_carry_the_verdict_of_the_run_that_is_stored() -> None:
    value = json.dumps(run_event(outcome="conflict", status="OK", risk_level="GREEN")).encode()
    shown = event_view(TailEvent(RecordId(EVENTS, 0, 1), AT_MS, value))
    assert (shown.outcome, shown.run_id) == ("conflict", "run_1")


def test_a_rejected_record_leads_to_no_run() -> None:
    value = json.dumps(run_event(outcome="rejected")).encode()
    shown = event_view(TailEvent(RecordId(EVENTS, 0, 1), AT_MS, value))
    assert shown.run_id is None
    assert shown.link == "/dead-letters?source=rmos.runs.requests%2F3%2F17"
