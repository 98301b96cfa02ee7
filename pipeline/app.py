"""The composition root: the only place that wires settings, store, broker and consumers."""

import asyncio
import gc
import signal
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import structlog
import uvloop

from pipeline.api.application import create_api, create_legacy_api
from pipeline.api.broker_link import BrokerLink
from pipeline.api.guard import Guard
from pipeline.api.parts import ApiParts, LegacyParts, Threads
from pipeline.api.server import address_of, listen, serving
from pipeline.api.tokens import Tokens, tokens_for
from pipeline.broker.admin import apply_topics
from pipeline.broker.connection import describe_cluster
from pipeline.broker.local import LocalBroker
from pipeline.broker.loss_watch import watch_lost_offsets
from pipeline.broker.publisher import AdvisoryPublisher, RunPublisher
from pipeline.broker.request_sender import RequestSender
from pipeline.broker.sender import BatchSender
from pipeline.broker.tolerant_records import install_tolerant_records
from pipeline.broker.unreadable_batches import install_partition_holds
from pipeline.consumers.advisory_claims import AdvisoryClaimJudge, AdvisoryClaims
from pipeline.consumers.advisory_requests import AdvisoryDesk, AdvisoryRequestJudge
from pipeline.consumers.advisory_retries import AdvisoryRetries, AdvisoryRetryJudge
from pipeline.consumers.audit_desk import AuditDesk
from pipeline.consumers.audit_memory import tell_before
from pipeline.consumers.audit_requests import AuditRequests
from pipeline.consumers.audit_run import Auditing
from pipeline.consumers.audit_scheduling import AuditScheduler
from pipeline.consumers.batches import BatchConsumer, Pace
from pipeline.consumers.health import Checks, HealthServer, is_disk_writable
from pipeline.consumers.judging import Judging
from pipeline.consumers.legacy_requests import LegacyRequestJudge
from pipeline.consumers.legacy_start import check_legacy_start, check_v2_store
from pipeline.consumers.run_requests import RunRequestJudge
from pipeline.consumers.start_checks import StartingPlace, check_audit_start, check_start
from pipeline.consumers.subscription import Subscription
from pipeline.core.advisory import judge_advisory_record
from pipeline.core.legacy_run import judge_legacy_record
from pipeline.core.verdict import judge_run_record
from pipeline.errors import BrokerError, InputError, RmosError, TopicsError
from pipeline.ledger_build import build_logs, find_missing_leaves
from pipeline.ledger_setup import init_ledger_key, open_ledger, verifier_keys
from pipeline.logs import hear_kafka_client
from pipeline.settings import Settings
from pipeline.storage.advisory_store import AdvisoryStore
from pipeline.storage.held_folder import held_checkpoints
from pipeline.storage.identity import STORE_FILE, check_identity, create_store, read_store
from pipeline.storage.legacy_reader import LegacyReader
from pipeline.storage.legacy_runs import LegacyRuns
from pipeline.storage.run_reader import RunReader
from pipeline.storage.run_store import RunStore

Result = TypeVar("Result")

_log = structlog.get_logger(__name__)
_WATCH_SECONDS = 0.5
_QUICK_THREADS = 4
_BULK_THREADS = 4
_PROBE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Worker:
    """A running worker.

    Attributes:
        subscription: Its part in the consumer group.
        faults: Each done when it cannot go on; its exception says why.
        also_ready: What must hold besides for it to be ready.
    """

    subscription: Subscription | AuditRequests
    faults: Sequence[asyncio.Future[None]]
    also_ready: Callable[[], bool] = lambda: True

    @property
    def is_ready(self) -> bool:
        """Whether it holds partitions, polls, and the broker answers."""
        return self.subscription.is_ready and self.also_ready()


