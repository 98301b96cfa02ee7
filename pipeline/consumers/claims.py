"""Claims that wait for their run: linked once it is there, reported once they are overdue.

The row of a claim is the queue. Every second the index is asked for the claims whose run has come
and for those that have waited too long; their requests are read again at their offsets, and from
their dead letters where the log no longer holds them. So a link exists exactly where its run does.
A worker looks at the partitions that it holds.

| state | if the process dies here |
|---|---|
| found | it is found again |
| in hand: its link may be made, its event is not confirmed | read again, event sent again |
| no longer in hand | done |
| overdue: event and dead letter confirmed | sent again, with the same event_id |
| noted as reported | done; it is linked all the same when its run comes |
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any

import structlog
from aiokafka import ConsumerRecord, TopicPartition

from pipeline import metrics
from pipeline.broker.admin.topics import partition_offsets
from pipeline.broker.reading.ranges import read_offsets, read_ranges
from pipeline.broker.sending.batches import Message
from pipeline.consumers.engine.batches import CHUNK_BYTES, BatchDeferred, BatchWorker, Steps
from pipeline.consumers.engine.outbox import Request
from pipeline.consumers.engine.readiness import PutOff, Standing
from pipeline.consumers.engine.subscription import Subscription
from pipeline.core.advisories.outcome import AdvisoryOutcome, run_not_found
from pipeline.core.advisories.verdict import JudgedAdvisory
from pipeline.core.dead_letters.carried_record import held_bytes
from pipeline.core.dead_letters.letter import read_dead_letter, record_headers
from pipeline.core.envelope import Rejected
from pipeline.core.record import Partition, RecordId, RecordSource
from pipeline.errors import BrokerError, StoreAwayError
from pipeline.settings import Settings
from pipeline.storage.advisory_store import AdvisoryRecord, AdvisoryStore
from pipeline.storage.batch_store import BatchResult, RejectLimit

LOOK_SECONDS = 1.0
LOOK_SHARE = 9.0
"""However many claims wait, looking in vain takes at most a tenth of the time."""

PAUSE_SECONDS = 5.0
"""Time to the next look where a claim could not be read or published."""

PAGE_CLAIMS = 512
"""Most claims that are looked up and in hand at once."""

READ_SECONDS = 30.0
"""Longest wait for the next record until the claims of a partition are left for later."""

_log = structlog.get_logger(__name__)


class AdvisoryClaims:
    """Links and reports the claims of one worker's partitions."""

    def __init__(
        self,
        settings: Settings,
        store: AdvisoryStore,
        subscription: Subscription,
        worker: BatchWorker[JudgedAdvisory, AdvisoryOutcome],
    ) -> None:
        """Prepare.

        Args:
            settings: The broker, and how long a claim may wait for its run.
            store: Knows the claims.
            subscription: Knows the partitions of this worker, and the broker's times.
            worker: Takes the requests as they come.
        """
        self.standing = Standing(worker.group)
        self._settings = settings
        self._store = store
        self._claims = store.claims
        self._subscription = subscription
        self._outbox = worker.outbox
        self._worker = worker
        self._steps = Steps(worker.steps.judge, self._store_again, self._publish_news)
        self._put_off = PutOff(self.standing, "claims")
        self._has_found = False
        self._overdue: set[RecordSource] = set()
        # Of each partition what the last look has tried to link.
        self._tried: dict[Partition, set[int]] = {}

    async def run(self) -> None:
        """Look every second until cancelled; later where what keeps the store does not answer.

        Raises:
            StoreError: The disk failed.
        """
        while True:
            began = time.monotonic()
            self._has_found = False
            try:
                is_done = await self.look()
            except StoreAwayError as error:
                metrics.FAULTS.labels(self._outbox.group, "store").inc()
                _log.warning("claims put off", why=str(error))
                is_done = False
            pause = LOOK_SECONDS if is_done else PAUSE_SECONDS
            if not self._has_found:
                pause = max(pause, LOOK_SHARE * (time.monotonic() - began))
            await asyncio.sleep(pause)

    async def look(self) -> bool:
        """Link and report every claim that is due; return whether all of it could be done.

        Raises:
            StoreError: The disk failed.
        """
        waiting = await self._on_disk(
            self._claims.partitions, self._settings.topics.advisory_requests
        )
        places = sorted(each for each in self._subscription.assigned if each.partition in waiting)
        self._put_off.keep_only(places)
        # All at once: each answer waits for the poll that is under way on the same connection.
        overdue = await asyncio.gather(*map(self._overdue_to, places), return_exceptions=True)
        done = [
            await self._look_at((place.topic, place.partition), overdue_to)
            for place, overdue_to in zip(places, overdue, strict=True)
        ]
        return all(done)

    async def _look_at(self, place: Partition, overdue_to: int | BaseException) -> bool:
        """Do what is due in one partition, so that none waits for another.

        Args:
            place: The partition.
            overdue_to: Before which offset claims are overdue, or why that is not known.
        """
        first = RecordId(*place, 0)
        try:
            self._overdue = set()
            if in_hand := await self._on_disk(self._claims.in_hand, place):
                first = RecordId(*place, in_hand[0])
                await self._process(place, in_hand)
            if isinstance(overdue_to, BaseException):
                raise overdue_to
            after, tried = -1, set[int]()
            due = partial(self._claims.due, overdue_to=overdue_to, limit=PAGE_CLAIMS)
            while page := await self._on_disk(partial(due, after=after), place):
                first, after = RecordId(*place, page[0][0]), page[-1][0]
                tried |= await self._process_page(place, page)
        except (BrokerError, BatchDeferred, TimeoutError) as error:
            fault = error.fault if isinstance(error, BatchDeferred) else error
            if isinstance(fault, BrokerError | TimeoutError):
                metrics.FAULTS.labels(self._outbox.group, "broker").inc()
            why = str(error) or "The broker has not given them out."
            _log.warning("claims put off", partition=place[1], why=why)
            self._put_off.note([first], why)
            return False
        self._tried[place] = tried
        if overdue_to:
            await self._on_disk(self._claims.note_reported, place, overdue_to)
        self._put_off.forget([first])
        return True

    async def _overdue_to(self, place: TopicPartition) -> int:
        """Return before which offset claims are overdue; 0 where none waits to be reported."""
        last = await self._on_disk(self._claims.last_unreported, (place.topic, place.partition))
        if last is None:
            return 0
        since_ms = int((time.time() - self._settings.advisory_wait_seconds) * 1000)
        first = await self._subscription.first_offset_since(place, since_ms)
        return int(last + 1 if first is None else min(last + 1, first))

    async def _process_page(self, place: Partition, page: Sequence[tuple[int, bool]]) -> set[int]:
        """Link what can be linked and report what is overdue; return what was to be linked.

        What could not be linked although its record was read, or has none, never will be: it is
        not read again each second.
        """
        overdue = [offset for offset, has_run in page if not has_run]
        linkable = {offset for offset, has_run in page if has_run}
        offsets = sorted([*overdue, *(linkable - self._tried.get(place, set()))])
        if offsets:
            # Also what is overdue: its run may come before it is stored again, which links it.
            await self._on_disk(self._claims.take, place, offsets)
        epoch = self._store.identity.epoch
        self._overdue = {RecordSource(epoch, RecordId(*place, offset)) for offset in overdue}
        await self._process(place, offsets)
        return linkable

    async def _process(self, place: Partition, offsets: Sequence[int]) -> None:
        """Take the requests at `offsets` through the three steps."""
        if not offsets:
            return
        self._has_found = True
        batch: list[ConsumerRecord] = []
        size = 0
        async with aclosing(self._requests(place, offsets)) as requests:
            async for request in requests:
                batch.append(request)
                size += held_bytes(request)
                if size >= CHUNK_BYTES:
                    await self._worker.process(batch, self._steps)
                    batch, size = [], 0
        if batch:
            await self._worker.process(batch, self._steps)
        await self._on_disk(self._claims.release, place, offsets)

    async def _requests(
        self, place: Partition, offsets: Sequence[int]
    ) -> AsyncGenerator[ConsumerRecord]:
        """Yield the requests at `offsets`, from the log or else from their dead letters."""
        gone = set(offsets)
        async with aclosing(_in_time(read_offsets(self._settings, {place: offsets}))) as records:
            async for record in records:
                gone.discard(record.offset)
                yield record
        if not gone:
            return
        async with aclosing(self._requests_of_letters(place, gone)) as requests:
            async for request in requests:
                gone.discard(request.offset)
                yield request
        if gone:
            _log.warning("claims whose request is gone", why=_why_gone(place, gone))

    async def _requests_of_letters(
        self, place: Partition, wanted: Collection[int]
    ) -> AsyncGenerator[ConsumerRecord]:
        """Yield those requests at `wanted` that a dead letter carries.

        A letter carries the request if it makes the link that the claim names. The headers alone
        prove nothing: they do not name the epoch, and others may write to the topic.
        """
        letters = _letters(self._settings, self._outbox.dead_letters, place[1])
        async with aclosing(_in_time(letters)) as records:
            async for record in records:
                request = _carried_request(record)
                if (
                    request is not None
                    and RecordId.of(request).topic_partition == place
                    and request.offset in wanted
                    and await self._has_claimed(request)
                ):
                    yield request

    async def _has_claimed(self, request: ConsumerRecord) -> bool:
        (verdict,) = await self._steps.judge.judge([(request.key, request.value)])
        source = RecordSource(self._store.identity.epoch, RecordId.of(request))
        return not isinstance(verdict, Rejected) and bool(
            await self._on_disk(self._claims.is_made_by, verdict, source)
        )

    def _store_again(
        self, judged: Sequence[AdvisoryRecord], limit: RejectLimit
    ) -> BatchResult[AdvisoryOutcome]:
        """Store requests that were stored before; an overdue one that still waits is reported."""
        del limit  # They were counted when they came.
        result = self._store.retry_links(judged)
        outcomes = [
            run_not_found(outcome)
            if outcome.kind == "waiting" and record.source in self._overdue
            else outcome
            for record, outcome in zip(judged, result.outcomes, strict=True)
        ]
        return replace(result, outcomes=outcomes)

    def _publish_news(self, request: Request, outcome: AdvisoryOutcome) -> Iterable[Message]:
        # A claim that still waits was reported when it came.
        is_news = outcome.kind != "waiting"
        return self._worker.steps.publish(request, outcome) if is_news else ()

    async def _on_disk(self, work: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker.executor, partial(work, *arguments))


