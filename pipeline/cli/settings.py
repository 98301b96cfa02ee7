"""`rmos settings`: every setting with its value, where that comes from, and its meaning."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.cli.options import AsJson
from pipeline.cli.views.terminal import print_json, print_table
from pipeline.errors import InputError
from pipeline.settings import (
    PREFIX,
    Settings,
    meaning_of,
    options_given,
    read_settings,
    variables_of,
)

_COLUMNS = ("setting", "value", "source", "meaning")
_UNSET = "-"
_HIDDEN = "**********"
"""As pydantic writes a secret."""


def settings(as_json: AsJson = False) -> None:
    """Print every setting: its value, where that comes from, and its meaning.

    The source is `option`, `environment`, `file` (the file that another setting names) or
    `default`. A secret is never printed, only that there is one.
    """
    found = list(_documents(read_settings()))
    if as_json:
        print_json({"settings": found})
        return
    print_table(_COLUMNS, ([_cell(each[name]) for name in _COLUMNS] for each in found))


def _documents(settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield a document for each setting, in the order of their class."""
    # Pydantic writes a secret as stars, whatever its length.
    values = settings.model_dump(mode="json")
    for name in Settings.model_fields:
        yield {
            "setting": PREFIX + name.upper(),
            "value": _value(name, values),
            "source": _source(name, values),
            "meaning": meaning_of(name),
        }


def _value(name: str, values: dict[str, Any]) -> Any:  # noqa: ANN401
    file = values.get(f"{name}_file")
    if values[name] is not None or file is None:
        return values[name]
    from pipeline.broker.connection import read_secret

    try:
        read_secret(PREFIX + name.upper(), None, Path(file))
    except InputError:
        return "cannot be read"
    return _HIDDEN


def _source(name: str, values: dict[str, Any]) -> str:
    if name in options_given():
        return "option"
    # In any case, as pydantic-settings reads them.
    if {variable.upper() for variable in os.environ}.intersection(variables_of(name)):
        return "environment"
    return "file" if values.get(f"{name}_file") is not None else "default"


def _cell(value: Any) -> str:  # noqa: ANN401
    if value is None or value == []:
        return _UNSET
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, list) else str(value)
