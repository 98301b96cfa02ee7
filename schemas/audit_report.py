"""AuditReport: what an audit looked at, and its four verdicts, each on its own."""

from typing import Final, Literal

from pydantic import Field

from schemas.audit_request import AuditMode, AuditScope
from schemas.fields import AuditId, Frozen, Label, Prose, Sha256, SizeBytes, UtcTimestamp

AUDIT_REPORT_VERSION: Final = "rmos.audit_report/1"

VerdictResult = Literal["ok", "failed", "unknown"]


class AuditVerdict(Frozen):
    """One verdict. `unknown` means that nobody was there to ask."""

    result: VerdictResult
    reason: Prose


class AuditVerdicts(Frozen):
    """Kept apart: none of them follows from another."""

    integrity: AuditVerdict = Field(description="Nothing that was looked at has changed.")
    completeness: AuditVerdict = Field(
        description="No offset without a leaf that the broker can still show."
    )
    anchored: AuditVerdict = Field(
        description="The logs go on from checkpoints that somebody else holds."
    )
    late: AuditVerdict = Field(description="No record is dated long before or after it came.")


class AuditCounts(Frozen):
    """How much was looked at."""

    days: SizeBytes = Field(description="Folders of runs.")
    artifacts: SizeBytes
    links: SizeBytes
    attachments: SizeBytes
    quarantined: SizeBytes
    logs: SizeBytes
    leaves: SizeBytes
    anchored_leaves: SizeBytes = Field(description="Covered by a checkpoint that somebody holds.")
    files_read: SizeBytes = Field(description="Files of which every byte was read.")
    bytes_read: SizeBytes
    findings: SizeBytes


class AuditedLog(Frozen):
    """One log as it was when the audit began."""

    origin: Label
    size: SizeBytes
    root_sha256: Sha256 = Field(description="The root of its Merkle tree.")
    anchored_size: SizeBytes = Field(description="Of the largest held checkpoint; else 0.")


class AuditReport(Frozen):
    """One for each audit_id."""

    schema_version: Literal["rmos.audit_report/1"] = AUDIT_REPORT_VERSION
    audit_id: AuditId
    scope: AuditScope
    mode: AuditMode
    sample_share: float | None = Field(
        None, gt=0, le=1, description="In mode sampled: the share of files that were read."
    )
    started_at_utc: UtcTimestamp
    finished_at_utc: UtcTimestamp
    verdicts: AuditVerdicts
    counts: AuditCounts
    codes: dict[str, int] = Field(description="Number of findings of each code that was found.")
    logs: list[AuditedLog]
    store_root: Sha256 | None = Field(
        None, description="RFC 6962 root over the sha256sum lines of the whole store."
    )
