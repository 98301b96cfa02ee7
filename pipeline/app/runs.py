"""Persist workers: of the store, and of the v1 store in an emergency."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from pipeline.app.worker import Worker, read_whatever_comes, started_sender, subscribed, tell_start
from pipeline.consumers.engine.batches import BatchConsumer, Pace
from pipeline.consumers.engine.judging import Judging
from pipeline.consumers.run_requests import RunRequestJudge
from pipeline.consumers.start.checks import check_start
from pipeline.core.runs.verdict import judge_run_record
from pipeline.legacy.v1_mode.outcome import judge_run_as_row
from pipeline.legacy.v1_mode.start import check_v1_start
from pipeline.legacy.v1_mode.store import V1Runs
from pipeline.legacy.v1_mode.worker import V1RequestJudge
from pipeline.settings import Settings
from pipeline.storage.ledger_key import open_ledger
from pipeline.storage.run_store import RunStore

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def persist_worker(
    settings: Settings, *, accepted_rejects: int = 0, accept_loss: bool = False
) -> AsyncIterator[Worker]:
    """Run a persist worker for the length of a block; then finish its batch and leave.

    Raises:
        StoreError: The store is not usable, or does not fit broker and group.
        BrokerError: No broker answers, or its topics are not as they must be.
    """
    read_whatever_comes()
    async with AsyncExitStack() as stack:
        # In a thread: it may wait for the lock, and a signal must reach us meanwhile.
        store = await asyncio.to_thread(
            lambda: RunStore(settings.data_dir, ledger=open_ledger(settings))
        )
        stack.callback(store.close)
        topics = settings.topics
        start = await check_start(
            settings,
            store,
            topic=topics.run_requests,
            group=topics.persist_group,
            writes=(topics.run_events, topics.run_dead_letters),
            accept_loss=accept_loss,
        )
        executor = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="store"))
        sender = await started_sender(settings, stack)
        judging = Judging(judge_run_record, helper=settings.judge_in_helper)
        consumer = BatchConsumer(
            topics.persist_group,
            RunRequestJudge(
                store,
                topics,
                judging=stack.enter_context(judging),
                executor=executor,
                accepted_rejects=accepted_rejects,
            ),
            sender,
            Pace(settings.broker_pause_seconds),
        )
        subscription = await subscribed(settings, stack, topics.run_requests, start, consumer)
        tell_start("persist worker", store)
        yield Worker(
            subscription, [consumer.fault, subscription.fault], standings=[consumer.standing]
        )
    _log.info("persist worker stopped")


@asynccontextmanager
async def legacy_persist_worker(
    settings: Settings, *, accepted_rejects: int = 0, accept_loss: bool = False
) -> AsyncIterator[Worker]:
    """Run a persist worker over the v1 store for the length of a block.

    Raises:
        StoreError: The v1 store is not usable, or does not fit the group.
        BrokerError: No broker answers, or its topics are not as they must be.
    """
    read_whatever_comes()
    async with AsyncExitStack() as stack:
        topics = settings.topics
        group = topics.persist_v1_group
        cluster_id, epoch, start = await check_v1_start(
            settings,
            writes=(topics.run_events, topics.run_dead_letters),
            accept_loss=accept_loss,
        )
        executor = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="store"))
        sender = await started_sender(settings, stack)
        judging = Judging(judge_run_as_row, helper=settings.judge_in_helper)
        consumer = BatchConsumer(
            group,
            V1RequestJudge(
                V1Runs(settings.run_store_path, cluster_id),
                topics,
                epoch,
                judging=stack.enter_context(judging),
                executor=executor,
                accepted_rejects=accepted_rejects,
            ),
            sender,
            Pace(settings.broker_pause_seconds),
        )
        subscription = await subscribed(settings, stack, topics.run_requests, start, consumer)
        _log.info("persist worker started", v1_store=str(settings.run_store_path), epoch=epoch)
        yield Worker(
            subscription, [consumer.fault, subscription.fault], standings=[consumer.standing]
        )
    _log.info("persist worker stopped")
