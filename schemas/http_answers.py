"""What the HTTP API takes and answers: one shape for each route, and one for errors."""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from schemas.advisory_request import AdvisoryKind, AdvisoryRequest
from schemas.fields import (
    AdvisoryId,
    FreeForm,
    Frozen,
    GcodeKnownBy,
    Label,
    RiskLevel,
    RunId,
    RunStatus,
    Score,
    Sha256,
    SizeBytes,
    UtcTimestamp,
)
from schemas.run_artifact import RunArtifact, RunDecision
from schemas.run_request import AttachmentRef, RunRequest

RUNS_PATH: Final = "/api/rmos/runs"
"""Where the API serves the runs; every route about them is below it."""

ExplanationStatus = Literal["READY", "NONE"]


class ErrorAnswer(Frozen):
    """Every error has this form."""

    error: str = Field(description="A code for programs.")
    message: str = Field(description="One sentence for people.")
    run_id: str | None = Field(None, description="Where the error is about one run.")


class RetryAnswer(ErrorAnswer):
    """Whether the request arrived is not known: send it again with this identity."""

    created_at_utc: str | None = None


class ToldViolation(Frozen):
    """One thing that is wrong with a request."""

    field: str
    code: str
    reason: str


class InvalidRequestAnswer(ErrorAnswer):
    """The request is not complete. Nothing was published."""

    violations: list[ToldViolation] | None = Field(
        None, description="What is wrong with its fields, where that is the reason."
    )


class AcceptedAnswer(Frozen):
    """The broker has the request; what became of it was not told in time."""

    status: Literal["ACCEPTED"]
    message: str
    run_id: RunId
    created_at_utc: UtcTimestamp
    advisory_id: AdvisoryId | None = None


class RunSubmission(RunRequest):
    """A run request; run_id and created_at_utc are both given, or both made by the API."""

    model_config = ConfigDict(
        json_schema_extra={
            "dependentRequired": {"run_id": ["created_at_utc"], "created_at_utc": ["run_id"]},
            "oneOf": [{"required": ["request"]}, {"required": ["request_summary"]}],
        }
    )
    # Given both or none, which the types cannot say.
    run_id: RunId | None = None  # type: ignore[assignment]
    created_at_utc: UtcTimestamp | None = None  # type: ignore[assignment]
    # One of the two, likewise.
    request: FreeForm = Field(default_factory=dict)
    request_summary: FreeForm = Field(
        default_factory=dict, description="The name that clients of the original give `request`."
    )


class SubmittedRun(Frozen):
    """What became of a submitted request: a run that is OK."""

    run_id: RunId
    created_at_utc: UtcTimestamp
    status: RunStatus
    may_cut: bool = Field(description="The one thing that a machine should look at.")
    decision: RunDecision
    feasibility_sha256: Sha256
    artifact_sha256: Sha256
    artifact_path: Label
    gcode_sha256: Sha256 | None = Field(
        None, description="Of the program that would be cut; left out where it is not known."
    )
    gcode_known_by: GcodeKnownBy | None = None
    missing_attachments: list[Sha256] = Field(
        description="Named by the run, and not in the store when the run was judged."
    )
    outcome: Literal["persisted", "duplicate"]


class BlockedRun(SubmittedRun):
    """The run is stored, and is not OK."""

    error: Literal["SAFETY_BLOCKED"]
    message: str


class RunItem(Frozen):
    """One run of a listing."""

    run_id: RunId
    created_at_utc: UtcTimestamp
    event_type: Label
    status: RunStatus
    mode: Label
    tool_id: Label
    material_id: Label | None
    machine_id: Label | None
    workflow_session_id: Label | None
    risk_level: RiskLevel
    score: Score | None
    block_reason: str | None
    feasibility_sha256: Sha256
    toolpaths_sha256: Sha256 | None
    gcode_sha256: Sha256 | None = Field(
        description="Of the program that would be cut; null where it is not known."
    )
    gcode_known_by: GcodeKnownBy | None
    artifact_sha256: Sha256
    artifact_path: Label
    may_cut: bool = Field(description="Whether a machine may cut by it, as the events say.")
    advisory_count: int = Field(ge=0)
    explanation_status: ExplanationStatus
    archived: bool | None = Field(
        None, description="True where its artifact is in a tar of its date, and not in the store."
    )


class RunPageAnswer(Frozen):
    """One page of runs, newest first."""

    items: list[RunItem]
    next_cursor: str | None = Field(description="Where the next page begins; null at the end.")
    limit: int = Field(ge=1, le=200)


class RunView(RunArtifact):
    """An artifact as it is stored, with its linked advisories and what follows from them."""

    explanation_status: ExplanationStatus
    gcode_sha256: Sha256 | None = Field(
        None, description="Of the program that would be cut; left out where it is not known."
    )
    gcode_known_by: GcodeKnownBy | None = None
    missing_attachments: list[Sha256] = Field(
        description="Named by the artifact, and not in the store at the moment."
    )
    given: FreeForm | None = Field(
        None,
        description="What the request says and the artifact has no place for, by dotted path: "
        "outputs.gcode_path, decision.",
    )


