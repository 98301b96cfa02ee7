"""What is told of an advisory request, step by step, whichever way it was read."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.broker.sending.batches import Message
from pipeline.consumers.advisories.claims import AdvisoryClaimJudge
from pipeline.consumers.advisories.requests import AdvisoryDesk, AdvisoryRequestJudge
from pipeline.consumers.advisories.retries import AdvisoryRetryJudge
from pipeline.consumers.engine.judging import Judging
from pipeline.core.advisories.verdict import judge_advisory_record
from pipeline.core.dead_letters.carried_record import keep_headers, record_bytes
from pipeline.storage.advisory_store import AdvisoryStore
from pipeline.topics import TopicNames
from tests.builders import advisory_request, record, run_request
from tests.storage.stores import judged_record, make_store, opened

TOPICS = TopicNames("rmos")
REQUESTS = TOPICS.advisory_requests
RETRIES = TOPICS.advisory_retries
HEADERS = (("theirs", b"\xff"), ("caf\udce9", None), ("traceparent", b"00-1"))


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


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_store(tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def desk(root: Path) -> Iterator[AdvisoryDesk]:
    store = AdvisoryStore(root)
    with ThreadPoolExecutor(1) as executor, Judging(judge_advisory_record, helper=False) as judging:
        yield AdvisoryDesk(store, TOPICS, judging=judging, executor=executor)
    store.close()


def make_run(root: Path) -> None:
    with opened(root) as runs:
        runs.commit([judged_record(run_request(run_id="run_1"))])


async def told(judge: Any, *records: Record) -> list[Message]:
    return await (await judge(records)).store()


def as_record(message: Message, offset: int = 0) -> Record:
    """Return the record that a consumer of the message's topic gets."""
    return Record(
        message.key, message.value, message.topic, 3, offset, 1_700_000_009_000, message.headers
    )


def outcome(message: Message) -> str:
    assert message.topic == TOPICS.advisory_events
    assert message.value is not None
    event = json.loads(message.value)
    assert event["source"] == {"topic": REQUESTS, "partition": 3, "offset": 41}
    assert dict(message.headers)["ce_time"] == b"2023-11-14T22:13:20Z"
    assert dict(message.headers)["traceparent"] == b"00-1"
    return str(event["error"]["code"] if "error" in event else event["outcome"])


@pytest.fixture
async def waiting(desk: AdvisoryDesk) -> Message:
    """Give the retry of a request whose run is not there."""
    event, retry = await told(AdvisoryRequestJudge(desk), ASKED)
    assert outcome(event) == "waiting"
    return retry


async def test_a_request_without_its_run_goes_through_every_retry(
    desk: AdvisoryDesk, waiting: Message
) -> None:
    judge, message = AdvisoryRetryJudge(desk), waiting
    for topic in RETRIES[1:]:
        (message,) = await told(judge, as_record(message))
        assert message.topic == topic
        assert (message.key, message.value) == (ASKED.key, ASKED.value)
        assert tuple(message.headers[: len(HEADERS)]) == HEADERS
    event, letter = await told(judge, as_record(message))
    assert outcome(event) == "RUN_NOT_FOUND"
    assert letter.topic == TOPICS.advisory_dead_letters
    headers = dict(letter.headers)
    assert tuple(letter.headers[: len(HEADERS)]) == HEADERS
    assert headers["rmos-source-topic"] == REQUESTS.encode()
    assert headers["rmos-source-offset"] == b"41"
    assert headers["rmos-source-timestamp"] == b"1700000000000"
    assert "rmos-source-epoch" not in headers


async def test_a_retry_whose_run_has_come_is_told_as_linked(
    root: Path, desk: AdvisoryDesk, waiting: Message
) -> None:
    make_run(root)
    judge = AdvisoryRetryJudge(desk)
    for _ in range(2):
        (event,) = await told(judge, as_record(waiting))
        assert outcome(event) == "linked"


async def test_a_claim_whose_run_has_come_is_told_as_the_request_itself(
    root: Path, desk: AdvisoryDesk, waiting: Message
) -> None:
    make_run(root)
    (by_claim,) = await told(AdvisoryClaimJudge(desk), ASKED)
    (by_retry,) = await told(AdvisoryRetryJudge(desk), as_record(waiting))
    (by_request,) = await told(AdvisoryRequestJudge(desk), ASKED)
    assert outcome(by_claim) == "linked"
    assert by_claim == by_retry == by_request


async def test_another_record_at_the_offset_of_a_claim_tells_nothing(
    root: Path, desk: AdvisoryDesk, waiting: Message
) -> None:
    make_run(root)
    other = Record(*record(advisory_request(run_id="run_1", title="other")))
    assert await told(AdvisoryClaimJudge(desk), other) == []
    (event,) = await told(AdvisoryRetryJudge(desk), as_record(waiting))
    assert outcome(event) == "linked"


@pytest.mark.parametrize(("filler", "is_left"), [(1_000_000, False), (1_050_000, True)])
async def test_a_request_that_leaves_no_room_for_our_headers_is_retried_without_the_large_ones(
    desk: AdvisoryDesk, filler: int, *, is_left: bool
) -> None:
    assert ASKED.value is not None
    headers = (*HEADERS, ("x", b"x" * filler))
    large = replace(ASKED, value=ASKED.value.ljust(4_194_304), headers=headers)
    event, message = await told(AdvisoryRequestJudge(desk), large)
    assert outcome(event) == "waiting"
    judge = AdvisoryRetryJudge(desk)
    for topic in RETRIES[1:]:
        assert record_bytes(message.key, message.value, message.headers) < 5 * 1024 * 1024
        (message,) = await told(judge, as_record(message))
        assert (message.topic, message.value) == (topic, large.value)
    event, letter = await told(judge, as_record(message))
    assert outcome(event) == "RUN_NOT_FOUND"
    said = dict(letter.headers)
    assert tuple(letter.headers[: len(HEADERS)]) == HEADERS
    assert ("x" in said) is not is_left
    if is_left:
        assert said["rmos-headers-sha256"] == keep_headers(headers)[1].sha256.encode()
        assert said["rmos-headers-count"] == b"4"


async def test_what_nobody_of_us_retried_is_a_dead_letter_beside_those_that_are(
    desk: AdvisoryDesk, waiting: Message
) -> None:
    stray = Record(b"k", None, RETRIES[0], 5, 9, headers=(("theirs", None),))
    letter, retry = await told(AdvisoryRetryJudge(desk), stray, as_record(waiting))
    assert dict(letter.headers)["rmos-error-code"] == b"INVALID_ADVISORY"
    assert dict(letter.headers)["rmos-source-topic"] == RETRIES[0].encode()
    assert retry.topic == RETRIES[1]
