"""RunDiff: how two runs differ, as the answer to a question, never stored."""

from typing import Final, Literal

from pydantic import MISSING, Field

from schemas.fields import AnyJson, Frozen, RunId, UtcTimestamp

RUN_DIFF_VERSION: Final = "rmos.run_diff/1"

DiffSeverity = Literal["CRITICAL", "WARNING", "INFO"]
DiffOp = Literal["added", "removed", "changed"]


class DiffedRun(Frozen):
    """Which run a side is."""

    run_id: RunId
    created_at_utc: UtcTimestamp


class DiffLeaf(Frozen):
    """One field on both sides. A side without it is left out; null is the document's own."""

    a: AnyJson | MISSING = MISSING
    b: AnyJson | MISSING = MISSING


class DiffItem(DiffLeaf):
    """One value that differs, deep inside the compared parts."""

    path: str = Field(
        description="Keys and list indexes joined by dots. Inside a key a dot is written as a "
        "backslash and a dot, a backslash as two."
    )
    op: DiffOp = Field(description="Added: b alone has it. Removed: a alone has it.")


class DiffGroups(Frozen):
    """What differs, field by field. What does not is left out."""

    status: DiffLeaf | MISSING = MISSING
    mode: DiffLeaf | MISSING = MISSING
    event_type: DiffLeaf | MISSING = MISSING
    context: dict[str, DiffLeaf] | MISSING = MISSING
    hashes: dict[str, DiffLeaf] | MISSING = Field(
        MISSING,
        description="Of each payload wherever it is known: computed, claimed, of an attachment of "
        "its kind, or of an older store. A list where these are not the same.",
    )
    claimed_hashes: dict[str, DiffLeaf] | MISSING = MISSING
    outputs: dict[str, DiffLeaf] | MISSING = Field(
        MISSING, description="gcode_path and opplan_path."
    )
    withheld: DiffLeaf | MISSING = Field(MISSING, description="Names of what is not shown.")
    decision: dict[str, DiffLeaf] | MISSING = MISSING
    feasibility: dict[str, DiffLeaf] | MISSING = MISSING
    attachments: DiffLeaf | MISSING = Field(
        MISSING, description="Kind and SHA-256 of each, sorted by both."
    )
    advisory_inputs: DiffLeaf | MISSING = Field(
        MISSING, description="advisory_id, content_sha256 and kind of each, sorted by these."
    )
    notes: DiffLeaf | MISSING = MISSING
    errors: DiffLeaf | MISSING = MISSING
    meta: dict[str, DiffLeaf] | MISSING = MISSING


class DiffCounts(Frozen):
    """Values that differ, those beyond the limit of `items` included."""

    added: int = Field(ge=0)
    removed: int = Field(ge=0)
    changed: int = Field(ge=0)


class RunDiff(Frozen):
    """How run b differs from run a. The same two runs always give the same answer."""

    a: DiffedRun
    b: DiffedRun
    diff_severity: DiffSeverity = Field(
        description="CRITICAL: status, risk_level, or the hash of G-code or toolpaths differs, "
        "or without a hash the path of the G-code or what is withheld. WARNING: the score or the "
        "hash of feasibility. INFO: anything else, or nothing."
    )
    changed_paths: list[str] = Field(description="Paths of the leaves of `diff`, sorted.")
    diff: DiffGroups
    items: list[DiffItem] = Field(
        max_length=2000,
        description="Inside decision, feasibility, hashes, outputs.opplan_json and "
        "request_summary; sorted by path, by code point. At most 2,000 items, whose paths have "
        "at most 1,000,000 characters unless one path alone has more.",
    )
    truncated: bool = Field(description="Whether there are more items than are listed.")
    counts: DiffCounts
    summary: str
