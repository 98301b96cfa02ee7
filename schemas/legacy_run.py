"""LegacyRun: a row of an older store as `rmos migrate run` publishes it, already mapped."""

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.fields import FreeForm, Label, RunId, RunStatus, Sha256, UtcTimestamp
from schemas.run_artifact import RunDecision
from schemas.run_request import RequestAttachment, RunContext, RunOutputs

LEGACY_RUN_VERSION: Final = "rmos.legacy_run/1"

LegacyFormat = Literal["v1", "original_v2"]


class _Open(BaseModel):
    """Base of what has fields of ours among those of the older store."""

    model_config = ConfigDict(
        strict=True, extra="allow", frozen=True, allow_inf_nan=False, protected_namespaces=()
    )


class LegacyValues(_Open):
    """What the mapping has no other place for, under the older store's own names."""

    format: LegacyFormat = Field(description="A row of `runs.json`, or a file of a date folder.")
    row_sha256: Sha256 = Field(description="Of the canonical JSON of the whole row, nulls too.")
    values: FreeForm | None = Field(
        None, description="Values of the older store whose names are taken by fields of ours."
    )


class LegacyMeta(_Open):
    """The row's own meta, and `v1`."""

    v1: LegacyValues


class LegacyRun(RunContext):
    """One run of an older store. Its status and its decision are history, and kept."""

    schema_version: Literal["rmos.legacy_run/1"]
    run_id: RunId
    created_at_utc: UtcTimestamp
    mode: Label
    tool_id: Label
    event_type: Label
    status: RunStatus
    decision: RunDecision
    request: FreeForm | None = Field(None, description="The row's `request_summary`.")
    feasibility: FreeForm | None = None
    outputs: RunOutputs | None = None
    attachments: list[RequestAttachment] | None = None
    advisory_inputs: list[FreeForm] | None = None
    meta: LegacyMeta
