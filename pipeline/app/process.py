"""One process: its loop, its signals, its metrics and health."""

import asyncio
import gc
import multiprocessing
import os
import resource
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import structlog
import uvloop

from pipeline.app.worker import Worker, reasons_of
from pipeline.broker.connection import unreachable
from pipeline.consumers.health import Checks, HealthServer, measure_room
from pipeline.disk.locks import allow_waits, end_waits
from pipeline.disk.volume import is_disk_writable
from pipeline.errors import NO_MEMORY, NO_THREAD, BrokerError, ExecutorError, is_thread_fault
from pipeline.settings import Settings

Result = TypeVar("Result")

CUT_OFF = 6
"""Exit status where stopping took too long: a broker or a disk does not answer."""

CLIENT_ENDED = (
    "The Kafka client ended a part of this service from within; nothing that was in hand was "
    "acknowledged: start again."
)

OPEN_FILES = 65_536
"""More than all connections, segments and blobs of a service; some systems allow a billion."""

_log = structlog.get_logger(__name__)


def run_service(service: Coroutine[Any, Any, Result]) -> Result:
    """Run what this process is for, on a loop and a collector that suit it; return its result.

    Raises:
        BrokerError: A cancellation of the Kafka client's own came up to here.
    """
    prepare_process()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(service)
        except asyncio.CancelledError as error:
            raise BrokerError(CLIENT_ENDED) from error


