"""`rmos audit`: find what was changed, lost or added in a store."""

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.audit.rules.finding import Finding, readable, severity_of, worst_severity
from pipeline.audit.rules.parts import AuditPart
from pipeline.audit.rules.request import judge_audit_record
from pipeline.cli.options import AsJson, AsNdjson
from pipeline.cli.views.terminal import (
    counted,
    note,
    print_json,
    print_pairs,
    print_table,
    print_text,
    progress_bar,
)
from pipeline.core.envelope import Rejected
from pipeline.core.json.canonical import canonical_json
from pipeline.core.progress import Progress, no_progress
from pipeline.core.store.files import ReadableFiles
from pipeline.errors import (
    InputError,
    IntegrityError,
    NotFoundError,
    ReceiptTimeoutError,
    RefusedError,
)
from pipeline.settings import Settings, read_settings
from pipeline.storage.contents import opened_contents
from schemas.audit_request import AuditRequest
from schemas.fields import is_audit_id

WORKER_PATIENCE_SECONDS = 30.0
"""Longest wait without any worker in the group; one that restarts is back by then."""

_LOOK_SECONDS = 1.0
_FINDING_FIELDS = ("severity", "code", "path", "expected", "found")

app = typer.Typer(no_args_is_help=True)


@app.command()
def run(
    everything: Annotated[
        bool, typer.Option("--all", help="The whole store, which is the default.")
    ] = False,
    date: Annotated[
        list[str] | None, typer.Option(help="Runs of this UTC date; may be given again.")
    ] = None,
    run_id: Annotated[list[str] | None, typer.Option(help="This run; may be given again.")] = None,
    mode: Annotated[
        str, typer.Option(help="quick: names and the ledger; full: every byte; sampled: a tenth.")
    ] = "full",
    audit_id: Annotated[
        str | None, typer.Option(help="Id of the audit; a finished one is reported again.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Longest wait for the report; by default as long as a worker runs.",
        ),
    ] = None,
    as_json: AsNdjson = False,
) -> None:
    """Request an audit from a worker and wait for its report; exit 5 if it found anything.

    Findings are printed as they come, then the report. Nothing is repaired. If this
    command is interrupted, the audit goes on: wait for it again with its --audit-id.
    """
    settings = read_settings()
    request = _request(audit_id or _new_id(), _scope(everything, date, run_id), mode)
    report = print_json if as_json else _print_finding
    with progress_bar() as progress:
        asked = partial(note, f"audit {request.audit_id}")
        asking = ask_audit(settings, request, report, asked=asked, progress=progress)
        found = asyncio.run(_in_time(asking, request.audit_id, timeout))
    _end({"summary": found} if as_json else None, found)


@app.command()
def report(
    audit_id: Annotated[str, typer.Argument(metavar="AUDIT_ID")],
    as_json: AsJson = False,
) -> None:
    """Print the report of an audit of the store; exit 5 if it found anything."""
    settings = read_settings()
    with opened_contents(settings) as store:
        found = _read_report(store.files, settings, audit_id)
    _end(found if as_json else None, found)


def _read_report(files: ReadableFiles, settings: Settings, audit_id: str) -> dict[str, Any]:
    from pipeline.audit.journal import journal_progress, journal_root, read_report

    # By its pattern first: nothing else may become a path.
    stored = read_report(files, audit_id) if is_audit_id(audit_id) else None
    if stored is not None:
        return stored[0]
    root = journal_root(settings)
    if is_audit_id(audit_id) and journal_progress(root, audit_id) is not None:
        raise NotFoundError(
            f"The audit {audit_id} is not done yet: rmos audit run --audit-id waits for it."
        )
    raise NotFoundError(f"There is no audit {audit_id!r} in the store {files.name}.")


@app.command(name="file")
def audit_file(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...")],
    as_json: AsNdjson = False,
) -> None:
    """Check artifacts, links and blobs by themselves: no store, no service, no network.

    Canonical bytes, the hashes in a file, its name and date in the folder of a date, and the
    blobs that it names if it is in a store. Exit 5 if anything differs.
    """
    from pipeline.audit.single_files import check_file

    findings = [_document(finding) for path in paths for finding in check_file(path)]
    if as_json:
        for finding in findings:
            print_json(finding)
        print_json({"summary": {"files": len(paths), "findings": len(findings)}})
    else:
        if findings:
            print_table(_FINDING_FIELDS, (_cells(finding) for finding in findings))
        note(f"{counted(len(paths), 'file')} checked, {counted(len(findings), 'finding')}")
    if findings:
        raise typer.Exit(IntegrityError.exit_status)


def _document(finding: Finding) -> dict[str, str]:
    return {
        "code": finding.code,
        "path": readable(finding.path),
        "expected": readable(finding.expected),
        "found": readable(finding.found),
        "severity": finding.severity,
    }


