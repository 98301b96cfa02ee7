"""A report of an audit to test with: of an empty store, where nobody was asked anything."""

from typing import Any

UNKNOWN = {"result": "unknown", "reason": "nobody asked"}
REPORT: dict[str, Any] = {
    "schema_version": "rmos.audit_report/1",
    "audit_id": "a",
    "scope": {"all": True},
    "mode": "quick",
    "started_at_utc": "2025-12-18T14:00:00Z",
    "finished_at_utc": "2025-12-18T14:00:01Z",
    "verdicts": dict.fromkeys(("integrity", "completeness", "anchored", "late"), UNKNOWN),
    "counts": dict.fromkeys(
        (
            *("days", "artifacts", "links", "attachments", "quarantined", "logs", "leaves"),
            *("anchored_leaves", "files_read", "bytes_read", "findings"),
        ),
        0,
    ),
    "codes": {},
    "logs": [],
}
