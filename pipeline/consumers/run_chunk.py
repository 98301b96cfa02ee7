"""A chunk of judged run requests: stored, counted and told, whatever store keeps the runs."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from pipeline.broker.sending.batches import Message
from pipeline.consumers.engine.outbox import Delivery, Settlement, Telling
from pipeline.core.runs.event import ToldOutcome, run_event_headers
from pipeline.core.runs.outcome import RecordSource


class SettledRun(ToldOutcome, Settlement, Protocol):
    """What an outcome must tell to be counted and to be an event."""


Judged = TypeVar("Judged")
Settled = TypeVar("Settled", bound=SettledRun)


@dataclass(frozen=True, slots=True)
class RunChunk(Generic[Judged, Settled]):
    """Records with their verdicts, not stored yet.

    Attributes:
        commit: Stores them.
        event_of: The value of the event of one.
    """

    deliveries: Sequence[Delivery]
    judged: Sequence[Judged]
    telling: Telling
    commit: Callable[[Sequence[Judged]], Awaitable[list[Settled]]]
    event_of: Callable[[Settled, RecordSource], bytes]

    async def store(self) -> list[Message]:
        """Store the chunk; return its events and dead letters.

        Raises:
            FloodError: Too many records fail; nothing was written.
            StoreError: The disk failed; nothing may be acknowledged.
        """
        outcomes = await self.commit(self.judged)
        self.telling.count(self.deliveries, outcomes)
        return list(self._messages(outcomes))

    def _messages(self, outcomes: Sequence[Settled]) -> Iterator[Message]:
        for delivery, outcome in zip(self.deliveries, outcomes, strict=True):
            source = delivery.source
            headers = run_event_headers(outcome, source, delivery.timestamp_ms)
            value = self.event_of(outcome, source)
            yield self.telling.event(delivery, outcome.run_id, value, headers)
            if outcome.code is not None:
                yield self.telling.dead_letter(delivery, outcome.code, outcome.message)
