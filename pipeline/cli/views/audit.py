"""What a person sees of an audit: each finding in a line, and the report with its verdicts."""

from collections.abc import Mapping
from typing import Any

from pipeline.audit.rules.finding import severity_of, worst_severity
from pipeline.cli.views.terminal import counted, print_pairs, print_table, print_text

_FINDING_FIELDS = ("severity", "code", "path", "expected", "found")


def is_fault(report: Mapping[str, Any]) -> bool:
    """Tell whether an audit found anything but notes."""
    return worst_severity(report["codes"]) not in {None, "note"}


def print_finding(finding: Mapping[str, Any]) -> None:
    """Print a finding in one line."""
    severity, code, path, expected, found = (finding.get(name, "-") for name in _FINDING_FIELDS)
    print_text(f"{severity}  {code}  {path}: expected {expected}, found {found}")


def print_report(report: Mapping[str, Any]) -> None:
    """Print a report: the four verdicts each on its own, what was found and what was looked at."""
    print_pairs(_head(report))
    print_text()
    print_table(
        ("verdict", "result", "reason"),
        [
            (name.upper(), verdict["result"], verdict["reason"])
            for name, verdict in report["verdicts"].items()
        ],
    )
    if report["codes"]:
        print_text()
        print_table(
            ("findings", "code", "severity"),
            [(f"{count:,}", code, severity_of(code)) for code, count in report["codes"].items()],
        )


def _head(report: Mapping[str, Any]) -> list[tuple[str, object]]:
    counts = report["counts"]

    def number(name: str, noun: str) -> str:
        return counted(counts[name], noun)

    head: list[tuple[str, object]] = [
        ("audit_id", report["audit_id"]),
        ("scope", _scope(report["scope"])),
        ("mode", report["mode"]),
        ("started", report["started_at_utc"]),
        ("finished", report["finished_at_utc"]),
        ("runs", f"{number('artifacts', 'artifact')} and {number('links', 'link')}"),
        ("blobs", f"{number('attachments', 'attachment')}, {counts['quarantined']:,} quarantined"),
        ("read", f"{number('files_read', 'file')}, {number('bytes_read', 'byte')}"),
        ("ledger", f"{number('leaves', 'leaf')} in {number('logs', 'log')}"),
    ]
    if "sample_share" in report:
        head.append(("sample_share", report["sample_share"]))
    return [*head, ("store_root", report.get("store_root", "-"))]


def _scope(scope: Mapping[str, Any]) -> str:
    if scope.get("all"):
        return "all"
    ((name, values),) = ((name, each) for name, each in scope.items() if each)
    return f"{len(values):,} {name.replace('_', ' ')}"
