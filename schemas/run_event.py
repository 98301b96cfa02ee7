"""RunEvent: what became of one record of the run request topic."""

from typing import Final, Literal

from pydantic import Field

from schemas.fields import (
    Frozen,
    GcodeKnownBy,
    Label,
    Prose,
    RiskLevel,
    RunId,
    RunStatus,
    Sha256,
    SizeBytes,
)
from schemas.run_artifact import RunHashes

RUN_EVENT_VERSION: Final = "rmos.run_event/1"

RunOutcome = Literal["persisted", "duplicate", "conflict", "rejected"]


class EventSource(Frozen):
    """The record that the event is about."""

    topic: Label
    partition: int = Field(ge=0)
    offset: int = Field(ge=0)


class EventError(Frozen):
    """Why a record was not stored as it came."""

    code: Label
    message: Prose


class RunEvent(Frozen):
    """One event for every record, at least once; de-duplicate by `event_id`.

    A machine looks at `may_cut` alone.
    """

    schema_version: Literal["rmos.run_event/1"] = RUN_EVENT_VERSION
    event_id: Sha256
    outcome: RunOutcome
    may_cut: bool = Field(
        description="True only for persisted or duplicate of a run with status OK and risk GREEN "
        "or YELLOW that is no migrated history."
    )
    run_id: RunId | None = None
    status: RunStatus | None = None
    risk_level: RiskLevel | None = None
    block_reason: Prose | None = None
    hashes: RunHashes | None = None
    artifact_sha256: Sha256 | None = None
    artifact_path: Label | None = None
    size_bytes: SizeBytes | None = None
    gcode_sha256: Sha256 | None = Field(
        None, description="Of the program that would be cut, wherever it is known."
    )
    gcode_known_by: GcodeKnownBy | None = Field(
        None,
        description="Stored: computed from G-code that came with the request. Attached: the name "
        "of an attachment of kind gcode. Claimed: the content is not known.",
    )
    missing_attachments: list[Sha256] | None = Field(
        None, description="Named by the run, and not in the store when the event was made."
    )
    source: EventSource
    error: EventError | None = None
