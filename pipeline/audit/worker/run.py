"""One audit of the store, in a thread and its processes, published and written as it goes.

Findings are published first, then written to the journal, and a part counts as done once its line
is flushed: killed anywhere, the audit resumes after the last whole part.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from typing import Any, Final, TypeVar

from anyio import create_memory_object_stream, create_task_group, from_thread, to_thread
from anyio.streams.memory import MemoryObjectReceiveStream

from pipeline import metrics
from pipeline.audit.audited_store import AuditedStore
from pipeline.audit.checks.logs import BrokerView
from pipeline.audit.journal import AuditJournal
from pipeline.audit.rules.finding import Finding, severity_of
from pipeline.audit.rules.parts import whole_id
from pipeline.audit.steps import LEDGER_PART, PartDone, Tally
from pipeline.audit.store_audit import StoreAudit
from pipeline.broker.admin.groups import committed_offsets
from pipeline.broker.admin.topics import OffsetRange
from pipeline.broker.connection import broker_errors
from pipeline.broker.reading.ranges import read_ranges
from pipeline.core.json.canonical import canonical_json
from pipeline.ledger.log_id import LogId
from pipeline.ledger.tlog.checkpoints import Checkpoint
from pipeline.ledger.tlog.notes import VerifierKey
from pipeline.settings import Settings
from schemas.audit_request import AuditRequest
from schemas.timestamps import format_timestamp

Item = TypeVar("Item")

WAITING_LIMIT: Final = 1000
"""Most items that wait for the loop."""

MESSAGE_LIMIT: Final = 500
"""Most findings that are published at once."""

ASKED_OFFSETS: Final = 1_000
"""Most offsets of one question to the broker, so that a lost log of any size fits in memory."""

ANSWER_SECONDS: Final = 60.0


@asynccontextmanager
async def handed_over(
    work: Callable[[Callable[[Item], None]], None],
) -> AsyncIterator[MemoryObjectReceiveStream[Item]]:
    """Run `work` in a thread for the length of a block, which receives what it hands over.

    The thread waits while the block is behind. A block that raises stops `work` by what it does
    next of: hand over, `from_thread.run`, `from_thread.check_cancelled`. What `work` raises is
    raised at the end of the block, behind all that it handed over.

    Args:
        work: Given a function to hand items over with.
    """
    send, receive = create_memory_object_stream[Item](WAITING_LIMIT)
    failed: list[Exception] = []

    def hand(item: Item) -> None:
        from_thread.run(send.send, item)

    async def run() -> None:
        with send:
            try:
                await to_thread.run_sync(work, hand)
            except Exception as error:  # noqa: BLE001  # raised below
                failed.append(error)

    try:
        async with create_task_group() as group:
            group.start_soon(run)
            with receive:
                yield receive
    except BaseExceptionGroup as errors:
        # `run` raises nothing: it is what the block raised.
        raise errors.exceptions[0] from None
    if failed:
        raise failed[0]


async def broker_view(settings: Settings, epoch: int) -> BrokerView:
    """Return the broker's view of the logs of `epoch`, for a thread that the loop has started.

    Raises:
        BrokerError: No broker answers. The view raises the same.
    """
    topics = settings.topics
    writers = {
        topics.run_requests: topics.persist_group,
        topics.advisory_requests: topics.advise_group,
        topics.legacy_runs: topics.migrate_group,
    }
    committed: dict[LogId, int] = {}
    for topic, group in writers.items():
        offsets = await committed_offsets(settings, group, [topic])
        committed |= {LogId(epoch, *place): offset for place, offset in offsets.items()}

    def shown(log: LogId, start: int, end: int) -> Iterator[int]:
        # Offsets of an earlier epoch are those of a broker that is gone.
        while log.epoch == epoch and log.topic in writers and start < end:
            offsets = from_thread.run(shown_offsets, settings, log, start, end)
            yield from offsets
            start = offsets[-1] + 1 if offsets else end

    return BrokerView(committed, shown)


async def shown_offsets(settings: Settings, log: LogId, start: int, end: int) -> list[int]:
    """Return the offsets of the first committed records from `start` to before `end`.

    Raises:
        BrokerError: No broker answers.
    """
    ranges = {(log.topic, log.partition): OffsetRange(start, end)}
    offsets: list[int] = []
    async with broker_errors(settings):
        reading = read_ranges(settings, ranges)
        # Closed here, with its consumer, also where we have enough.
        async with asyncio.timeout(ANSWER_SECONDS), aclosing(reading):
            async for record in reading:
                offsets.append(record.offset)
                if len(offsets) == ASKED_OFFSETS:
                    break
    return offsets


@dataclass(frozen=True, slots=True)
class Auditing:
    """What every audit of a worker needs.

    Attributes:
        settings: The broker and the store.
        store: The store.
        keys: Returns whose signatures under checkpoints count; called for each audit.
        trusted: Returns the trusted checkpoints; called for each audit.
        clock: Returns the time.
    """

    settings: Settings
    store: AuditedStore
    keys: Callable[[], Sequence[VerifierKey]]
    trusted: Callable[[], Sequence[Checkpoint]]
    clock: Callable[[], datetime]

    def now(self) -> str:
        """Return the time as it is stored."""
        return format_timestamp(self.clock().astimezone(UTC))


@dataclass(slots=True)
class AuditRun:
    """One audit, from where its journal stands to its report.

    Attributes:
        auditing: What every audit needs.
        request: What is asked.
        journal: Its journal, begun.
        publish: Publishes findings; returns when the broker has them.
    """

    auditing: Auditing
    request: AuditRequest
    journal: AuditJournal
    publish: Callable[[list[bytes]], Awaitable[None]]
    _files: int = 0
    _report: dict[str, Any] = field(default_factory=dict)

    async def report(self) -> dict[str, Any]:
        """Audit what is not done yet, and return the report of the whole.

        Raises:
            BrokerError: The broker does not answer. What is done stays done.
            StoreError: The disk failed.
            MemoryError: A process was killed, as the kernel does where memory is short.
        """
        broker = await broker_view(self.auditing.settings, self.auditing.store.identity.epoch)
        async with handed_over(partial(self._work, broker)) as received:
            await self._take(received)
        return self._report

    async def _take(self, received: MemoryObjectReceiveStream[Finding | PartDone]) -> None:
        async for first in received:
            waiting = received.statistics().current_buffer_used
            found = [first, *(received.receive_nowait() for _ in range(waiting))]
            for kind, group in groupby(found, key=type):
                take = self._finish if kind is PartDone else self._keep
                await take(list(group))

    def _work(self, broker: BrokerView, hand: Callable[[Finding | PartDone], None]) -> None:
        """Run the audit in its thread."""
        state = self.journal.state
        assert state.begun is not None, "a journal is begun before its audit"
        done = {name: part for name, part in state.parts.items() if name != LEDGER_PART}
        tally = Tally()
        for part in done.values():
            tally.add(Tally.of(part))
        audit = StoreAudit(
            self.auditing.store,
            self.request,
            self.auditing.keys(),
            trusted=self.auditing.trusted(),
            broker=broker,
            processes=self.auditing.settings.audit_processes,
        )
        with audit:
            for found in audit.run(done, self._note_progress, state.missing_blobs):
                if isinstance(found, PartDone):
                    tally.add(found.tally)
                hand(found)
            self._report = audit.report(
                tally,
                started_at_utc=state.begun["started_at_utc"],
                finished_at_utc=self.auditing.now(),
            )

    def _note_progress(self, _what: str, _done: int, total: int | None) -> None:
        self._files = total or 0
        from_thread.check_cancelled()

    async def _keep(self, findings: list[Any]) -> None:
        audit_id = whole_id(self.request)
        values = [canonical_json(each.document(audit_id)) for each in findings]
        new = [each for each in values if not self.journal.has(each)]
        for start in range(0, len(new), MESSAGE_LIMIT):
            await self.publish(new[start : start + MESSAGE_LIMIT])
        await self.journal.add(new)

    async def _finish(self, parts: list[Any]) -> None:
        for part in parts:
            await self.journal.finish_part(part.name, part.tally.document(self._files))
            for code, number in part.tally.codes.items():
                metrics.AUDIT_FINDINGS.labels(code, severity_of(code)).inc(number)
