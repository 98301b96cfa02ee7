"""`rmos migrate`: migrate the runs of an older store, verify them, and go back."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.options import AcceptLoss, AcceptRejects, AsJson, AsNdjson, with_options
from pipeline.cli.views.terminal import (
    counted,
    known,
    listed,
    note,
    note_first,
    print_json,
    print_pairs,
    print_table,
    print_text,
    progress_bar,
    waiting,
)
from pipeline.errors import IntegrityError, RefusedError
from pipeline.settings import Settings, read_settings

if TYPE_CHECKING:
    from pipeline.legacy.check import Difference
    from pipeline.legacy.report import MigrationResult, RowResult
    from pipeline.legacy.source import OlderStore

    Opened = tuple[Settings, OlderStore]

SHOWN_ROWS = 20
"""Most rows that are shown to a person; --json names all."""

_ROW_STATES = ("migrated", "unexplained", "missing", "different", "refused")
_ROLLBACK_FIELDS = (
    *("path", "backup", "replaced", "rows", "from_backup", "from_file", "file_fault"),
    *("exported", "failed"),
)
_QUIET_STATES = frozenset({"mapped", "published", "already", "ours"})

app = typer.Typer(no_args_is_help=True)

BackupDir = Annotated[
    Path | None, typer.Option(help="Where backups of a v1 file are; else beside it.")
]


def _opened(
    *,
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="A v1 file or a folder of the original v2 code; else RMOS_RUN_STORE_PATH.",
        ),
    ] = None,
    attachments: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the old attachments; else run_attachments where it used to be."
        ),
    ] = None,
) -> "Opened":
    """Return the settings, with which logging is configured, and the older store."""
    from pipeline.legacy.source import open_source

    settings = _settings()
    with waiting("reading the older store"):
        return settings, open_source(from_ or settings.run_store_path, attachments)


@app.command()
@with_options(opened=_opened)
def run(
    opened: "Opened",
    backup_dir: BackupDir = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write and publish nothing; show what would be.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on after a migration that was killed; records of another source that wait "
            "on the topic are stored as well.",
        ),
    ] = False,
    accept_rejects: AcceptRejects = 0,
    accept_loss: AcceptLoss = False,
    as_json: AsNdjson = False,
) -> None:
    """Migrate the rows that are not migrated yet; after a kill, a second run continues.

    Exit 4 if a row cannot be migrated; the others are.
    """
    from pipeline.legacy.migration import MigrationOptions, migrate_into_store, preview

    settings, source = opened
    options = MigrationOptions(backup_dir, resume, accept_loss, accept_rejects)
    rows: list[RowResult] = []
    with progress_bar() as progress:

        def report(row: "RowResult") -> None:
            if as_json:
                print_json(_row_document(row))
            elif row.state not in _QUIET_STATES:
                rows.append(row)

        if dry_run:
            result = preview(source, report, progress)
        else:
            result = asyncio.run(migrate_into_store(settings, source, options, report, progress))
    _report(result, rows, dry_run=dry_run, as_json=as_json)
    if not result.is_complete:
        raise typer.Exit(RefusedError.exit_status)


@app.command()
@with_options(opened=_opened)
def status(
    opened: "Opened",
    backup_dir: BackupDir = None,
    as_json: AsJson = False,
) -> None:
    """Count the migrated rows of an older store; asks no broker and reads no artifact."""
    from pipeline.legacy.check import migration_status

    settings, source = opened
    with progress_bar() as progress:
        found = migration_status(
            source, settings.data_dir, backup_dir=backup_dir, progress=progress
        )
    document = {
        "source": str(source.path),
        "format": source.format,
        "source_sha256": source.sha256,
        "backups": [str(path) for path in found.backups],
        "rows": len(source.rows),
        **{state: found.states[state] for state in _ROW_STATES},
        "runs_in_store": found.runs,
    }
    if as_json:
        print_json(document)
    else:
        print_pairs(_shown(document))


def _shown(document: dict[str, Any]) -> Iterator[tuple[str, object]]:
    """Yield names and values, one of each item of a list."""
    for name, value in document.items():
        items = value if isinstance(value, list) else [value]
        for item in items or [None]:
            yield name, "none" if item is None else item


@app.command()
@with_options(opened=_opened)
def verify(
    opened: "Opened",
    backup_dir: BackupDir = None,
    as_json: AsNdjson = False,
) -> None:
    """Compare every row with its migrated run, by hash; exit 5 if one differs.

    Each hash is computed again. No broker is asked, and nothing is repaired.
    """
    from pipeline.legacy.check import verify_migration

    settings, source = opened
    counts: Counter[str] = Counter()
    with progress_bar() as progress:
        for found in verify_migration(
            source, settings.data_dir, backup_dir=backup_dir, progress=progress
        ):
            counts[found.code] += 1
            _print_difference(found, as_json=as_json)
    summary = {"rows": len(source.rows), "differences": counts.total(), "codes": dict(counts)}
    if as_json:
        print_json({"summary": summary})
    else:
        note(
            f"{counted(len(source.rows), 'row')} compared, {counted(counts.total(), 'difference')}"
        )
    if counts:
        raise typer.Exit(IntegrityError.exit_status)


@app.command()
def rollback(
    to: Annotated[
        Path | None, typer.Option(help="The v1 file to restore; else RMOS_RUN_STORE_PATH.")
    ] = None,
    backup: Annotated[
        Path | None, typer.Option(help="What to restore it from; else its newest backup.")
    ] = None,
    backup_dir: BackupDir = None,
    without_backup: Annotated[
        bool,
        typer.Option("--without-backup", help="Make the file from this store alone."),
    ] = False,
    without_broker: Annotated[
        bool,
        typer.Option(
            "--without-broker",
            help="Do not ask the broker whether a worker runs; you must have stopped them all.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Restore the v1 file from its backup, with the runs stored since then; deletes nothing.

    Stop the persist workers first. Exit 5 if the backup has not the bytes of its name, or if a
    run could not be exported because its file is damaged.
    """
    from pipeline.legacy.rollback import roll_back

    settings = _settings()
    with progress_bar() as progress:
        report = asyncio.run(
            roll_back(
                settings,
                to or settings.run_store_path,
                backup=backup,
                backup_dir=backup_dir,
                progress=progress,
                without_backup=without_backup,
                without_broker=without_broker,
            )
        )
    fields = ((name, getattr(report, name)) for name in _ROLLBACK_FIELDS)
    document = {name: str(each) if isinstance(each, Path) else each for name, each in fields}
    if as_json:
        print_json(document)
    else:
        print_pairs(_shown(document))
        if report.file_fault is not None:
            note(
                f"{report.file_fault} Rows that the backup has not are in {report.replaced} alone."
            )
        note("RMOS_RUNS_V2_ENABLED=false lets workers and API use this file.")
    if report.failed:
        raise typer.Exit(IntegrityError.exit_status)


