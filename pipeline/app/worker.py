"""What the workers of one process have in common: what one is, and how it is put together."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import structlog

from pipeline.audit.worker.requests import AuditRequests
from pipeline.broker.aiokafka_fixes.tolerant_records import install_tolerant_records
from pipeline.broker.aiokafka_fixes.unreadable_batches import install_partition_holds
from pipeline.broker.sending.batches import BatchSender
from pipeline.consumers.engine.batches import BatchConsumer
from pipeline.consumers.engine.standing import Standing
from pipeline.consumers.engine.subscription import Subscription
from pipeline.consumers.start.checks import Start
from pipeline.logs import enable_client_logging
from pipeline.settings import Settings
from pipeline.storage.advisory_store import AdvisoryStore
from pipeline.storage.run_store import RunStore

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Worker:
    """A running worker.

    Attributes:
        subscription: Its part in the consumer group.
        faults: Each done when it cannot go on; its exception says why.
        also_ready: What must hold besides for it to be ready.
        standings: Of its consumers: why it is not ready although it polls.
    """

    subscription: Subscription | AuditRequests
    faults: Sequence[asyncio.Future[None]]
    also_ready: Callable[[], bool] = lambda: True
    standings: Sequence[Standing] = ()

    @property
    def is_ready(self) -> bool:
        """Whether it holds partitions, polls, and the broker answers."""
        return self.subscription.is_ready and self.also_ready()

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is not ready although it polls, as sentences."""
        return tuple(chain.from_iterable(each.reasons for each in self.standings))


def reasons_of(workers: Iterable[Worker]) -> tuple[str, ...]:
    """Return why workers are not ready although they poll; a sentence that two give, once."""
    return tuple(dict.fromkeys(chain.from_iterable(each.reasons for each in workers)))


def read_whatever_comes() -> None:
    """Let no record that the broker took hold up the others in this process."""
    install_tolerant_records()
    install_partition_holds()


async def started_sender(settings: Settings, stack: AsyncExitStack) -> BatchSender:
    """Return a sender that is stopped with `stack`."""
    sender = BatchSender(settings)
    stack.push_async_callback(sender.stop)
    await sender.start()
    return sender


async def subscribed(
    settings: Settings,
    stack: AsyncExitStack,
    topic: str,
    start: Start,
    consumer: BatchConsumer,
) -> Subscription:
    """Begin to consume `topic` in `group`; the subscription is stopped with `stack`."""
    subscription = Subscription(
        settings,
        topic=topic,
        standing=consumer.standing,
        start=start,
        handler=consumer.handle,
        keep_only=consumer.keep_only,
    )
    stack.push_async_callback(subscription.stop)
    await subscription.start()
    enable_client_logging()
    return subscription


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Run `work` beside a block, and end it with the block."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            # Another part may have been the first to fail; its error is the one that is told.
            task.exception()


def tell_start(what: str, store: RunStore | AdvisoryStore) -> None:
    """Log that a worker has started, and over which store."""
    _log.info(
        f"{what} started",
        store=str(store.root),
        store_id=store.identity.store_id,
        epoch=store.identity.epoch,
        group_commit=store.group_commits,
    )
