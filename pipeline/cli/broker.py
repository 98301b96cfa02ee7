"""`rmos broker`: the local broker in the background."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from pipeline.broker.local.broker import (
    BrokerState,
    LocalBroker,
    other_brokers,
    running_broker,
    stop_running,
)
from pipeline.broker.local.runtime import DESCRIPTIONS, DOWNLOAD_NAME, Downloaded, ReportStep
from pipeline.cli.options import AsJson
from pipeline.cli.views.terminal import note, print_json, print_text, progress_bar, stderr, waiting
from pipeline.disk.owner import refuse_as_root
from pipeline.errors import BrokerError, NotFoundError
from pipeline.settings import Settings, read_settings

app = typer.Typer(no_args_is_help=True)


@app.command()
def start() -> None:
    """Start the broker in the background and print its address.

    Its data are kept in the folder `kafka` of RMOS_DATA_DIR, its port is RMOS_BROKER_PORT.
    If it runs already, only its address is printed.
    """
    settings = read_settings()
    running = running_broker(_folder(settings))
    if running is None:
        print_text(_started(settings))
        return
    _refuse_other_port(running, settings.broker_port)
    note("It runs already.")
    print_text(running.bootstrap_servers)


@app.command()
def stop() -> None:
    """Stop the broker; its data stay. Does nothing if none runs."""
    folder = _folder(read_settings())
    with waiting("stopping Apache Kafka"):
        stopped = stop_running(folder)
    note("Stopped." if stopped else _none_runs(folder))


@app.command()
def status(
    as_json: AsJson = False,
) -> None:
    """Print address, process and cluster id; exit 3 if no broker runs."""
    folder = _folder(read_settings())
    running = running_broker(folder)
    if running is None:
        note(_none_runs(folder))
        raise typer.Exit(NotFoundError.exit_status)
    if as_json:
        shown = ("pid", "bootstrap_servers", "cluster_id")
        print_json({name: getattr(running, name) for name in shown})
        return
    print_text(f"address     {running.bootstrap_servers}")
    print_text(f"pid         {running.pid}")
    print_text(f"cluster id  {running.cluster_id}")


@contextmanager
def starting(note_step: Callable[[str], None] = note) -> Iterator[ReportStep]:
    """Show how a local broker is started: its steps as lines, its one download as a bar.

    Without a terminal, the download has a line at its start and one at each quarter.

    Args:
        note_step: Prints a step.
    """
    quarter = -1

    def report(what: str | Downloaded) -> None:
        nonlocal quarter
        if isinstance(what, str):
            note_step(what)
        elif is_watched:
            if what.jars_needed is None:
                progress("descriptions of what Apache Kafka needs", what.descriptions, DESCRIPTIONS)
            else:
                progress(f"{DOWNLOAD_NAME}, jars", what.jars, what.jars_needed)
        else:
            now = -1 if what.jars_needed is None else 4 * what.jars // what.jars_needed
            if now > quarter or (what.descriptions, what.jars) == (0, 0):
                quarter = now
                note_step(str(what))

    is_watched = stderr().is_terminal
    with progress_bar() as progress:
        yield report


def _started(settings: Settings) -> str:
    refuse_as_root(settings.data_dir)
    with starting() as report:
        broker = LocalBroker(
            _folder(settings),
            port=settings.broker_port,
            cache_dir=settings.broker_cache_dir,
            on_progress=report,
        )
        broker.start()
    broker.detach()
    return broker.bootstrap_servers


def _refuse_other_port(running: BrokerState, port: int) -> None:
    if port != 0 and not running.bootstrap_servers.endswith(f":{port}"):
        raise BrokerError(
            f"The local broker runs already, but at {running.bootstrap_servers} and not at "
            f"port {port}: stop it first with `rmos broker stop`."
        )


def _none_runs(folder: Path) -> str:
    """Print that no broker lives on `folder`, and which others live on this machine."""
    others = [
        f"one runs at {state.bootstrap_servers} in {root} (RMOS_DATA_DIR={root.parent}, "
        f"process {state.pid})"
        for root, state in other_brokers(folder)
    ]
    said = "; ".join(others) or "`rmos broker start` starts one"
    return f"No broker runs in {folder}: {said}."


def _folder(settings: Settings) -> Path:
    return settings.data_dir / "kafka"