@asynccontextmanager
async def persist_worker(
    settings: Settings, *, accepted_rejects: int = 0, accept_loss: bool = False
) -> AsyncIterator[Worker]:
    """Run a persist worker for the length of a block; then finish its batch and leave.

    Raises:
        StoreError: The store is not usable, or does not fit broker and group.
        BrokerError: No broker answers, or its topics are not as they must be.
    """
    _read_whatever_comes()
    async with AsyncExitStack() as stack:
        store = RunStore(settings.data_dir, ledger=open_ledger(settings))
        stack.callback(store.close)
        topics = settings.topics
        starts = await check_start(
            settings,
            store,
            topic=topics.run_requests,
            group=topics.persist_group,
            writes=(topics.run_events, topics.run_dead_letters),
            accept_loss=accept_loss,
        )
        executor = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="store"))
        sender = await _started_sender(settings, stack)
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
        subscription = await _subscribed(settings, stack, topics.run_requests, starts, consumer)
        _tell_start("persist worker", store)
        yield Worker(subscription, [consumer.fault, subscription.fault])
    _log.info("persist worker stopped")


@asynccontextmanager
async def advise_worker(
    settings: Settings, *, accepted_rejects: int = 0, accept_loss: bool = False
) -> AsyncIterator[Worker]:
    """Run an advise worker for the length of a block: requests, retries and claims.

    Raises:
        StoreError: The store is not usable, or does not fit broker and group.
        BrokerError: No broker answers, or its topics are not as they must be.
    """
    _read_whatever_comes()
    async with AsyncExitStack() as stack:
        store = AdvisoryStore(settings.data_dir, ledger=open_ledger(settings))
        stack.callback(store.close)
        topics = settings.topics
        starts = await check_start(
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
        sender = await _started_sender(settings, stack)
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
        retrying = await stack.enter_async_context(_running(retries.run()))
        claims = AdvisoryClaims(settings, desk, claimed)
        claiming = await stack.enter_async_context(_running(claims.run()))
        subscription = await _subscribed(
            settings, stack, topics.advisory_requests, starts, consumer
        )
        _tell_start("advise worker", store)
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
        )
    _log.info("advise worker stopped")


@asynccontextmanager
async def legacy_persist_worker(
    settings: Settings, *, accepted_rejects: int = 0, accept_loss: bool = False
) -> AsyncIterator[Worker]:
    """Run a persist worker over the v1 store for the length of a block.

    Raises:
        StoreError: The v1 store is not usable, or does not fit the group.
        BrokerError: No broker answers, or its topics are not as they must be.
    """
    _read_whatever_comes()
    async with AsyncExitStack() as stack:
        topics = settings.topics
        group = topics.persist_v1_group
        cluster_id, epoch, starts = await check_legacy_start(
            settings,
            writes=(topics.run_events, topics.run_dead_letters),
            accept_loss=accept_loss,
        )
        executor = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="store"))
        sender = await _started_sender(settings, stack)
        judging = Judging(judge_legacy_record, helper=settings.judge_in_helper)
        consumer = BatchConsumer(
            group,
            LegacyRequestJudge(
                LegacyRuns(settings.run_store_path, cluster_id),
                topics,
                epoch,
                judging=stack.enter_context(judging),
                executor=executor,
                accepted_rejects=accepted_rejects,
            ),
            sender,
            Pace(settings.broker_pause_seconds),
        )
        subscription = await _subscribed(settings, stack, topics.run_requests, starts, consumer)
        _log.info("persist worker started", v1_store=str(settings.run_store_path), epoch=epoch)
        yield Worker(subscription, [consumer.fault, subscription.fault])
    _log.info("persist worker stopped")


