"""The persist worker: run requests become artifacts, or rows of the v1 store in an emergency.

`faststream run pipeline.app.persist:app` runs it, as `rmos worker persist` does.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from pipeline.app.application import WorkerApplication
from pipeline.app.worker import (
    Worker,
    about_store,
    batch_worker,
    opened_store,
    read_whatever_comes,
    started,
)
from pipeline.consumers.engine.batches import BatchWorker
from pipeline.consumers.engine.outbox import Outbox
from pipeline.consumers.engine.subscription import Subscription
from pipeline.consumers.start.checks import Start, check_start
from pipeline.core.runs.event import run_event, run_event_headers
from pipeline.core.runs.outcome import Outcome
from pipeline.core.runs.verdict import JudgedRun, judge_run_record
from pipeline.legacy.v1_mode.outcome import V1Runs, judge_run_as_row, v1_run_event
from pipeline.legacy.v1_mode.start import check_v1_start
from pipeline.settings import Settings
from pipeline.storage.run_store import RunStore


@asynccontextmanager
async def prepared_persist(
    settings: Settings, *, accepted_rejects: int = 0, accept_loss: bool = False
) -> AsyncIterator[Worker]:
    """Prepare a persist worker; see `started`."""
    read_whatever_comes()
    async with AsyncExitStack() as stack:
        store = await opened_store(settings, stack, RunStore)
        topics = settings.topics
        start = await check_start(
            settings,
            store,
            topic=topics.run_requests,
            group=topics.persist_group,
            writes=(topics.run_events, topics.run_dead_letters),
            accept_loss=accept_loss,
        )
        worker = await worker_of_runs(settings, stack, store, accepted_rejects=accepted_rejects)
        yield _persist_worker(settings, worker, start, about_store(store))


async def worker_of_runs(
    settings: Settings, stack: AsyncExitStack, store: RunStore, *, accepted_rejects: int = 0
) -> BatchWorker[JudgedRun, Outcome]:
    """Return what takes run requests into `store`; its parts end with `stack`."""
    topics = settings.topics
    outbox = Outbox(topics.persist_group, topics.run_events, topics.run_dead_letters)
    return await batch_worker(
        settings,
        stack,
        judge_run_record,
        store.commit,
        partial(outbox.messages, run_event, run_event_headers),
        write=store.write,
        outbox=outbox,
        epoch=store.identity.epoch,
        accepted_rejects=accepted_rejects,
    )


@asynccontextmanager
async def prepared_legacy_persist(
    settings: Settings, *, accepted_rejects: int = 0, accept_loss: bool = False
) -> AsyncIterator[Worker]:
    """Prepare a persist worker over the v1 store; see `started`."""
    read_whatever_comes()
    async with AsyncExitStack() as stack:
        topics = settings.topics
        cluster_id, epoch, start = await check_v1_start(
            settings,
            writes=(topics.run_events, topics.run_dead_letters),
            accept_loss=accept_loss,
        )
        runs = V1Runs(settings.run_store_path, cluster_id)
        outbox = Outbox(topics.persist_v1_group, topics.run_events, topics.run_dead_letters)
        worker = await batch_worker(
            settings,
            stack,
            judge_run_as_row,
            runs.commit,
            partial(outbox.messages, v1_run_event, run_event_headers),
            outbox=outbox,
            epoch=epoch,
            accepted_rejects=accepted_rejects,
        )
        about = {"v1_store": str(settings.run_store_path), "epoch": epoch}
        yield _persist_worker(settings, worker, start, about)


def _persist_worker(
    settings: Settings, worker: BatchWorker[Any, Any], start: Start, about: Mapping[str, Any]
) -> Worker:
    topic = settings.topics.run_requests
    subscription = Subscription(settings, worker, topic=topic, start=start)
    return Worker(
        "persist worker",
        subscription.broker,
        subscription,
        [subscription.fault],
        [subscription.standing],
        about,
    )


def preparing_persist(
    settings: Settings, *, accepted_rejects: int = 0, accept_loss: bool = False
) -> AbstractAsyncContextManager[Worker]:
    """Prepare the persist worker of the store that the settings name."""
    prepare = prepared_persist if settings.runs_v2_enabled else prepared_legacy_persist
    return prepare(settings, accepted_rejects=accepted_rejects, accept_loss=accept_loss)


def persist_worker(
    settings: Settings, *, accepted_rejects: int = 0, accept_loss: bool = False
) -> AbstractAsyncContextManager[Worker]:
    """Run that persist worker for the length of a block; see `started`."""
    return started(
        preparing_persist(settings, accepted_rejects=accepted_rejects, accept_loss=accept_loss)
    )


app = WorkerApplication(preparing_persist)
