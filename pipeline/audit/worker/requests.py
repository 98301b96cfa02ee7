"""The audit request topic: one request at a time, however many hours it takes.

A bare aiokafka loop: while a request is being handled, every partition is paused and the poll goes
on, so the group keeps its member. The states of a request, and what happens if the process dies
there:

| state | if the process dies here |
|---|---|
| fetched | fetched again |
| being handled | fetched again; its audit goes on after the last whole part |
| handled: report or dead letter confirmed | the report is published again |
| offset committed | done |

A rebalance does not end an audit, which goes on meanwhile and is only given up where its partition
has gone to another worker.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import structlog
from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError

from pipeline import metrics
from pipeline.broker.aiokafka_fixes.clients import close_consumer
from pipeline.broker.connection import broker_errors
from pipeline.consumers.engine.batches import Record
from pipeline.consumers.engine.group_consumer import group_member
from pipeline.consumers.engine.liveness import Observation, Refusals
from pipeline.consumers.engine.readiness import PutOff, Standing, record_at
from pipeline.errors import RmosError, StoreError
from pipeline.settings import Settings

POLL_SECONDS = 0.5
COMMIT_SECONDS = 5.0

_log = structlog.get_logger(__name__)


class AuditRequests:
    """Reads the request topic in one consumer group, and handles one request at a time."""

    def __init__(
        self,
        settings: Settings,
        handle: Callable[[Record], Coroutine[Any, Any, None]],
        standing: Standing,
    ) -> None:
        """Prepare; nothing is consumed before `start`.

        Args:
            settings: The broker and the group.
            handle: Does what a record asks for; cancelled where the record is another's.
            standing: Gets the reasons why the worker is not ready although it polls.
        """
        topics = settings.topics
        self.group = topics.audit_group
        self._settings = settings
        self._handle = handle
        self._refusals = Refusals(settings, standing)
        self._uncommitted = PutOff(standing, "commit")
        self._handling: asyncio.Task[None] | None = None
        self._record: Record | None = None
        self._handled: dict[TopicPartition, int] = {}
        self._consumer = group_member(settings, self.group)
        self._consumer.subscribe([topics.audit_requests], listener=_AfterRebalance(self._keep_only))
        self._observation = Observation(self.group, lambda: self._consumer)
        self._observing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Join the group.

        Raises:
            BrokerError: No broker answers.
        """
        async with broker_errors(self._settings):
            await self._consumer.start()
        self._observation.last_poll.note()
        self._observing = asyncio.create_task(self._observation.run())

    async def stop(self) -> None:
        """Leave the group; an audit under way is left for the next worker."""
        for task in (self._observing, self._handling):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        with suppress(KafkaError):
            await close_consumer(self._consumer)

    @property
    def assigned(self) -> set[TopicPartition]:
        """The partitions that this worker holds."""
        return self._observation.assigned

    @property
    def is_ready(self) -> bool:
        """Whether it holds partitions, asks for records, and the broker answers."""
        return self._observation.is_ready

    async def run(self) -> None:
        """Fetch and handle until cancelled.

        Raises:
            StoreError: The disk failed.
            MemoryError: A process was killed, as the kernel does where memory is short.
        """
        while True:
            self._observation.last_poll.note()
            for record in await self._fetched():
                self._begin(record)
            self._end()
            await self._commit()

    async def _fetched(self) -> list[Record]:
        # Each time, as a rebalance forgets what was paused.
        busy = self._handling is not None or bool(self._handled)
        move = self._consumer.pause if busy else self._consumer.resume
        with suppress(IllegalStateError):  # given away meanwhile
            move(*self._consumer.assignment())
        try:
            fetched = await self._consumer.getmany(
                timeout_ms=int(POLL_SECONDS * 1000), max_records=1
            )
        except KafkaError as error:
            # The client tries for ever by itself; this one it leaves to us, so not too fast.
            _log.warning("audit requests cannot be read", why=str(error))
            await self._refusals.note(error)
            await asyncio.sleep(POLL_SECONDS)
            return []
        self._refusals.note_poll(brought=bool(fetched))
        return [record for records in fetched.values() for record in records]

    def _begin(self, record: Record) -> None:
        place = _place(record)
        if self._handling is not None or place not in self._consumer.assignment():
            # It was fetched before it could be paused: for later, or another worker's.
            with suppress(IllegalStateError):
                self._consumer.seek(place, record.offset)
            return
        self._record = record
        self._handling = asyncio.create_task(self._handle(record))

    def _end(self) -> None:
        """Take note of a request that is handled, or given up."""
        handling, record = self._handling, self._record
        if handling is None or record is None or not handling.done():
            return
        self._handling = self._record = None
        if handling.cancelled():
            return
        error = handling.exception()
        if error is not None:
            self._report_fault(error)
            raise error
        self._handled[_place(record)] = record.offset + 1

    def _report_fault(self, error: BaseException) -> None:
        if isinstance(error, StoreError):
            metrics.FAULTS.labels(self.group, "store").inc()
        if not isinstance(error, RmosError | MemoryError):
            _log.error("audit failed", group=self.group, exc_info=error)

    async def _commit(self) -> None:
        """Commit what is handled; a fault of the broker leaves it for the next time."""
        for place, offset in list(self._handled.items()):
            try:
                # A rebalance may have put the position back to the request that is handled.
                self._consumer.seek(place, offset)
                # Without a broker it tries for ever, and the poll must go on.
                async with asyncio.timeout(COMMIT_SECONDS):
                    await self._consumer.commit({place: offset})
            except IllegalStateError:
                pass  # Another worker has it, and will publish the report again.
            except (KafkaError, TimeoutError) as error:
                _log.warning("audit not committed yet", why=str(error))
                self._uncommitted.note([record_at(place, offset - 1)], f"not committed: {error}")
                return
            self._handled.pop(place, None)
        self._uncommitted.forget_all()

    async def _keep_only(self, assigned: set[TopicPartition]) -> None:
        """Give up what went to another worker."""
        handling, record = self._handling, self._record
        if handling is not None and record is not None and _place(record) not in assigned:
            _log.warning("audit given up to another worker", group=self.group)
            handling.cancel()
        for place in self._handled.keys() - assigned:
            self._handled.pop(place, None)


def _place(record: Record) -> TopicPartition:
    return TopicPartition(record.topic, record.partition)


class _AfterRebalance(ConsumerRebalanceListener):  # type: ignore[misc]
    """Reports the assigned partitions once the group has sorted itself out."""

    def __init__(self, report: Callable[[set[TopicPartition]], Awaitable[None]]) -> None:
        self._report = report

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Nothing to do: an audit holds the lock of its journal, so no other worker does it too."""

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        await self._report(assigned)
