"""Looks at the broker for people: bounded, one at a time, and each for all who ask meanwhile.

Nobody waits for longer than a few seconds. A look that takes longer goes on, and the next request
has its result; the time-outs of the clients end it.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar

from pipeline.broker.admin.groups import (
    GroupMember,
    GroupPosition,
    describe_group,
    group_positions,
)
from pipeline.broker.admin.topics import OffsetRange, partition_offsets
from pipeline.broker.event_reader import EventTail
from pipeline.broker.reading.dead_letters import (
    DeadLetterContent,
    NewestDeadLetters,
    read_newest_dead_letters,
    read_one_dead_letter,
)
from pipeline.broker.reading.times import record_times
from pipeline.core.record import RecordId
from pipeline.errors import BrokerError
from pipeline.settings import Settings
from pipeline.topics import dead_letter_topics

WAIT_SECONDS: Final = 3.0
"""Longest wait of one who asks."""

_KEPT_SECONDS = 2.0
_LETTER_KEPT_SECONDS = 5.0
_LOOK_SECONDS = 20.0
_LETTERS_SECONDS = 2.0
_LETTERS_AT_A_TIME = 2
_OLDEST_OF = 12
"""So many partitions of a group that are behind are asked for their oldest record."""

Value = TypeVar("Value")


class SharedLook(Generic[Value]):
    """A look that is taken once for all who ask meanwhile, and kept for a moment; its fault too."""

    def __init__(
        self,
        look: Callable[[], Awaitable[Value]],
        kept_seconds: float,
        *,
        most_seconds: float = _LOOK_SECONDS,
    ) -> None:
        """Prepare; nothing is asked.

        Args:
            look: Takes the look.
            kept_seconds: How long its result counts.
            most_seconds: Longest look: one that hangs shows no broker that is back.
        """
        self._look = look
        self._kept_seconds = kept_seconds
        self._most_seconds = most_seconds
        self._task: asyncio.Task[Value] | None = None
        self._done_at = float("-inf")

    async def get(self) -> Value:
        """Return what a look shows that is under way, or ended a moment ago.

        Raises:
            BrokerError: The broker cannot be reached, or has not answered by now.
        """
        task = self._task
        clock = asyncio.get_running_loop().time
        if task is None or (task.done() and clock() >= self._done_at + self._kept_seconds):
            task = self._task = asyncio.create_task(self._taken(), name="rmos look at the broker")
        await _in_time(task)
        return task.result()

    async def stop(self) -> None:
        """End the look that is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _taken(self) -> Value:
        try:
            async with asyncio.timeout(self._most_seconds):
                return await self._look()
        except TimeoutError as error:
            raise _no_answer() from error
        finally:
            self._done_at = asyncio.get_running_loop().time()


async def _in_time(task: asyncio.Task[Any]) -> None:
    """Wait for a task, which goes on where the time is over.

    Raises:
        BrokerError: It is over.
    """
    done, _ = await asyncio.wait([task], timeout=WAIT_SECONDS)
    if not done:
        # Read once, so that a fault without a reader is not logged.
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        raise _no_answer()


def _no_answer() -> BrokerError:
    return BrokerError(f"The Kafka broker has not answered within {WAIT_SECONDS:g} s.")


@dataclass(frozen=True, slots=True)
class GroupLook:
    """A consumer group at one moment.

    Attributes:
        state: In the broker's word.
        positions: Where it is in each partition.
        oldest_ms: The broker's time of the oldest record that it has not consumed; None where
            there is none, or none that a reader is given.
    """

    name: str
    state: str
    members: Sequence[GroupMember]
    positions: Sequence[GroupPosition]
    oldest_ms: int | None

    @property
    def lag(self) -> int:
        """Offsets that are not consumed yet."""
        return sum(each.lag for each in self.positions)

    @property
    def came(self) -> int:
        """Offsets up to the ends of the log."""
        return sum(each.end for each in self.positions)

    @property
    def told(self) -> int:
        """Offsets up to where it has committed: what is before has its event or dead letter."""
        return sum(each.following for each in self.positions)


