"""One FastStream batch subscriber of a worker: where records come in and offsets are committed.

The handler hands a batch over and returns when there is room for the next: what is in flight, its
commits and where to go back after a fault are `in_flight`'s. Before partitions are given away in a
rebalance, and before a stop, what is in flight is finished, its commits included. Where to go on is
never guessed: see `offset_range_check`.

FastStream drives the loop. It gets nothing to decode, since it fails for a whole batch where one
header is not UTF-8: the handler gets the records as the broker sent them. Its consumer is a
subclass of aiokafka's, whose polls are checked, bounded and noted.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, TypeAlias

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaMessage

from pipeline import metrics
from pipeline.broker.aiokafka_fixes.clients import is_cancelled
from pipeline.broker.aiokafka_fixes.unreadable_batches import unreadable_offsets
from pipeline.broker.connection import ANSWER_TIMEOUT_SECONDS, broker_errors, client_options
from pipeline.consumers.engine.batches import BatchWorker, Record
from pipeline.consumers.engine.group_consumer import Polled, PolledConsumer, PollSize
from pipeline.consumers.engine.in_flight import InFlight
from pipeline.consumers.engine.liveness import HeldUp, Observation, Refusals
from pipeline.consumers.engine.offset_range_check import OffsetRangeCheck
from pipeline.consumers.engine.readiness import Backoff, PutOff, Standing
from pipeline.consumers.engine.topic_watch import TopicWatch
from pipeline.consumers.start.checks import Start
from pipeline.errors import RmosError, StoreError
from pipeline.settings import Settings

Records: TypeAlias = tuple[Record, ...]

FETCH_BYTES = 8 * 1024 * 1024
"""Most bytes of one fetch; the broker sends a single larger record all the same.

