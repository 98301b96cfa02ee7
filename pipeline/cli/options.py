"""Options that several commands have: --json, moments in RFC 3339, the fields of a run filter."""

from collections.abc import Callable, Collection, Container
from datetime import UTC, datetime
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, get_args

import typer
from pydantic.fields import FieldInfo

from pipeline.errors import InputError
from pipeline.settings import Settings
from schemas.run_filter import RunFilter
from schemas.timestamps import format_timestamp, microseconds_since_epoch, parse_timestamp

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
AsNdjson = Annotated[bool, typer.Option("--json", help="Print NDJSON and a summary.")]
AcceptRejects = Annotated[
    int, typer.Option(min=0, metavar="N", help="Let the next N failures past the reject limit.")
]
AcceptLoss = Annotated[
    bool, typer.Option("--accept-loss", help="Continue without the records that are lost.")
]

STANDARD_INPUT = "-"
"""The name of a file that is none."""

MOMENT = "TIME"
"""How help calls the value of such an option."""


def moment_ms(option: str, text: str | None) -> int | None:
    """Return the moment that `text` names, in ms since 1970; None where it is not given.

    Raises:
        InputError: It names none.
    """
    if text is None:
        return None
    try:
        return microseconds_since_epoch(parse_timestamp(text)) // 1000
    except ValueError as error:
        raise InputError(f"{option} cannot be {text[:100]!r}: {error}.") from error


def moment_text(milliseconds: int) -> str:
    """Return the moment of a record's timestamp; what is no time of this era stays a number."""
    try:
        return format_timestamp(datetime.fromtimestamp(milliseconds / 1000, UTC))
    except (ValueError, OverflowError, OSError):
        return str(milliseconds)


def full_group(settings: Settings, name: str, known: Collection[str], whose: str) -> str:
    """Return the full name of one of the `known` groups, named with or without the prefix.

    Raises:
        InputError: It is none; `whose` ends the words for it.
    """
    for candidate in (name, f"{settings.prefix}.{name}"):
        if candidate in known:
            return candidate
    raise InputError(f"{name!r} is no consumer group {whose}: {', '.join(known)}.")


def with_options(
    **makers: Callable[..., Any],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let parameters of a command be made of options, which stand in their places.

    Args:
        **makers: By the name of a parameter what makes it; the parameters of that are the options.
    """

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        options = {name: signature(make).parameters for name, make in makers.items()}

        @wraps(command)
        def run(**given: Any) -> None:  # noqa: ANN401  # as Typer calls it
            made = {
                name: make(**{each: given.pop(each) for each in options[name] if each in given})
                for name, make in makers.items()
            }
            command(**made, **given)

        taken = [
            option.replace(kind=Parameter.KEYWORD_ONLY)
            for name, own in signature(command).parameters.items()
            for option in (options[name].values() if name in options else [own])
        ]
        run.__signature__ = Signature(taken)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in taken}
        return run

    return decorated


def run_filter(*, leaving_out: Container[str] = ()) -> Callable[..., RunFilter]:
    """Return what makes a filter of an option for each of its fields but for some."""

    def wanted(**asked: Any) -> RunFilter:  # noqa: ANN401  # as the fields are
        try:
            return RunFilter.of(**asked)
        except ValueError as error:
            field, _, why = str(error).partition(":")
            raise InputError(f"--{field.replace('_', '-')}:{why}") from error

    options = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=field.default, annotation=_option(field))
        for name, field in RunFilter.model_fields.items()
        if name not in leaving_out
    ]
    wanted.__signature__ = Signature(options)  # type: ignore[attr-defined]
    return wanted


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
