"""RunArtifact: the immutable record of one run, as the bytes of one file."""

from typing import Any, Final, Literal

from pydantic import Field

from schemas.fields import (
    FreeForm,
    Frozen,
    Label,
    Prose,
    RiskLevel,
    RunId,
    RunStatus,
    Score,
    Sha256,
    UtcTimestamp,
)
from schemas.run_request import AttachmentRef, HashClaims, RunContext, RunOutputs

RUN_ARTIFACT_VERSION: Final = "rmos.run_artifact/2"


class RunDecision(Frozen):
    """Why the run has its status."""

    risk_level: RiskLevel
    score: Score | None = None
    block_reason: Prose | None = None
    warnings: list[Prose] | None = None
    details: FreeForm | None = None


class RunHashes(Frozen):
    """Hashes that anyone can recompute from the file and its attachments alone."""

    feasibility_sha256: Sha256
    toolpaths_sha256: Sha256 | None = None
    gcode_sha256: Sha256 | None = None
    opplan_sha256: Sha256 | None = None


class Provenance(Frozen):
    """Where the record came from and what was done to it. All of it is ours."""

    request_sha256: Sha256 = Field(description="Of the canonical JSON of the whole request.")
    withheld: list[str] | None = None
    claimed_hashes: HashClaims | None = None
    version_stamps_missing: list[str] | None = None
    legacy: Literal[True] | None = None


class RunArtifact(RunContext):
    """One file, written once. Absent values are left out, never written as null."""

    schema_version: Literal["rmos.run_artifact/2"]
    run_id: RunId
    created_at_utc: UtcTimestamp
    mode: Label
    tool_id: Label
    status: RunStatus
    event_type: Label
    request_summary: FreeForm
    feasibility: FreeForm
    decision: RunDecision
    hashes: RunHashes
    outputs: RunOutputs
    attachments: list[AttachmentRef]
    advisory_inputs: list[dict[str, Any]]
    meta: FreeForm
    provenance: Provenance
