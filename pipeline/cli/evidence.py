"""`rmos evidence`, `rmos runs export`: runs in one file for a reader without this program."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.ledger import Keys, opened_to_prove, read_trusted, trusted_file
from pipeline.cli.options import AsJson, with_options
from pipeline.cli.views.terminal import (
    counted,
    note,
    note_first,
    print_json,
    print_pairs,
    progress_bar,
)
from pipeline.errors import IntegrityError
from pipeline.settings import read_settings
from schemas.run_filter import RunFilter

if TYPE_CHECKING:
    from pipeline.evidence.evidence import RunEvidence
    from pipeline.evidence.export import CorruptFile, ExportReport


@with_options(path=trusted_file)
def evidence(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="New file; evidence-RUN_ID.zip if not given."),
    ] = None,
    path: Path | None = None,
    key: Keys = None,
    as_json: AsJson = False,
) -> None:
    """Write the evidence about a run: artifact, links, attachments, proofs, a page, a verifier.

    With --trusted, it also proves that each log still begins with the reader's checkpoint.
    """
    from pipeline.evidence.bundle import write_evidence
    from pipeline.evidence.gather import gather_evidence

    kept = (
        None
        if path is None
        else {each.checkpoint.origin: each.checkpoint for each in read_trusted(path)}
    )
    with opened_to_prove(key) as (reader, logs):
        found = gather_evidence(reader, logs, run_id, kept)
        bundle = output or Path(f"evidence-{run_id}.zip")
        write_evidence(bundle, found, reader.attachments)
    if as_json:
        print_json(_document(bundle, found))
        return
    print_pairs(
        [
            ("file", bundle),
            ("size_bytes", f"{bundle.stat().st_size:,}"),
            ("links", len(found.files) - 1),
            ("attachments", len(found.included)),
            *((each.state, f"{each.sha256}  {each.kind}") for each in found.left_out),
            *(("key", key) for key in found.keys),
        ]
    )
    note("To check it, a reader needs the key or checkpoints from another source than this file.")
    for file in found.files:
        if kept is not None and file.consistency is None:
            note(f"{file.name}: no trusted checkpoint of {file.checkpoint.origin} was given.")


def _document(path: Path, found: "RunEvidence") -> dict[str, object]:
    return {
        "run_id": found.run_id,
        "file": str(path),
        "size_bytes": path.stat().st_size,
        "files": [file.path for file in found.files],
        "attachments": [
            {"sha256": each.sha256, "kind": each.kind, "state": each.state}
            for each in found.attachments
        ],
        "keys": [str(key) for key in found.keys],
    }


SHOWN_CORRUPT = 10
"""Most corrupt files that a person is shown; runs.csv and --json name all."""


def export(
    wanted: RunFilter,
    to: Annotated[Path, typer.Option(metavar="FILE", help="New ZIP to write.")],
    as_json: AsJson = False,
) -> None:
    """Write the runs that fit into a ZIP: artifacts, links, attachments, runs.csv, SHA256SUMS.

    Exit 3 if no run fits. Exit 5 if a file is not what was stored: the ZIP is written without it,
    and runs.csv says so.
    """
    from pipeline.evidence.export import export_runs
    from pipeline.storage.reader import RunReader
    from pipeline.storage.store import open_to_read

    with (
        closing(RunReader(open_to_read(read_settings()))) as reader,
        progress_bar() as progress,
    ):
        report = export_runs(to, reader, wanted, progress)
    if as_json:
        print_json(_export_document(to, report))
    else:
        print_pairs((_export_document(to, report) | {"corrupt": len(report.corrupt)}).items())
        _note_corrupt(report.corrupt)
    if report.corrupt:
        raise typer.Exit(IntegrityError.exit_status)


def _export_document(path: Path, report: "ExportReport") -> dict[str, object]:
    document = {"file": str(path), "size_bytes": path.stat().st_size, **asdict(report)}
    if not report.archived:
        del document["archived"]
    return document


def _note_corrupt(corrupt: Sequence["CorruptFile"]) -> None:
    lines = [f"{each.run_id}: {each.reason}" for each in corrupt]
    note_first(lines, SHOWN_CORRUPT, "red", all_in="runs.csv")
    if corrupt:
        note(f"{counted(len(corrupt), 'file')} not exported: not what was stored.", "red")
