"""One finding: what was expected at a path, and what is there. A plain value between processes.

What an audit tells on its topics: findings and its report, each with CloudEvents headers.

A finding has the same bytes, and the same id, however often an audit that was cut short finds it
again, so whoever reads them can tell what it has seen.
"""

from dataclasses import dataclass
from typing import Any, Final

from pipeline.audit.rules.codes import MEANINGS
from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.json.canonical import canonical_json
from pipeline.core.runs.event import Headers, cloud_event_headers
from schemas.audit_finding import AUDIT_FINDING_VERSION, AuditCode, AuditSeverity

_TOLD_CHARACTERS = 2_000
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
    shown = text if len(text) <= _TOLD_CHARACTERS else f"{text[:_TOLD_CHARACTERS]}..."
    return shown.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def mode_finding(path: str, mode: int, expected: int) -> list[Finding]:
    """Return the finding that a file or folder has another mode than it should, if it has."""
    found = mode & 0o7777
    if found == expected:
        return []
    return [Finding("MODE_DIFFERS", path, f"mode {expected:04o}", f"mode {found:04o}")]


AUDIT_EVENT_SOURCE: Final = "/rmos/audit"
FINDING_EVENT_TYPE: Final = "rmos.audit.finding.v1"
REPORT_EVENT_TYPE: Final = "rmos.audit.report.v1"


def audit_event(document: dict[str, Any]) -> bytes:
    """Return the value of a finding or a report: its canonical JSON."""
    return canonical_json(document)


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
