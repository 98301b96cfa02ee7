"""The advise worker: requests, retries and claims."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from pipeline.app.worker import (
    Worker,
    read_whatever_comes,
    running,
    started_sender,
    subscribed,
    tell_start,
)
from pipeline.consumers.advisories.claims import AdvisoryClaimJudge, AdvisoryClaims
from pipeline.consumers.advisories.requests import AdvisoryDesk, AdvisoryRequestJudge
from pipeline.consumers.advisories.retries import AdvisoryRetries, AdvisoryRetryJudge
from pipeline.consumers.engine.batches import BatchConsumer, Pace
from pipeline.consumers.engine.judging import Judging
from pipeline.consumers.start.checks import check_start
from pipeline.core.advisories.verdict import judge_advisory_record
from pipeline.settings import Settings
from pipeline.storage.advisory_store import AdvisoryStore
from pipeline.storage.ledger_key import open_ledger

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def advise_worker(
    settings: Settings, *, accepted_rejects: int = 0, accept_loss: bool = False
) -> AsyncIterator[Worker]:
    """Run an advise worker for the length of a block: requests, retries and claims.

    Raises:
        StoreError: The store is not usable, or does not fit broker and group.
        BrokerError: No broker answers, or its topics are not as they must be.
    """
    read_whatever_comes()
    async with AsyncExitStack() as stack:
        # In a thread: it may wait for the lock, and a signal must reach us meanwhile.
        store = await asyncio.to_thread(
            lambda: AdvisoryStore(settings.data_dir, ledger=open_ledger(settings))
        )
        stack.callback(store.close)
        topics = settings.topics
        start = await check_start(
            settings,
            store,
            topic=topics.advisory_requests,
            group=topics.advise_group,
            writes=(
                topics.advisory_events,
                topics.advisory_dead_letters,
                *topics.advisory_retries,
            ),
            accept_loss=accept_loss,
        )
        executor = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="advisories"))
        sender = await started_sender(settings, stack)
        judging = Judging(judge_advisory_record, helper=settings.judge_in_helper)
        desk = AdvisoryDesk(store, topics, judging=stack.enter_context(judging), executor=executor)
        pace = Pace(settings.broker_pause_seconds)
        consumer, retried, claimed = (
            BatchConsumer(group, judge, sender, pace)
            for group, judge in (
                (
                    topics.advise_group,
                    AdvisoryRequestJudge(desk, accepted_rejects=accepted_rejects),
                ),
                (topics.advise_retry_group, AdvisoryRetryJudge(desk)),
                (topics.advise_group, AdvisoryClaimJudge(desk)),
            )
        )
        retries = AdvisoryRetries(settings, retried)
        stack.push_async_callback(retries.stop)
        await retries.start()
        retrying = await stack.enter_async_context(running(retries.run()))
        claims = AdvisoryClaims(settings, desk, claimed)
        claiming = await stack.enter_async_context(running(claims.run()))
        subscription = await subscribed(settings, stack, topics.advisory_requests, start, consumer)
        tell_start("advise worker", store)
        yield Worker(
            subscription,
            [
                consumer.fault,
                subscription.fault,
                retried.fault,
                claimed.fault,
                retrying,
                claiming,
            ],
            lambda: retries.is_ready,
            [consumer.standing, retried.standing, claimed.standing],
        )
    _log.info("advise worker stopped")