aiokafka holds them three times while it reads them: with 16 MiB the peak was 30 MB higher.
"""

PARTITION_FETCH_BYTES = 1024 * 1024

_log = structlog.get_logger(__name__)
# FastStream gives its own logger a handler of its own; this one speaks as we do.
_faststream_log = logging.getLogger("rmos.faststream")


class WorkerBroker(KafkaBroker):
    """A broker of FastStream that begins and ends with what belongs to its worker.

    So an application of FastStream starts and stops a worker as we do ourselves.
    """

    def __init__(
        self, settings: Settings, group: str, subscription: "Subscription | None" = None
    ) -> None:
        """Prepare; nothing is connected.

        Args:
            settings: The broker.
            group: The consumer group of its worker.
            subscription: That of its subscriber; None for a worker whose loop is its own.
        """
        super().__init__(
            settings.bootstrap_servers,
            # Events go through a producer of our own: FastStream's sends records one by one.
            consumer_only=True,
            client_id=settings.instance or f"{group}-worker",
            graceful_timeout=settings.stop_timeout_seconds,
            logger=_faststream_log,
        )
        self._settings = settings
        self._subscription = subscription

    async def _connect(self) -> Callable[..., AIOKafkaConsumer]:
        build = await super()._connect()
        if self._subscription is not None:
            assert isinstance(build, partial)
            # The configuration is this broker's own; the class of the consumer is no option of it,
            # and its consumer logs in as every other client does.
            options = build.keywords | client_options(self._settings)
            build = partial(self._subscription.build_consumer, **options)
            self.config.broker_config.builder = build
        return build

    async def start(self) -> None:
        """Connect and consume.

        Raises:
            BrokerError: No broker answers, or it refuses.
        """
        async with broker_errors(self._settings):
            await super().start()
        if self._subscription is not None:
            await self._subscription.begin()

    async def stop(self, *exception: Any) -> None:  # noqa: ANN401
        """Finish what is in flight and leave the group."""
        if self._subscription is not None:
            await self._subscription.end()
        try:
            await super().stop(*exception)
        except asyncio.CancelledError:
            if is_cancelled():
                raise
        if self._subscription is not None:
            await self._subscription.has_ended()


class Subscription:
    """Feeds the batches of one topic to a worker, in one consumer group.

    Attributes:
        group: Its name.
        standing: Why it is not ready although it polls.
        fault: Done when nothing more may be consumed; its exception gives the reason.
        broker: Starts and stops it.
    """

    def __init__(
        self, settings: Settings, worker: BatchWorker[Any, Any], *, topic: str, start: Start
    ) -> None:
        """Prepare; nothing is consumed before the start of `broker`.

        Args:
            settings: The broker.
            worker: Takes what the polls bring through its steps.
            topic: The request topic.
            start: What was found at the start.
        """
        self.group = group = worker.group
        self.settings = settings
        self.standing = Standing(group)
        self.fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._topic = topic
        self._start = start
        self._put_off = PutOff(self.standing)
        self._in_flight = InFlight(
            worker,
            lambda: self._consumer,
            put_off=self._put_off,
            backoff=Backoff(settings.broker_pause_seconds),
            give_up=self._give_up,
            pause_seconds=settings.batch_wait_ms / 1000,
        )
        self.fault.add_done_callback(lambda _: self._in_flight.stop())
        self._refusals = Refusals(settings, self.standing)
        self._watch = TopicWatch(
            settings, topic=topic, group=group, start=start, standing=self.standing
        )
        self._consumer: PolledConsumer | None = None
        self._offset_check: OffsetRangeCheck | None = None
        self._observation = Observation(
            group, lambda: self._consumer, HeldUp(settings, self.standing).note
        )
        self._poll_size = PollSize(settings.batch_records)
        self._tasks: set[asyncio.Task[None]] = set()
        self.broker = WorkerBroker(settings, group, self)
        subscriber = self.broker.subscriber(
            topic,
            batch=True,
            group_id=group,
            group_instance_id=settings.instance,
            auto_offset_reset="none",
            isolation_level="read_committed",
            ack_policy=AckPolicy.MANUAL,
            max_records=settings.batch_records,
            batch_timeout_ms=settings.batch_wait_ms,
            fetch_max_bytes=FETCH_BYTES,
            max_partition_fetch_bytes=PARTITION_FETCH_BYTES,
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=settings.heartbeat_interval_ms,
            max_poll_interval_ms=settings.max_poll_interval_ms,
            rebalance_timeout_ms=settings.max_poll_interval_ms,
            parser=parse_raw,
            decoder=decode_raw,
            listener=_AtRebalance(self),
        )
        subscriber(self.deliver)

    @property
    def assigned(self) -> set[TopicPartition]:
        """The partitions that this worker holds."""
        return self._observation.assigned

    @property
    def is_ready(self) -> bool:
        """Whether it holds partitions, asks for records, and the broker answers."""
        return self._observation.is_ready

    async def first_offset_since(self, place: TopicPartition, since_ms: int) -> int | None:
        """Return the first offset of `place` with broker time `since_ms` or later, if there is one.

        Raises:
            BrokerError: The broker does not answer.
        """
        async with broker_errors(self.settings), asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
            if self._consumer is None:
                return 0
            found = (await self._consumer.offsets_for_times({place: since_ms}))[place]
            return None if found is None else int(found.offset)

    async def deliver(self, records: list[Record]) -> None:
        """Take what a poll brought; return when there is room for the next.

        After a fault of the broker it is polled again. After any other, and once the stop has
        begun, nothing more begins: what is taken is the next worker's.
        """
        assert self._consumer is not None
        if not self.fault.done():
            await self._in_flight.put(records, self._consumer.ends)

    def _give_up(self, error: BaseException) -> None:
        if isinstance(error, StoreError):
            metrics.FAULTS.labels(self.group, "store").inc()
        if not isinstance(error, RmosError | MemoryError):
            _log.error("batch failed", group=self.group, exc_info=error)
        self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if not self.fault.done():
            self.fault.set_exception(error)

    def build_consumer(self, **options: Any) -> PolledConsumer:  # noqa: ANN401
        """Return the consumer, whose polls are checked, bounded and noted."""
        self._consumer = PolledConsumer(self._poll, **options)
        self._offset_check = OffsetRangeCheck(
            self.settings,
            self._consumer,
            group=self.group,
            topic=self._topic,
            starts=self._start.places,
            watch=self._watch,
            fault=self.fault,
        )
        return self._consumer

    async def begin(self) -> None:
        """Watch and observe the consumer, which consumes by now."""
        self._observation.last_poll.note()
        watching = asyncio.create_task(self._watch.run())
        watching.add_done_callback(self._note_fault)
        self._tasks |= {watching, asyncio.create_task(self._observation.run())}

    async def end(self) -> None:
        """Finish what is in flight, before the consumer stops."""
        self._in_flight.stop()
        await self._in_flight.finish(self.settings.stop_timeout_seconds)
        for task in self._tasks:
            task.cancel()

    async def has_ended(self) -> None:
        """Let go of the rest, once the consumer has stopped."""
        # Now only: until here a poll may ask the watch, which would connect again.
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._watch.stop()

    async def _poll(self, ask: Callable[..., Awaitable[Polled]]) -> Polled:
        """Poll as often as FastStream does; note, check and bound what comes."""
        assert self._offset_check is not None
        if self._in_flight.must_go_back and not self.fault.done():
            await self._in_flight.go_back()
        self._observation.last_poll.note()
        try:
            polled: Polled = await self._offset_check.poll(
                partial(ask, max_records=self._poll_size.records)
            )
        except KafkaError as error:
            await self._note_refusal(error)
            return {}
        self._refusals.note_poll(brought=bool(polled))
        self._note_unreadable()
        self._poll_size.learn(chain.from_iterable(polled.values()))
        return polled

    def _note_unreadable(self) -> None:
        """Report where a batch cannot be read although it was fetched again and again."""
        held = unreadable_offsets(self.assigned)
        if not held:
            self.standing.clear("unreadable")
            return
        place = min(held)
        more = f", and {len(held) - 1} partitions more" if len(held) > 1 else ""
        self.standing.report(
            "unreadable",
            f"The batch at offset {held[place]} of {place.topic}, partition {place.partition}, "
            f"cannot be read{more}, and the records behind it wait: the broker's disk may have "
            "changed it. See `a batch cannot be read` in the runbook.",
        )

    async def _note_refusal(self, error: KafkaError) -> None:
        """Report what the broker refuses and wait: FastStream would log a traceback each time."""
        refusal = await self._refusals.note(error)
        if isinstance(error, GroupAuthorizationFailedError):
            # aiokafka's member of the group has ended, and does not come back with the right.
            self._fail(refusal)
        await self._refusals.rest()

    def _note_fault(self, watching: asyncio.Task[None]) -> None:
        error = None if watching.cancelled() else watching.exception()
        if error is not None:
            self._fail(error)

    async def give_away(self) -> None:
        """Finish what is in flight, its commits included, before partitions are given away."""
        if self._offset_check is not None:
            # What a poll brought and the check still holds back is for the next owner to poll.
            self._offset_check.forget_places()
        await self._in_flight.finish(self.settings.stop_timeout_seconds)

    def take_over(self, assigned: Collection[TopicPartition]) -> None:
        """Take note of the partitions that this worker holds now."""
        self._put_off.keep_only(assigned)
        self._in_flight.reopen()
        if self._offset_check is not None:
            self._offset_check.forget_places()


async def parse_raw(
    records: Records, original: Callable[[Records], Awaitable[KafkaMessage]]
) -> KafkaMessage:
    """Wrap a batch as FastStream's message, without looking into any record."""
    # It decodes every header of what it gets.
    envelope = await original((replace(records[0], headers=()),))
    return KafkaMessage(records, b"", message_id=envelope.message_id, consumer=envelope.consumer)


async def decode_raw(message: KafkaMessage) -> list[Any]:
    """Hand the records themselves to the handler."""
    return list(message.raw_message)


class _AtRebalance(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        if revoked:
            await self._subscription.give_away()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._subscription.take_over(assigned)