async def _letters(
    settings: Settings, topic: str, source_partition: int
) -> AsyncGenerator[ConsumerRecord]:
    """Yield the dead letters among which are those of one partition of requests."""
    ranges = await partition_offsets(settings, [topic])
    place = (topic, source_partition % len(ranges))
    async with aclosing(read_ranges(settings, {place: ranges[place]})) as records:
        async for record in records:
            yield record


def _carried_request(record: ConsumerRecord) -> ConsumerRecord | None:
    """Return the request that a dead letter carries, at its source; None where it carries none."""
    letter = read_dead_letter(
        RecordId.of(record), record.timestamp, record.key, record.value, record.headers
    )
    source = letter.source
    if source is None or letter.source_timestamp_ms is None or letter.body != "carried":
        return None
    return replace(
        record,
        topic=source.topic,
        partition=source.partition,
        offset=source.offset,
        timestamp=letter.source_timestamp_ms,
        headers=tuple(record_headers(record.headers)),
    )


def _why_gone(place: Partition, gone: Collection[int]) -> str:
    first = RecordId(*place, min(gone))
    more = f" and {len(gone) - 1} others of its partition" if len(gone) > 1 else ""
    return (
        f"The topic no longer holds {first}{more}, and no dead letter carries the request: it "
        "cannot be linked. Publish the advisory again under a new advisory_id."
    )


async def _in_time(
    records: AsyncGenerator[ConsumerRecord],
) -> AsyncGenerator[ConsumerRecord]:
    """Yield `records`.

    Raises:
        TimeoutError: The next one does not come.
    """
    async with aclosing(records):
        while True:
            async with asyncio.timeout(READ_SECONDS):
                record = await anext(records, None)
            if record is None:
                return
            yield record
