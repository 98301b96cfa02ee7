"""RunRequest: what a CAM system publishes to ask for a run to be judged and kept."""

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from schemas.fields import (
    Filename,
    FreeForm,
    Frozen,
    Kind,
    Label,
    LenientRisk,
    Mime,
    Prose,
    RunId,
    RunStatus,
    Score,
    Sha256,
    SizeBytes,
    UtcTimestamp,
)

RUN_REQUEST_VERSION: Final = "rmos.run_request/1"


class ProducerError(Frozen):
    """What went wrong at the producer."""

    type: Label
    message: Prose


class RequestDecision(Frozen):
    """The producer's decision, one of the places where a risk is looked for."""

    risk_level: LenientRisk | None = None
    score: Score | None = None
    block_reason: Prose | None = None
    warnings: list[Prose] | None = None
    details: FreeForm | None = None


class RunOutputs(Frozen):
    """What was generated. Withheld unless the run is OK."""

    gcode_text: str | None = None
    gcode_path: Label | None = None
    toolpaths: Any = Field(None, description="Any JSON; null is absent.")
    opplan_json: Any = Field(None, description="Any JSON; null is absent.")
    opplan_path: Label | None = None
    preview_svg: str | None = None
    preview_svg_path: Label | None = None


class HashClaims(Frozen):
    """Hashes that the producer claims; checked where their payload is in the request."""

    feasibility_sha256: Sha256 | None = None
    toolpaths_sha256: Sha256 | None = None
    gcode_sha256: Sha256 | None = None
    opplan_sha256: Sha256 | None = None


class AttachmentRef(Frozen):
    """A named blob, by its SHA-256."""

    sha256: Sha256
    kind: Kind
    mime: Mime
    filename: Filename
    size_bytes: SizeBytes
    created_at_utc: UtcTimestamp


class RequestAttachment(AttachmentRef):
    """A reference to an uploaded blob, or the blob itself."""

    content_base64: str | None = Field(
        None, description="The blob: base64 of RFC 4648 section 4, padded, no other characters."
    )


class RunContext(Frozen):
    """The optional context, lineage and version stamps that request and artifact share."""

    workflow_session_id: Label | None = None
    material_id: Label | None = None
    machine_id: Label | None = None
    workflow_mode: Label | None = None
    toolchain_id: Label | None = None
    post_processor_id: Label | None = None
    geometry_ref: Label | None = None
    geometry_hash: Label | None = None
    parent_run_id: Label | None = None
    parent_plan_run_id: Label | None = None
    request_id: Label | None = None
    drift_detected: bool | None = None
    drift_summary: Any = Field(None, description="Any JSON; null is absent.")
    gate_policy_id: Label | None = None
    gate_decision: Label | None = None
    engine_version: Label | None = None
    toolchain_version: Label | None = None
    post_processor_version: Label | None = None
    config_fingerprint: Label | None = None
    notes: Prose | None = None
    errors: list[Prose] | None = None
    error: ProducerError | None = None


class RunRequest(RunContext):
    """One request for a run. Null in a typed field is the same as leaving it out."""

    schema_version: Literal["rmos.run_request/1"] | None = RUN_REQUEST_VERSION
    run_id: RunId
    created_at_utc: UtcTimestamp
    mode: Label
    tool_id: Label
    feasibility: Annotated[FreeForm, Field(min_length=1)]
    request: FreeForm
    event_type: Label | None = None
    status: RunStatus | None = None
    decision: RequestDecision | None = None
    outputs: RunOutputs | None = None
    hashes: HashClaims | None = None
    attachments: list[RequestAttachment] | None = None
    meta: FreeForm | None = None
