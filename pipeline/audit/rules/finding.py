"""The findings of an audit: a closed list of codes, with their meanings and verdicts.

A finding is what was expected at a path and what is there. It has the same bytes, and so the same
id, however often an audit that was cut short finds it again: a reader can drop what it has seen.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, get_args

from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.runs.event import Headers, cloud_event_headers
from schemas.audit_finding import AUDIT_FINDING_VERSION, AuditCode, AuditSeverity
from schemas.audit_report import VerdictResult
from schemas.audit_request import AuditMode

SEVERITIES: tuple[AuditSeverity, ...] = get_args(AuditSeverity)


class Verdict(Enum):
    """The four verdicts. None of them follows from another."""

    INTEGRITY = "integrity"
    COMPLETENESS = "completeness"
    ANCHORED = "anchored"
    LATE = "late"


@dataclass(frozen=True, slots=True)
class CodeMeaning:
    """What a code means.

    Attributes:
        severity: `error`: the store was changed. `warning`: an operator should look. `note`:
            information; no command fails because of it.
        verdict: Which one it fails; None for none.
        meaning: One sentence.
    """

    severity: AuditSeverity
    verdict: Verdict | None
    meaning: str


def _error(meaning: str, verdict: Verdict = Verdict.INTEGRITY) -> CodeMeaning:
    return CodeMeaning("error", verdict, meaning)


def _warning(meaning: str, verdict: Verdict | None = None) -> CodeMeaning:
    return CodeMeaning("warning", verdict, meaning)


MEANINGS: dict[AuditCode, CodeMeaning] = {
    "FILE_UNREADABLE": _error(
        "A file cannot be read, or is not the canonical JSON of an artifact or a link."
    ),
    "BYTES_DIFFER": _error(
        "An artifact or a link has other bytes, or another size, than its leaf says; where there "
        "is no leaf, than the index says."
    ),
    "HASH_DIFFERS": _error(
        "A hash in an artifact is not that of its feasibility, G-code, toolpaths or operation plan."
    ),
    "PATH_DIFFERS": _error("An artifact or a link says itself that it belongs elsewhere."),
    "RUN_ID_TWICE": _error("Two leaves, or two files, are of one run_id."),
    "ADVISORY_ID_TWICE": _error("Two leaves are of one advisory of a run."),
    "FILE_MISSING": _error("A leaf names an artifact or a link that is not there."),
    "FILE_UNEXPLAINED": _error("A file is there that no leaf explains."),
    "LINK_WITHOUT_RUN": _error("A link is there, but no leaf names its run."),
    "LINK_WAITING": _warning(
        "The run of an advisory is there, and its link is not made yet: the worker makes it "
        "within seconds. One that stays was lost, with its row.",
        Verdict.COMPLETENESS,
    ),
    "ATTACHMENT_MISSING": _error(
        "An artifact or a link names a blob that is gone: no note says that it never came."
    ),
    "ATTACHMENT_AWAITED": _warning(
        "An artifact or a link names a blob that was not there when it was written, and has not "
        "come since."
    ),
    "ATTACHMENT_DIFFERS": _error("The bytes of an attachment have not the hash that is its name."),
    "QUARANTINE_MISSING": _error(
        "The whole request of a run that is not OK, or withholds something, is not there."
    ),
    "QUARANTINE_DIFFERS": _error(
        "The bytes of a quarantined request have not the hash that is its name."
    ),
    "MODE_DIFFERS": _warning("A file or a folder can be written or read by others than it should."),
    "INDEX_DIFFERS": _error("A row of the index differs from leaf or file."),
    "INDEX_MISSING": _warning("The index is missing or cannot be read; nothing is lost with it."),
    "LOG_MISSING": _error(
        "The store has runs and no log: files were compared with the index alone."
    ),
    "CHECKPOINT_DIFFERS": _error(
        "A checkpoint is missing, has no good signature, or is not that of its leaves."
    ),
    "TILE_DIFFERS": _error("A tile or an entry bundle is missing, or not what the root covers."),
    "LEAF_DIFFERS": _error(
        "A leaf that the root covers is none that a worker writes: its form, its log or its order."
    ),
    "INTERNAL_ERROR": CodeMeaning(
        "note",
        None,
        "A leaf records that our program failed on a record. The record comes back by redrive, at "
        "another offset; this leaf stays.",
    ),
    "OFFSET_WITHOUT_LEAF": _error(
        "The broker shows a record that was consumed, and there is no leaf of it.",
        Verdict.COMPLETENESS,
    ),
    "ANCHOR_BROKEN": _error(
        "A log does not go on from a checkpoint that somebody holds.", Verdict.ANCHORED
    ),
    "LATE": _warning("The broker got a record over a day after its created_at_utc.", Verdict.LATE),
    "FUTURE": _warning(
        "The created_at_utc of a record lies over five minutes after the broker got it.",
        Verdict.LATE,
    ),
    "RUN_UNKNOWN": _warning("A run that was asked for has neither leaf nor file."),
    "STRANGE_FILE": _warning("A file, a folder or a version of a file is none that the store has."),
}
"""Every code, in the order of the documents."""

MISSING_BLOB: frozenset[AuditCode] = frozenset(
    {"ATTACHMENT_MISSING", "ATTACHMENT_AWAITED", "QUARANTINE_MISSING"}
)
"""Codes of a blob that is not there; several files may name it, and it is reported once."""


ARCHIVED: Final = "ARCHIVED"
"""Under it a report counts files that are archived. No finding has this code: nothing is wrong."""


def severity_of(code: str) -> AuditSeverity:
    """Return how grave a code is; one of a newer program counts as an error."""
    if code == ARCHIVED:
        return "note"
    return next((each.severity for name, each in MEANINGS.items() if name == code), "error")


def worst_severity(codes: Iterable[str]) -> AuditSeverity | None:
    """Return the gravest of `codes`; None where there is none."""
    return min(map(severity_of, codes), key=SEVERITIES.index, default=None)


_READ: dict[AuditMode, str] = {
    "quick": "names, sizes and modes of files; no file was read",
    "sampled": "names, sizes and modes of files; a share of the files was read",
    "full": "every byte of every file that was asked about",
}

_DATED: dict[AuditMode, str] = {
    "quick": "the dates of the folders of runs",
    "sampled": "the dates of the folders of runs; in a share of the files by their own time",
    "full": "the time in every file that was asked about",
}


VERSIONS_NOT_SEEN: Final = (
    " Earlier versions of files were not looked at: the bucket keeps none or is not one of S3, or "
    "only some runs were asked about."
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the verdicts rest on, beside the findings.

    Attributes:
        mode: How closely files were looked at.
        broker: Whether the broker was asked which offsets it can show.
        trusted: How many trusted checkpoints were given.
        leaves: How many there are.
        anchored_leaves: How many a trusted checkpoint covers.
        archived: How many files are archived.
        versions: Whether earlier versions of files were looked at; None where there are none.
    """

    mode: AuditMode
    broker: bool
    trusted: int
    leaves: int
    anchored_leaves: int
    archived: int = 0
    versions: bool | None = None


