"""One FastStream batch subscriber of a worker, with what it lets others see of it.

Positions are committed only after the handler has returned; a handler that raises rewinds every
partition of its batch. Before partitions are given away in a rebalance the batch in hand is
finished, its commit included. Where to go on is never guessed: see `log_guard`.

How many records to ask for in one poll, so that a poll stays near 16 MiB of records.

Kafka's client bounds a poll by records alone. The size of those to come is guessed from those
that came: after a jump from small to large ones a single poll can exceed the limit, by what the
client has fetched.

Raw records through FastStream: nothing is decoded before our own code has seen it.

FastStream decodes every header as UTF-8 before the handler, and its own parser fails for the
whole batch where one value is not. So the parser is given no headers, and the handler gets the
records as the broker sent them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TypeAlias

from aiokafka import ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaMessage
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from pipeline.broker.aiokafka_fixes.unreadable_batches import unreadable_offsets
from pipeline.broker.connection import (
    broker_errors,
    client_options,
    is_cancelled,
)
from pipeline.consumers.engine.held_up import HeldUp
from pipeline.consumers.engine.liveness import Observation
from pipeline.consumers.engine.log_guard import LogGuard
from pipeline.consumers.engine.refusals import Refusals
from pipeline.consumers.engine.standing import Standing
from pipeline.consumers.engine.topic_watch import TopicWatch
from pipeline.consumers.start.checks import Start
from pipeline.core.dead_letters.carried_record import held_bytes
from pipeline.settings import Settings

Record: TypeAlias = ConsumerRecord
Records: TypeAlias = tuple[Record, ...]


async def parse_raw(
    records: Records, original: Callable[[Records], Awaitable[KafkaMessage]]
) -> KafkaMessage:
    """Wrap a batch as FastStream's message, without looking into any record."""
    # The envelope alone is FastStream's; the message's records decide what a nack rewinds.
    message = await original((replace(records[0], headers=()),))
    message.raw_message = records
    return message


async def decode_raw(message: KafkaMessage) -> list[Any]:
    """Hand the records themselves to the handler."""
    return list(message.raw_message)


POLL_BYTES = 16 * 1024 * 1024
FIRST_RECORDS = 64


