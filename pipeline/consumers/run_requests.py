"""Run requests: judged one by one, stored as artifacts, told as events and dead letters.

A chunk of judged run requests: stored, counted and told, whatever store keeps the runs.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from pipeline.broker.sending.batches import Message
from pipeline.consumers.engine.judging import Judging
from pipeline.consumers.engine.outbox import Delivery, Settlement, Telling, delivery_of
from pipeline.consumers.engine.subscription import Record
from pipeline.core.record import RecordSource
from pipeline.core.runs.event import ToldOutcome, run_event, run_event_headers
from pipeline.core.runs.outcome import Outcome
from pipeline.core.runs.verdict import JudgedRun, Rejected
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.batch_store import RejectLimit
from pipeline.storage.run_store import RunRecord, RunStore
from pipeline.topics import TopicNames


class SettledRun(ToldOutcome, Settlement, Protocol):
    """What an outcome must tell to be counted and to be an event."""


Judged = TypeVar("Judged")
Outcomes = TypeVar("Outcomes", bound=SettledRun)


@dataclass(frozen=True, slots=True)
class RunChunk(Generic[Judged, Outcomes]):
    """Records with their verdicts, not stored yet.

    Attributes:
        commit: Stores them.
        event_of: The value of the event of one.
    """

    deliveries: Sequence[Delivery]
    judged: Sequence[Judged]
    telling: Telling
    commit: Callable[[Sequence[Judged]], Awaitable[list[Outcomes]]]
    event_of: Callable[[Outcomes, RecordSource], bytes]

    async def store(self) -> list[Message]:
        """Store the chunk; return its events and dead letters.

        Raises:
            RejectLimitError: Too many records fail; nothing was written.
            StoreError: The disk failed; nothing may be acknowledged.
        """
        outcomes = await self.commit(self.judged)
        self.telling.count(self.deliveries, outcomes)
        return list(self._messages(outcomes))

    def _messages(self, outcomes: Sequence[Outcomes]) -> Iterator[Message]:
        for delivery, outcome in zip(self.deliveries, outcomes, strict=True):
            source = delivery.source
            headers = run_event_headers(outcome, source, delivery.timestamp_ms)
            value = self.event_of(outcome, source)
            yield self.telling.event(delivery, outcome.run_id, value, headers)
            if outcome.code is not None:
                yield self.telling.dead_letter(delivery, outcome.code, outcome.message)


Settled = Callable[[Sequence[Outcome]], None]
"""Told what became of each chunk, once it is stored."""


class RunRequestJudge:
    """Judges chunks of a topic whose records make runs, for one store."""

    def __init__(
        self,
        store: RunStore,
        topics: TopicNames,
        *,
        judging: Judging[JudgedRun | Rejected],
        executor: Executor,
        accepted_rejects: int = 0,
        group: str | None = None,
        settled: Settled = lambda outcomes: None,
    ) -> None:
        """Make a judge.

        Args:
            store: Where runs go.
            topics: Where events and dead letters go.
            judging: Judges bodies.
            executor: One thread, which does all that waits for the disk.
            accepted_rejects: Failures that do not count against the reject limit.
            group: The consumer group; None for that of the persist worker.
            settled: Told what became of each chunk.
        """
        self._store = store
        self._telling = Telling(
            group or topics.persist_group, topics.run_events, topics.run_dead_letters
        )
        self._settled = settled
        self._judging = judging
        self._executor = executor
        self._accepted_rejects = accepted_rejects

    async def __call__(self, records: Sequence[Record]) -> RunChunk[RunRecord, Outcome]:
        """Judge `records`, without touching the disk."""
        epoch = self._store.identity.epoch
        deliveries = [delivery_of(record, epoch) for record in records]
        verdicts = await self._judging.judge([(each.key, each.value) for each in deliveries])
        judged = [
            JudgedRecord.of(delivery.source, verdict, delivery.value, delivery.timestamp_ms)
            for delivery, verdict in zip(deliveries, verdicts, strict=True)
        ]
        return RunChunk(deliveries, judged, self._telling, self._store_chunk, run_event)

    async def _store_chunk(self, judged: Sequence[RunRecord]) -> list[Outcome]:
        limit = RejectLimit(self._telling.group, self._accepted_rejects)
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(self._executor, self._store.commit, judged, limit)
        self._accepted_rejects -= result.accepted_rejects
        self._settled(result.outcomes)
        return result.outcomes
