"""All groups of commands under one name; an error is one sentence with an exit status.

The commands stand in a table. What a command needs is imported when it runs, or when its own help
is asked for; `rmos --help` reads the table alone.
"""

import gc
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from pipeline.cli import INTERRUPTED
from pipeline.cli.one_host import refuse_in_a_bucket
from pipeline.cli.setting_options import add_setting_options
from pipeline.cli.views.terminal import note, print_text, say_error
from pipeline.errors import NO_MEMORY, RmosError, thread_faults

if TYPE_CHECKING:
    # Typer brings its own Click along.
    from typer._click import Command, Context

COMMANDS = {
    "demo": (
        "pipeline.cli.demo:demo",
        "Show what becomes of run requests, on a real broker and a real disk; no input is needed.",
    ),
    "up": (
        "pipeline.cli.services:up",
        "Run a local Apache Kafka, the store, its topics, all consumers and the HTTP API.",
    ),
    "api": (
        "pipeline.cli.services:api",
        "Serve the HTTP API at RMOS_API_HOST and RMOS_API_PORT until a signal stops it.",
    ),
    "peek": (
        "pipeline.cli.peek:peek",
        "Show the records that wait for a group, the outcome of each, and what they share.",
    ),
    "evidence": (
        "pipeline.cli.evidence:evidence",
        "Write the evidence about a run: artifact, links, attachments, proofs, a page, a verifier.",
    ),
    "settings": (
        "pipeline.cli.settings:settings",
        "Print every setting: its value, where that comes from, and its meaning.",
    ),
    "doctor": (
        "pipeline.cli.doctor:doctor",
        "Check everything that a start needs, and say what to do; exit 6 if something is not "
        "usable.",
    ),
    "broker": ("pipeline.cli.broker:app", "Run a local Apache Kafka, for trials."),
    "topics": ("pipeline.cli.topics:app", "Create and check the topics."),
    "store": ("pipeline.cli.store:app", "Make and inspect the store in RMOS_DATA_DIR."),
    "worker": ("pipeline.cli.services:app", "Run one consumer until a signal stops it."),
    "schemas": ("pipeline.cli.schemas:app", "Write JSON Schemas, OpenAPI and AsyncAPI."),
    "publish": ("pipeline.cli.publish:app", "Publish run requests and advisories."),
    "runs": ("pipeline.cli.runs:app", "Read the runs of the store in RMOS_DATA_DIR."),
    "attachments": (
        "pipeline.cli.store:attachments_app",
        "Put blobs into the store in RMOS_DATA_DIR.",
    ),
    "audit": ("pipeline.cli.audit:app", "Find what was changed, lost or added."),
    "index": (
        "pipeline.cli.store:index_app",
        "Check or rebuild the index of the store in RMOS_DATA_DIR.",
    ),
    "archive": (
        "pipeline.cli.archive:app",
        "Archive old dates into tars, prove the tars, and put their files back.",
    ),
    "migrate": (
        "pipeline.cli.migrate:app",
        "Migrate the runs of an older store, verify them, and roll back.",
    ),
    "replay": (
        "pipeline.cli.replay:app",
        "Read the topics again: verify the store (the default), restore it.",
    ),
    "offsets": (
        "pipeline.cli.offsets:app",
        "Show where consumer groups are; move one that has no members.",
    ),
    "dead-letters": (
        "pipeline.cli.dead_letters:app",
        "List, show, export and redrive refused records.",
    ),
    "ledger": ("pipeline.cli.ledger:app", "Keys, checkpoints, proofs and checksums of the ledger."),
}
"""Each command or group: where it is defined, and the first paragraph of its help."""

UNEXPECTED = 1
"""Exit status of an unexpected fault."""

NOT_USABLE = 6
"""Exit status where the machine, not the program, is at fault."""


@contextmanager
def _imports() -> Iterator[None]:
    """Import in a block; Ctrl-C in it, which may last seconds on a busy machine, is one word."""
    # What is imported stays: looking for garbage among it takes an eighth of a start.
    gc.disable()
    try:
        yield
    except KeyboardInterrupt:
        note("Stopped.")
        raise typer.Exit(INTERRUPTED) from None
    finally:
        gc.enable()


def imported(name: str) -> "Command":
    """Return the command or the group itself, with its imports."""
    place, help_ = COMMANDS[name]
    with _imports():
        found = resolve_name(place)
    alone = typer.Typer()
    if isinstance(found, typer.Typer):
        alone.add_typer(found, name=name, help=help_)
    else:
        alone.command(name)(found)
    command = typer.main.get_group(alone).commands[name]
    _complete(command, [name])
    return command


def _complete(command: "Command", words: Sequence[str]) -> None:
    """Give a command, or each command of a group, what all have; `words` call it, behind `rmos`."""
    # Let each paragraph of help fill the terminal's lines; Typer does so with the first alone.
    paragraphs = (command.help or "").split("\n\n")
    command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    below = getattr(command, "commands", {})
    for word, each in below.items():
        _complete(each, [*words, word])
    if not below or getattr(command, "invoke_without_command", False):
        add_setting_options(command, words)
        refuse_in_a_bucket(command, " ".join(words))


class _Listed(TyperCommand):
    """A command as help and completion list it, which becomes the command itself when it runs."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: "Context | None" = None,
        **extra: Any,  # noqa: ANN401  # as Typer's
    ) -> "Context":
        return imported(str(self.name)).make_context(info_name, args, parent, **extra)


def _listed() -> None:
    """Stand for a command that is not imported yet; it is never called."""


app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Commands and groups of commands inherit it.
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Run requests become immutable artifacts: what was approved, and why.",
)
for _name, (_, _help) in COMMANDS.items():
    app.command(_name, cls=_Listed, help=_help)(_listed)

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
    """Set up logs, and look at variables that begin like a setting and are none, before a command.

    Raises:
        InputError: One is nearly the name of a setting.
    """
    if not {"-h", "--help"}.isdisjoint(sys.argv):
        return
    with _imports():
        from pipeline.logs import configure_early_logging
        from pipeline.settings import refuse_mistyped, variables_not_read

    configure_early_logging()
    refuse_mistyped()
    if context.invoked_subcommand in SERVICES:
        return
    original, others = variables_not_read()
    for name, instead in original.items():
        note(f"{name} is of the original system, and not read: {instead}.", "yellow")
    if others:
        note(f"Not a setting, and not read: {', '.join(others)}.", "yellow")


def run() -> None:
    """Run the command line.

    An error that is meant for the caller becomes one line on standard error.
    """
    # Verdicts must not depend on the environment: our own limit of digits is the one that counts.
    sys.set_int_max_str_digits(0)
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
