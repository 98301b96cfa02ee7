"""Services: `rmos worker`, `rmos api` and `rmos up` run until a signal stops them."""

from typing import Annotated

import typer

from pipeline.cli.options import AcceptLoss, AcceptRejects
from pipeline.cli.views.terminal import is_watched
from pipeline.settings import Settings, read_settings

app = typer.Typer(no_args_is_help=True)


Instance = Annotated[
    str | None,
    typer.Option(help="Name for static group membership, unique among the workers."),
]


@app.command()
def persist(
    instance: Instance = None, accept_rejects: AcceptRejects = 0, accept_loss: AcceptLoss = False
) -> None:
    """Store run requests as artifacts."""
    from pipeline.app.persist import app as worker
    from pipeline.app.process import run_service

    settings = _settings(instance)
    run_service(worker.serve(settings, accepted_rejects=accept_rejects, accept_loss=accept_loss))


@app.command("advise", hidden=True)  # its former name
@app.command()
def advisories(
    instance: Instance = None, accept_rejects: AcceptRejects = 0, accept_loss: AcceptLoss = False
) -> None:
    """Link advisories to their runs; those that come too early are linked later."""
    from pipeline.app.advise import app as worker
    from pipeline.app.process import run_service

    settings = _settings(instance)
    run_service(worker.serve(settings, accepted_rejects=accept_rejects, accept_loss=accept_loss))


@app.command()
def audit(instance: Instance = None) -> None:
    """Audit the store on request and on schedule; nothing is repaired."""
    from pipeline.app.audit import app as worker
    from pipeline.app.process import run_service

    run_service(worker.serve(_settings(instance)))


@app.command("all")
def all_workers(instance: Instance = None, accept_loss: AcceptLoss = False) -> None:
    """Run all consumers in one process; if one stops, all stop."""
    from pipeline.app.process import run_service
    from pipeline.app.services import run_all_workers

    run_service(run_all_workers(_settings(instance), accept_loss=accept_loss))


def api() -> None:
    """Serve the HTTP API at RMOS_API_HOST and RMOS_API_PORT until a signal stops it.

    Beyond loopback it needs RMOS_API_TOKENS_FILE: a line `name role sha256hex` for each token.
    """
    from pipeline.app.http import run_api
    from pipeline.app.process import run_service

    run_service(run_api(_settings()))


def up() -> None:
    """Run a local Apache Kafka, the store, its topics, all consumers and the HTTP API.

    The store is RMOS_DATA_DIR, the broker's port RMOS_BROKER_PORT, the API's RMOS_API_PORT.
    Ctrl-C stops all of it.
    """
    from pipeline.app.process import run_service
    from pipeline.app.services import run_everything
    from pipeline.cli.broker import starting
    from pipeline.logs import configure_logging

    settings = read_settings()
    if is_watched() and "log_level" not in settings.model_fields_set:
        # The log lines of each batch would push the addresses away.
        settings = settings.model_copy(update={"log_level": "warning"})
    configure_logging(settings)
    with starting() as report:
        run_service(run_everything(settings, report))


def _settings(instance: str | None = None) -> Settings:
    from pipeline.logs import configure_logging

    settings = read_settings(instance=instance)
    configure_logging(settings)
    return settings
