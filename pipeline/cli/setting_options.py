"""Three settings as options of every command that reads them; an option wins over its variable.

The options are added here, by the words of a command, so that no command declares any of them.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from typer._click import Command, Parameter

_STORE = frozenset({"data_dir"})
_ALL = frozenset({"data_dir", "bootstrap_servers", "prefix"})

_READ = {
    # It has a folder and a broker of its own.
    "demo": frozenset[str](),
    "audit file": frozenset[str](),
    "up": frozenset({"data_dir", "prefix"}),
    "evidence": _STORE,
    "broker": _STORE,
    "store status": _STORE,
    "runs": _STORE,
    "attachments": _STORE,
    "archive": _STORE,
    "audit report": _STORE,
    "index check": _STORE,
    "migrate status": _STORE,
    "migrate verify": _STORE,
    "ledger": _STORE,
    "ledger init": _ALL,
}
"""What a command or the commands of a group read where it is not all three: the longest name that
fits counts. A command that asks a broker looks into the folder too, for a local broker of its own.
"""


def add_setting_options(command: "Command", words: Sequence[str]) -> None:
    """Give `command` options for the settings that it reads.

    Args:
        command: As it was imported, without them.
        words: By which it is called, behind `rmos`.
    """
    read = _read_by(words)
    command.params += [each for each in _options() if each.name in read]


def _read_by(words: Sequence[str]) -> frozenset[str]:
    for count in range(len(words), 0, -1):
        if (read := _READ.get(" ".join(words[:count]))) is not None:
            return read
    return _ALL


def _options() -> Iterator["Parameter"]:
    alone = typer.Typer(add_completion=False)
    alone.command()(_declared)
    yield from typer.main.get_command(alone).params


def _give(context: typer.Context, parameter: typer.CallbackParam, value: Any) -> None:  # noqa: ANN401
    """Let the settings have the value for as long as the command runs."""
    from pipeline.settings import given_by_option

    if value is not None:
        context.with_resource(given_by_option(str(parameter.name), value))


_option = partial(typer.Option, expose_value=False, callback=_give, rich_help_panel="Settings")


def _declared(
    *,
    data_dir: Annotated[
        Path | None,
        _option(metavar="DIR", help="Root folder of the store, in place of RMOS_DATA_DIR."),
    ] = None,
    bootstrap_servers: Annotated[
        str | None,
        _option(metavar="HOST:PORT,...", help="Kafka brokers, in place of RMOS_BOOTSTRAP_SERVERS."),
    ] = None,
    prefix: Annotated[
        str | None,
        _option(
            metavar="PREFIX",
            help="First part of topic and group names, in place of RMOS_PREFIX.",
        ),
    ] = None,
) -> None:
    """Declare the options; it is never called."""