@asynccontextmanager
async def audit_worker(
    settings: Settings, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> AsyncIterator[Worker]:
    """Run an audit worker for the length of a block: requests, and the schedule of its own.

    Args:
        settings: Store, broker, schedule, and where checkpoints are held.
        clock: Returns the time, for reports and the schedule.

    Raises:
        InputError: A file of held checkpoints cannot be used.
        StoreError: The store is not usable, or does not fit the broker.
        BrokerError: No broker answers, or its topics are not as they must be.
    """
    _read_whatever_comes()
    async with AsyncExitStack() as stack:
        identity = await check_audit_start(settings)
        # A key that is missing, or a file that cannot be used, is told now, not at the first audit.
        verifier_keys(settings, identity)
        held_checkpoints(settings.audit_held_dir)
        tell_before(settings.data_dir, clock())
        sender = await _started_sender(settings, stack)
        auditing = Auditing(
            settings,
            identity.epoch,
            lambda: verifier_keys(settings, identity),
            lambda: held_checkpoints(settings.audit_held_dir),
            auditor=stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="auditor")),
            disk=stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="audits")),
            clock=clock,
        )
        desk = AuditDesk(auditing, sender, Pace(settings.broker_pause_seconds))
        requests = AuditRequests(settings, desk.settle)
        stack.push_async_callback(requests.stop)
        await requests.start()
        hear_kafka_client()
        settling = await stack.enter_async_context(_running(requests.run()))
        asking = RequestSender(settings)
        stack.push_async_callback(asking.stop)
        scheduler = AuditScheduler(settings, asking, clock)
        scheduling = await stack.enter_async_context(_running(scheduler.run()))
        _log.info("audit worker started", store=str(settings.data_dir), store_id=identity.store_id)
        yield Worker(requests, [settling, scheduling])
    _log.info("audit worker stopped")


@dataclass(frozen=True, slots=True)
class ApiServer:
    """A running API.

    Attributes:
        address: Host and port, as a URL has them.
        fault: Done when it cannot go on.
    """

    address: str
    fault: asyncio.Future[None]


@asynccontextmanager
async def api_server(
    settings: Settings, workers: Sequence[Worker] = ()
) -> AsyncIterator[ApiServer]:
    """Serve the HTTP API for the length of a block; then let requests under way end.

    It starts without a broker: what is stored can be read, and publishing is tried at need.

    Args:
        settings: Address, tokens, store and broker.
        workers: Those of this process; the API is ready only if they are.

    Raises:
        InputError: Other machines could reach it and there are no tokens, or no usable ones.
        AddressTakenError: Another program listens there.
        StoreError: The store is not usable.
    """
    async with AsyncExitStack() as stack:
        tokens = tokens_for(settings.api_host, settings.api_tokens_file)
        listening = stack.enter_context(listen(settings.api_host, settings.api_port))
        api = _api(settings, workers, tokens, stack)
        fault = await stack.enter_async_context(
            serving(api, listening, stop_seconds=settings.stop_timeout_seconds)
        )
        await stack.enter_async_context(_running(watch_lost_offsets(settings)))
        address = address_of(listening)
        _log.info("api started", address=address, tokens=tokens is not None)
        yield ApiServer(address, fault)
    _log.info("api stopped")


def _api(
    settings: Settings, workers: Sequence[Worker], tokens: Tokens | None, stack: AsyncExitStack
) -> Guard:
    """Return the API of the store that the settings name; `stack` lets go of what it holds."""
    if not settings.runs_v2_enabled:
        legacy = _legacy_parts(settings, workers)
        stack.callback(legacy.quick.close)
        stack.push_async_callback(legacy.runs.stop)
        return create_legacy_api(legacy, tokens)
    reader = RunReader(settings.data_dir)
    stack.callback(reader.close)
    parts = _api_parts(settings, reader, workers)
    stack.callback(parts.quick.close)
    stack.callback(parts.bulk.close)
    stack.push_async_callback(parts.runs.stop)
    stack.push_async_callback(parts.advisories.stop)
    return create_api(parts, tokens)


