"""The pages of audits: four verdicts in words, and the findings, each with what to do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from pipeline.api.answers import ApiError
from pipeline.api.dependencies import ApiDeps
from pipeline.audit.journal import journal_progress, journal_root, read_report
from pipeline.audit.kept import AuditFile, FindingsPage, audit_files, read_findings
from pipeline.audit.rules.finding import ARCHIVED, MEANINGS, severity_of, worst_severity
from pipeline.core.store.files import ReadableFiles
from pipeline.errors import IntegrityError, NotFoundError
from pipeline.page.rendering import page
from pipeline.page.route import PageRoute
from pipeline.page.words import text_of
from schemas.audit_finding import AuditCode
from schemas.fields import is_audit_id

router = APIRouter(route_class=PageRoute)

AUDITS_A_PAGE: Final = 25
FINDINGS_A_PAGE: Final = 50

VERDICTS: Final = ("integrity", "completeness", "anchored", "late")
"""In the order of the report's shape."""

MODES: Final = {
    "quick": "names, sizes and modes of files, and the whole ledger; no file was read",
    "sampled": "as quick, and every byte of a share of the files",
    "full": "every byte of every file, and the whole ledger",
}
_QUESTIONS: Final = {
    "integrity": "Whether all that was looked at is as it was logged.",
    "completeness": "Whether each consumed record that the broker still has, has its leaf.",
    "anchored": "Whether the logs go on from checkpoints that somebody else keeps.",
    "late": "Whether each record came at about the time that it is dated.",
}
_RESULTS: Final = {
    "ok": ("OK", "good"),
    "failed": ("FAILED", "bad"),
    "unknown": ("NOT KNOWN", "care"),
}

_RESTORE = (
    "Keep a copy of what is there as evidence. Then `rmos replay restore` makes the file again."
)
_COPY = "Stop the workers and copy the whole volume first: the ledger itself was changed."
_BLOB = "Ask its sender for the file: `rmos attachments put FILE` puts it back."

WAYS_OUT: Final[dict[AuditCode, str]] = {
    "FILE_UNREADABLE": f"Look whether the disk or the rights are at fault. {_RESTORE}",
    "BYTES_DIFFER": f"Do not cut by this run. {_RESTORE}",
    "HASH_DIFFERS": f"Do not cut by this run. {_RESTORE}",
    "PATH_DIFFERS": _RESTORE,
    "RUN_ID_TWICE": _COPY,
    "ADVISORY_ID_TWICE": _COPY,
    "FILE_MISSING": "`rmos replay restore` makes it again from its record, with the same bytes.",
    "FILE_UNEXPLAINED": "Start the worker and audit again: it may have died between two steps. A "
    "file that is reported again was put there by somebody: keep a copy, and do not cut by it.",
    "LINK_WITHOUT_RUN": "Keep a copy of the file as evidence and find out who put it there.",
    "LINK_WAITING": "Nothing, unless the next audit reports it too: then start the advise worker.",
    "ATTACHMENT_MISSING": _BLOB,
    "ATTACHMENT_AWAITED": _BLOB,
    "ATTACHMENT_DIFFERS": f"Keep a copy of what is there as evidence. {_BLOB}",
    "QUARANTINE_MISSING": "`rmos replay restore` makes it again from its record.",
    "QUARANTINE_DIFFERS": _RESTORE,
    "MODE_DIFFERS": "Give file or folder its rights back with chmod.",
    "INDEX_DIFFERS": "Stop the workers and run `rmos index rebuild`. The files are the record.",
    "INDEX_MISSING": "Stop the workers and run `rmos index rebuild`.",
    "LOG_MISSING": "Put the folder `ledger` of a backup back, or run `rmos ledger init`.",
    "CHECKPOINT_DIFFERS": _COPY,
    "TILE_DIFFERS": "Copy the whole volume first. Then put the tile of a backup back.",
    "LEAF_DIFFERS": _COPY,
    "INTERNAL_ERROR": "Once the program is mended, `rmos dead-letters redrive` brings the record "
    "back.",
    "OFFSET_WITHOUT_LEAF": "Find out who else reads with the group of the workers. "
    "`rmos replay restore` makes the files; leaves cannot be added between those that are signed.",
    "ANCHOR_BROKEN": "Take the checkpoint of the third party as right, copy the whole volume, and "
    "find out who has the key of the ledger.",
    "LATE": "Ask its sender why it came so late; a shop whose network was away is harmless.",
    "FUTURE": "Set the clock of its sender.",
    "RUN_UNKNOWN": "Look whether the run_id was written rightly.",
    "STRANGE_FILE": "Find out who put it there, and move it out of the store. Of a second version "
    "or a delete marker, keep the first version as evidence.",
}
"""What to do about each code of a finding, in short; the runbook has the steps."""


@dataclass(frozen=True, slots=True)
class AuditView:
    """An audit in a list.

    Attributes:
        at: When its report, or else its journal, was written last.
        verdicts: Words and the kind of each of the four; empty where there is no report.
        state: One word or a sentence where there is no report.
    """

    audit_id: str
    at: datetime
    mode: str
    scope: str
    verdicts: Mapping[str, tuple[str, str]]
    findings: int
    state: str


PageNumber = Annotated[int, Query(ge=1, le=100_000)]
Start = Annotated[int, Query(ge=0, le=2**53)]