def verdicts(codes: Mapping[AuditCode, int], asked: Asked) -> dict[str, dict[str, Any]]:
    """Return the verdicts in the shape of `AuditVerdicts`."""
    return {
        "integrity": _failed(codes, Verdict.INTEGRITY) or _integrity(asked),
        "completeness": _failed(codes, Verdict.COMPLETENESS) or _completeness(asked),
        "anchored": _failed(codes, Verdict.ANCHORED) or _anchored(asked),
        "late": _failed(codes, Verdict.LATE)
        or _verdict(
            "ok", f"No record came long after its time, or before it, by {_DATED[asked.mode]}."
        ),
    }


def _verdict(result: VerdictResult, reason: str) -> dict[str, Any]:
    return {"result": result, "reason": reason}


def _integrity(asked: Asked) -> dict[str, Any]:
    reason = f"Nothing differs from the leaves, by {_READ[asked.mode]}."
    if asked.archived:
        reason += (
            f" Archived: {asked.archived:,} artifacts and links, which only their tars show (rmos "
            "archive verify)."
        )
    if asked.versions is False:
        reason += VERSIONS_NOT_SEEN
    return _verdict("ok", reason)


def _failed(codes: Mapping[AuditCode, int], verdict: Verdict) -> dict[str, Any] | None:
    counted = [
        f"{code} {codes[code]:,}"
        for code, meaning in MEANINGS.items()
        if meaning.verdict is verdict and codes.get(code)
    ]
    return _verdict("failed", f"Findings: {', '.join(counted)}.") if counted else None


def _completeness(asked: Asked) -> dict[str, Any]:
    if asked.broker:
        return _verdict("ok", "Every consumed offset that the broker can show has a leaf.")
    return _verdict("unknown", "The broker was not asked which offsets it can show.")


def _anchored(asked: Asked) -> dict[str, Any]:
    if not asked.trusted:
        return _verdict("unknown", "No checkpoint that somebody else holds was given.")
    reason = (
        f"{asked.anchored_leaves:,} of {asked.leaves:,} leaves are covered by checkpoints that "
        "somebody else holds; what came later is as good as whoever has the key."
    )
    return _verdict("ok", reason)


_SHOWN_CHARACTERS = 2_000
"""Of what was expected or found: what a producer wrote may be long."""


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing that is other than it should be.

    Attributes:
        code: Which kind.
        path: Relative to the store.
        expected: In a few words.
        found: Likewise.
    """

    code: AuditCode
    path: str
    expected: str
    found: str

    @property
    def severity(self) -> AuditSeverity:
        """How grave it is; it follows from the code."""
        return MEANINGS[self.code].severity

    def document(self, audit_id: str) -> dict[str, Any]:
        """Return it as it is published, in the shape of `AuditFinding`."""
        return {
            "schema_version": AUDIT_FINDING_VERSION,
            "audit_id": audit_id,
            "code": self.code,
            "path": readable(self.path),
            "expected": readable(self.expected),
            "found": readable(self.found),
            "severity": self.severity,
        }


def readable(text: str) -> str:
    """Return `text` without lone surrogates, which stand for bytes of a name that is not UTF-8."""
    shown = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
    return shown.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def mode_finding(path: str, mode: int | None, expected: int) -> list[Finding]:
    """Return the finding that a file or folder has another mode than it should, if it has one."""
    if mode is None or (found := mode & 0o7777) == expected:
        return []
    return [Finding("MODE_DIFFERS", path, f"mode {expected:04o}", f"mode {found:04o}")]


AUDIT_EVENT_SOURCE: Final = "/rmos/audit"
FINDING_EVENT_TYPE: Final = "rmos.audit.finding.v1"
REPORT_EVENT_TYPE: Final = "rmos.audit.report.v1"


def audit_event_headers(kind: str, audit_id: str, value: bytes, timestamp_ms: int) -> Headers:
    """Return the headers of a finding or a report.

    Args:
        kind: Its `ce_type`.
        audit_id: Its `ce_subject`.
        value: Of the message; its SHA-256 is the `ce_id`.
        timestamp_ms: Broker time of the request.
    """
    return cloud_event_headers(
        sha256_of_bytes(value), AUDIT_EVENT_SOURCE, kind, timestamp_ms, audit_id
    )
