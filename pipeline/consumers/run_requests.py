"""Run requests: judged one by one, stored as artifacts, told as events and dead letters."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from pipeline.consumers.engine.judging import Judging
from pipeline.consumers.engine.outbox import Telling, delivery_of
from pipeline.consumers.raw_records import Record
from pipeline.consumers.run_chunk import RunChunk
from pipeline.core.runs.event import run_event
from pipeline.core.runs.outcome import Outcome
from pipeline.core.runs.verdict import JudgedRun, Rejected
from pipeline.storage.run_store import FloodGuard, JudgedRecord, RunRecord, RunStore
from pipeline.topics import TopicNames

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
            accepted_rejects: Failures that do not count against the flood limit.
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
        guard = FloodGuard(self._telling.group, self._accepted_rejects)
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(self._executor, self._store.commit, judged, guard)
        self._accepted_rejects -= result.accepted_rejects
        self._settled(result.outcomes)
        return result.outcomes