@dataclass(frozen=True, slots=True)
class FlowLook:
    """The groups and the topics of dead letters at one moment.

    Attributes:
        at: The clock of the event loop, in seconds.
        letters: What each partition of dead letters holds.
    """

    at: float
    groups: Sequence[GroupLook]
    letters: Mapping[tuple[str, int], OffsetRange]

    def counts(self) -> dict[str, int]:
        """Return what only grows, by name."""
        found = {"letters": sum(each.end for each in self.letters.values())}
        for group in self.groups:
            found |= {f"{group.name} came": group.came, f"{group.name} told": group.told}
        return found


async def look_at_flow(settings: Settings) -> FlowLook:
    """Look at the groups of all workers.

    Raises:
        TopicsError: A topic is missing.
        BrokerError: The broker cannot be reached.
    """
    topics = settings.topics
    names = (topics.persist_group, topics.advise_group, topics.audit_group)
    letters, groups = await asyncio.gather(
        partition_offsets(settings, dead_letter_topics(settings.prefix)),
        asyncio.gather(*(_look_at_group(settings, name) for name in names)),
    )
    return FlowLook(asyncio.get_running_loop().time(), groups, letters)


async def _look_at_group(settings: Settings, name: str) -> GroupLook:
    described, positions = await asyncio.gather(
        describe_group(settings, name), group_positions(settings, name)
    )
    behind = sorted((each for each in positions if each.lag), key=lambda each: -each.lag)
    waiting = {
        each.place: OffsetRange(max(each.following, each.begin), each.end)
        for each in behind[:_OLDEST_OF]
    }
    times = await record_times(settings, waiting) if waiting else {}
    oldest_ms = min((first for first, _ in times.values()), default=None)
    return GroupLook(name, described.state, described.members, positions, oldest_ms)


class Rates:
    """How fast counts grow, over the looks of the last half minute."""

    _SECONDS = 30.0

    def __init__(self) -> None:
        self._looks: deque[tuple[float, Mapping[str, int]]] = deque()

    def note(self, at: float, counts: Mapping[str, int]) -> None:
        """Take the counts of one moment; the same moment counts once."""
        if self._looks and self._looks[-1][0] >= at:
            return
        self._looks.append((at, counts))
        while len(self._looks) > 2 and self._looks[0][0] < at - self._SECONDS:  # noqa: PLR2004
            self._looks.popleft()

    def per_second(self, name: str) -> float | None:
        """Return how fast a count grows; None before there are two looks."""
        if len(self._looks) < 2:  # noqa: PLR2004
            return None
        (first_at, first), (last_at, last) = self._looks[0], self._looks[-1]
        # A topic that was made again counts from zero.
        return max(last.get(name, 0) - first.get(name, 0), 0) / (last_at - first_at)


class BrokerLooks:
    """What people see of the broker, for all requests of a process.

    Attributes:
        events: The last events that were read here.
        rates: Of the counts of each look at the flow.
    """

    def __init__(self, settings: Settings, events: EventTail) -> None:
        """Prepare; nothing is asked."""
        self.events = events
        self.rates = Rates()
        self._settings = settings
        self._flow = SharedLook(partial(look_at_flow, settings), _KEPT_SECONDS)
        self._letters = SharedLook(
            partial(read_newest_dead_letters, settings, _LETTERS_SECONDS), _LETTER_KEPT_SECONDS
        )
        self._one_letter = asyncio.Semaphore(_LETTERS_AT_A_TIME)
        self._under_way: set[asyncio.Task[DeadLetterContent | None]] = set()

    async def flow(self) -> FlowLook:
        """Return how the groups stand; raises as `SharedLook.get`."""
        found = await self._flow.get()
        self.rates.note(found.at, found.counts())
        return found

    async def newest_dead_letters(self) -> NewestDeadLetters:
        """Return the last dead letters; raises as `SharedLook.get`."""
        return await self._letters.get()

    async def dead_letter(self, place: RecordId) -> DeadLetterContent | None:
        """Return one dead letter; None where there is none. Raises as `SharedLook.get`."""
        task = asyncio.create_task(self._read(place), name="rmos look at a dead letter")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        try:
            await _in_time(task)
        except BaseException:
            task.cancel()
            raise
        return task.result()

    async def stop(self) -> None:
        """End what is under way."""
        await self._flow.stop()
        await self._letters.stop()
        for task in [*self._under_way]:
            task.cancel()
            await asyncio.wait([task])

    async def _read(self, place: RecordId) -> DeadLetterContent | None:
        async with self._one_letter:
            return await read_one_dead_letter(self._settings, place)
