"""Run requests in v1 mode: judged as ever, stored as rows, told as events without an artifact."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor

from pipeline.consumers.engine.judging import Judging
from pipeline.consumers.engine.outbox import Telling, delivery_of
from pipeline.consumers.engine.subscription import Record
from pipeline.consumers.run_requests import RunChunk
from pipeline.core.envelope import Rejected
from pipeline.legacy.v1_mode.outcome import JudgedRow, V1Outcome, v1_run_event
from pipeline.legacy.v1_mode.store import JudgedV1Record, V1Runs
from pipeline.topics import TopicNames


class V1RequestJudge:
    """Judges chunks of the run request topic for the v1 store."""

    def __init__(
        self,
        runs: V1Runs,
        topics: TopicNames,
        epoch: int,
        *,
        judging: Judging[JudgedRow | Rejected],
        executor: Executor,
        accepted_rejects: int = 0,
    ) -> None:
        """Make a judge.

        Args:
            runs: Where runs go.
            topics: Where events and dead letters go.
            epoch: What events are told with.
            judging: Judges bodies.
            executor: One thread, which does all that waits for the disk.
            accepted_rejects: Failures that do not count against the reject limit.
        """
        self._runs = runs
        self._epoch = epoch
        self._telling = Telling(topics.persist_v1_group, topics.run_events, topics.run_dead_letters)
        self._judging = judging
        self._executor = executor
        self._accepted_rejects = accepted_rejects

    async def __call__(self, records: Sequence[Record]) -> RunChunk[JudgedV1Record, V1Outcome]:
        """Judge `records`, without touching the disk."""
        deliveries = [delivery_of(record, self._epoch) for record in records]
        verdicts = await self._judging.judge([(each.key, each.value) for each in deliveries])
        judged = [
            JudgedV1Record(delivery.source, verdict)
            for delivery, verdict in zip(deliveries, verdicts, strict=True)
        ]
        return RunChunk(deliveries, judged, self._telling, self._store_chunk, v1_run_event)

    async def _store_chunk(self, judged: Sequence[JudgedV1Record]) -> list[V1Outcome]:
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(
            self._executor, self._runs.commit, judged, self._accepted_rejects
        )
        self._accepted_rejects -= result.accepted_rejects
        return result.outcomes
