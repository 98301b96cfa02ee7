"""What a person sees: data on standard output, all else on standard error."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from pipeline.core.visible_text import visible


def notes() -> Console:
    """Return the console for what is not data."""
    return Console(stderr=True, highlight=False)


def say_error(sentence: str) -> None:
    """Say what went wrong in one line."""
    notes().print(f"[bold red]Error:[/] {escaped(sentence)}", soft_wrap=True)


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[..., None]]:
    """Show a bar on a terminal while a block runs.

    The block calls what it is given once a step, or with the number of steps.
    """
    console = notes()
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(what, total=total)
        yield lambda steps=1: progress.advance(task, steps)


class _RecordsPerSecond(ProgressColumn):
    """How fast it has been of late."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:,.0f} records/s")


@contextmanager
def records_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how far a block is through many records, on a terminal, from the first second on.

    The block calls what it is given with how many are done, and how many there are.
    """
    console = notes()
    begun = monotonic()
    columns = (
        *(TextColumn(what), BarColumn(), MofNCompleteColumn(), _RecordsPerSecond()),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=console, transient=True)
    task = progress.add_task(what, total=None)

    def show(done: int, total: int) -> None:
        progress.update(task, completed=done, total=total)
        if console.is_terminal and not progress.live.is_started and monotonic() > begun + 1:
            progress.start()

    try:
        yield show
    finally:
        if progress.live.is_started:
            progress.stop()


def print_json(document: object) -> None:
    """Print one JSON document as one line of data."""
    typer.echo(json.dumps(document, ensure_ascii=False))


def print_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and values, aligned."""
    listed = list(pairs)
    width = max(len(name) for name, _ in listed)
    for name, value in listed:
        typer.echo(f"{name:<{width}}  {value}")


def print_table(headings: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table: with frames for a person, else tab-separated values."""
    console = Console(highlight=False)
    if not console.is_terminal:
        typer.echo("\t".join(headings))
        for row in rows:
            typer.echo("\t".join(visible(str(cell)) for cell in row))
        return
    table = Table(*headings)
    for row in rows:
        table.add_row(*(Text(visible(str(cell))) for cell in row))
    console.print(table)


def escaped(text: str) -> str:
    """Return `text` so that Rich shows it as it is, also a backslash before a bracket."""
    return escape(text)