def _api_parts(settings: Settings, reader: RunReader, workers: Sequence[Worker]) -> ApiParts:
    async def check_broker() -> None:
        cluster_id = await describe_cluster(settings)
        root = settings.data_dir
        check_identity(read_store(root), root, cluster_id=cluster_id, prefix=settings.prefix)

    return ApiParts(
        settings=settings,
        runs=BrokerLink(lambda: RunPublisher(settings), check_broker),
        quick=Threads(_QUICK_THREADS, "api"),
        checks=_api_checks(settings, workers, check_broker),
        reader=reader,
        advisories=BrokerLink(lambda: AdvisoryPublisher(settings), check_broker),
        bulk=Threads(_BULK_THREADS, "blobs"),
    )


def _legacy_parts(settings: Settings, workers: Sequence[Worker]) -> LegacyParts:
    async def check_broker() -> None:
        check_v2_store(settings, await describe_cluster(settings))

    return LegacyParts(
        settings=settings,
        runs=BrokerLink(lambda: RunPublisher(settings), check_broker),
        quick=Threads(_QUICK_THREADS, "api"),
        checks=_api_checks(settings, workers, check_broker),
        reader=LegacyReader(settings.run_store_path),
    )


def _api_checks(
    settings: Settings, workers: Sequence[Worker], check_broker: Callable[[], Awaitable[None]]
) -> Callable[[], Awaitable[Checks]]:
    async def broker_answers() -> bool:
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await check_broker()
        except (RmosError, TimeoutError):
            return False
        return True

    async def checks() -> Checks:
        return {
            "broker answers": await broker_answers(),
            "consumers hold partitions and poll": all(worker.is_ready for worker in workers),
            "disk writable": is_disk_writable(_store_folder(settings)),
        }

    return checks


def _store_folder(settings: Settings) -> Path:
    """Return the folder that whoever stores must be able to write to."""
    if settings.runs_v2_enabled:
        return settings.data_dir
    return settings.run_store_path.resolve().parent


async def run_api(settings: Settings) -> None:
    """Serve the HTTP API until a signal stops it.

    Raises:
        RmosError: It could not start; the text says what to do.
    """
    stop = stop_on_signals()
    async with api_server(settings) as server:
        with serve_health(settings, []):
            await until_stopped(stop, server.fault)


def _read_whatever_comes() -> None:
    """Let no record that the broker took hold up the others in this process."""
    install_tolerant_records()
    install_partition_holds()


async def _started_sender(settings: Settings, stack: AsyncExitStack) -> BatchSender:
    sender = BatchSender(settings)
    stack.push_async_callback(sender.stop)
    await sender.start()
    return sender


async def _subscribed(
    settings: Settings,
    stack: AsyncExitStack,
    topic: str,
    starts: Mapping[int, StartingPlace],
    consumer: BatchConsumer,
) -> Subscription:
    subscription = Subscription(
        settings, topic=topic, group=consumer.group, starts=starts, handler=consumer.handle
    )
    stack.push_async_callback(subscription.stop)
    await subscription.start()
    hear_kafka_client()
    return subscription


@asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
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


def _tell_start(what: str, store: RunStore | AdvisoryStore) -> None:
    _log.info(
        f"{what} started",
        store=str(store.root),
        store_id=store.identity.store_id,
        epoch=store.identity.epoch,
        group_commit=store.group_commits,
    )


async def run_worker(
    settings: Settings, worker: Callable[[], AbstractAsyncContextManager[Worker]]
) -> None:
    """Run one worker until a signal stops it.

    Args:
        settings: Where metrics and health are served.
        worker: Starts it.

    Raises:
        RmosError: It could not start or go on; the text says what to do.
    """
    stop = stop_on_signals()
    async with worker() as running:
        with serve_health(settings, [running]):
            await until_stopped(stop, *running.faults)


async def run_persist_worker(
    settings: Settings, *, accepted_rejects: int = 0, accept_loss: bool = False
) -> None:
    """Run a persist worker until a signal stops it.

    Raises:
        RmosError: It could not start or go on; the text says what to do.
    """
    work = persist_worker if settings.runs_v2_enabled else legacy_persist_worker
    await run_worker(
        settings,
        lambda: work(settings, accepted_rejects=accepted_rejects, accept_loss=accept_loss),
    )


