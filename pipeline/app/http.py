"""The HTTP API as a service, over the store or, in v1 mode, over the v1 store."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import structlog

from pipeline.api.application import create_api, create_legacy_api
from pipeline.api.dependencies import (
    ApiDependencies,
    LegacyDependencies,
    OneByOne,
    ThreadPool,
    Threads,
)
from pipeline.api.drawings import Drawings
from pipeline.api.http.middleware import RequestMiddleware
from pipeline.api.http.server import address_of, listen, serving
from pipeline.api.http.tokens import Tokens, tokens_for
from pipeline.api.publishing import LazyPublisher
from pipeline.app.process import (
    disk_checks,
    measure_disk,
    serve_health,
    stop_on_signals,
    until_stopped,
)
from pipeline.app.tracing import tracer_provider
from pipeline.app.worker import Worker, reasons_of, running
from pipeline.broker.admin.open_transactions import holder_of
from pipeline.broker.aiokafka_fixes.installed import install
from pipeline.broker.connection import describe_cluster
from pipeline.broker.event_reader import EventTail
from pipeline.broker.publisher import AdvisoryPublisher, RunPublisher
from pipeline.broker.reading.looks import WAIT_SECONDS, BrokerLooks, SharedLook
from pipeline.broker.reading.lost_offsets import watch_lost_offsets
from pipeline.consumers.health import Checks
from pipeline.core.store.identity import read_identity
from pipeline.disk.store_identity import check_identity
from pipeline.errors import RmosError
from pipeline.legacy.v1.reader import V1Reader
from pipeline.legacy.v1_mode.start import check_v2_store
from pipeline.page.pages import legacy_pages, pages
from pipeline.settings import Settings
from pipeline.storage.reader import RunReader
from pipeline.storage.store import open_to_read

_log = structlog.get_logger(__name__)
_LOOKUP_THREADS = 4
_TRANSFER_THREADS = 4
_KNOWN_FOR_SECONDS = 1.0


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
    install()
    async with AsyncExitStack() as stack:
        tokens = tokens_for(settings.api_host, settings.api_tokens_file)
        listening = stack.enter_context(listen(settings.api_host, settings.api_port))
        api = _api(settings, workers, tokens, stack)
        fault = await stack.enter_async_context(
            serving(api, listening, stop_seconds=settings.stop_timeout_seconds)
        )
        await stack.enter_async_context(running(watch_lost_offsets(settings)))
        address = address_of(listening)
        _log.info("api started", address=address, tokens=tokens is not None)
        yield ApiServer(address, fault)
    _log.info("api stopped")


def _api(
    settings: Settings, workers: Sequence[Worker], tokens: Tokens | None, stack: AsyncExitStack
) -> RequestMiddleware:
    """Return the API of the store that the settings name; `stack` closes it."""
    traces = tracer_provider("rmos.api", stack)
    if not settings.runs_v2_enabled:
        legacy = _legacy_dependencies(settings, workers, stack)
        stack.callback(legacy.lookup.close)
        stack.push_async_callback(legacy.runs.stop)
        return create_legacy_api(legacy, tokens, legacy_pages(), traces)
    reader = RunReader(open_to_read(settings))
    stack.callback(reader.close)
    deps = _api_dependencies(settings, reader, workers, stack)
    stack.callback(deps.lookup.close)
    stack.callback(deps.transfer.close)
    stack.callback(deps.drawings.close)
    stack.push_async_callback(deps.runs.stop)
    stack.push_async_callback(deps.advisories.stop)
    stack.push_async_callback(deps.broker.stop)
    return create_api(deps, tokens, pages(), traces)


def _api_dependencies(
    settings: Settings, reader: RunReader, workers: Sequence[Worker], stack: AsyncExitStack
) -> ApiDependencies:
    async def check_broker() -> None:
        cluster_id = await describe_cluster(settings)
        identity = read_identity(reader.store.files)
        check_identity(identity, reader.store.name, cluster_id=cluster_id, prefix=settings.prefix)

    tail = EventTail()
    return ApiDependencies(
        settings=settings,
        runs=LazyPublisher(
            lambda: RunPublisher(settings, tail=tail), check_broker, partial(holder_of, settings)
        ),
        lookup=_look_ups(settings),
        checks=_api_checks(settings, workers, check_broker, stack),
        reasons=lambda: reasons_of(workers),
        reader=reader,
        advisories=LazyPublisher(
            lambda: AdvisoryPublisher(settings, tail=tail),
            check_broker,
            partial(holder_of, settings),
        ),
        transfer=ThreadPool(_TRANSFER_THREADS, "transfer"),
        drawings=Drawings(),
        broker=BrokerLooks(settings, tail),
    )


def _look_ups(settings: Settings) -> Threads:
    # A bucket and a database are waited for, so that as many calls as may are under way.
    kind = ThreadPool if settings.is_shared else OneByOne
    return kind(_LOOKUP_THREADS, "lookup")


def _legacy_dependencies(
    settings: Settings, workers: Sequence[Worker], stack: AsyncExitStack
) -> LegacyDependencies:
    async def check_broker() -> None:
        check_v2_store(settings, await describe_cluster(settings))

    return LegacyDependencies(
        settings=settings,
        runs=LazyPublisher(
            lambda: RunPublisher(settings), check_broker, partial(holder_of, settings)
        ),
        lookup=_look_ups(settings),
        checks=_api_checks(settings, workers, check_broker, stack),
        reasons=lambda: reasons_of(workers),
        reader=V1Reader(settings.run_store_path),
    )


def _api_checks(
    settings: Settings,
    workers: Sequence[Worker],
    check_broker: Callable[[], Awaitable[None]],
    stack: AsyncExitStack,
) -> Callable[[], Awaitable[Checks]]:
    # Readiness is asked for by anybody, without a token and as often as they like.
    look = SharedLook(check_broker, _KNOWN_FOR_SECONDS, most_seconds=WAIT_SECONDS)
    stack.push_async_callback(look.stop)
    measure_disk(settings)

    async def checks() -> Checks:
        return {
            "broker answers": await broker_answers(look),
            "consumers hold partitions and poll": all(worker.is_ready for worker in workers),
            **disk_checks(settings),
        }

    return checks


async def broker_answers(look: SharedLook[None]) -> bool:
    """Return whether the broker answers `look` within a few seconds, and is that of the store."""
    try:
        await look.get()
    except RmosError:
        return False
    return True


async def run_api(settings: Settings) -> None:
    """Serve the HTTP API until a signal stops it.

    Raises:
        RmosError: It could not start; the message names the way out.
    """
    async with stop_on_signals(settings) as stop:
        with serve_health(settings) as health:
            async with api_server(settings) as server:
                health.watch([])
                await until_stopped(stop, server.fault)