def _cells(finding: Mapping[str, Any]) -> list[str]:
    return [finding.get(name, "-") for name in _FINDING_FIELDS]


def _print_finding(finding: Mapping[str, Any]) -> None:
    severity, code, path, expected, found = _cells(finding)
    print_text(f"{severity}  {code}  {path}: expected {expected}, found {found}")


def _end(document: Mapping[str, Any] | None, report: Mapping[str, Any]) -> None:
    """Print a report, as a document or for a person; exit 5 if it has more than notes."""
    if document is not None:
        print_json(document)
    else:
        _print_report(report)
    if worst_severity(report["codes"]) not in {None, "note"}:
        raise typer.Exit(IntegrityError.exit_status)


def _print_report(report: Mapping[str, Any]) -> None:
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
        ("scope", _scope_text(report["scope"])),
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


def _scope_text(scope: Mapping[str, Any]) -> str:
    if scope.get("all"):
        return "all"
    ((name, values),) = ((name, each) for name, each in scope.items() if each)
    return f"{len(values):,} {name.replace('_', ' ')}"


def _new_id() -> str:
    return f"audit-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


def _scope(everything: bool, dates: list[str] | None, run_ids: list[str] | None) -> dict[str, Any]:
    named = {"dates": dates, "run_ids": run_ids, "all": everything or None}
    scope = {name: value for name, value in named.items() if value}
    if len(scope) > 1:
        raise InputError("Expected one of --all, --date and --run-id, found several.")
    return scope or {"all": True}


def _request(audit_id: str, scope: dict[str, Any], mode: str) -> AuditRequest:
    """Return the request; what no worker would take is refused here."""
    document = {"audit_id": audit_id, "scope": scope, "mode": mode}
    found = judge_audit_record(audit_id.encode("utf-8", "replace"), canonical_json(document))
    if isinstance(found, Rejected):
        raise InputError(f"{found.message} Nothing was asked.")
    if (part := AuditPart.of(found)) is not None:
        raise InputError(f"{audit_id} names a part: ask for the audit {part.whole}, by its id.")
    return found


async def _in_time(
    asking: Coroutine[Any, Any, dict[str, Any]], audit_id: str, timeout_seconds: float | None
) -> dict[str, Any]:
    try:
        async with asyncio.timeout(timeout_seconds):
            return await asking
    except TimeoutError as error:
        raise ReceiptTimeoutError(
            f"The audit {audit_id} has no report after {timeout_seconds:g} s. Its request stays: "
            f"rmos audit run --audit-id {audit_id} with the same scope and mode waits for it again."
        ) from error


async def ask_audit(
    settings: Settings,
    request: AuditRequest,
    report: Callable[[dict[str, Any]], None],
    *,
    asked: Callable[[], None] = lambda: None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Ask a worker for an audit, and return its report.

    Args:
        settings: The broker, and the store if it is on this host.
        request: What is asked.
        report: Called with each finding as it comes.
        asked: Called once the broker has the request.
        progress: Called with the progress, where the store is on this host.

    Raises:
        RefusedError: No worker takes such a request.
        ReceiptTimeoutError: No worker is there.
        BrokerError: The broker cannot be reached.
    """
    from pipeline.audit.journal import journal_progress, journal_root
    from pipeline.audit.worker.asking import listening, publish_audit
    from pipeline.broker.sending.requests import RequestSender

    sender, root = RequestSender(settings), journal_root(settings)
    try:
        async with listening(settings, request.audit_id) as listener:
            place = await publish_audit(sender, settings, request)
            asked()
            loop = asyncio.get_running_loop()
            seen = looked = loop.time()
            async with aclosing(listener.news(place)) as heard:
                async for news in heard:
                    for finding in news.findings:
                        report(finding)
                    if news.report is not None:
                        return news.report
                    if news.refusal is not None:
                        raise RefusedError(": ".join(news.refusal))
                    done, total = journal_progress(root, request.audit_id) or (0, None)
                    progress("files of finished days", done, total)
                    if (now := loop.time()) - looked >= _LOOK_SECONDS:
                        looked = now
                        seen = await _worker_seen(settings, request.audit_id, seen)
    finally:
        await sender.stop()
    raise AssertionError("an audit ends with a report or a refusal")


async def _worker_seen(settings: Settings, audit_id: str, seen: float) -> float:
    """Return when a worker was in the group last: now, or `seen`.

    Raises:
        ReceiptTimeoutError: There is no worker, and there has been none for 30 s.
    """
    from pipeline.broker.admin.groups import group_members

    now = asyncio.get_running_loop().time()
    group = settings.topics.audit_group
    if await group_members(settings, group):
        return now
    if now - seen > WORKER_PATIENCE_SECONDS:
        raise ReceiptTimeoutError(
            f"No worker is in the group {group}: start one with rmos worker audit. It will do "
            f"the audit {audit_id}, which was asked for."
        )
    return seen
