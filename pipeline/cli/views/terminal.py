"""The terminal: data on standard output, everything else on standard error.

Every command prints by these functions alone, and each of them makes what others wrote visible.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from pipeline.core.progress import Progress
from pipeline.core.visible_text import visible, visible_json

Value = TypeVar("Value")

_NARROWEST = 6
"""Cells of a column that is cut: enough to distinguish values."""

_PLURALS = {"advisory": "advisories", "leaf": "leaves"}
_GAP = 2
"""Cells between two columns of a table without frames."""


def stderr() -> Console:
    """Return the console for all that is not data."""
    return Console(stderr=True, highlight=False)


def note(sentence: str, style: str = "") -> None:
    """Print a note on standard error; a line stays whole, so that a path can be copied."""
    stderr().print(Text(visible(sentence), style), soft_wrap=True)


def say_error(sentence: str, lines: Iterable[str] = ()) -> None:
    """Print an error: a line, and one for each thing that it consists of."""
    error = Text.assemble(("Error:", "bold red"), " ", visible(sentence))
    stderr().print(error, soft_wrap=True)
    for line in lines:
        note(f"  {line}")


def note_first(lines: Sequence[str], most: int, style: str = "", all_in: str = "--json") -> None:
    """Print the first of some notes, and how many more there are and where."""
    for line in lines[:most]:
        note(line, style)
    if len(lines) > most:
        note(f"and {len(lines) - most:,} more; {all_in} names all", style)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show on a terminal what is done while a block runs."""
    with stderr().status(Text(visible(what))):
        yield


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show on a terminal how far a block is: a bar for each thing that it counts, until it is done.

    The block calls the function that it gets.
    """
    console = stderr()
    bars = RichProgress(
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    tasks: dict[str, TaskID] = {}

    def show(what: str, done: int, total: int | None) -> None:
        if not console.is_terminal:
            return
        if what not in tasks:
            tasks[what] = bars.add_task(what, total=total, completed=done)
            bars.start()
        bars.update(tasks[what], completed=done, total=total)
        if done == total:
            bars.remove_task(tasks.pop(what))
            if not tasks:
                bars.stop()

    try:
        yield show
    finally:
        if tasks:
            bars.stop()


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: `1 leaf`, `2,000 leaves`."""
    return f"{count:,} {noun if count == 1 else _PLURALS.get(noun, f'{noun}s')}"


def listed(counts: Mapping[str, int]) -> str:
    """Return counts with their names: `2 migrated, 1 refused`."""
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def known(document: Mapping[str, Value | None]) -> dict[str, Value]:
    """Return a document without the fields that have no value."""
    return {name: value for name, value in document.items() if value is not None}


def print_text(text: object = "", *, at_once: bool = True) -> None:
    """Print one line of data.

    Args:
        text: The line.
        at_once: Whether the next program in a pipe has it before the next line is made.
    """
    line = visible(str(text))
    if at_once:
        typer.echo(line)
    else:
        sys.stdout.write(f"{line}\n")


def print_json(document: object, *, indent: int | None = None) -> None:
    """Print one JSON document as data, on one line unless it is indented."""
    typer.echo(visible_json(json.dumps(document, ensure_ascii=False, indent=indent)))


def print_bytes(content: bytes) -> None:
    """Write the exact bytes of a text; on a terminal, with what would act on it escaped."""
    if sys.stdout.isatty():
        typer.echo(visible_json(content.decode(errors="replace")))
        return
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def print_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and values, aligned."""
    listed = list(pairs)
    width = max(len(name) for name, _ in listed)
    for name, value in listed:
        print_text(f"{name:<{width}}  {value}")


def print_styled(text: Text, console: Console | None = None) -> None:
    """Print one line of data with colours on a terminal; its parts are visible already.

    The line stays whole, so that a path or a hash can be copied.
    """
    (console or Console(highlight=False)).print(text, soft_wrap=True)


def is_watched() -> bool:
    """Return whether a person sees the data, and not the next program of a pipe."""
    return Console().is_terminal


def print_table(
    headings: Sequence[str], rows: Iterable[Iterable[object]], *, whole: str | None = None
) -> None:
    """Print a table: with frames for a person, else tab-separated values.

    Args:
        headings: The names of the columns.
        rows: The cells; one that is a `Text` is coloured, and visible already.
        whole: A column that people copy from. It is never cut or broken: the others are cut or
            left out for it, the last one first.
    """
    if not is_watched():
        print_cells(headings)
        for row in rows:
            print_cells(row)
        return
    cells = [[_shown(cell) for cell in row] for row in rows]
    if whole is None:
        table = Table(*headings)
        for row in cells:
            table.add_row(*row)
        Console(highlight=False).print(table)
    else:
        _print_around(headings, cells, headings.index(whole))


def _shown(cell: object) -> Text:
    return cell if isinstance(cell, Text) else Text(visible(str(cell)))


def _print_around(headings: Sequence[str], rows: Sequence[Sequence[Text]], whole: int) -> None:
    console = Console(highlight=False)
    widths = _widths(headings, rows, console.width, whole)
    shown = [column for column, width in enumerate(widths) if width]
    console.width = max(console.width, widths[whole] + _GAP)
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False)
    for column in shown:
        table.add_column(headings[column], width=widths[column], no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*(row[column] for column in shown))
    console.print(table)
    left_out = [heading for heading, width in zip(headings, widths, strict=True) if not width]
    if left_out:
        note(f"Left out for the width: {', '.join(left_out)}; --json has all.", "dim")


def _widths(
    headings: Sequence[str], rows: Sequence[Sequence[Text]], width: int, whole: int
) -> list[int]:
    """Return the widths of columns so that a line holds them; 0 for one that is left out."""
    columns = zip(map(Text, headings), *rows, strict=True)
    natural = [max(cell.cell_len for cell in column) for column in columns]
    widths = [0] * len(natural)
    room = width
    for column in sorted(range(len(natural)), key=lambda column: column != whole):
        widths[column] = natural[column] if column == whole else min(natural[column], room)
        if widths[column] < min(natural[column], _NARROWEST):
            widths[column] = 0
        else:
            room -= widths[column] + _GAP
    return widths


def print_cells(cells: Iterable[object]) -> None:
    """Print one line of tab-separated values."""
    typer.echo("\t".join(visible(str(cell)) for cell in cells))