async def run_advise_worker(
    settings: Settings, *, accepted_rejects: int = 0, accept_loss: bool = False
) -> None:
    """Run an advise worker until a signal stops it.

    Raises:
        RmosError: It could not start or go on; the text says what to do.
    """
    if not settings.runs_v2_enabled:
        message = (
            "The advise worker does not run with RMOS_RUNS_V2_ENABLED=false: advisories wait in "
            "their topic and are linked when it is true again."
        )
        raise InputError(message)
    await run_worker(
        settings,
        lambda: advise_worker(settings, accepted_rejects=accepted_rejects, accept_loss=accept_loss),
    )


async def run_audit_worker(settings: Settings) -> None:
    """Run an audit worker until a signal stops it.

    Raises:
        RmosError: It could not start or go on; the text says what to do.
    """
    await run_worker(settings, lambda: audit_worker(settings))


async def run_all_workers(settings: Settings, *, accept_loss: bool = False) -> None:
    """Run all workers in this process until a signal stops them; one stops, all stop.

    Raises:
        RmosError: One could not start or go on; the text says what to do.
    """
    stop = stop_on_signals()
    async with _all_workers(settings, accept_loss=accept_loss) as workers:
        with serve_health(settings, workers):
            await until_stopped(stop, *(fault for worker in workers for fault in worker.faults))


async def run_everything(settings: Settings, tell: Callable[[str], None]) -> None:
    """Run a local broker, topics, a store, all consumers and the API until a signal stops them.

    One part stops, all stop.

    Args:
        settings: The broker's port and the store's folder; its address is the broker's own.
        tell: Told what is being done, and where things are.

    Raises:
        RmosError: A part could not start or go on; the text says what to do.
    """
    stop = stop_on_signals()
    async with local_broker(settings, tell) as broker:
        settings = settings.model_copy(update={"bootstrap_servers": broker.bootstrap_servers})
        await prepare_local(settings, broker, tell)
        async with (
            _all_workers(settings) as workers,
            watch(broker) as broker_fault,
            api_server(settings, workers) as api,
        ):
            with serve_health(settings, workers):
                tell(f"API http://{api.address}/api/rmos/runs")
                if not settings.runs_v2_enabled:
                    tell("v1 mode: advisories wait until RMOS_RUNS_V2_ENABLED is true again")
                tell(f"broker {broker.bootstrap_servers}, store {_store_of(settings)}: ready")
                faults = (fault for worker in workers for fault in worker.faults)
                await until_stopped(stop, *faults, api.fault, broker_fault)
        tell("stopping")


@asynccontextmanager
async def _all_workers(
    settings: Settings, *, accept_loss: bool = False
) -> AsyncIterator[Sequence[Worker]]:
    """Run every worker of the store that the settings name: in v1 mode there is one."""
    async with AsyncExitStack() as stack:
        if not settings.runs_v2_enabled:
            legacy = legacy_persist_worker(settings, accept_loss=accept_loss)
            yield [await stack.enter_async_context(legacy)]
            return
        yield [
            await stack.enter_async_context(worker)
            for worker in (
                persist_worker(settings, accept_loss=accept_loss),
                advise_worker(settings, accept_loss=accept_loss),
                audit_worker(settings),
            )
        ]


def _store_of(settings: Settings) -> Path:
    return settings.data_dir if settings.runs_v2_enabled else settings.run_store_path


@asynccontextmanager
async def local_broker(
    settings: Settings, tell: Callable[[str], None]
) -> AsyncIterator[LocalBroker]:
    """Run the local broker for the length of a block.

    Raises:
        BrokerError: It could not start.
    """
    broker = LocalBroker(
        settings.data_dir / "kafka",
        port=settings.broker_port,
        cache_dir=settings.broker_cache_dir,
        on_progress=tell,
    )
    try:
        await asyncio.to_thread(broker.start)
        yield broker
    finally:
        await asyncio.to_thread(broker.stop)


