"""Advisory requests: judged one by one, stored as links, told as events and dead letters.

A request whose run is not there yet waits: it is a row, and goes through the retry topics, which
`advisory_retries` reads. Whatever becomes of it there, `advisory_claims` links it once its run
appears. All three judge, store and tell by what is here.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

from pipeline.broker.sending.batches import Message
from pipeline.consumers.engine.judging import Judging
from pipeline.consumers.engine.outbox import Delivery, Telling, delivery_of
from pipeline.consumers.engine.subscription import Record
from pipeline.core.advisories.event import advisory_event, advisory_event_headers
from pipeline.core.advisories.outcome import AdvisoryOutcome, run_not_found
from pipeline.core.advisories.retry import fitting_headers, retry_headers
from pipeline.core.advisories.verdict import JudgedAdvisory
from pipeline.core.envelope import Rejected
from pipeline.storage.advisory_store import AdvisoryRecord, AdvisoryStore
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.batch_store import RejectLimit
from pipeline.topics import TopicNames

Commit = Callable[[Sequence[AdvisoryRecord]], Awaitable[list[AdvisoryOutcome]]]
TellWaiting = Callable[[Delivery, AdvisoryOutcome], Iterator[Message]]


class AdvisoryDesk:
    """What all three readers of advisory requests share: the store, judging and telling."""

    def __init__(
        self,
        store: AdvisoryStore,
        topics: TopicNames,
        *,
        judging: Judging[JudgedAdvisory | Rejected],
        executor: Executor,
    ) -> None:
        """Make a desk.

        Args:
            store: Where links go.
            topics: Where events, dead letters and retries go.
            judging: Judges bodies.
            executor: One thread, which does all that waits for the disk.
        """
        self.store = store
        self.topics = topics
        self.telling = Telling(
            topics.advise_group, topics.advisory_events, topics.advisory_dead_letters
        )
        self.executor = executor
        self._judging = judging

    @property
    def epoch(self) -> int:
        """That of the store."""
        return self.store.identity.epoch

    async def judge(
        self,
        deliveries: Sequence[Delivery],
        commit: Commit,
        tell_waiting: TellWaiting,
        strays: Sequence[Message] = (),
    ) -> "AdvisoryChunk":
        """Judge requests, without touching the disk.

        Args:
            deliveries: The requests.
            commit: Stores them.
            tell_waiting: Says what is told where a run is not there.
            strays: What is told besides, of records that are no requests.
        """
        verdicts = await self._judging.judge([(each.key, each.value) for each in deliveries])
        judged = [
            JudgedRecord.of(delivery.source, verdict, delivery.value, delivery.timestamp_ms)
            for delivery, verdict in zip(deliveries, verdicts, strict=True)
        ]
        last_retry = self.topics.advisory_retries[-1]
        return AdvisoryChunk(
            deliveries, judged, self.telling, commit, tell_waiting, last_retry, strays
        )

    async def retry_links(self, judged: Sequence[AdvisoryRecord]) -> list[AdvisoryOutcome]:
        """Store requests that were judged before."""
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(self.executor, self.store.retry_links, judged)
        return result.outcomes

    def tell_to_retry(self, delivery: Delivery, outcome: AdvisoryOutcome) -> Iterator[Message]:
        """Send a request whose run is not there to the next retry topic."""
        topics = (self.topics.advisory_requests, *self.topics.advisory_retries)
        step = topics.index(delivery.read_from)
        if step == 0:
            yield _event(self.telling, delivery, outcome)
        yield _retried(delivery, topics[step + 1])


class AdvisoryRequestJudge:
    """Judges chunks of the advisory request topic."""

    def __init__(self, desk: AdvisoryDesk, *, accepted_rejects: int = 0) -> None:
        """Make a judge.

        Args:
            desk: Judges, stores and tells.
            accepted_rejects: Failures that do not count against the reject limit.
        """
        self._desk = desk
        self._accepted_rejects = accepted_rejects

    async def __call__(self, records: Sequence[Record]) -> "AdvisoryChunk":
        """Judge `records`, without touching the disk."""
        deliveries = [delivery_of(record, self._desk.epoch) for record in records]
        return await self._desk.judge(deliveries, self._commit, self._desk.tell_to_retry)

    async def _commit(self, judged: Sequence[AdvisoryRecord]) -> list[AdvisoryOutcome]:
        desk = self._desk
        limit = RejectLimit(desk.telling.group, self._accepted_rejects)
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(desk.executor, desk.store.commit, judged, limit)
        self._accepted_rejects -= result.accepted_rejects
        return result.outcomes


@dataclass(frozen=True, slots=True)
class AdvisoryChunk:
    """Requests with their verdicts, not stored yet."""

    deliveries: Sequence[Delivery]
    judged: Sequence[AdvisoryRecord]
    telling: Telling
    commit: Commit
    tell_waiting: TellWaiting
    last_retry: str
    strays: Sequence[Message] = field(default=())

    async def store(self) -> list[Message]:
        """Store the chunk; return its events, dead letters and retries.

        Raises:
            RejectLimitError: Too many records fail; nothing was written.
            StoreError: The disk failed; nothing may be acknowledged.
        """
        settled = await self.commit(self.judged)
        outcomes = [
            self._last_word(delivery, outcome)
            for delivery, outcome in zip(self.deliveries, settled, strict=True)
        ]
        self.telling.count(self.deliveries, outcomes)
        return [*self.strays, *self._messages(outcomes)]

    def _last_word(self, delivery: Delivery, outcome: AdvisoryOutcome) -> AdvisoryOutcome:
        """Return the outcome, which after the last retry is not to wait any more."""
        given_up = outcome.kind == "waiting" and delivery.read_from == self.last_retry
        return run_not_found(outcome) if given_up else outcome

    def _messages(self, outcomes: Sequence[AdvisoryOutcome]) -> Iterator[Message]:
        for delivery, outcome in zip(self.deliveries, outcomes, strict=True):
            if outcome.kind == "waiting":
                yield from self.tell_waiting(delivery, outcome)
            else:
                yield _event(self.telling, delivery, outcome)
                if outcome.code is not None:
                    yield self.telling.dead_letter(delivery, outcome.code, outcome.message)


def _event(telling: Telling, delivery: Delivery, outcome: AdvisoryOutcome) -> Message:
    """Return the event of a request."""
    source = delivery.source
    return telling.event(
        delivery,
        outcome.run_id,
        advisory_event(outcome, source),
        advisory_event_headers(outcome, source, delivery.timestamp_ms),
    )


def _retried(delivery: Delivery, topic: str) -> Message:
    # A request whose run may come is valid, so its key is its run_id and its value was kept.
    assert isinstance(delivery.key, bytes)
    assert isinstance(delivery.value, bytes)
    carried = fitting_headers(delivery.key, delivery.value, delivery.headers, delivery.all_headers)
    headers = retry_headers(delivery.source, delivery.timestamp_ms, *carried)
    return Message(topic, delivery.source.id.partition, delivery.key, delivery.value, headers)