@router.get("/audits")
async def list_audits(request: Request, deps: ApiDeps, number: PageNumber = 1) -> Response:
    """Return the audits that left something in the store, the last one first."""

    def listed() -> Response:
        files = audit_files(deps.reader.store.files)
        first = (number - 1) * AUDITS_A_PAGE
        shown = [
            _audit_view(file, deps.reader.store.files)
            for file in files[first : first + AUDITS_A_PAGE]
        ]
        following = number + 1 if len(files) > first + AUDITS_A_PAGE else None
        return page(
            request, "audits.html", audits=shown, number=number, following=following,
            count=len(files), verdict_names=VERDICTS,
        )  # fmt: skip

    return await deps.transfer(listed)


@router.get("/audits/{audit_id}")
async def show_audit(request: Request, deps: ApiDeps, audit_id: str, start: Start = 0) -> Response:
    """Return one audit: its verdicts, and one page of its findings."""
    if not is_audit_id(audit_id):
        raise _no_audit()

    def shown() -> Response:
        files, root = deps.reader.store.files, journal_root(deps.settings)
        found = read_report(files, audit_id)
        report = None if found is None else found[0]
        try:
            findings = read_findings(files, audit_id, start, FINDINGS_A_PAGE)
        except NotFoundError as error:
            # A report may have been copied without its journal; of parts the journals are theirs.
            known = {file.audit_id for file in audit_files(files)} if report is None else {audit_id}
            if start or audit_id not in known:
                raise _no_audit() from error
            findings = None
        progress = None if report is not None else journal_progress(root, audit_id)
        view = audit_view(audit_id, report, findings)
        return page(request, "audit.html", progress=progress, start=start, **view)

    return await deps.transfer(shown)


def _no_audit() -> ApiError:
    return ApiError(404, "NOT_FOUND", "The store has no such audit.")


def _audit_view(file: AuditFile, kept: ReadableFiles) -> AuditView:
    at = datetime.fromtimestamp(file.written_ns / 1e9, UTC)
    state = file.state or "under way, or broken off"
    report = None
    if file.is_done:
        try:
            found = read_report(kept, file.audit_id)
            report = None if found is None else found[0]
        except IntegrityError as error:
            state = str(error)
    if report is None:
        return AuditView(file.audit_id, at, "", "", {}, 0, state)
    return AuditView(
        file.audit_id,
        at,
        report["mode"],
        scope_words(report["scope"]),
        {name: _result(report, name) for name in VERDICTS},
        report["counts"]["findings"],
        "",
    )


def audit_view(
    audit_id: str, report: Mapping[str, Any] | None, findings: FindingsPage | None
) -> dict[str, Any]:
    """Return what the page shows of an audit.

    Args:
        audit_id: Its id.
        report: Its report; None where there is none yet.
        findings: One page of its findings; None where the store does not have its journal.
    """
    view: dict[str, Any] = {
        "audit_id": audit_id,
        "report": report,
        "findings": [] if findings is None else list(map(finding_view, findings.findings)),
        "has_journal": findings is not None,
        "following": None if findings is None else findings.following,
    }
    if report is not None:
        view |= {
            "scope": scope_words(report["scope"]),
            "mode_words": MODES.get(report["mode"], ""),
            "verdicts": [
                (name.upper(), _QUESTIONS[name], *_result(report, name), _reason(report, name))
                for name in VERDICTS
            ],
            "codes": [
                (count, code, severity_of(code), _meaning(code))
                for code, count in report["codes"].items()
            ],
            "head": headline(report),
        }
    return view


def headline(report: Mapping[str, Any]) -> tuple[str, str]:
    """Return the class and the words of what is to do after an audit; green is only all of it."""
    worst = worst_severity(report["codes"])
    if worst == "error":
        return "bad", "Something was changed"
    if worst == "warning" or set(report["codes"]) - {ARCHIVED}:
        return "care", "Somebody should look"
    unsure = [name.upper() for name in VERDICTS if report["verdicts"][name]["result"] != "ok"]
    if unsure:
        return "care", f"Nothing was found; not known: {', '.join(unsure)}"
    if report["mode"] != "full":
        return "care", "Nothing was found; not every byte was read"
    return "good", "Nothing to do"


def finding_view(finding: Mapping[str, Any]) -> dict[str, str]:
    """Return a finding as texts, with what to do; whatever the line of the journal holds."""
    code = text_of(finding.get("code"))
    return {
        "code": code,
        "severity": severity_of(code),
        "path": text_of(finding.get("path")),
        "expected": text_of(finding.get("expected")),
        "found": text_of(finding.get("found")),
        "meaning": _meaning(code),
        "way_out": next(
            (way for name, way in WAYS_OUT.items() if name == code), "See the runbook."
        ),
    }


def scope_words(scope: Mapping[str, Any]) -> str:
    """Return what an audit was asked to look at."""
    if scope.get("all"):
        return "the whole store"
    if scope.get("dates"):
        return _counted("date", scope["dates"])
    return _counted("run", scope.get("run_ids") or [])


def _counted(noun: str, values: Sequence[str]) -> str:
    return f"the {noun} {values[0]}" if len(values) == 1 else f"{len(values):,} {noun}s"


def _result(report: Mapping[str, Any], name: str) -> tuple[str, str]:
    return _RESULTS[report["verdicts"][name]["result"]]


def _reason(report: Mapping[str, Any], name: str) -> str:
    return str(report["verdicts"][name]["reason"])


def _meaning(code: str) -> str:
    if code == ARCHIVED:
        return "Artifacts and links of archived dates: `rmos archive verify` checks their tars."
    return next((each.meaning for name, each in MEANINGS.items() if name == code), "")
