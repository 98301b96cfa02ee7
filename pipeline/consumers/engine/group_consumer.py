"""Members of consumer groups: one with checked polls, and a bare one."""

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import IllegalStateError

from pipeline.broker.connection import client_options
from pipeline.core.dead_letters.carried_record import held_bytes
from pipeline.settings import Settings

POLL_BYTES = 16 * 1024 * 1024
FIRST_RECORDS = 64

Polled: TypeAlias = dict[TopicPartition, list[ConsumerRecord]]


@dataclass(slots=True)
class PollSize:
    """The number of records to ask for next, so that a poll stays near 16 MiB of records.

    Kafka's client bounds a poll by records alone. The size of those to come is guessed from those
    that came: after a jump from small to large ones a single poll can exceed the limit, by what
    the client has fetched.

    Attributes:
        limit_records: Never more than this.
        records: How many to ask for.
    """

    limit_records: int
    records: int = FIRST_RECORDS

    def __post_init__(self) -> None:
        self.records = min(self.records, self.limit_records)

    def learn(self, polled: Iterable[ConsumerRecord]) -> None:
        """Take note of the sizes of a poll. At most twice as many are asked for as before."""
        sizes = [held_bytes(record) for record in polled]
        if not sizes:
            return
        mean_bytes = max(1, sum(sizes) // len(sizes))
        self.records = max(1, min(POLL_BYTES // mean_bytes, 2 * self.records, self.limit_records))


class PolledConsumer(AIOKafkaConsumer):  # type: ignore[misc]
    """A consumer that lets its owner attend each poll, and knows where its polls have ended.

    Attributes:
        ends: Where each partition goes on behind the records of its last poll.
    """

    def __init__(
        self,
        attend: Callable[[Callable[..., Awaitable[Polled]]], Awaitable[Polled]],
        **options: Any,  # noqa: ANN401
    ) -> None:
        """Prepare.

        Args:
            attend: Polls by the function that it is given, and returns what may be handled.
            options: Those of aiokafka's consumer.
        """
        super().__init__(**options)
        self._attend = attend
        self.ends: dict[TopicPartition, int] = {}

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int = 0, max_records: int | None = None
    ) -> Polled:
        """Poll; the owner decides how many records are asked for."""
        del max_records
        return await self._attend(partial(self._poll, *partitions, timeout_ms=timeout_ms))

    async def _poll(self, *partitions: TopicPartition, **options: Any) -> Polled:  # noqa: ANN401
        polled: Polled = await super().getmany(*partitions, **options)
        for place in polled:
            # Known as long as the partition is ours: this waits for nothing.
            with suppress(IllegalStateError):
                self.ends[place] = await self.position(place)
        return polled

    async def commit(self, offsets: Any = None) -> None:  # noqa: ANN401
        """Commit: the one place where the offsets of runs and advisories are committed."""
        await super().commit(offsets)


def group_member(settings: Settings, group: str) -> Any:  # noqa: ANN401 - aiokafka has no types
    """Return a consumer that will be a member of `group`; it subscribes and starts later.

    A group without an offset begins at the log's first record.
    """
    return AIOKafkaConsumer(
        **client_options(settings),
        group_id=group,
        group_instance_id=settings.instance,
        client_id=settings.instance or f"{group}-worker",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        session_timeout_ms=settings.session_timeout_ms,
        heartbeat_interval_ms=settings.heartbeat_interval_ms,
        max_poll_interval_ms=settings.max_poll_interval_ms,
        rebalance_timeout_ms=settings.max_poll_interval_ms,
    )
