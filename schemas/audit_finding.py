"""AuditFinding: one thing that an audit found to be other than it should be."""

from typing import Final, Literal

from pydantic import Field

from schemas.fields import AuditId, Frozen

AUDIT_FINDING_VERSION: Final = "rmos.audit_finding/1"

AuditCode = Literal[
    "FILE_UNREADABLE",
    "BYTES_DIFFER",
    "HASH_DIFFERS",
    "PATH_DIFFERS",
    "RUN_ID_TWICE",
    "ADVISORY_ID_TWICE",
    "FILE_MISSING",
    "FILE_UNEXPLAINED",
    "LINK_WITHOUT_RUN",
    "LINK_WAITING",
    "ATTACHMENT_MISSING",
    "ATTACHMENT_AWAITED",
    "ATTACHMENT_DIFFERS",
    "QUARANTINE_MISSING",
    "QUARANTINE_DIFFERS",
    "MODE_DIFFERS",
    "INDEX_DIFFERS",
    "INDEX_MISSING",
    "LOG_MISSING",
    "CHECKPOINT_DIFFERS",
    "TILE_DIFFERS",
    "LEAF_DIFFERS",
    "INTERNAL_ERROR",
    "OFFSET_WITHOUT_LEAF",
    "ANCHOR_BROKEN",
    "LATE",
    "FUTURE",
    "RUN_UNKNOWN",
    "STRANGE_FILE",
]

AuditSeverity = Literal["error", "warning", "note"]


class AuditFinding(Frozen):
    """What was expected at a path, and what was there instead. Nothing was repaired."""

    schema_version: Literal["rmos.audit_finding/1"] = AUDIT_FINDING_VERSION
    audit_id: AuditId
    code: AuditCode
    path: str = Field(min_length=1, description="Relative to the store.")
    expected: str = Field(min_length=1)
    found: str = Field(min_length=1)
    severity: AuditSeverity
