"""`rmos worker`: one service each, for production."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Run one consumer until a signal stops it.")


Instance = Annotated[
    str | None,
    typer.Option(help="Name for static group membership, unique among the workers."),
]
AcceptRejects = Annotated[
    int, typer.Option(min=0, metavar="N", help="Let the next N failures past the reject limit.")
]
AcceptLoss = Annotated[
    bool, typer.Option("--accept-loss", help="Go on without the records that are lost.")
]


@app.command()
def persist(
    instance: Instance = None, accept_rejects: AcceptRejects = 0, accept_loss: AcceptLoss = False
) -> None:
    """Store run requests as artifacts."""
    from pipeline.app import run_persist_worker, run_service

    settings = _worker_settings(instance)
    run_service(
        run_persist_worker(settings, accepted_rejects=accept_rejects, accept_loss=accept_loss)
    )


@app.command("advise", hidden=True)  # its former name
@app.command()
def advisories(
    instance: Instance = None, accept_rejects: AcceptRejects = 0, accept_loss: AcceptLoss = False
) -> None:
    """Link advisories to their runs; those that come too early are linked later."""
    from pipeline.app import run_advise_worker, run_service

    settings = _worker_settings(instance)
    run_service(
        run_advise_worker(settings, accepted_rejects=accept_rejects, accept_loss=accept_loss)
    )


@app.command()
def audit(instance: Instance = None) -> None:
    """Audit the store when asked, and on schedule; nothing is repaired."""
    from pipeline.app import run_audit_worker, run_service

    run_service(run_audit_worker(_worker_settings(instance)))


@app.command("all")
def all_workers(instance: Instance = None, accept_loss: AcceptLoss = False) -> None:
    """Run all consumers in one process; one stops, all stop."""
    from pipeline.app import run_all_workers, run_service

    run_service(run_all_workers(_worker_settings(instance), accept_loss=accept_loss))


def _worker_settings(instance: str | None) -> "Settings":
    from pipeline.logs import configure_logging
    from pipeline.settings import read_settings

    settings = read_settings(instance=instance)
    configure_logging(settings)
    return settings
