"""Commands as documents write them, checked against the Typer app without running them."""

import shlex
from functools import cache
from typing import Any

import typer

from pipeline.cli.commands import COMMANDS, app, imported


@cache
def _commands() -> dict[str, Any]:
    """Return what stands behind `rmos`."""
    return {name: imported(name) for name in COMMANDS}


def fault_of(line: str) -> str | None:
    """Return why `rmos ...` is no command line of ours, None where it is one.

    Placeholders stand for values: an option's value is not looked at, only that there is one.
    """
    command: Any = typer.main.get_command(app)
    choices: dict[str, Any] | None = _commands()
    words = shlex.split(line, comments=True)[1:]
    while choices is not None:
        if not words:
            return None
        if words[0].startswith("--"):
            # An option of a group: `rmos --version`.
            break
        if words[0] not in choices:
            return f"{words[0]!r} is no command"
        command = choices[words.pop(0)]
        if command.hidden:
            return "a former name"
        choices = getattr(command, "commands", None)
    return _option_fault(command, words)


def _option_fault(command: Any, words: list[str]) -> str | None:
    parameters = command.params
    options = {
        name: each
        for each in parameters
        for name in each.opts
        if name.startswith("-") and not getattr(each, "hidden", False)
    }
    arguments = [each for each in parameters if each.param_type_name == "argument"]
    given = 0
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            given += 1
        elif word not in options:
            return f"no option {word}"
        elif not options[word].is_flag:
            if not words:
                return f"{word} has no value"
            words.pop(0)
    endless = any(each.nargs == -1 for each in arguments)
    return "too many arguments" if given > len(arguments) and not endless else None
