"""All groups of commands under one name, and errors as one sentence with an exit status."""

import sys

import typer

from pipeline.cli import (
    api,
    attachments,
    audit,
    broker,
    dead_letters,
    demo,
    evidence,
    index,
    ledger,
    migrate,
    offsets,
    publish,
    replay,
    runs,
    schemas,
    store,
    topics,
    up,
    worker,
)
from pipeline.cli.terminal import say_error
from pipeline.errors import RmosError
from pipeline.logs import silence_kafka_client

NOT_USABLE = 6
"""Exit status where the machine, not the program, is at fault."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Run requests become immutable artifacts: what was approved, and why.",
)
app.command()(demo.demo)
app.command()(up.up)
app.command()(api.api)
app.add_typer(broker.app, name="broker")
app.add_typer(topics.app, name="topics")
app.add_typer(store.app, name="store")
app.add_typer(worker.app, name="worker")
app.add_typer(schemas.app, name="schemas")
app.add_typer(publish.app, name="publish")
app.add_typer(runs.app, name="runs")
app.add_typer(attachments.app, name="attachments")
app.add_typer(audit.app, name="audit")
app.add_typer(index.app, name="index")
app.add_typer(migrate.app, name="migrate")
app.add_typer(replay.app, name="replay")
app.add_typer(offsets.app, name="offsets")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(ledger.app, name="ledger")
app.command()(evidence.evidence)


def run() -> None:
    """Run the command line.

    An error that is meant for the caller becomes one line on standard error.
    """
    # Verdicts must not depend on the environment: our own limit of digits is the one that counts.
    sys.set_int_max_str_digits(0)
    silence_kafka_client()
    try:
        app()
    except RmosError as error:
        say_error(str(error))
        sys.exit(error.exit_status)
    except MemoryError as error:
        say_error(str(error) or "No memory is left; nothing was acknowledged. Start again.")
        sys.exit(NOT_USABLE)
