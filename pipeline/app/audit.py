"""The audit worker: audits on request and on its own schedule.

`faststream run pipeline.app.audit:app` runs it, as `rmos worker audit` does.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

from pipeline.app.application import WorkerApplication
from pipeline.app.worker import Worker, read_whatever_comes, running, started, started_sender
from pipeline.audit.audited_store import audited_store
from pipeline.audit.worker.handler import AuditHandler
from pipeline.audit.worker.requests import AuditRequests
from pipeline.audit.worker.run import Auditing
from pipeline.audit.worker.schedule import AuditScheduler, show_last_audits
from pipeline.broker.sending.requests import RequestSender
from pipeline.consumers.engine.readiness import Backoff
from pipeline.consumers.engine.subscription import WorkerBroker
from pipeline.consumers.start.checks import check_audit_start
from pipeline.ledger.witnessed import trusted_checkpoints
from pipeline.settings import Settings
from pipeline.storage.ledger_key import verifier_keys


def _now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def prepared_audit(
    settings: Settings, *, clock: Callable[[], datetime] = _now
) -> AsyncIterator[Worker]:
    """Prepare an audit worker, which has joined its group by then; see `started`.

    Args:
        settings: Store, broker, schedule, and the folder of trusted checkpoints.
        clock: Returns the time, for reports and the schedule.

    Raises:
        InputError: A file of trusted checkpoints cannot be used.
        StoreError: The store is not usable, or does not fit the broker.
        BrokerError: No broker answers, or its topics are not as they must be.
    """
    read_whatever_comes()
    async with AsyncExitStack() as stack:
        store = await asyncio.to_thread(audited_store, settings)
        stack.callback(store.let_go)
        await check_audit_start(settings, store)
        identity = store.identity
        # A missing key or a file that cannot be used is reported now, not at the first audit.
        verifier_keys(settings, identity, store.files)
        trusted_checkpoints(settings.audit_trusted_dir)
        show_last_audits(store.files, clock())
        sender = await started_sender(settings, stack)
        auditing = Auditing(
            settings,
            store,
            lambda: verifier_keys(settings, identity, store.files),
            lambda: trusted_checkpoints(settings.audit_trusted_dir),
            clock,
        )
        handler = AuditHandler(auditing, sender, Backoff(settings.broker_pause_seconds))
        requests = AuditRequests(settings, handler.handle, handler.standing)
        stack.push_async_callback(requests.stop)
        await requests.start()
        handling = await stack.enter_async_context(running(requests.run()))
        asking = RequestSender(settings)
        stack.push_async_callback(asking.stop)
        scheduler = AuditScheduler(settings, store.files, asking, clock, handler.standing)
        scheduling = await stack.enter_async_context(running(scheduler.run()))
        yield Worker(
            "audit worker",
            # Its loop is its own: FastStream's would not poll during an audit of hours.
            WorkerBroker(settings, requests.group),
            requests,
            [handling, scheduling],
            [handler.standing],
            {"store": store.name, "store_id": identity.store_id},
        )


def audit_worker(
    settings: Settings, clock: Callable[[], datetime] = _now
) -> AbstractAsyncContextManager[Worker]:
    """Run an audit worker for the length of a block; see `started`."""
    return started(prepared_audit(settings, clock=clock))


app = WorkerApplication(prepared_audit)
