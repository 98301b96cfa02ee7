"""The common parts of the workers of one process."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

import structlog

from pipeline.app.tracing import tracer_provider
from pipeline.audit.worker.requests import AuditRequests
from pipeline.broker.aiokafka_fixes.installed import install
from pipeline.broker.sending.batches import BatchSender, Message
from pipeline.consumers.engine.batches import BatchWorker, Steps
from pipeline.consumers.engine.judging import Judge, Judging
from pipeline.consumers.engine.outbox import Outbox, Request
from pipeline.consumers.engine.readiness import Standing
from pipeline.consumers.engine.subscription import Subscription, WorkerBroker
from pipeline.consumers.engine.traces import Traces
from pipeline.core.store.files import WrittenAhead
from pipeline.logs import enable_client_logging
from pipeline.settings import Settings
from pipeline.storage.advisory_store import AdvisoryStore
from pipeline.storage.batch_store import BatchResult
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import open_to_write

AnyStore = TypeVar("AnyStore", RunStore, AdvisoryStore)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker; it consumes from the start of its broker on.

    Attributes:
        name: Its kind, for logs.
        broker: Starts and stops it.
        subscription: Its part in the consumer group.
        faults: Each done when it cannot go on; its exception gives the reason.
        standings: Of its consumers: why it is not ready although it polls.
        about: Which store it serves, for logs.
    """

    name: str
    broker: WorkerBroker
    subscription: Subscription | AuditRequests
    faults: Sequence[asyncio.Future[None]]
    standings: Sequence[Standing]
    about: Mapping[str, Any]

    @property
    def is_ready(self) -> bool:
        """Whether it holds partitions, polls, and the broker answers."""
        return self.subscription.is_ready

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is not ready although it polls, as sentences."""
        return tuple(chain.from_iterable(each.reasons for each in self.standings))

    def has_started(self) -> None:
        """Log that it consumes now, and let its client log from now on."""
        enable_client_logging()
        _log.info(f"{self.name} started", **self.about)

    def has_stopped(self) -> None:
        """Log that it has finished and let go of everything."""
        _log.info(f"{self.name} stopped")


@asynccontextmanager
async def started(preparing: AbstractAsyncContextManager[Worker]) -> AsyncIterator[Worker]:
    """Run a worker for the length of a block; then finish its batch and leave.

    Raises:
        StoreError: The store is not usable, or does not fit broker and group.
        BrokerError: No broker answers, or its topics are not as they must be.
    """
    async with preparing as worker:
        try:
            await worker.broker.start()
            worker.has_started()
            yield worker
        finally:
            await worker.broker.stop()
    worker.has_stopped()


def reasons_of(workers: Iterable[Worker]) -> tuple[str, ...]:
    """Return why workers are not ready although they poll; a sentence that two give, once."""
    return tuple(dict.fromkeys(chain.from_iterable(each.reasons for each in workers)))


def read_whatever_comes() -> None:
    """Let no record that the broker took hold up the others in this process."""
    install(hold_partitions=True)


async def opened_store(settings: Settings, stack: AsyncExitStack, kind: type[AnyStore]) -> AnyStore:
    """Return a store with its ledger, which is closed with `stack`."""
    # In a thread: it may wait for the lock, and a signal must reach us meanwhile.
    store = await asyncio.to_thread(lambda: _opened(settings, kind))
    stack.callback(store.close)
    return store


def _opened(settings: Settings, kind: type[AnyStore]) -> AnyStore:
    store, ledger = open_to_write(settings)
    return kind(store, ledger=ledger)


async def started_sender(settings: Settings, stack: AsyncExitStack) -> BatchSender:
    """Return a sender that is stopped with `stack`."""
    sender = BatchSender(settings)
    stack.push_async_callback(sender.stop)
    await sender.start()
    return sender


async def batch_worker(
    settings: Settings,
    stack: AsyncExitStack,
    judge: Judge[Any],
    store: Callable[..., BatchResult[Any]],
    publish: Callable[[Request, Any], Iterable[Message]],
    *,
    write: Callable[[Sequence[Any]], WrittenAhead] | None = None,
    outbox: Outbox,
    epoch: int,
    accepted_rejects: int = 0,
) -> BatchWorker[Any, Any]:
    """Return a worker of batches; its threads, child process and sender end with `stack`."""
    executor = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="store"))
    writer = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="write"))
    sender = await started_sender(settings, stack)
    judging = stack.enter_context(Judging(judge, in_child=settings.judge_in_child_process))
    return BatchWorker(
        Steps(judging, store, publish, write),
        outbox,
        sender,
        epoch=epoch,
        executor=executor,
        writer=writer,
        accepted_rejects=accepted_rejects,
        traces=_traces(outbox.group, stack),
    )


def _traces(group: str, stack: AsyncExitStack) -> Traces:
    """Return where the batches of a group are reported."""
    provider = tracer_provider(group, stack)
    if provider is None:
        return Traces()
    # Only here: without a collector nothing of OpenTelemetry is imported.
    from pipeline.consumers.engine.span_traces import SpanTraces  # noqa: PLC0415

    return SpanTraces(provider)


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
            # Another part may have been the first to fail; its error is the one that is reported.
            task.exception()


def about_store(store: RunStore | AdvisoryStore) -> dict[str, Any]:
    """Return which store a worker serves, for logs."""
    return {
        "store": store.name,
        "store_id": store.identity.store_id,
        "epoch": store.identity.epoch,
        "group_commit": store.store.files.group_commits,
    }