def prepare_process() -> None:
    """Give this process the limits and the collector that suit a service."""
    # Verdicts must not depend on the environment: our own limit of digits is the one that counts.
    sys.set_int_max_str_digits(0)
    raise_open_files()
    # A batch keeps tens of thousands of parsed values alive for a moment. The collector's own
    # thresholds would walk all of them every few hundred new ones: measured, a third of the time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def raise_open_files() -> None:
    """Let this process have as many files open as it may: the usual 1,024 count connections too."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if most == resource.RLIM_INFINITY else min(OPEN_FILES, most)
    if limit != resource.RLIM_INFINITY and limit < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


class Stopping:
    """The end of a service, from its first signal or fault on, within a limit whatever hangs.

    A signal during the start cancels the start. What is not at its end after the limit is cut off:
    from a thread, because a loop that waits for a thread at the disk is stuck itself.

    Attributes:
        begun: Set from the beginning of the end on.
        fault: That of a thread that has died; None while none has.
    """

    def __init__(self, settings: Settings, heard: Callable[[], None]) -> None:
        """Prepare; to be made in the task that runs the service.

        Args:
            settings: The limit, and which broker may be what hangs.
            heard: Called when a signal comes.
        """
        self.begun = asyncio.Event()
        self.fault: Exception | None = None
        self._settings = settings
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._is_starting = True
        self._cause: BaseException | None = None
        self._at_cut: list[Callable[[], None]] = []
        self._has_begun = threading.Event()
        self._has_ended = threading.Event()
        # At once: where memory is what fails, no thread can be started any more.
        threading.Thread(target=self._limit, name="stopping", daemon=True).start()
        self._asking: asyncio.Task[None] | None = None

    def on_signal(self) -> None:
        """Begin to stop; a second signal changes nothing."""
        if not self.begun.is_set():
            self._heard()
            self._end_start_too()

    def on_thread_death(self, fault: Exception) -> None:
        """Begin to stop for a thread that has died; called from that thread."""
        with suppress(RuntimeError):  # The loop has ended before it.
            self._loop.call_soon_threadsafe(self._note_fault, fault)

    def _note_fault(self, fault: Exception) -> None:
        self.fault = self.fault or fault
        if not self.begun.is_set():
            self._end_start_too(fault)

    def _end_start_too(self, cause: Exception | None = None) -> None:
        self.begin(cause)
        if self._is_starting and self._task is not None:
            self._task.cancel()

    def begin(self, cause: BaseException | None = None) -> None:
        """Begin to stop; `cause` is what made the service stop, None for a signal."""
        if not self.begun.is_set():
            self.begun.set()
            # What waits for the lock of another process would hold us up.
            end_waits()
            self._cause = cause
            self._has_begun.set()
            self._asking = asyncio.create_task(self._ask_broker())

    def at_cut(self, end: Callable[[], None]) -> None:
        """Call `end` before the process is cut off, such as to end a process that it started."""
        self._at_cut.append(end)

    def has_started(self) -> None:
        """Take note that the service runs: from now on a signal lets it finish its work."""
        self._is_starting = False

    async def finish(self) -> None:
        """Take note that the service has ended by itself."""
        self._has_ended.set()
        self._has_begun.set()
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])
        # Those of a pool whose thread has died: Python would wait for them, and nothing ends them.
        for child in multiprocessing.active_children() if self.fault is not None else ():
            child.kill()

    async def _ask_broker(self) -> None:
        await asyncio.sleep(self._settings.stop_timeout_seconds / 4)
        if self._cause is None:
            self._cause = await unreachable(self._settings)

    def _limit(self) -> None:
        self._has_begun.wait()
        if not self._has_ended.wait(self._settings.stop_timeout_seconds):
            self._cut_off()

    def _cut_off(self) -> None:
        for end in self._at_cut:
            end()
        why = f"{self._cause} " if self._cause is not None else ""
        status = getattr(self._cause, "exit_status", CUT_OFF)
        _log.error(
            "cut off",
            why=f"{why}Stopping took longer than {self._settings.stop_timeout_seconds:g} s "
            "(RMOS_STOP_TIMEOUT_SECONDS); what was in hand was not acknowledged and is done again "
            "at the next start.",
        )
        os._exit(status)


@asynccontextmanager
async def stop_on_signals(
    settings: Settings, heard: Callable[[], None] = lambda: None
) -> AsyncIterator[Stopping]:
    """Stop a service, which the block starts and ends, by SIGINT and SIGTERM.

    Raises:
        ExecutorError: A thread of this process has died.
        MemoryError: The same, for want of memory.
    """
    stop = Stopping(settings, heard)
    loop = asyncio.get_running_loop()
    allow_waits()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.on_signal)
    with _thread_deaths(stop.on_thread_death):
        try:
            yield stop
        except asyncio.CancelledError:
            if not stop.begun.is_set():
                raise
        finally:
            await stop.finish()
    if stop.fault is not None:
        raise stop.fault


@contextmanager
def _thread_deaths(note: Callable[[Exception], None]) -> Iterator[None]:
    """Note the fault of each thread that dies in the block, whichever library has started it.

    What waits for it would wait for ever, and the service would stand still without a fault.
    """
    before = threading.excepthook

    def died(death: threading.ExceptHookArgs) -> None:
        error = death.exc_value
        if error is None or isinstance(error, SystemExit):
            return
        name = death.thread.name if death.thread is not None else "unknown"
        _log.error("thread died", thread=name, exc_info=error)
        note(_fault_of(name, error))

    threading.excepthook = died
    try:
        yield
    finally:
        threading.excepthook = before


def _fault_of(thread: str, error: BaseException) -> Exception:
    if isinstance(error, MemoryError):
        return MemoryError(NO_MEMORY)
    if is_thread_fault(error):
        return ExecutorError(NO_THREAD)
    return ExecutorError(
        f"The thread {thread} of this process died ({type(error).__name__}); nothing that was in "
        "hand was acknowledged: start again, and report the line `thread died` of the log."
    )


async def until_stopped(stop: Stopping, *faults: asyncio.Future[None]) -> None:
    """Wait for a signal or for one of `faults`, and raise its exception."""
    stop.has_started()
    stopped = asyncio.create_task(stop.begun.wait())
    awaited: list[asyncio.Future[Any]] = [stopped, *faults]
    await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    for fault in faults:
        if fault.done():
            stop.begin(fault.exception())
            fault.result()


def disk_checks(settings: Settings) -> Checks:
    """Return what must hold of the disk; nothing where the store is in a bucket.

    A worker whose bucket or database is away says so by its reasons, and goes on by itself.
    """
    if settings.is_shared:
        return {}
    return {"disk writable": is_disk_writable(store_folder(settings))}


def measure_disk(settings: Settings) -> None:
    """Let the metrics show the room of the disk; nothing where the store is in a bucket."""
    if not settings.is_shared:
        measure_room(store_folder(settings))


def store_folder(settings: Settings) -> Path:
    """Return the folder that the service must be able to write to, where it stores."""
    if settings.runs_v2_enabled:
        return settings.data_dir
    return settings.run_store_path.resolve().parent


class ServiceHealth:
    """What probes of this process see; it is not ready before its workers have started."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._workers: Sequence[Worker] | None = None

    def watch(self, workers: Sequence[Worker]) -> None:
        """Take note that the service has started, with these workers."""
        self._workers = workers

    def checks(self) -> Checks:
        """Return what must hold to be ready, by name."""
        workers = self._workers
        return {
            "consumers hold partitions and poll": workers is not None
            and all(worker.is_ready for worker in workers),
            **disk_checks(self._settings),
        }

    def reasons(self) -> tuple[str, ...]:
        """Return why it is not ready although its workers poll."""
        return reasons_of(self._workers or ())


@contextmanager
def serve_health(settings: Settings) -> Iterator[ServiceHealth]:
    """Serve metrics and health of this process while a block runs, if there is a port for them.

    The port is taken before anything is started: two services with one port fail at once.

    Raises:
        InputError: The port cannot be bound.
    """
    health = ServiceHealth(settings)
    if settings.metrics_port is None:
        yield health
        return
    measure_disk(settings)
    server = HealthServer(
        settings.metrics_host,
        settings.metrics_port,
        health.checks,
        health.reasons,
        allowed_hosts=settings.api_allowed_hosts,
    )
    server.start()
    _log.info("metrics and health", address=server.address)
    try:
        yield health
    finally:
        server.stop()
