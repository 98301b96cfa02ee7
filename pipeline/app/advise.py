"""The advise worker: advisory requests become links, also those that come before their run.

`faststream run pipeline.app.advise:app` runs it, as `rmos worker advise` does.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial

from pipeline.app.application import WorkerApplication
from pipeline.app.worker import (
    Worker,
    about_store,
    batch_worker,
    opened_store,
    read_whatever_comes,
    running,
    started,
)
from pipeline.consumers.claims import AdvisoryClaims
from pipeline.consumers.engine.outbox import Outbox
from pipeline.consumers.engine.subscription import Subscription
from pipeline.consumers.start.checks import check_start
from pipeline.core.advisories.outcome import advisory_event, advisory_event_headers
from pipeline.core.advisories.verdict import judge_advisory_record
from pipeline.errors import InputError
from pipeline.settings import Settings
from pipeline.storage.advisory_store import AdvisoryStore


@asynccontextmanager
async def prepared_advise(
    settings: Settings, *, accepted_rejects: int = 0, accept_loss: bool = False
) -> AsyncIterator[Worker]:
    """Prepare an advise worker; see `started`.

    Raises:
        InputError: In v1 mode there is none.
    """
    if not settings.runs_v2_enabled:
        raise InputError(
            "The advise worker does not run with RMOS_RUNS_V2_ENABLED=false: advisories wait in "
            "their topic and are linked when it is true again."
        )
    read_whatever_comes()
    async with AsyncExitStack() as stack:
        store = await opened_store(settings, stack, AdvisoryStore)
        topics = settings.topics
        start = await check_start(
            settings,
            store,
            topic=topics.advisory_requests,
            group=topics.advise_group,
            writes=(topics.advisory_events, topics.advisory_dead_letters),
            accept_loss=accept_loss,
        )
        outbox = Outbox(topics.advise_group, topics.advisory_events, topics.advisory_dead_letters)
        worker = await batch_worker(
            settings,
            stack,
            judge_advisory_record,
            store.commit,
            partial(outbox.messages, advisory_event, advisory_event_headers),
            outbox=outbox,
            epoch=store.identity.epoch,
            accepted_rejects=accepted_rejects,
        )
        subscription = Subscription(settings, worker, topic=topics.advisory_requests, start=start)
        claims = AdvisoryClaims(settings, store, subscription, worker)
        claiming = await stack.enter_async_context(running(claims.run()))
        yield Worker(
            "advise worker",
            subscription.broker,
            subscription,
            [subscription.fault, claiming],
            [subscription.standing, claims.standing],
            about_store(store),
        )


def advise_worker(
    settings: Settings, *, accept_loss: bool = False
) -> AbstractAsyncContextManager[Worker]:
    """Run an advise worker for the length of a block: requests and claims; see `started`."""
    return started(prepared_advise(settings, accept_loss=accept_loss))


app = WorkerApplication(prepared_advise)