async def prepare_local(
    settings: Settings, broker: LocalBroker, tell: Callable[[str], None]
) -> None:
    """Make what is missing for a local broker: the store, the ledger's key and the topics.

    Raises:
        StoreError: The folder cannot be a store.
        TopicsError: A topic is there with other settings.
    """
    if settings.runs_v2_enabled:
        _prepare_store(settings, broker.cluster_id, tell)
    differences = await apply_topics(settings)
    if differences:
        message = (
            f"The topic {differences[0].topic} is not as it must be: rmos topics check tells what "
            "differs."
        )
        raise TopicsError(message)
    if settings.runs_v2_enabled:
        await _complete_logs(settings, tell)


async def _complete_logs(settings: Settings, tell: Callable[[str], None]) -> None:
    """Build the logs of a store that was written without a ledger, by an older version."""
    missing = await find_missing_leaves(settings)
    missing.refuse_loss()
    if missing.offsets:
        tell(f"building the ledger of {missing.offsets:,} records that were consumed before")
        await build_logs(settings, missing)


def _prepare_store(settings: Settings, cluster_id: str, tell: Callable[[str], None]) -> None:
    if not (settings.data_dir / STORE_FILE).exists():
        create_store(settings.data_dir, cluster_id=cluster_id, prefix=settings.prefix)
        tell(f"new store at {settings.data_dir}")
    if not settings.ledger_enabled:
        return
    made = init_ledger_key(settings)
    if made.is_new:
        tell(f"new ledger key at {made.path}: keep a copy, and keep it apart from the store")
        tell(f"its public part, for whoever checks: {made.key}")


@asynccontextmanager
async def watch(broker: LocalBroker) -> AsyncIterator[asyncio.Future[None]]:
    """Give a future that fails when the local broker ends by itself during the block."""
    fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def look() -> None:
        while broker.is_running():  # noqa: ASYNC110
            await asyncio.sleep(_WATCH_SECONDS)  # a process can only be asked
        status, *lines = (broker.exit_reason() or "stopped").splitlines()
        last = f": {lines[-1]}" if lines else ""
        message = f"The local broker ended by itself ({status}){last}"
        fault.set_exception(BrokerError(message))

    task = asyncio.create_task(look())
    try:
        yield fault
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        if fault.done():
            # Another part may have been the first to fail; its error is the one that is told.
            fault.exception()


def run_service(service: Coroutine[Any, Any, Result]) -> Result:
    """Run what this process is for, on a loop and a collector that suit it; return its result."""
    # A batch keeps tens of thousands of parsed values alive for a moment. The collector's own
    # thresholds would walk all of them every few hundred new ones: measured, a third of the time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(service)


def stop_on_signals() -> asyncio.Event:
    """Return an event that SIGINT and SIGTERM set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


async def until_stopped(stop: asyncio.Event, *faults: asyncio.Future[None]) -> None:
    """Wait until `stop` is set or one of `faults` is done, and raise its exception."""
    stopped = asyncio.create_task(stop.wait())
    awaited: list[asyncio.Future[Any]] = [stopped, *faults]
    await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    for fault in faults:
        if fault.done():
            fault.result()


@contextmanager
def serve_health(settings: Settings, workers: Sequence[Worker]) -> Iterator[None]:
    """Serve metrics and health of this process while a block runs, if there is a port for them.

    Raises:
        InputError: The port cannot be bound.
    """
    if settings.metrics_port is None:
        yield
        return

    def checks() -> Checks:
        return {
            "consumers hold partitions and poll": all(worker.is_ready for worker in workers),
            "disk writable": is_disk_writable(_store_folder(settings)),
        }

    server = HealthServer(settings.metrics_host, settings.metrics_port, checks)
    server.start()
    _log.info("metrics and health", address=server.address)
    try:
        yield
    finally:
        server.stop()
