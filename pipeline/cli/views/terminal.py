"""What a person sees: data on standard output, all else on standard error.

Every command prints by these functions alone, and each of them makes what others wrote visible.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.status import Status
from rich.table import Table
from rich.text import Text

from pipeline.broker.local.runtime import (
    DESCRIPTIONS,
    DOWNLOAD_NAME,
    DOWNLOAD_SIZE_MB,
    Downloaded,
)
from pipeline.core.visible_text import visible, visible_json

_NARROWEST = 6
"""Cells of a column that is cut: enough to tell values apart."""

_GAP = 2
"""Cells between two columns of a table without frames."""


def stderr() -> Console:
    """Return the console for all that is not data."""
    return Console(stderr=True, highlight=False)


def note(sentence: str, style: str = "") -> None:
    """Say in one line what is not data; a line stays whole, so that a path can be copied."""
    stderr().print(Text(visible(sentence), style), soft_wrap=True)


def say_error(sentence: str, lines: Iterable[str] = ()) -> None:
    """Say what went wrong: a line, and one for each thing that it consists of."""
    error = Text.assemble(("Error:", "bold red"), " ", visible(sentence))
    stderr().print(error, soft_wrap=True)
    for line in lines:
        note(f"  {line}")


class Waiting:
    """A line that is shown on a terminal while something takes long."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def tell(self, what: str) -> None:
        """Show what is done now."""
        self._status.update(Text(visible(what)))

    def stop(self) -> None:
        """Show nothing any more."""
        self._status.stop()


class _Here(ProgressColumn):
    """How much of a download is here, in words."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["here"])


class Starting:
    """Shows how a local broker is started: its steps as lines, its one download as a bar.

    Where nobody watches, the download has a line at its start and one at each quarter.
    """

    def __init__(self, tell: Callable[[str], None] | None = None) -> None:
        """Prepare; nothing is shown yet.

        Args:
            tell: Prints a step; None for a line on standard error.
        """
        console = stderr()
        self._note: Callable[[str], None] = tell or note
        self._is_watched = console.is_terminal
        columns = (TextColumn("{task.description}"), BarColumn(), _Here())
        self._bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
        self._task = self._bar.add_task(DOWNLOAD_NAME, total=DESCRIPTIONS, here="")
        self._has_jars = False
        self._quarter = -1

    def tell(self, what: str | Downloaded) -> None:
        """Show a step, or how far the download is."""
        if isinstance(what, str):
            self.stop()
            self._note(what)
        elif self._is_watched:
            self._move_bar(what)
        else:
            self._tell_quarter(what)

    def stop(self) -> None:
        """Show no bar any more."""
        if self._bar.live.is_started:
            self._bar.stop()

    def _move_bar(self, found: Downloaded) -> None:
        if not self._bar.live.is_started:
            self._bar.start()
        if found.jars_needed is None:
            here = f"{found.descriptions}/{DESCRIPTIONS} descriptions"
            self._bar.update(self._task, completed=found.descriptions, here=here)
            return
        if not self._has_jars:
            self._has_jars = True
            self._bar.reset(self._task, total=DOWNLOAD_SIZE_MB * 1e6)
        here = (
            f"{found.size_bytes / 1e6:.0f}/{DOWNLOAD_SIZE_MB} MB, "
            f"{found.jars}/{found.jars_needed} jars"
        )
        self._bar.update(self._task, completed=found.size_bytes, here=here)

    def _tell_quarter(self, found: Downloaded) -> None:
        quarter = -1 if found.jars_needed is None else 4 * found.jars // found.jars_needed
        if quarter > self._quarter or (found.descriptions, found.jars) == (0, 0):
            self._quarter = quarter
            self._note(str(found))


@contextmanager
def waiting(what: str) -> Iterator[Waiting]:
    """Show on a terminal what is done while a block runs."""
    with stderr().status(Text(visible(what))) as status:
        yield Waiting(status)


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[..., None]]:
    """Show a bar on a terminal while a block runs.

    The block calls what it is given once a step, or with the number of steps.
    """
    console = stderr()
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
    console = stderr()
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
    """Tell whether a person sees the data, and not the next program of a pipe."""
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
