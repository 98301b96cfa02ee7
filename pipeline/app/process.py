"""One process: its loop, its signals, its metrics and health."""

import asyncio
import gc
import signal
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import structlog
import uvloop

from pipeline.app.worker import Worker, reasons_of
from pipeline.consumers.health import Checks, HealthServer, is_disk_writable
from pipeline.settings import Settings

Result = TypeVar("Result")

_log = structlog.get_logger(__name__)


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


def store_folder(settings: Settings) -> Path:
    """Return the folder that whoever stores must be able to write to."""
    if settings.runs_v2_enabled:
        return settings.data_dir
    return settings.run_store_path.resolve().parent


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
            "disk writable": is_disk_writable(store_folder(settings)),
        }

    server = HealthServer(
        settings.metrics_host,
        settings.metrics_port,
        checks,
        lambda: reasons_of(workers),
        allowed_hosts=settings.api_allowed_hosts,
    )
    server.start()
    _log.info("metrics and health", address=server.address)
    try:
        yield
    finally:
        server.stop()