def _print_difference(found: "Difference", *, as_json: bool) -> None:
    if as_json:
        print_json(known(asdict(found)))
        return
    why = found.reason or f"expected {found.expected}  found {found.found or 'nothing'}"
    print_text("  ".join(filter(None, (found.run_id or "source", found.code, found.path, why))))


def _settings() -> Settings:
    from pipeline.logs import configure_logging

    settings = read_settings()
    # The command itself reports what becomes of the rows.
    if settings.log_level == "info":
        settings = settings.model_copy(update={"log_level": "warning"})
    configure_logging(settings)
    return settings


def _row_document(row: "RowResult") -> dict[str, Any]:
    report = asdict(row.report) if row.report is not None else {}
    own = {"run_id": row.run_id, "state": row.state, "code": row.code, "message": row.message}
    return report | known({**own, "attachments": row.attachments or None})


def _report(
    result: "MigrationResult", rows: list["RowResult"], *, dry_run: bool, as_json: bool
) -> None:
    summary = result.summary() | {"dry_run": dry_run}
    if as_json:
        print_json({"summary": summary})
        return
    print_table(("", "before", "after"), _comparison(result))
    print_pairs(_totals(summary))
    for sentence in summary["findings"]:
        print_text(sentence)
    note_first([f"{row.run_id}: {row.code}: {row.message or ''}" for row in rows], SHOWN_ROWS)


def _comparison(result: "MigrationResult") -> Iterator[tuple[str, str, str]]:
    """Yield the counts that a person compares: those of the old store, and those of this one."""
    counts = result.counts
    for words, before, after in (
        ("status", "statuses", "statuses"),
        ("risk", "risks_before", "risks_after"),
        ("hash of the evaluation:", "hashes_before", "hashes_after"),
    ):
        for name in sorted(counts[before] | counts[after]):
            yield f"{words} {name}", f"{counts[before][name]:,}", f"{counts[after][name]:,}"


def _totals(summary: dict[str, Any]) -> Iterator[tuple[str, object]]:
    yield "rows", f"{summary['rows']:,}"
    yield from ((state, f"{count:,}") for state, count in summary["states"].items())
    if summary["outcomes"]:
        yield "stored now", listed(summary["outcomes"])
    if summary["withheld"]:
        yield "withheld in", counted(summary["withheld"], "row")
    if summary["attachments"]:
        yield "attachments", listed(summary["attachments"])
    if summary["apart"]:
        yield "too large for a message", f"{len(summary['apart']):,}, put into the store directly"
    if summary["backup"]:
        yield "backup", summary["backup"]
    if summary["strange_files"]:
        yield "other files", f"{summary['strange_files']:,}, left where they are"
