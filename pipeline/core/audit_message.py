"""What an audit tells on its topics: findings and its report, each with CloudEvents headers.

A finding has the same bytes, and the same id, however often an audit that was cut short finds it
again, so whoever reads them can tell what it has seen.
"""

from typing import Any, Final

from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.json.canonical import canonical_json
from pipeline.core.runs.event import Headers, cloud_event_headers

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
