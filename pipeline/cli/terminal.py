"""What a person sees: data on standard output, all else on standard error."""

import json
from collections.abc import Iterable

import typer
from rich.console import Console
from rich.table import Table


def notes() -> Console:
    """Return the console for what is not data."""
    return Console(stderr=True, highlight=False)


def say_error(sentence: str) -> None:
    """Say what went wrong in one line."""
    notes().print(f"[bold red]Error:[/] {_escaped(sentence)}", soft_wrap=True)


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
            typer.echo("\t".join(str(cell) for cell in row))
        return
    table = Table(*headings)
    for row in rows:
        table.add_row(*(_escaped(str(cell)) for cell in row))
    console.print(table)


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")
