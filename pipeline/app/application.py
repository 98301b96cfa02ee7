"""A FastStream application for each worker, with the promises of every service.

FastStream's own `run` looks at a flag ten times a second and lets a stop take as long as it does.
This one also lets a signal end the start, bounds the stop, notes threads that died, serves metrics
and health, and ends with the exit status of the fault.
"""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import structlog
from faststream import FastStream

from pipeline.app.process import (
    CLIENT_ENDED,
    CUT_OFF,
    prepare_process,
    serve_health,
    stop_on_signals,
    until_stopped,
)
from pipeline.app.worker import Worker
from pipeline.broker.aiokafka_fixes.clients import is_cancelled
from pipeline.errors import NO_MEMORY, RmosError, thread_faults
from pipeline.logs import configure_logging
from pipeline.settings import Settings, read_settings

_log = structlog.get_logger(__name__)


class WorkerApplication(FastStream):
    """Runs one worker until a signal or a fault stops it.

    Making one touches nothing; settings are read when it runs.
    """

    def __init__(self, prepare: Callable[..., AbstractAsyncContextManager[Worker]]) -> None:
        """Prepare nothing yet.

        Args:
            prepare: Takes the settings and options; prepares the worker for the length of a block.
        """
        super().__init__(logger=None, lifespan=self._lifespan)
        self._prepare = prepare
        self._prepared: AbstractAsyncContextManager[Worker] | None = None
        self._worker: Worker | None = None

    @asynccontextmanager
    async def _lifespan(self) -> AsyncIterator[None]:
        assert self._prepared is not None
        async with self._prepared as worker:
            self._worker = worker
            self.add_broker(worker.broker)
            yield

    async def run(
        self,
        log_level: int = logging.INFO,
        run_extra_options: dict[str, Any] | None = None,
        sleep_time: float = 0.1,
    ) -> None:
        """Run as FastStream's command does; a fault ends the process with its exit status."""
        del log_level, run_extra_options, sleep_time
        try:
            with thread_faults():
                settings = read_settings()
                configure_logging(settings)
                prepare_process()
                await self.serve(settings)
        except (RmosError, MemoryError, OSError) as error:
            _log.error("ended", why=str(error) or NO_MEMORY)
            sys.exit(getattr(error, "exit_status", CUT_OFF))
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            _log.error("ended", why=CLIENT_ENDED)
            sys.exit(CUT_OFF)

    async def serve(self, settings: Settings, **options: Any) -> None:  # noqa: ANN401
        """Run until a signal stops it.

        Args:
            settings: What the worker runs with.
            options: Passed on to what prepares it.

        Raises:
            RmosError: It could not start or go on; the message names the way out.
        """
        self._prepared = self._prepare(settings, **options)
        async with stop_on_signals(settings) as stop:
            with serve_health(settings) as health:
                async with self.lifespan_context():
                    worker = self._worker
                    assert worker is not None
                    try:
                        await self.start()
                        worker.has_started()
                        health.watch([worker])
                        await until_stopped(stop, *worker.faults)
                    finally:
                        await self.stop()
                worker.has_stopped()
