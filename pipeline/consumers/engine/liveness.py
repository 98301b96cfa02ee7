"""The visible state of a consumer: polls, lag, refusals, and transactions that hold it up."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError

from pipeline import metrics
from pipeline.broker.admin.open_transactions import OpenTransaction, open_transactions
from pipeline.broker.connection import broker_error
from pipeline.consumers.engine.readiness import Standing
from pipeline.errors import BrokerError
from pipeline.settings import Settings

OBSERVE_SECONDS = 1.0
READY_POLL_AGE_SECONDS = 30.0
READY_ANSWER_AGE_SECONDS = 5.0

REFUSAL_PAUSE_SECONDS = 5.0
REFUSAL_HOLDS_SECONDS = 30.0
"""Time without a refusal after which an empty poll means that the broker refuses no longer."""

PATIENCE_SECONDS = 10.0
"""A transaction is an everyday thing, and most last some milliseconds."""

ASK_SECONDS = 10.0
"""How often the broker is asked whose transactions they are."""

NoteHeldUp = Callable[[Mapping[TopicPartition, int]], Awaitable[None]]


@dataclass(slots=True)
class LastSeen:
    """When something last happened, such as a poll of the consumer or an answer of the broker."""

    moment: float = 0.0

    def note(self) -> None:
        """Note that it happens now."""
        self.moment = time.monotonic()

    @property
    def age_seconds(self) -> float:
        """Seconds since then."""
        return time.monotonic() - self.moment


class Observation:
    """Watches one consumer of one group.

    Attributes:
        last_poll: Noted with every poll.
    """

    def __init__(
        self, group: str, consumer: Callable[[], Any], note_held_up: NoteHeldUp | None = None
    ) -> None:
        """Watch a consumer.

        Args:
            group: Its group.
            consumer: Returns it; None while there is none.
            note_held_up: Takes how many records wait behind open transactions, by partition.
        """
        self._note_held_up = note_held_up
        self.last_poll = LastSeen()
        self._group = group
        self._consumer = consumer
        self._last_answer = LastSeen()
        self._measured: set[TopicPartition] = set()

    @property
    def assigned(self) -> set[TopicPartition]:
        """The partitions that this worker holds."""
        consumer = self._consumer()
        return set(consumer.assignment()) if consumer is not None else set()

    @property
    def is_ready(self) -> bool:
        """Whether it holds partitions, asks for records, and the broker answers.

        Without a broker the client keeps its partitions and goes on asking, in vain.
        """
        return (
            bool(self.assigned)
            and self.last_poll.age_seconds < READY_POLL_AGE_SECONDS
            and self._last_answer.age_seconds < READY_ANSWER_AGE_SECONDS
        )

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            await self._measure()
            await asyncio.sleep(OBSERVE_SECONDS)

    async def _measure(self) -> None:
        metrics.LAST_POLL_AGE_SECONDS.labels(self._group).set(self.last_poll.age_seconds)
        assigned = self.assigned
        metrics.ASSIGNED_PARTITIONS.labels(self._group).set(len(assigned))
        self._forget_lag(self._measured - assigned)
        self._measured &= assigned
        held_up = await self._measured_lag(assigned) if assigned else {}
        if self._note_held_up is not None:
            await self._note_held_up(held_up)

    async def _measured_lag(self, assigned: set[TopicPartition]) -> dict[TopicPartition, int]:
        """Measure how far each partition is behind; return how many records are held up."""
        consumer = self._consumer()
        held_up: dict[TopicPartition, int] = {}
        # Partitions may move while we look, and the broker may be away.
        with suppress(TimeoutError, IllegalStateError, KafkaError):
            async with asyncio.timeout(OBSERVE_SECONDS):
                # Of committed records: an open transaction ends them before the log's end.
                stables = await consumer.end_offsets(assigned)
                self._last_answer.note()
                for place, stable in stables.items():
                    position = await consumer.position(place)
                    end = max(stable, consumer.highwater(place) or 0)
                    lag = metrics.LAG_RECORDS.labels(self._group, place.topic, place.partition)
                    lag.set(max(0, end - position))
                    self._measured.add(place)
                    if stable <= position < end:
                        held_up[place] = end - position
        return held_up

    def _forget_lag(self, lost: set[TopicPartition]) -> None:
        """Leave partitions to the worker that has them now: ours would stand still for ever."""
        for place in lost:
            metrics.LAG_RECORDS.remove(self._group, place.topic, place.partition)


class Refusals:
    """Lets a consumer be not ready while the broker refuses its polls."""

    def __init__(self, settings: Settings, standing: Standing) -> None:
        self._settings = settings
        self._standing = standing
        self._last_refusal = LastSeen()

    async def note(self, error: KafkaError) -> BrokerError:
        """Report the refusal of a poll; return it as one sentence."""
        self._last_refusal.note()
        refusal = await broker_error(self._settings, error)
        self._standing.report("broker", str(refusal))
        return refusal

    def note_poll(self, *, brought: bool) -> None:
        """Take note of a poll that was not refused, and whether it brought records."""
        # An empty poll may have ended before the broker refused again.
        if brought or self._last_refusal.age_seconds > REFUSAL_HOLDS_SECONDS:
            self._standing.clear("broker")

    async def rest(self) -> None:
        """Wait before the next poll."""
        await asyncio.sleep(REFUSAL_PAUSE_SECONDS)


class HeldUp:
    """Lets a consumer be not ready while open transactions hold it up."""

    def __init__(self, settings: Settings, standing: Standing) -> None:
        self._settings = settings
        self._standing = standing
        self._since: dict[TopicPartition, float] = {}
        self._asked = float("-inf")

    async def note(self, waiting: Mapping[TopicPartition, int]) -> None:
        """Take note of how many records wait in which partitions; all others go on."""
        now = time.monotonic()
        self._since = {place: self._since.get(place, now) for place in waiting}
        late = {
            place: waiting[place]
            for place, since in self._since.items()
            if now - since >= PATIENCE_SECONDS
        }
        if not late:
            self._standing.clear("transaction")
            self._asked = float("-inf")
        elif now - self._asked >= ASK_SECONDS:
            self._asked = now
            self._standing.report("transaction", await self._sentence(late))

    async def _sentence(self, late: Mapping[TopicPartition, int]) -> str:
        place = min(late)
        more = f", and {len(late) - 1} partitions more" if len(late) > 1 else ""
        return (
            f"Records of {place.topic}, partition {place.partition}, wait{more}: held up by "
            f"{await self._holder(place)}. Let its program end it, or start that program again."
        )

    async def _holder(self, place: TopicPartition) -> OpenTransaction | str:
        try:
            found = await open_transactions(self._settings, [place])
        except BrokerError as error:
            return f"an open transaction; the broker does not say more ({error})"
        return found.get((place.topic, place.partition), "an open transaction that is ending")