class Advisory(Frozen):
    """One advisory of a run. What it does not have is left out."""

    # Those of a migrated run have the fields of their time.
    model_config = ConfigDict(extra="allow")

    advisory_id: str
    kind: str
    created_at_utc: str | None = None
    engine_id: str | None = None
    engine_version: str | None = None
    request_id: str | None = None
    title: str | None = None
    content_sha256: str | None = None
    mime: str | None = None
    size_bytes: SizeBytes | None = None
    link_sha256: Sha256 | None = None
    download_url: str | None = Field(None, description="Where its content is, if it has any.")


class AdvisoriesAnswer(Frozen):
    """The advisories of a run, oldest first."""

    run_id: RunId
    count: int = Field(ge=0)
    advisories: list[Advisory]


class AdvisorySubmission(AdvisoryRequest):
    """An advisory request; its run is that of the path."""

    run_id: Annotated[None, Field(exclude=True)] = None  # type: ignore[assignment]
    created_at_utc: UtcTimestamp | None = None  # type: ignore[assignment]
    kind: AdvisoryKind | None = "unknown"  # type: ignore[assignment]


class AttachedAnswer(Frozen):
    """The advisory is linked to its run."""

    run_id: RunId
    advisory_id: AdvisoryId
    status: Literal["attached", "already_attached"]


class ListedAttachment(AttachmentRef):
    """An attachment of a run, and where its content is."""

    download_url: str
    withheld: Literal[True] | None = Field(
        None, description="There where a verdict keeps it from the machines: its URL answers 404."
    )


class AttachmentsAnswer(Frozen):
    """The attachments of a run, in its order."""

    run_id: RunId
    count: int = Field(ge=0)
    attachments: list[ListedAttachment]


class VerifiedAttachment(Frozen):
    """What a look at every byte of an attachment found."""

    sha256: Sha256
    ok: bool
    size_bytes: SizeBytes | None = Field(description="Of the blob; null where there is none.")
    actual_sha256: Sha256 | None
    error: Literal["hash_mismatch", "blob_not_found"] | None
    kind: Label
    filename: Label
    rule: Literal["raw", "canonical"] | None = Field(
        description="By which the name is the hash: of the bytes, or of the canonical form of "
        "the JSON that a blob of an older store holds."
    )


class Verification(Frozen):
    """The attachments of a run, verified."""

    ok: bool
    count: int = Field(ge=0)
    results: list[VerifiedAttachment]


class VerificationAnswer(Frozen):
    """Whether the attachments of a run are there as they were."""

    run_id: RunId
    verification: Verification


Millimetres = Annotated[list[float], Field(min_length=3, max_length=3)]


class DrawnBox(Frozen):
    """The least box, parallel to the axes, around moves; X, Y and Z in mm."""

    low: Millimetres
    high: Millimetres


class DrawingRemark(Frozen):
    """Something that is not drawn, or not as a machine would move."""

    what: str = Field(description="A sentence.")
    count: int = Field(ge=1, description="How many lines have it.")
    lines: list[int] = Field(description="The first of them, from 1.")


class DrawnPath(Frozen):
    """Moves of one kind, each of which begins where the one before ends."""

    kind: Literal["rapid", "feed", "arc"]
    line: int = Field(ge=1, description="Of the first move.")
    lines: list[int] = Field(description="Of each straight piece: one fewer than there are points.")
    points: list[float] = Field(description="X, Y and Z of each point in turn, in mm.")


class ToolpathAnswer(Frozen):
    """The moves of a run's program, as programmed: no stock, no machine, no collisions."""

    run_id: RunId
    gcode_sha256: Sha256
    drawing_version: int = Field(ge=1, description="The same program and version: the same moves.")
    units: Literal["mm", "inch"] | None = Field(
        description="Those that the program names first; all lengths here are in mm."
    )
    is_whole: bool = Field(description="Whether the end of the program is here and was reached.")
    line_count: int = Field(ge=0)
    move_count: int = Field(ge=0, description="Straight pieces; an arc counts its chords.")
    not_drawn_count: int = Field(
        ge=0,
        description="Of these the moves that are not in `paths`: the program has not said where "
        "they begin or end, as is so of the first approach.",
    )
    box: DrawnBox | None
    cut_box: DrawnBox | None = Field(description="Around the moves at feed rate.")
    cut_mm: float = Field(ge=0)
    rapid_mm: float = Field(ge=0)
    cut_seconds: float = Field(ge=0, description="At the feed rates of the program.")
    tools: list[int] = Field(description="In the order of their first change.")
    feeds_mm_min: Annotated[list[float], Field(min_length=2, max_length=2)] | None = Field(
        description="The lowest and the highest."
    )
    spindle_rpm: list[float]
    conditions_sha256: Sha256 | None = Field(
        None,
        description="Of what the program says beside its moves (feeds, speeds, tools, offsets, "
        "switches, stops) and before which of them; not in drawings of version 1.",
    )
    remarks: list[DrawingRemark] = Field(description="What is not understood or not drawn.")
    paths: list[DrawnPath]


class StoredAttachment(Frozen):
    """A blob that is there for good."""

    sha256: Sha256
    size_bytes: SizeBytes
    status: Literal["created", "exists"]


class LiveAnswer(Frozen):
    """The process answers."""

    live: bool


class ReadyAnswer(Frozen):
    """Whether the API can do its work, what it rests on, and why its consumers cannot go on."""

    ready: bool
    checks: dict[str, bool]
    reasons: list[str] = Field(
        default_factory=list,
        description="Why consumers of the same process cannot go on: one sentence each.",
    )
