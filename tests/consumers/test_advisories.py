"""What is published of an advisory request, as it comes and while it waits for its run."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog
from aiokafka import TopicPartition

from pipeline.broker.sending.batches import Message
from pipeline.consumers import claims as advisory_claims
from pipeline.consumers.claims import AdvisoryClaims
from pipeline.consumers.engine.batches import BatchWorker, Steps
from pipeline.consumers.engine.judging import Judging
from pipeline.consumers.engine.outbox import Outbox
from pipeline.consumers.engine.readiness import PUT_OFF_LIMIT
from pipeline.core.advisories.outcome import advisory_event, advisory_event_headers
from pipeline.core.advisories.verdict import judge_advisory_record
from pipeline.errors import BrokerError, StoreAwayError, StoreError
from pipeline.metrics import REGISTRY
from pipeline.settings import Settings
from pipeline.storage.advisory_store import AdvisoryStore
from pipeline.storage.store import open_store_to_write
from pipeline.topics import TopicNames
from tests.builders import advisory_request, record, run_request
from tests.storage.stores import judged_record, make_store, opened

TOPICS = TopicNames("rmos")
REQUESTS = TOPICS.advisory_requests
HEADERS = (("theirs", b"\xff"), ("caf\udce9", None), ("traceparent", b"00-1"))
PLACE = TopicPartition(REQUESTS, 3)


@dataclass(frozen=True)
class Record:
    """What is looked at of a consumer's record."""

    key: bytes | None
    value: bytes | None
    topic: str = REQUESTS
    partition: int = 3
    offset: int = 41
    timestamp: int = 1_700_000_000_000
    headers: Sequence[tuple[str, bytes | None]] = field(default=HEADERS)


ASKED = Record(*record(advisory_request(run_id="run_1")))


