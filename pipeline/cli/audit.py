"""`rmos audit`: hold what is stored against its hashes."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.terminal import notes, print_json, print_table
from pipeline.core.audit_finding import Finding, readable
from pipeline.storage.file_audit import check_file

FINDING = 5
"""Exit status where anything was found; a note is none."""

app = typer.Typer(no_args_is_help=True, help="Find what was changed, lost or added.")


@app.callback()
def _group() -> None:
    """Stay a group, whatever the number of its commands."""


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
        notes().print(f"{len(paths):,} files checked, {len(findings):,} findings")
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
