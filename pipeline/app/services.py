"""All workers in one process, alone or with a broker and the API."""

import shlex
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from pipeline.app.advise import advise_worker
from pipeline.app.audit import audit_worker
from pipeline.app.local import local_broker, prepare_local, watch
from pipeline.app.persist import persist_worker
from pipeline.app.process import (
    ServiceHealth,
    Stopping,
    serve_health,
    stop_on_signals,
    until_stopped,
)
from pipeline.app.worker import Worker, running
from pipeline.broker.local.broker import LocalBroker
from pipeline.broker.local.runtime import ReportStep
from pipeline.settings import Settings, options_given, refuse_shared


async def run_all_workers(settings: Settings, *, accept_loss: bool = False) -> None:
    """Run all workers in this process until a signal stops them; one stops, all stop.

    Raises:
        RmosError: One could not start or go on; the message names the way out.
    """
    async with stop_on_signals(settings) as stop:
        with serve_health(settings) as health:
            async with _all_workers(settings, accept_loss=accept_loss) as workers:
                health.watch(workers)
                faults = (fault for worker in workers for fault in worker.faults)
                await until_stopped(stop, *faults)


async def run_everything(settings: Settings, report: ReportStep) -> None:
    """Run a local broker, topics, a store, all consumers and the API until a signal stops them.

    One part stops, all stop.

    Args:
        settings: The broker's port and the store's folder; its address is the broker's own.
        report: Called with what is being done, and where things are.

    Raises:
        RmosError: A part could not start or go on; the message names the way out.
    """
    refuse_shared(settings, "rmos up")
    async with stop_on_signals(settings, lambda: report("stopping")) as stop:
        with serve_health(settings) as health:
            async with local_broker(settings, report) as broker:
                stop.at_cut(broker.kill)
                await _run_beside(broker, settings, report, stop, health)


async def _run_beside(
    broker: LocalBroker,
    settings: Settings,
    report: ReportStep,
    stop: Stopping,
    health: ServiceHealth,
) -> None:
    """Run everything but the broker until it is to stop."""
    # FastAPI alone takes a third of the start of a worker, which serves no HTTP.
    from pipeline.app.http import api_server  # noqa: PLC0415

    settings = settings.model_copy(update={"bootstrap_servers": broker.bootstrap_servers})
    places = await prepare_local(settings, broker, report)
    async with (
        _all_workers(settings) as workers,
        running(watch(broker)) as broker_fault,
        api_server(settings, workers) as api,
    ):
        health.watch(workers)
        for line in _welcome(settings, api.address, places):
            report(line)
        faults = (fault for worker in workers for fault in worker.faults)
        await until_stopped(stop, *faults, api.fault, broker_fault)


@asynccontextmanager
async def _all_workers(
    settings: Settings, *, accept_loss: bool = False
) -> AsyncIterator[Sequence[Worker]]:
    """Run every worker of the store that the settings name: in v1 mode there is one."""
    workers = [persist_worker(settings, accept_loss=accept_loss)]
    if settings.runs_v2_enabled:
        workers += [advise_worker(settings, accept_loss=accept_loss), audit_worker(settings)]
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(worker) for worker in workers]


def _welcome(settings: Settings, api_address: str, places: Sequence[str]) -> Iterator[str]:
    """Yield the last lines of a start: where everything is, and what to try."""
    yield "everything runs: ready; Ctrl-C stops it"
    yield f"page    http://{api_address}/"
    yield f"API     http://{api_address}/api/rmos/runs"
    yield f"broker  {settings.bootstrap_servers}"
    yield from places
    if not settings.runs_v2_enabled:
        yield "v1 mode: advisories wait until RMOS_RUNS_V2_ENABLED is true again"
    # The commands know the broker's usual address by themselves.
    usual = Settings.model_fields["bootstrap_servers"].default
    elsewhere = settings.bootstrap_servers != usual
    where = f"RMOS_BOOTSTRAP_SERVERS={settings.bootstrap_servers} " if elsewhere else ""
    given = options_given()
    prefix = f" --prefix {settings.prefix}" if "prefix" in given else ""
    folder = f" --data-dir {shlex.quote(str(settings.data_dir))}" if "data_dir" in given else ""
    yield f"try     {where}rmos publish run --wait docs/examples/requests/saw_green.json{prefix}"
    yield f"        rmos runs list{folder}"
    yield f"        curl -s http://{api_address}/api/rmos/runs"
