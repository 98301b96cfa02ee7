"""`rmos audit`: hold what is stored against its hashes."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.audit.journal import journal_progress
from pipeline.audit.report import read_report
from pipeline.audit.rules.finding import Finding, readable
from pipeline.audit.single_files import check_file
from pipeline.cli.audit_run import run
from pipeline.cli.views.audit import is_fault, print_report
from pipeline.cli.views.terminal import note, print_json, print_table
from pipeline.disk.store_identity import read_store
from pipeline.errors import NotFoundError
from pipeline.settings import read_settings
from schemas.fields import is_audit_id

FINDING = 5
"""Exit status where anything was found; a note is none."""

app = typer.Typer(no_args_is_help=True, help="Find what was changed, lost or added.")


app.command("run")(run)


@app.command()
def report(
    audit_id: Annotated[str, typer.Argument(metavar="AUDIT_ID")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Print the report of an audit of the store in RMOS_DATA_DIR; exit 5 if it found anything."""
    root = read_settings().data_dir
    read_store(root)
    found = _read_report(root, audit_id)
    if as_json:
        print_json(found)
    else:
        print_report(found)
    if is_fault(found):
        raise typer.Exit(FINDING)


def _read_report(root: Path, audit_id: str) -> dict[str, Any]:
    # By its pattern first: nothing else may become a path.
    stored = read_report(root, audit_id) if is_audit_id(audit_id) else None
    if stored is not None:
        return stored[0]
    if is_audit_id(audit_id) and journal_progress(root, audit_id) is not None:
        raise NotFoundError(
            f"The audit {audit_id} is not done yet: rmos audit run --audit-id waits for it."
        )
    raise NotFoundError(f"There is no audit {audit_id!r} in the store {root}.")


@app.command(name="file")
def audit_file(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...")],
    as_json: Annotated[bool, typer.Option("--json", help="Print NDJSON and a summary.")] = False,
) -> None:
    """Check artifacts, links and blobs by themselves: no store, no service, no network.

    Canonical bytes, the hashes in a file, its name and date in the folder of a date, and the
    blobs that it names where it lies in a store. Exit 5 where anything is other than it should be.
    """
    findings = [finding for path in paths for finding in check_file(path)]
    if as_json:
        for finding in findings:
            print_json(told(finding))
        print_json({"summary": {"files": len(paths), "findings": len(findings)}})
    else:
        print_findings(findings)
        note(f"{len(paths):,} files checked, {len(findings):,} findings")
    if findings:
        raise typer.Exit(FINDING)


def told(finding: Finding) -> dict[str, str]:
    """Return a finding as it is printed."""
    return {
        "code": finding.code,
        "path": readable(finding.path),
        "expected": readable(finding.expected),
        "found": readable(finding.found),
        "severity": finding.severity,
    }


def print_findings(findings: list[Finding]) -> None:
    """Print a table of findings, and nothing where there is none."""
    if findings:
        print_table(
            ["severity", "code", "path", "expected", "found"],
            [
                [row["severity"], row["code"], row["path"], row["expected"], row["found"]]
                for row in map(told, findings)
            ],
        )
