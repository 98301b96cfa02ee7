"""`rmos index`: the index is derived from files and topic; check it, rebuild it."""

import asyncio
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from pipeline.cli.options import AsJson
from pipeline.cli.views.terminal import (
    counted,
    note,
    print_json,
    print_table,
    print_text,
    progress_bar,
)
from pipeline.disk.store_identity import read_store
from pipeline.errors import IntegrityError
from pipeline.settings import read_settings

if TYPE_CHECKING:
    from pipeline.recovery.rebuild.index import RebuildReport

TOLD_OF_A_KIND = 10
"""Most lines about one kind of finding; after a new broker every older run is such a finding."""

app = typer.Typer(
    no_args_is_help=True, help="Check or rebuild the index of the store in RMOS_DATA_DIR."
)


@app.command()
def rebuild(as_json: AsJson = False) -> None:
    """Make a new index from files, ledger and request topics; the files are not touched.

    Stop the workers first. Exit 5 if files are missing, unexpected, or explained by no leaf and
    no record: they get their rows all the same, so that every later check finds them. Nothing is
    written if a file differs from its leaf.
    """
    from pipeline.recovery.rebuild.index import rebuild_index

    settings = read_settings()
    with progress_bar() as progress:
        report = asyncio.run(rebuild_index(settings, progress))
    if as_json:
        print_json(asdict(report))
    else:
        _tell(report)
    if not report.is_clean:
        raise typer.Exit(IntegrityError.exit_status)


@app.command()
def check(as_json: AsJson = False) -> None:
    """Compare the index with every file, by hash; exit 5 if they differ."""
    from pipeline.storage.index.run_index import open_index_to_read
    from pipeline.storage.index_check import check_index

    root = read_settings().data_dir
    read_store(root)
    with closing(open_index_to_read(root)) as index:
        with progress_bar() as progress:
            differences = list(check_index(root, index, progress))
        runs, advisories = index.count(), index.count_advisories()
    if as_json:
        found = [asdict(each) for each in differences]
        print_json({"runs": runs, "advisories": advisories, "differences": found})
    elif differences:
        rows = [[each.path, each.expected, each.found] for each in differences]
        print_table(["path", "expected", "found"], rows)
    else:
        print_text(f"{_counted(runs, advisories)} as the index says")
    if differences:
        raise typer.Exit(IntegrityError.exit_status)


def _tell(report: "RebuildReport") -> None:
    print_text(f"{_counted(report.runs, report.advisories)} in the new index")
    _tell_some(
        [f"{each}: no leaf and no record explains its file" for each in report.without_record]
    )
    _tell_some([f"{each}: its file is missing or has other bytes" for each in report.without_file])
    _tell_some(
        [f"{each}: no leaf and no record explains its link" for each in report.links_without_record]
    )
    _tell_some([f"{each}: its link has other bytes" for each in report.links_changed])
    _tell_some([f"{each}: the advise worker will link it" for each in report.links_to_make])
    _tell_some([f"{file.path}: {file.reason}" for file in report.unexpected])
    _tell_some(
        [
            f"{each}: the ledger tells of it, no file and no record does: it has no row"
            for each in report.lost
        ]
    )


def _counted(runs: int, advisories: int) -> str:
    both = counted(runs, "run"), counted(advisories, "advisory")
    return ", ".join(both) if advisories else both[0]


def _tell_some(lines: Sequence[str]) -> None:
    for line in lines[:SHOWN_OF_A_KIND]:
        note(line)
    if len(lines) > SHOWN_OF_A_KIND:
        note(f"and {len(lines) - SHOWN_OF_A_KIND:,} more; --json names all")
