"""Run requests: judged one by one, stored as artifacts, told as events and dead letters."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import structlog

from pipeline import metrics
from pipeline.broker.sender import Message
from pipeline.consumers.judging import Judging
from pipeline.consumers.raw_records import Record
from pipeline.core.dead_letter import dead_letter
from pipeline.core.outcome import Outcome, RecordSource
from pipeline.core.run_event import run_event, run_event_headers
from pipeline.storage.run_store import FloodGuard, JudgedRecord, RunRecord, RunStore
from pipeline.topics import TopicNames

_log = structlog.get_logger(__name__)
_CARRIED_HEADER = "traceparent"


class RunRequestJudge:
    """Judges chunks of the run request topic for one store."""

    def __init__(
        self,
        store: RunStore,
        topics: TopicNames,
        *,
        judging: Judging,
        executor: Executor,
        accepted_rejects: int = 0,
    ) -> None:
        """Make a judge.

        Args:
            store: Where runs go.
            topics: Where events and dead letters go.
            judging: Judges bodies.
            executor: One thread, which does all that waits for the disk.
            accepted_rejects: Failures that do not count against the flood limit.
        """
        self._store = store
        self._topics = topics
        self._judging = judging
        self._executor = executor
        self._accepted_rejects = accepted_rejects

    async def __call__(self, records: Sequence[Record]) -> "JudgedChunk":
        """Judge `records`, without touching the disk."""
        epoch = self._store.identity.epoch
        verdicts = await self._judging.judge([(record.key, record.value) for record in records])
        judged = [
            JudgedRecord(
                RecordSource(epoch, record.topic, record.partition, record.offset), verdict
            )
            for record, verdict in zip(records, verdicts, strict=True)
        ]
        return JudgedChunk(records, judged, self._topics, self._store_chunk)

    async def _store_chunk(self, judged: Sequence[RunRecord]) -> list[Outcome]:
        guard = FloodGuard(self._topics.persist_group, self._accepted_rejects)
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(self._executor, self._store.commit, judged, guard)
        self._accepted_rejects -= result.accepted_rejects
        return result.outcomes


@dataclass(frozen=True, slots=True)
class JudgedChunk:
    """Records with their verdicts, not stored yet."""

    records: Sequence[Record]
    judged: Sequence[RunRecord]
    topics: TopicNames
    commit: Callable[[Sequence[RunRecord]], Awaitable[list[Outcome]]]

    async def store(self) -> list[Message]:
        """Store the chunk; return its events and dead letters.

        Raises:
            FloodError: Too many records fail; nothing was written.
            StoreError: The disk failed; nothing may be acknowledged.
        """
        outcomes = await self.commit(self.judged)
        self._count(outcomes)
        return list(self._messages(outcomes))

    def _messages(self, outcomes: Sequence[Outcome]) -> Iterator[Message]:
        for record, judged, outcome in zip(self.records, self.judged, outcomes, strict=True):
            yield self._event(record, judged.source, outcome)
            if outcome.is_dead_letter:
                yield self._dead_letter(record, judged.source, outcome)

    def _event(self, record: Record, source: RecordSource, outcome: Outcome) -> Message:
        carried = [header for header in record.headers if header[0] == _CARRIED_HEADER]
        return Message(
            self.topics.run_events,
            # As many partitions as the requests have, so all that concerns a run stays in order.
            source.partition,
            outcome.run_id.encode() if outcome.run_id is not None else None,
            run_event(outcome, source),
            [*run_event_headers(outcome, source, record.timestamp), *carried],
        )

    def _dead_letter(self, record: Record, source: RecordSource, outcome: Outcome) -> Message:
        assert outcome.code is not None
        letter = dead_letter(
            (record.key, record.value, record.headers),
            source,
            record.timestamp,
            code=outcome.code,
            message=outcome.message or "",
            group=self.topics.persist_group,
        )
        return Message(
            self.topics.run_dead_letters,
            source.partition,
            letter.key,
            letter.value,
            letter.headers,
        )

    def _count(self, outcomes: Sequence[Outcome]) -> None:
        group = self.topics.persist_group
        counts: dict[str, int] = {}
        for judged, outcome in zip(self.judged, outcomes, strict=True):
            counts[outcome.kind] = counts.get(outcome.kind, 0) + 1
            if outcome.code is not None:
                metrics.DEAD_LETTERS.labels(group, outcome.code).inc()
            if outcome.code == "RUN_CONFLICT":
                metrics.CONFLICTS.labels(group).inc()
            if outcome.code == "ARTIFACT_CORRUPT":
                metrics.CORRUPT_ARTIFACTS.labels(group).inc()
            if outcome.drifted:
                metrics.RENDER_DRIFT.labels(group).inc()
                _log.error("RENDER_DRIFT", run_id=outcome.run_id, offset=judged.source.offset)
        for kind, count in counts.items():
            metrics.RECORDS.labels(group, kind).inc(count)
        level = _log.warning if {"conflict", "rejected"} & counts.keys() else _log.info
        level("batch stored", group=group, **counts)
