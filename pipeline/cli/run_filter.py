"""The fields of a run filter as options of a command."""

import inspect
from collections.abc import Callable, Container
from inspect import Parameter, Signature
from typing import Annotated, Any, get_args, get_type_hints

import typer
from pydantic.fields import FieldInfo

from pipeline.errors import InputError
from schemas.run_filter import RunFilter


def with_filter(
    command: Callable[..., None], *, leaving_out: Container[str] = ()
) -> Callable[..., None]:
    """Return `command` with an option for each field of a filter before its own options.

    Args:
        command: Takes the filter first, then its own by keyword.
        leaving_out: Fields that are no options of it.
    """
    fields = {
        name: field for name, field in RunFilter.model_fields.items() if name not in leaving_out
    }

    def run(**given: Any) -> None:  # noqa: ANN401  # as Typer calls it
        asked = {name: given.pop(name) for name in fields}
        try:
            wanted = RunFilter.of(**asked)
        except ValueError as error:
            field, _, why = str(error).partition(":")
            raise InputError(f"--{field.replace('_', '-')}:{why}") from error
        command(wanted, **given)

    options = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=field.default, annotation=_option(field))
        for name, field in fields.items()
    ]
    hints = get_type_hints(command, include_extras=True)
    _, *own = inspect.signature(command).parameters.values()
    options += [
        each.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[each.name]) for each in own
    ]
    run.__signature__ = Signature(options)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in options}
    run.__doc__ = command.__doc__
    return run


def _option(field: FieldInfo) -> object:
    """Return the annotation of the option for a field; words to choose from may be lower case."""
    words = [word for each in get_args(field.annotation) for word in get_args(each)]
    if not words:
        return Annotated[field.annotation, typer.Option(help=field.description)]
    option = typer.Option(
        metavar="|".join(words),
        parser=str.upper,
        autocompletion=lambda: words,
        help=field.description,
    )
    return Annotated[str | None, option]
