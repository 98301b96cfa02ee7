"""`rmos worker`: one service each, for production."""

from typing import Annotated

import typer

from pipeline.app import run_persist_worker, run_service
from pipeline.logs import configure_logging
from pipeline.settings import read_settings

app = typer.Typer(no_args_is_help=True, help="Run one consumer until a signal stops it.")


@app.command()
def persist(
    instance: Annotated[
        str | None,
        typer.Option(help="Name for static group membership, unique among the workers."),
    ] = None,
    accept_rejects: Annotated[
        int, typer.Option(min=0, metavar="N", help="Let the next N failures through a flood.")
    ] = 0,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Go on without the records that are lost.")
    ] = False,
) -> None:
    """Store run requests as artifacts."""
    settings = read_settings(instance=instance)
    configure_logging(settings)
    run_service(
        run_persist_worker(settings, accepted_rejects=accept_rejects, accept_loss=accept_loss)
    )
