"""All groups of commands under one name, and errors as one sentence with an exit status."""

import sys
import traceback
from importlib.metadata import version
from typing import Annotated

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
    peek,
    publish,
    replay,
    runs,
    schemas,
    store,
    topics,
    up,
    worker,
)
from pipeline.cli.views.terminal import note, print_text, say_error
from pipeline.errors import NO_MEMORY, RmosError, thread_faults
from pipeline.logs import configure_early_logging
from pipeline.settings import refuse_mistyped, unknown_variables

UNEXPECTED = 1
"""Exit status where something happened that nobody foresaw."""

NOT_USABLE = 6
"""Exit status where the machine, not the program, is at fault."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Commands and groups of commands inherit it.
    context_settings={"help_option_names": ["-h", "--help"]},
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
app.command()(peek.peek)
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(ledger.app, name="ledger")
app.command()(evidence.evidence)


SERVICES = frozenset({"api", "up", "worker"})
"""Commands that log: a warning is a line of their log."""


def _print_version(asked: bool) -> None:
    if asked:
        print_text(f"rmos {version('rmos-runs')}")
        raise typer.Exit


@app.callback()
def begin(
    context: typer.Context,
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Look at the variables that begin like a setting and are none, before any command.

    Raises:
        InputError: One is nearly the name of a setting.
    """
    unknown = unknown_variables()
    refuse_mistyped(unknown)
    if unknown and context.invoked_subcommand not in SERVICES:
        note(f"Not a setting, and not read: {', '.join(unknown)}.", "yellow")


def run() -> None:
    """Run the command line.

    An error that is meant for the caller becomes one line on standard error.
    """
    # Verdicts must not depend on the environment: our own limit of digits is the one that counts.
    sys.set_int_max_str_digits(0)
    configure_early_logging()
    try:
        with thread_faults():
            app()
    except RmosError as error:
        say_error(str(error), error.lines)
        sys.exit(error.exit_status)
    except MemoryError as error:
        say_error(str(error) or NO_MEMORY)
        sys.exit(NOT_USABLE)
    except OSError as error:
        say_error(f"This machine does not do what the program needs: {error}.")
        sys.exit(NOT_USABLE)
    except Exception as error:  # noqa: BLE001  # whatever it is, its text may be a producer's
        trace = "".join(traceback.format_exception(error)).rstrip().split("\n")
        say_error("This was not expected, so it is a defect of this program:", trace)
        sys.exit(UNEXPECTED)
