"""A consumer never jumps: where the log does not hold its next offset, the worker stops.

Nor is any record given out of a topic, or behind an offset, that is not the store's own: what a
poll brings is held back until `TopicWatch` has confirmed both, and polled again where it cannot.

aiokafka's `auto_offset_reset` would go on elsewhere without a word, over records that retention
took from under a running worker, or from the start of a log that was cut. With `none` it raises
out of the poll instead, before any record behind the gap is given out, and this decides:

| answer of the client | then |
|---|---|
| the group has no offset here | the group is asked again; if there is none, begin at the start |
| the log does not hold the offset | the broker is asked; if so, the worker stops, and names them |

Offsets that are gone all look alike: those of a transaction's mark as those of records.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import (
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)

from pipeline.broker.admin.groups import committed_offsets
from pipeline.broker.admin.topics import partition_offsets
from pipeline.broker.reading.lost_offsets import lost_offsets
from pipeline.consumers.engine.topic_watch import TopicWatch
from pipeline.consumers.start.checks import StartOffset
from pipeline.errors import BrokerError, StoreAwayError, StoreNotReadyError
from pipeline.settings import Settings

_REST_SECONDS = 0.5

_log = structlog.get_logger(__name__)


class OffsetRangeCheck:
    """Stands between one consumer and its polls.

    Attributes:
        fault: Done when the worker must not go on; its exception gives the reason.
    """

    def __init__(
        self,
        settings: Settings,
        consumer: Any,  # noqa: ANN401 - aiokafka has no types
        *,
        group: str,
        topic: str,
        starts: Mapping[int, StartOffset],
        watch: TopicWatch,
        fault: asyncio.Future[None],
    ) -> None:
        """Check `consumer`, whose `auto_offset_reset` must be `none`.

        Args:
            settings: The broker.
            consumer: Reads `topic` in `group`.
            group: Its name.
            topic: The one topic.
            starts: Where to begin in each partition, as the start check found it; others are
                left alone.
            watch: Looks at topic and group.
            fault: Gets the error when the worker must not go on.
        """
        self.fault = fault
        self._settings = settings
        self._consumer = consumer
        self._group = group
        self._topic = topic
        self._starts = starts
        self._watch = watch
        self._is_confirmed = False
        # One more each time that partitions begin to move, or have been given out anew.
        self._moves = 0
        self._placed: set[TopicPartition] = set()

    def forget_places(self) -> None:
        """Take note that partitions were given out anew: the client finds each place again."""
        self._placed.clear()
        self._is_confirmed = False
        self._moves += 1

    async def poll(self, ask: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401
        """Return what `ask` polls; nothing where the client does not know where to go on."""
        if self.fault.done():
            # The worker is stopping; nothing more is to be handled.
            await asyncio.sleep(_REST_SECONDS)
            return {}
        # Partitions may move meanwhile, and the broker may be away: the client raises again.
        with suppress(IllegalStateError):
            try:
                return await self._asked(ask)
            except StoreNotReadyError as error:
                self._stop(error)
            except (BrokerError, StoreAwayError):
                await asyncio.sleep(_REST_SECONDS)
        return {}

    async def _asked(self, ask: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401
        self._leave_others_alone()
        try:
            polled = await ask()
        except NoOffsetForPartitionError as error:
            await self._place(error.args[0])
            return {}
        except OffsetOutOfRangeError as error:
            for place, position in error.args[0].items():
                await self._look_into(place, position)
            return {}
        return await self._confirmed(polled)

    async def _confirmed(self, polled: Any) -> Any:  # noqa: ANN401
        """Return what was polled, once it is sure that it may be consumed.

        Where partitions move meanwhile it is dropped. Nothing is sought then: the new assignment
        begins at its committed offset, and no record of it was given out yet.

        Raises:
            StoreNotReadyError: It may not.
            BrokerError: The broker does not answer now; it is polled again.
            StoreAwayError: What keeps the index does not; the same.
        """
        moves = self._moves
        try:
            if not self._is_confirmed:
                await self._watch.confirm_group(self._assigned_numbers())
            if polled:
                await self._watch.confirm_topic()
        except BaseException:
            self._is_confirmed = False
            if moves == self._moves:
                self._poll_again(polled)
            raise
        self._is_confirmed = moves == self._moves
        return polled if self._is_confirmed else {}

    def _poll_again(self, polled: Mapping[TopicPartition, list[Any]]) -> None:
        for place, records in polled.items():
            # A consumer that was stopped meanwhile has no partitions.
            with suppress(IllegalStateError):
                self._consumer.seek(place, records[0].offset)

    def _assigned_numbers(self) -> Iterable[int]:
        return [place.partition for place in self._consumer.assignment()]

    def _leave_others_alone(self) -> None:
        """Fetch nothing of partitions that were added to the topic."""
        for place in self._consumer.assignment():
            if place.partition not in self._starts and place not in self._consumer.paused():
                self._consumer.pause(place)

    async def _place(self, place: TopicPartition) -> None:
        """Begin in `place`, and in every other partition where the group has no offset.

        The client takes a coordinator that is still loading for a group without offsets; reading
        the whole topic again would be of no harm but long. Where it begins is committed at once,
        also where no record comes: else nothing would show what retention removes until one does.
        """
        # Kafka forgets a group's offsets with the topic: that is no group without offsets.
        moves = self._moves
        await self._watch.confirm_topic()
        committed = await committed_offsets(self._settings, self._group, [self._topic])
        if moves != self._moves:
            return
        begun: dict[TopicPartition, int] = {}
        for each in self._consumer.assignment():
            offset = committed.get((each.topic, each.partition))
            if each.partition not in self._starts:
                # It is paused; the client asks for a place all the same.
                self._consumer.seek(each, offset or 0)
            elif each == place and offset is not None:
                self._consumer.seek(each, offset)
            elif offset is None and (each == place or each not in self._placed):
                begun[each] = self._starts[each.partition].begin
                self._consumer.seek(each, begun[each])
                self._placed.add(each)
        await self._commit(begun)

    async def _look_into(self, place: TopicPartition, position: int) -> None:
        if place not in self._consumer.assignment():
            return
        await self._watch.confirm_topic()
        start = self._starts[place.partition]
        if position == start.given_up:
            await self._go_on(place, start.begin)
            return
        offsets = await partition_offsets(self._settings, [self._topic])
        lost = lost_offsets(place.topic, place.partition, position, offsets[place])
        if lost is None:
            # As from a replica that was behind. The client asks at the same offset again.
            _log.warning("offset is there again", partition=place.partition, offset=position)
            return
        lost.report(self._group)
        why = f"{lost}: the worker stopped before it consumed more; {lost.way_out}."
        self._stop(StoreNotReadyError(why))

    async def _go_on(self, place: TopicPartition, begin: int) -> None:
        """Take the group to the log's start, as was accepted.

        Also where no record comes: the same loss would be met by the next worker again.
        """
        self._consumer.seek(place, begin)
        await self._commit({place: begin})

    async def _commit(self, begins: dict[TopicPartition, int]) -> None:
        if begins:
            with suppress(KafkaError):
                await self._consumer.commit(begins)

    def _stop(self, error: StoreNotReadyError) -> None:
        if not self.fault.done():
            self.fault.set_exception(error)
