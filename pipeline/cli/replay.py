"""`rmos replay`: prove a store by its topics, restore it, or send a range elsewhere."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.options import MOMENT, AsNdjson, with_options
from pipeline.cli.views.terminal import (
    counted,
    note,
    print_json,
    print_table,
    print_text,
    progress_bar,
)
from pipeline.errors import IntegrityError
from pipeline.settings import read_settings

if TYPE_CHECKING:
    from pipeline.recovery.replay.reading import Reading
    from pipeline.recovery.replay.selection import Selection

app = typer.Typer()


def _selection(
    *,
    since: Annotated[
        str | None, typer.Option(metavar=MOMENT, help="Records of that broker time or later.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar=MOMENT, help="Records of before that.")
    ] = None,
    ranges: Annotated[
        list[str] | None,
        typer.Option(
            "--range",
            metavar="TOPIC/PARTITION[:FROM-TO]",
            help="A partition, or its offsets from FROM to before TO; may be given again.",
        ),
    ] = None,
    run_id: Annotated[
        str | None,
        typer.Option(metavar="ID", help="One run and its advisories: one partition each."),
    ] = None,
) -> "Selection":
    from pipeline.recovery.replay.selection import parse_selection

    return parse_selection(since=since, until=until, offsets=tuple(ranges or ()), run_id=run_id)


Rate = Annotated[float | None, typer.Option(min=0.1, metavar="N", help="Most records per second.")]


@app.callback(invoke_without_command=True)
def default(context: typer.Context) -> None:
    """Verify the store where no command is named."""
    if context.invoked_subcommand is None:
        verify()


@app.command()
@with_options(selection=_selection)
def plan(
    selection: "Selection",
    as_json: AsNdjson = False,
) -> None:
    """Show what would be read, what retention has removed, and what the store has already."""
    from pipeline.app.process import run_service
    from pipeline.cli.views import replay as view
    from pipeline.recovery.replay.plan import plan as plan_replay

    found = run_service(plan_replay(read_settings(), selection))
    if as_json:
        for document in view.plan_documents(found):
            print_json(document)
        print_json({"summary": view.plan_summary(found)})
        return
    print_table(view.PLAN_COLUMNS, view.plan_rows(found))
    for line in view.plan_lines(found):
        note(line)


@app.command()
@with_options(selection=_selection)
def verify(
    selection: "Selection",
    rate: Rate = None,
    as_json: AsNdjson = False,
) -> None:
    """Validate every record again and compare the result with the store; writes nothing.

    Exit 5 if anything is missing, different or foreign.
    """
    from pipeline.app.process import run_service
    from pipeline.cli.views import replay as view
    from pipeline.recovery.replay.verify import verify as verify_store

    with view.shown_findings(as_json=as_json) as report, _reading(rate) as reading:
        found = run_service(verify_store(read_settings(), selection, report, reading))
    summary, lines = view.verified_summary(found), view.verified_lines(found)
    _end(found.differs, summary, lines, as_json=as_json)


@app.command()
@with_options(selection=_selection)
def restore(
    selection: "Selection",
    rate: Rate = None,
    accept_loss: Annotated[
        bool,
        typer.Option("--accept-loss", help="Restore although retention took the start of a log."),
    ] = False,
    as_json: AsNdjson = False,
) -> None:
    """Write what is missing in the store again, with the same bytes; existing files stay untouched.

    Exit 5 if anything could not be restored.
    """
    from pipeline.app.process import run_service
    from pipeline.cli.views import replay as view
    from pipeline.recovery.replay.restore import restore as restore_store

    settings = read_settings()
    with view.shown_findings(as_json=as_json) as report, _reading(rate) as reading:
        found = run_service(
            restore_store(settings, selection, report, accept_loss=accept_loss, reading=reading)
        )
    summary, lines = view.restored_summary(found), view.restored_lines(found)
    _end(found.differs, summary, lines, as_json=as_json)


@app.command()
@with_options(selection=_selection)
def forward(
    to: Annotated[str, typer.Option(metavar="TOPIC", help="Another topic, none of this pipeline.")],
    selection: "Selection",
    rate: Rate = None,
    as_json: AsNdjson = False,
) -> None:
    """Publish records to another topic, unchanged but for the header rmos-replay-of."""
    from pipeline.app.process import run_service
    from pipeline.recovery.replay.forward import forward as forward_range

    with _reading(rate) as reading:
        count = run_service(forward_range(read_settings(), selection, to, reading))
    if as_json:
        print_json({"summary": {"command": "forward", "topic": to, "records": count}})
    else:
        print_text(f"{counted(count, 'record')} sent to {to}")


def _end(differs: bool, summary: dict[str, Any], lines: Iterable[str], *, as_json: bool) -> None:
    if as_json:
        print_json({"summary": summary})
    else:
        for line in lines:
            print_text(line)
    if differs:
        raise typer.Exit(IntegrityError.exit_status)


@contextmanager
def _reading(rate: float | None) -> Iterator["Reading"]:
    from pipeline.recovery.replay.reading import Reading

    with progress_bar() as progress:
        yield Reading(rate, progress)
