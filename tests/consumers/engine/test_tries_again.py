"""Every loop that tries again makes its worker not ready after some tries, and says where."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from pipeline.audit.worker import schedule as audit_scheduling
from pipeline.audit.worker.schedule import AuditScheduler
from pipeline.consumers.advisories import claims as advisory_claims
from pipeline.consumers.advisories import retries as advisory_retries
from pipeline.consumers.advisories.claims import AdvisoryClaims
from pipeline.consumers.advisories.retries import AdvisoryRetries
from pipeline.consumers.engine import refusals
from pipeline.consumers.engine.put_off import PUT_OFF_LIMIT
from pipeline.consumers.engine.standing import Standing
from pipeline.errors import BrokerError
from pipeline.settings import Settings
from pipeline.topics import TopicNames

TOPICS = TopicNames("rmos")
PLACE = TopicPartition(TOPICS.advisory_retries[0], 3)


async def test_claims_that_cannot_be_read_are_a_reason_until_none_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting = [SimpleNamespace(partition=3, offset=17)]

    @asynccontextmanager
    async def away(_: Settings) -> Any:
        message = "No Kafka broker answers."
        raise BrokerError(message)
        yield

    monkeypatch.setattr(advisory_claims, "_reader", away)
    with ThreadPoolExecutor(1) as executor:
        store = SimpleNamespace(
            claims_to_link=lambda _topic, after, _limit: waiting if after == (-1, -1) else []
        )
        kept: list[Any] = []
        handler = SimpleNamespace(standing=Standing("claims"), keep_only=kept.append)
        desk = SimpleNamespace(executor=executor, store=store)
        claims = AdvisoryClaims(Settings(), cast("Any", desk), cast("Any", handler))
        for _ in range(PUT_OFF_LIMIT):
            await claims.link_claims()
            assert handler.standing.reasons == ()
        await claims.link_claims()
        (reason,) = handler.standing.reasons
        assert "rmos.advisories.requests, partition 3, offset 17" in reason
        assert kept == []
        waiting.clear()
        await claims.link_claims()
        assert handler.standing.reasons == ()
        assert kept == [()]


class Handler:
    """Handles nothing, and keeps what was a reason; its worker ends after some polls."""

    def __init__(self) -> None:
        self.standing = Standing("retries")
        self.fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.reasons: list[tuple[str, ...]] = []
        self.kept: Any = None

    async def handle(self, records: list[Any]) -> None:
        pass

    def keep_only(self, assigned: Any) -> None:
        self.kept = assigned


class Member:
    """Brings one record, and raises what it is told to, the first time that often."""

    def __init__(self, handler: Handler, faults: list[KafkaError], *, of: str) -> None:
        self._handler = handler
        self._faults = {of: faults}
        self._polls_left = 3
        self._records = [SimpleNamespace(topic=PLACE.topic, partition=3, offset=17, timestamp=0)]

    def subscribe(self, *_: Any, listener: Any) -> None:
        self.listener = listener

    def assignment(self) -> set[TopicPartition]:
        return {PLACE}

    def pause(self, *_: Any) -> None:
        pass

    resume = pause

    def _fail(self, what: str) -> None:
        faults = self._faults.get(what)
        if faults:
            raise faults.pop()

    async def getmany(self, **_: Any) -> dict[TopicPartition, list[Any]]:
        await asyncio.sleep(0)
        self._handler.reasons.append(self._handler.standing.reasons)
        self._fail("getmany")
        if self._records:
            return {PLACE: [self._records.pop()]}
        self._polls_left -= not any(self._faults.values())
        if self._polls_left == 0:
            self._handler.fault.set_result(None)
        return {}

    async def commit(self, _: Any) -> None:
        self._fail("commit")


async def reasons_of_retries(
    monkeypatch: pytest.MonkeyPatch, faults: list[KafkaError], *, of: str
) -> list[tuple[str, ...]]:
    handler = Handler()
    monkeypatch.setattr(advisory_retries, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(refusals, "REFUSAL_HOLDS_SECONDS", -1.0)
    monkeypatch.setattr(advisory_retries, "group_member", lambda *_: Member(handler, faults, of=of))
    await AdvisoryRetries(Settings(), cast("Any", handler)).run()
    assert handler.standing.reasons == ()
    return handler.reasons


async def test_claims_that_were_put_off_stay_put_off_until_none_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting = [SimpleNamespace(partition=3, offset=17)]
    kept: list[Any] = []

    async def put_off(*_: Any) -> list[Any]:
        return []  # all were read, and the handler has put them off

    monkeypatch.setattr(AdvisoryClaims, "_link", put_off)
    with ThreadPoolExecutor(1) as executor:
        store = SimpleNamespace(
            claims_to_link=lambda _topic, after, _limit: waiting if after == (-1, -1) else []
        )
        handler = SimpleNamespace(standing=Standing("claims"), keep_only=kept.append)
        desk = SimpleNamespace(executor=executor, store=store)
        claims = AdvisoryClaims(Settings(), cast("Any", desk), cast("Any", handler))
        await claims.link_claims()
        assert kept == []
        waiting.clear()
        await claims.link_claims()
        assert kept == [()]


async def test_retries_that_cannot_be_committed_are_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    faults = [KafkaError("refused") for _ in range(PUT_OFF_LIMIT + 1)]
    seen = await reasons_of_retries(monkeypatch, faults, of="commit")
    (reason,) = next(each for each in seen if each)
    assert f"{PLACE.topic}, partition 3, offset 17" in reason
    assert "not committed" in reason


async def test_retries_keep_only_what_was_put_off_of_their_own_partitions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handler = Handler()
    member = Member(handler, [], of="commit")
    monkeypatch.setattr(advisory_retries, "group_member", lambda *_: member)
    AdvisoryRetries(Settings(), cast("Any", handler))
    await member.listener.on_partitions_assigned({PLACE})
    assert handler.kept == {PLACE}


async def test_retries_that_cannot_be_read_are_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    faults = [TopicAuthorizationFailedError(PLACE.topic)]
    seen = await reasons_of_retries(monkeypatch, cast("Any", faults), of="getmany")
    (reason,) = next(each for each in seen if each)
    assert PLACE.topic in reason


async def test_an_audit_that_cannot_be_asked_for_is_a_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    is_away = True

    async def publish(*_: Any) -> None:
        if is_away:
            message = "The broker refused."
            raise BrokerError(message)

    monkeypatch.setattr(audit_scheduling, "publish_audit", publish)
    standing = Standing("audits")
    settings = Settings(data_dir=tmp_path, audit_hourly=True)
    now = datetime(2026, 2, 1, 10, 0, tzinfo=UTC)
    scheduler = AuditScheduler(settings, cast("Any", None), lambda: now, standing)
    for _ in range(PUT_OFF_LIMIT):
        await scheduler.ask()
        assert standing.reasons == ()
    await scheduler.ask()
    assert standing.reasons[0].endswith("The broker refused.")
    is_away = False
    await scheduler.ask()
    assert standing.reasons == ()
