"""One audit of the store, in a thread and its processes, told and written as it goes.

Findings are published first, then written to the journal, and a part counts as done once its line
is flushed: killed anywhere, the audit goes on after the last whole part.

What a function in a thread hands over, given to the loop as it comes.

The thread waits while the loop is behind, so neither of the two needs more memory than the other
keeps up with.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, Executor, Future
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from threading import Condition
from typing import Any, Final, Generic, Self, TypeAlias, TypeVar

from pipeline import metrics
from pipeline.audit.checks.offsets import BrokerView
from pipeline.audit.journal import AuditJournal
from pipeline.audit.parts import LEDGER_PART, PartDone, Tally
from pipeline.audit.rules.codes import severity_of
from pipeline.audit.rules.finding import Finding
from pipeline.audit.store_audit import StoreAudit
from pipeline.audit.worker.broker_view import broker_view
from pipeline.core.json.canonical import canonical_json
from pipeline.ledger.tlog.checkpoints import Checkpoint
from pipeline.ledger.tlog.notes import VerifierKey
from pipeline.settings import Settings
from schemas.audit_request import AuditRequest
from schemas.timestamps import format_timestamp

Item = TypeVar("Item")
Result = TypeVar("Result")
Answer = TypeVar("Answer")

WAITING_LIMIT = 1000
"""Most items that wait for the loop."""


class StoppedError(Exception):
    """Nobody takes what the function would hand over; raised in its thread."""


class ThreadResults(Generic[Item, Result]):
    """Runs a function beside the loop for the length of a block.

    At the end of the block the function is stopped by what it does next of: hand over, ask, check.
    """

    def __init__(
        self, executor: Executor, work: Callable[[Callable[[Item], None]], Result]
    ) -> None:
        """Prepare; nothing runs before the block begins.

        Args:
            executor: Whose thread it is.
            work: Given a function to hand items over with; what it returns is the result.
        """
        self._executor = executor
        self._work = work
        self._items: deque[Item] = deque()
        self._room = Condition()
        self._stopped = False
        self._asked: set[Future[Any]] = set()
        self._arrived = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def __aenter__(self) -> Self:
        self._working = self._loop.run_in_executor(self._executor, self._work, self._hand)
        self._working.add_done_callback(lambda _done: self._arrived.set())
        return self

    async def __aexit__(self, *_exception: object) -> None:
        with self._room:
            self._stopped = True
            self._room.notify()
        for question in list(self._asked):
            question.cancel()
        await asyncio.wait([self._working])
        # Read once, so that nobody is told of an exception that nobody waited for.
        self._working.exception()

    def check(self) -> None:
        """Let the function end between two of its steps, if nobody waits for it any more.

        Raises:
            StoppedError: The block has ended.
        """
        if self._stopped:
            raise StoppedError

    def ask(self, question: Coroutine[Any, Any, Answer]) -> Answer:
        """Run `question` in the loop, and wait for its answer; to be called by the function.

        Raises:
            StoppedError: The block has ended.
        """
        asked = asyncio.run_coroutine_threadsafe(question, self._loop)
        self._asked.add(asked)
        try:
            if self._stopped:
                raise StoppedError
            return asked.result()
        except CancelledError as error:
            raise StoppedError from error
        finally:
            asked.cancel()
            self._asked.discard(asked)

    def _hand(self, item: Item) -> None:
        with self._room:
            self._room.wait_for(lambda: self._stopped or len(self._items) < WAITING_LIMIT)
            if self._stopped:
                raise StoppedError
            self._items.append(item)
        self._loop.call_soon_threadsafe(self._arrived.set)

    async def lists(self) -> AsyncGenerator[list[Item]]:
        """Yield what is there by then, again and again, in order, until the function returns."""
        is_last = False
        while not is_last:
            await self._arrived.wait()
            self._arrived.clear()
            # Asked first: what was handed over before the end is then there too.
            is_last = self._working.done()
            with self._room:
                items = list(self._items)
                self._items.clear()
                self._room.notify()
            if items:
                yield items

    async def result(self) -> Result:
        """Return what the function returned, or raise what it raised."""
        return await asyncio.shield(self._working)


Tell: TypeAlias = Callable[[list[bytes]], Awaitable[None]]
Value = TypeVar("Value")

MESSAGE_LIMIT: Final = 500
"""Most findings that are published at once."""


@dataclass(frozen=True, slots=True)
class Auditing:
    """What every audit of a worker needs.

    Attributes:
        settings: The broker and the store.
        epoch: Of the store.
        keys: Returns whose signatures under checkpoints count; called for each audit.
        trusted: Returns the trusted checkpoints; called for each audit.
        auditor: One thread, which starts the processes of an audit and outlives them.
        disk: One thread for the journal and the reports.
        clock: Returns the time.
    """

    settings: Settings
    epoch: int
    keys: Callable[[], Sequence[VerifierKey]]
    trusted: Callable[[], Sequence[Checkpoint]]
    auditor: Executor
    disk: Executor
    clock: Callable[[], datetime]

    def now(self) -> str:
        """Return the time as it is stored."""
        return format_timestamp(self.clock().astimezone(UTC))

    async def on_disk(self, work: Callable[..., Value], *arguments: Any) -> Value:  # noqa: ANN401
        """Return what `work` returns, which waits for the disk."""
        return await asyncio.get_running_loop().run_in_executor(self.disk, work, *arguments)


class AuditRun:
    """One audit, from where its journal stands to its report."""

    def __init__(
        self, auditing: Auditing, request: AuditRequest, journal: AuditJournal, tell: Tell
    ) -> None:
        """Prepare.

        Args:
            auditing: What every audit needs.
            request: What is asked.
            journal: Its journal, begun.
            tell: Publishes findings; returns when the broker has them.
        """
        self._auditing = auditing
        self._request = request
        self._journal = journal
        self._tell = tell
        self._files = 0
        self._broker: BrokerView | None = None
        self._results: ThreadResults[Finding | PartDone, dict[str, Any]]
        self._results = ThreadResults(auditing.auditor, self._work)

    async def report(self) -> dict[str, Any]:
        """Audit what is not done yet, and return the report of the whole.

        Raises:
            BrokerError: The broker does not answer. What is done stays done.
            StoreError: The disk failed.
            MemoryError: A process was killed, as the kernel does where memory is short.
        """
        auditing, results = self._auditing, self._results
        self._broker = await broker_view(auditing.settings, auditing.epoch, results.ask)
        async with results, aclosing(results.lists()) as lists:
            async for found in lists:
                for kind, group in groupby(found, key=type):
                    take = self._finish if kind is PartDone else self._keep
                    await take(list(group))
            return await results.result()

    def _work(self, hand: Callable[[Finding | PartDone], None]) -> dict[str, Any]:
        """Run the audit in its thread; return its report."""
        state = self._journal.state
        assert state.begun is not None, "a journal is begun before its audit"
        done = {name: part for name, part in state.parts.items() if name != LEDGER_PART}
        tally = Tally()
        for part in done.values():
            tally.add(tally_of(part))
        with self._audit() as audit:
            for found in audit.run(done, self._note_progress, state.missing_blobs):
                if isinstance(found, PartDone):
                    tally.add(found.tally)
                hand(found)
            return audit.report(
                tally,
                started_at_utc=state.begun["started_at_utc"],
                finished_at_utc=self._auditing.now(),
            )

    def _audit(self) -> StoreAudit:
        auditing = self._auditing
        return StoreAudit(
            auditing.settings.data_dir,
            self._request,
            auditing.keys(),
            trusted=auditing.trusted(),
            broker=self._broker,
            processes=auditing.settings.audit_processes,
        )

    def _note_progress(self, _what: str, _done: int, total: int | None) -> None:
        self._files = total or 0
        self._results.check()

    async def _keep(self, findings: list[Any]) -> None:
        values = [canonical_json(each.document(self._request.audit_id)) for each in findings]
        new = [each for each in values if not self._journal.is_told(each)]
        for start in range(0, len(new), MESSAGE_LIMIT):
            await self._tell(new[start : start + MESSAGE_LIMIT])
        await self._auditing.on_disk(self._journal.add, new)

    async def _finish(self, parts: list[Any]) -> None:
        for part in parts:
            result = {**document_of(part.tally), "files": self._files}
            await self._auditing.on_disk(self._journal.finish_part, part.name, result)
            for code, number in part.tally.codes.items():
                metrics.AUDIT_FINDINGS.labels(code, severity_of(code)).inc(number)


def document_of(tally: Tally) -> dict[str, Any]:
    """Return a tally as the line of a part that is done keeps it."""
    return {"counts": dict(tally.counts), "codes": dict(tally.codes)}


def tally_of(document: dict[str, Any]) -> Tally:
    """Return the tally that the line of a part keeps."""
    tally = Tally()
    tally.counts.update(document["counts"])
    tally.codes.update(document["codes"])
    return tally
