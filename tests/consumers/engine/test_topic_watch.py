"""What the watch reports where the consumer gets an answer, and the watch gets none."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from pipeline.consumers.engine import topic_watch
from pipeline.consumers.engine.readiness import Standing
from pipeline.consumers.engine.topic_watch import LOOKS_WITHOUT_ANSWER, TopicWatch
from pipeline.consumers.start.checks import Start
from pipeline.core.record import Partition
from pipeline.errors import BrokerError, StoreAwayError
from pipeline.settings import Settings


class Answers:
    """One answer for each look; after the last one the watch is cancelled."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)
        self.reasons: list[tuple[str, ...]] = []
        self.standing = Standing("rmos.persist")

    async def look(self) -> None:
        error = self.errors.pop(0)
        if error is not None:
            raise error

    async def rest(self, _seconds: float) -> None:
        self.reasons.append(self.standing.reasons)
        if not self.errors:
            raise asyncio.CancelledError


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answers], TopicWatch]:
    def watch_of(answers: Answers) -> TopicWatch:
        start = Start({}, "id", frozenset(), None)
        watch = TopicWatch(
            Settings(),
            topic="rmos.runs.requests",
            group="rmos.persist",
            start=start,
            standing=answers.standing,
        )
        monkeypatch.setattr(watch, "_look", answers.look)
        monkeypatch.setattr(topic_watch.asyncio, "sleep", answers.rest)
        return watch

    return watch_of


async def test_looks_without_an_answer_are_a_reason_until_there_is_one(
    watched: Callable[[Answers], TopicWatch],
) -> None:
    away = BrokerError("a right is missing")
    before = LOOKS_WITHOUT_ANSWER - 1
    answers = Answers(*[away] * before, None, *[away] * LOOKS_WITHOUT_ANSWER, None)
    with pytest.raises(asyncio.CancelledError):
        await watched(answers).run()
    *quiet, last, end = answers.reasons
    assert not any(quiet)
    assert end == ()
    (sentence,) = last
    assert sentence.endswith("is not consumed: a right is missing")


async def test_an_index_that_is_away_is_waited_for_too(
    watched: Callable[[Answers], TopicWatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def committed(*_: Any) -> Mapping[Partition, int]:
        return {}

    monkeypatch.setattr(topic_watch, "committed_offsets", committed)
    answers = Answers(*[StoreAwayError("the index is away")] * LOOKS_WITHOUT_ANSWER, None)

    def kept() -> Mapping[Partition, int]:
        error = answers.errors.pop(0)
        if error is not None:
            raise error
        return {}

    watch = watched(answers)
    watch._start = replace(watch._start, kept=kept)
    monkeypatch.setattr(watch, "_look", watch._look_at_group)
    with pytest.raises(asyncio.CancelledError):
        await watch.run()
    *quiet, last, end = answers.reasons
    assert not any(quiet)
    assert end == ()
    (sentence,) = last
    assert sentence.endswith("is not consumed: the index is away")
