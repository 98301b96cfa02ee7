"""Options that several groups of commands have: --json, and moments in RFC 3339."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from pipeline.errors import InputError
from schemas.timestamps import format_timestamp, microseconds_since_epoch, parse_timestamp

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
AsNdjson = Annotated[bool, typer.Option("--json", help="Print NDJSON and a summary.")]

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