@dataclass(slots=True)
class PollSize:
    """The number of records to ask for next.

    Attributes:
        limit_records: Never more than this.
        records: How many to ask for.
    """

    limit_records: int
    records: int = FIRST_RECORDS

    def __post_init__(self) -> None:
        self.records = min(self.records, self.limit_records)

    def learn(self, polled: Iterable[Record]) -> None:
        """Take note of the sizes of a poll. At most twice as many are asked for as before."""
        sizes = [held_bytes(record) for record in polled]
        if not sizes:
            return
        mean_bytes = max(1, sum(sizes) // len(sizes))
        self.records = max(1, min(POLL_BYTES // mean_bytes, 2 * self.records, self.limit_records))


# FastStream gives its own logger a handler of its own; this one speaks as we do.
_faststream_log = logging.getLogger("rmos.faststream")

FETCH_BYTES = 16 * 1024 * 1024
"""Most bytes of one fetch; the broker sends a single larger record all the same."""

PARTITION_FETCH_BYTES = 2 * 1024 * 1024


class Subscription:
    """Feeds the batches of one topic to a handler, in one consumer group.

    Attributes:
        group: Its name.
        fault: Done when nothing more may be consumed; see `LogGuard` and `TopicWatch`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        topic: str,
        standing: Standing,
        start: Start,
        handler: Callable[[list[Record]], Awaitable[None]],
        keep_only: Callable[[Collection[TopicPartition]], None],
    ) -> None:
        """Prepare; nothing is consumed before `start`.

        Args:
            settings: The broker.
            topic: The request topic.
            standing: Of the group; gets the reasons why it is not ready although it polls.
            start: What was found at the start.
            handler: Takes a batch; its offsets are committed when it has returned.
            keep_only: Takes the partitions that this worker holds, whenever they change.
        """
        self.group = group = standing.group
        self._standing = standing
        self._refusals = Refusals(settings, standing)
        self.fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settings = settings
        self._topic = topic
        self._start = start
        self._watch = TopicWatch(settings, topic=topic, group=group, start=start, standing=standing)
        self._guard: LogGuard | None = None
        self._keep_only = keep_only
        self._observation = Observation(
            group, lambda: self._subscriber.consumer, HeldUp(settings, standing).note
        )
        self._poll_size = PollSize(settings.batch_records)
        self._tasks: set[asyncio.Task[None]] = set()
        self._drain_seconds = settings.stop_timeout_seconds
        self._broker = KafkaBroker(
            settings.bootstrap_servers,
            security=_security(settings),
            # Events go through a producer of our own: FastStream's sends records one by one.
            consumer_only=True,
            client_id=settings.instance or f"{group}-worker",
            graceful_timeout=settings.stop_timeout_seconds,
            logger=_faststream_log,
        )
        self._subscriber = self._broker.subscriber(
            topic,
            batch=True,
            group_id=group,
            group_instance_id=settings.instance,
            auto_offset_reset="none",
            isolation_level="read_committed",
            ack_policy=AckPolicy.NACK_ON_ERROR,
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
            listener=_AtRebalance(self._drain, self._note_assigned),
        )
        self._subscriber(handler)

    async def start(self) -> None:
        """Join the group and begin to consume.

        Raises:
            BrokerError: No broker answers, or it refuses.
        """
        async with broker_errors(self._settings):
            await self._broker.start()
        self._attend_polls()
        self._tasks.add(asyncio.create_task(self._observation.run()))
        watching = asyncio.create_task(self._watch.run())
        watching.add_done_callback(self._note_fault)
        self._tasks.add(watching)

    async def stop(self) -> None:
        """Finish the batch in hand and leave the group."""
        for task in self._tasks:
            task.cancel()
        try:
            await self._broker.stop()
        except asyncio.CancelledError:
            if is_cancelled():
                raise
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._watch.stop()

    @property
    def assigned(self) -> set[TopicPartition]:
        """The partitions that this worker holds."""
        return self._observation.assigned

    @property
    def is_ready(self) -> bool:
        """Whether it holds partitions, asks for records, and the broker answers."""
        return self._observation.is_ready

    def _attend_polls(self) -> None:
        """Note, guard and bound every poll of the consumer: FastStream knows a fixed number alone.

        FastStream's loop first runs when this one waits, so no poll comes before.
        """
        consumer = self._subscriber.consumer
        assert consumer is not None
        guard = LogGuard(
            self._settings,
            consumer,
            group=self.group,
            topic=self._topic,
            starts=self._start.places,
            watch=self._watch,
            fault=self.fault,
        )
        poll, pulse, size = consumer.getmany, self._observation.pulse, self._poll_size

        async def getmany(*, timeout_ms: int, max_records: int | None) -> Any:  # noqa: ANN401
            del max_records
            pulse.beat()
            try:
                polled = await guard.poll(
                    lambda: poll(timeout_ms=timeout_ms, max_records=size.records)
                )
            except KafkaError as error:
                await self._note_refusal(error)
                return {}
            self._refusals.note_poll(brought=bool(polled))
            self._note_unreadable()
            size.learn(chain.from_iterable(polled.values()))
            return polled

        consumer.getmany = getmany
        self._guard = guard
        pulse.beat()

    def _note_unreadable(self) -> None:
        """Say where a batch cannot be read although it was fetched again and again."""
        held = unreadable_offsets(self.assigned)
        if not held:
            self._standing.clear("unreadable")
            return
        place = min(held)
        more = f", and {len(held) - 1} partitions more" if len(held) > 1 else ""
        self._standing.report(
            "unreadable",
            f"The batch at offset {held[place]} of {place.topic}, partition {place.partition}, "
            f"cannot be read{more}, and the records behind it wait: the broker's disk may have "
            "changed it. See `a batch cannot be read` in the runbook.",
        )

    async def _note_refusal(self, error: KafkaError) -> None:
        """Say what the broker refuses and wait: FastStream would log a traceback each time."""
        refusal = await self._refusals.note(error)
        if isinstance(error, GroupAuthorizationFailedError) and not self.fault.done():
            # aiokafka's member of the group has ended, and does not come back with the right.
            self.fault.set_exception(refusal)
        await self._refusals.rest()

    def _note_fault(self, watching: asyncio.Task[None]) -> None:
        error = None if watching.cancelled() else watching.exception()
        if error is not None and not self.fault.done():
            self.fault.set_exception(error)

    async def _drain(self) -> None:
        if self._guard is not None:
            # What a poll brought and the guard still holds back is for the next owner to poll.
            self._guard.forget_places()
        # The lock of the subscriber is held from before the handler until after the commit.
        await self._subscriber.lock.wait_release(self._drain_seconds)  # type: ignore[attr-defined]

    def _note_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._keep_only(assigned)
        if self._guard is not None:
            self._guard.forget_places()


class _AtRebalance(ConsumerRebalanceListener):  # type: ignore[misc]
    """Finishes the batch in hand before partitions go; of those that come no place is known."""

    def __init__(
        self,
        drain: Callable[[], Awaitable[None]],
        note_assigned: Callable[[Collection[TopicPartition]], None],
    ) -> None:
        self._drain = drain
        self._note_assigned = note_assigned

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        if revoked:
            await self._drain()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._note_assigned(assigned)


def _security(settings: Settings) -> BaseSecurity:
    options = client_options(settings)
    context = options.get("ssl_context")
    use_ssl = context is not None
    if not settings.security_protocol.startswith("SASL"):
        return BaseSecurity(ssl_context=context, use_ssl=use_ssl)
    kinds: dict[str, type[SASLPlaintext | SASLScram256 | SASLScram512]] = {
        "PLAIN": SASLPlaintext,
        "SCRAM-SHA-256": SASLScram256,
        "SCRAM-SHA-512": SASLScram512,
    }
    return kinds[settings.sasl_mechanism](
        username=options["sasl_plain_username"],
        password=options["sasl_plain_password"],
        ssl_context=context,
        use_ssl=use_ssl,
    )