class Shop:
    """An advise worker without a broker: what it has read and what it has published.

    Attributes:
        log: The records of the request topic.
        letters: Those of the dead letter topic.
        sent: What was published since it was last looked at.
        overdue_to: The first offset that is not overdue, by the broker.
        is_away: Whether the broker refuses.
    """

    def __init__(self, root: Path, executor: ThreadPoolExecutor) -> None:
        self.log: dict[int, Record] = {}
        self.reads: list[list[int]] = []
        self.letters: list[Record] = []
        self.sent: list[Message] = []
        self.overdue_to = 0
        self.is_away = False
        self.assigned = {PLACE}
        self.store = AdvisoryStore(open_store_to_write(root))
        judging = Judging(judge_advisory_record, in_child=False)
        outbox = Outbox(TOPICS.advise_group, TOPICS.advisory_events, TOPICS.advisory_dead_letters)
        self.worker = BatchWorker(
            Steps(
                judging,
                self.store.commit,
                partial(outbox.messages, advisory_event, advisory_event_headers),
            ),
            outbox,
            cast("Any", self),
            epoch=1,
            executor=executor,
            writer=executor,
        )
        self.claims = AdvisoryClaims(Settings(), self.store, cast("Any", self), self.worker)

    async def send(self, messages: Sequence[Message]) -> None:
        if self.is_away:
            raise BrokerError("No Kafka broker answers.")
        self.sent += messages

    async def first_offset_since(self, place: TopicPartition, since_ms: int) -> int:
        assert place == PLACE
        assert time.time() - 755 == pytest.approx(since_ms / 1000, abs=5)
        return self.overdue_to

    async def read(self, _settings: Settings, wanted: Any) -> AsyncGenerator[Any]:
        ((place, offsets),) = wanted.items()
        assert place == PLACE
        self.reads.append(list(offsets))
        for offset in offsets:
            if self.is_away:
                raise BrokerError("No Kafka broker answers.")
            if offset in self.log:
                yield self.log[offset]

    async def read_letters(self, *_place: Any) -> AsyncGenerator[Any]:
        for letter in self.letters:
            yield letter

    async def report(self) -> Record:
        """Let the claim be overdue and its request leave the log; return its dead letter."""
        self.overdue_to = 42
        _event, sent = await self.look()
        self.log = {}
        return Record(sent.key, sent.value, sent.topic, 0, 7, 5, tuple(sent.headers))

    async def consume(self, *records: Record) -> list[Message]:
        self.log |= {each.offset: each for each in records}
        await self.worker.process(cast("Any", records))
        return self.taken()

    async def look(self) -> list[Message]:
        assert await self.claims.look()
        return self.taken()

    def taken(self) -> list[Message]:
        sent, self.sent = self.sent, []
        return sent


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_store(tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
async def shop(root: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    with ThreadPoolExecutor(1) as executor:
        made = Shop(root, executor)
        monkeypatch.setattr(advisory_claims, "read_offsets", made.read)
        monkeypatch.setattr(advisory_claims, "_letters", made.read_letters)
        yield made
    made.store.close()


def make_run(root: Path) -> None:
    with opened(root) as runs:
        runs.commit([judged_record(run_request(run_id="run_1"))])


def outcome(message: Message) -> str:
    assert message.topic == TOPICS.advisory_events
    assert message.value is not None
    event = json.loads(message.value)
    assert event["source"] == {"topic": REQUESTS, "partition": 3, "offset": 41}
    assert dict(message.headers)["ce_time"] == b"2023-11-14T22:13:20Z"
    assert dict(message.headers)["traceparent"] == b"00-1"
    return str(event["error"]["code"] if "error" in event else event["outcome"])


async def test_a_request_without_its_run_waits_and_is_linked_once_the_run_is_there(
    root: Path, shop: Shop
) -> None:
    (event,) = await shop.consume(ASKED)
    assert outcome(event) == "waiting"
    assert await shop.look() == []
    assert shop.reads == []
    make_run(root)
    (linked,) = await shop.look()
    assert outcome(linked) == "linked"
    assert await shop.look() == []
    assert await shop.consume(ASKED) == [linked]


async def test_a_claim_that_waits_too_long_is_reported_once_and_linked_all_the_same(
    root: Path, shop: Shop
) -> None:
    await shop.consume(ASKED)
    shop.overdue_to = 41
    assert await shop.look() == []
    shop.overdue_to = 42
    event, letter = await shop.look()
    assert outcome(event) == "RUN_NOT_FOUND"
    assert letter.topic == TOPICS.advisory_dead_letters
    assert (letter.key, letter.value) == (ASKED.key, ASKED.value)
    headers = dict(letter.headers)
    assert tuple(letter.headers[: len(HEADERS)]) == HEADERS
    assert headers["rmos-source-topic"] == REQUESTS.encode()
    assert headers["rmos-source-offset"] == b"41"
    assert headers["rmos-source-timestamp"] == b"1700000000000"
    assert await shop.look() == []
    make_run(root)
    (linked,) = await shop.look()
    assert outcome(linked) == "linked"


async def test_claims_that_become_overdue_one_after_the_other_are_each_reported_once(
    shop: Shop,
) -> None:
    other = record(advisory_request(run_id="run_1", advisory_id="adv_2"))
    await shop.consume(ASKED, Record(*other, offset=43))
    shop.overdue_to = 43
    assert len(await shop.look()) == 2
    shop.overdue_to = 50
    letters = [each for each in await shop.look() if each.topic == TOPICS.advisory_dead_letters]
    assert [each.value for each in letters] == [other[1]]


async def test_a_report_that_was_not_confirmed_is_sent_again(shop: Shop) -> None:
    await shop.consume(ASKED)
    shop.overdue_to = 42
    shop.is_away = True
    assert not await shop.claims.look()
    shop.is_away = False
    assert len(await shop.look()) == 2


async def test_a_link_whose_event_was_not_confirmed_is_reported_again(
    root: Path, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its claim waits no longer, so only the note that it is in hand leads back to it."""
    await shop.consume(ASKED)
    make_run(root)

    async def refuse(_messages: Any) -> None:
        raise BrokerError("No Kafka broker answers.")

    with monkeypatch.context() as patch:
        patch.setattr(shop.claims._worker, "_sender", cast("Any", _Refusing()))
        assert not await shop.claims.look()
    assert len(list((root / "runs").rglob("*_advisory_*"))) == 1
    assert shop.store.claims.in_hand((REQUESTS, 3)) == [41]
    (linked,) = await shop.look()
    assert outcome(linked) == "linked"
    assert await shop.look() == []


async def test_a_claim_is_reported_as_waiting_before_it_is_as_linked(
    root: Path, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, confirmed = asyncio.Event(), asyncio.Event()

    async def send_late(messages: Sequence[Message]) -> None:
        stored.set()
        await confirmed.wait()
        await shop.send(messages)

    monkeypatch.setattr(shop.worker, "_sender", SimpleNamespace(send=send_late))
    shop.log = {ASKED.offset: ASKED}
    consuming = asyncio.create_task(shop.worker.process(cast("Any", [ASKED])))
    await stored.wait()
    make_run(root)
    looking = asyncio.create_task(shop.claims.look())
    # It is not to end before the first event is confirmed; without an order it does so at once.
    await asyncio.wait([looking], timeout=0.2)
    confirmed.set()
    await asyncio.gather(consuming, looking)
    assert [outcome(each) for each in shop.taken()] == ["waiting", "linked"]


async def test_a_run_that_comes_while_its_overdue_claim_is_reported_leaves_no_link_without_event(
    root: Path, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.consume(ASKED)
    shop.overdue_to = 42

    async def read_late(settings: Settings, wanted: Any) -> AsyncGenerator[Any]:
        make_run(root)
        async for request in shop.read(settings, wanted):
            yield request

    with monkeypatch.context() as patch:
        patch.setattr(advisory_claims, "read_offsets", read_late)
        patch.setattr(shop.claims._worker, "_sender", cast("Any", _Refusing()))
        assert not await shop.claims.look()
    assert len(list((root / "runs").rglob("*_advisory_*"))) == 1
    (linked,) = await shop.look()
    assert outcome(linked) == "linked"
    assert shop.store.claims.in_hand((REQUESTS, 3)) == []


class _Refusing:
    async def send(self, _messages: Any) -> None:
        raise BrokerError("No Kafka broker answers.")


async def test_a_claim_in_a_partition_of_another_worker_is_left_to_it(
    root: Path, shop: Shop
) -> None:
    await shop.consume(ASKED)
    make_run(root)
    shop.assigned = {TopicPartition(REQUESTS, 4)}
    assert await shop.look() == []
    shop.assigned = {PLACE}
    assert len(await shop.look()) == 1


@pytest.mark.parametrize("is_gone", [True, False])
async def test_what_can_never_be_linked_is_read_once_and_reported_never(
    root: Path, shop: Shop, *, is_gone: bool
) -> None:
    """Its record is not in the log any more, or is another than the one that made the claim."""
    await shop.consume(ASKED)
    make_run(root)
    other = Record(*record(advisory_request(run_id="run_1", title="other")))
    shop.log = {} if is_gone else {41: other}
    shop.overdue_to = 42
    assert [await shop.look() for _ in range(3)] == [[], [], []]
    assert shop.reads == [[41]]


async def test_a_request_that_the_log_no_longer_holds_is_linked_from_its_dead_letter(
    root: Path, shop: Shop
) -> None:
    await shop.consume(ASKED)
    letter = await shop.report()
    make_run(root)
    # The last is delivered twice, as the topic may.
    shop.letters = [Record(b"run_1", b"{"), letter, letter]
    (linked,) = await shop.look()
    assert outcome(linked) == "linked"
    (link,) = (root / "runs").rglob("*_advisory_*")
    assert b'"title":"' + advisory_request()["title"].encode() in link.read_bytes()
    assert await shop.look() == []
    assert await shop.consume(ASKED) == [linked]


async def test_a_dead_letter_without_the_request_that_made_the_claim_links_nothing(
    root: Path, shop: Shop
) -> None:
    """Its topic did not take the value, it is of an earlier epoch, or it is not ours."""
    await shop.consume(ASKED)
    letter = await shop.report()
    make_run(root)
    another = record(advisory_request(run_id="run_1", kind="note"))[1]
    size = ("rmos-body-size", b"%d" % len(letter.value or b""))
    shop.letters = [
        replace(letter, value=another),
        replace(letter, value=b"{"),
        replace(letter, value=None, headers=(*letter.headers, size)),
        replace(letter, headers=HEADERS),
        replace(
            letter,
            headers=[
                (name, b"42" if name == "rmos-source-offset" else value)
                for name, value in letter.headers
            ],
        ),
    ]
    with structlog.testing.capture_logs() as logs:
        assert [await shop.look() for _ in range(2)] == [[], []]
    (reason,) = [each["why"] for each in logs if each["log_level"] == "warning"]
    assert f"no longer holds {REQUESTS}/3/41, and no dead letter" in reason
    assert not list((root / "runs").rglob("*_advisory_*"))


async def test_claims_that_cannot_be_read_are_a_reason_until_none_waits(shop: Shop) -> None:
    await shop.consume(ASKED)
    shop.overdue_to = 42
    shop.is_away = True
    for _ in range(PUT_OFF_LIMIT):
        assert not await shop.claims.look()
        assert shop.claims.standing.reasons == ()
    await shop.claims.look()
    (reason,) = shop.claims.standing.reasons
    assert "rmos.advisories.requests, partition 3, offset 41" in reason
    shop.is_away = False
    await shop.look()
    assert shop.claims.standing.reasons == ()


async def test_a_broker_that_does_not_name_an_overdue_offset_puts_the_partition_off(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_asked: Any) -> int:
        raise BrokerError("No Kafka broker answers.")

    await shop.consume(ASKED)
    shop.overdue_to = 42
    with monkeypatch.context() as patch:
        patch.setattr(shop, "first_offset_since", refuse)
        assert not await shop.claims.look()
    assert len(await shop.look()) == 2


async def test_claims_that_went_to_another_worker_are_no_reason_any_more(shop: Shop) -> None:
    await shop.consume(ASKED)
    shop.overdue_to = 42
    shop.is_away = True
    for _ in range(PUT_OFF_LIMIT + 1):
        await shop.claims.look()
    assert shop.claims.standing.reasons
    shop.assigned = set()
    assert await shop.claims.look()
    assert shop.claims.standing.reasons == ()


async def test_a_record_that_does_not_come_puts_its_partition_off(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(_settings: Settings, _wanted: Any) -> AsyncGenerator[Any]:
        await asyncio.Event().wait()
        yield

    monkeypatch.setattr(advisory_claims, "read_offsets", silent)
    monkeypatch.setattr(advisory_claims, "READ_SECONDS", 0.01)
    await shop.consume(ASKED)
    shop.overdue_to = 42
    assert not await shop.claims.look()


@pytest.mark.parametrize(
    ("fault", "counted"),
    [(StoreError("The disk is full."), 0), (BrokerError("No Kafka broker answers."), 1)],
)
async def test_claims_behind_a_batch_that_fails_are_put_off_for_its_reason(
    shop: Shop, fault: Exception, counted: int
) -> None:
    """A disk that is full is no fault of the broker."""
    await shop.consume(ASKED)
    shop.overdue_to = 42
    fails = asyncio.Event()

    async def judge(_bodies: Any) -> Any:
        await fails.wait()
        raise fault

    failing = Steps(cast("Any", SimpleNamespace(judge=judge)), shop.store.commit, lambda *_: ())
    batch = asyncio.create_task(shop.worker.process([cast("Any", ASKED)], failing))
    labels = {"group": TOPICS.advise_group, "side": "broker"}
    before = REGISTRY.get_sample_value("rmos_faults_total", labels) or 0
    await asyncio.sleep(0)
    with structlog.testing.capture_logs() as logged:
        looking = asyncio.create_task(shop.claims.look())
        async with asyncio.timeout(60):
            while shop.worker.in_flight < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        fails.set()
        assert not await looking
    (put_off,) = [each for each in logged if each["event"] == "claims put off"]
    assert put_off["why"] == f"A batch before it failed: {fault}"
    assert (REGISTRY.get_sample_value("rmos_faults_total", labels) or 0) - before == counted
    assert await asyncio.gather(batch, return_exceptions=True) == [fault]


async def test_a_look_goes_on_once_what_keeps_the_index_answers_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advisory_claims, "PAUSE_SECONDS", 0.0)
    answers = iter([StoreAwayError("The index does not answer."), None])
    looked = asyncio.Event()

    async def look() -> bool:
        if (fault := next(answers, None)) is not None:
            raise fault
        looked.set()
        return True

    monkeypatch.setattr(shop.claims, "look", look)
    with structlog.testing.capture_logs() as logged:
        running = asyncio.create_task(shop.claims.run())
        await asyncio.wait_for(looked.wait(), 60)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert [each["event"] for each in logged] == ["claims put off"]
