"""What became of the rows of an older store, each and counted."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pipeline.core.json.strict import parse_object
from pipeline.legacy.mapping import UNREAD_LINK
from pipeline.legacy.report import MigrationTally, RowReport, report_row
from pipeline.legacy.source import (
    CarriedRow,
    OlderStore,
    OwnRow,
    ReadRow,
    RefusedRow,
)

RowState = Literal["mapped", "published", "already", "conflict", "refused", "ours"]
"""Of one row: mapped (a dry run), published now, on the topic already, in conflict with a run of
this run_id, refused by the mapping, or written by this program in the first place."""


@dataclass(frozen=True, slots=True)
class RowResult:
    """What came of one row.

    Attributes:
        report: Before and after; None where it cannot be carried over.
        code: Why it was refused or is in conflict.
        message: The same in one sentence.
        attachments: What was found of each content that it names.
    """

    run_id: str
    state: RowState
    report: RowReport | None = None
    code: str | None = None
    message: str | None = None
    attachments: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class MigrationResult:
    """What came of all rows.

    Attributes:
        tally: The rows before and after.
        states: How many rows in each state.
        outcomes: What became of the records that were stored now.
        oversized: Contents that were too large for a message and went into the store directly.
        backup: Of the v1 file.
        attachments: The folder in which contents were looked for.
        unexpected: How many files of the source were neither runs nor advisories.
    """

    tally: MigrationTally = field(default_factory=MigrationTally)
    states: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    oversized: list[str] = field(default_factory=list)
    backup: Path | None = None
    attachments: Path | None = None
    unexpected: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether every row is carried over, with every file beside it."""
        failed = self.outcomes["conflict"] + self.outcomes["rejected"]
        return not (self.tally.refused or self.states["conflict"] or failed)

    def summary(self) -> dict[str, Any]:
        """Return all of it, as JSON has it."""
        return {
            **self.tally.summary(),
            "states": dict(sorted(self.states.items())),
            "outcomes": dict(sorted(self.outcomes.items())),
            "apart": self.oversized,
            "backup": str(self.backup) if self.backup else None,
            "attachments_folder": str(self.attachments) if self.attachments else None,
            "strange_files": self.unexpected,
            "findings": self.tally.sentences(),
        }


Tell: TypeAlias = Callable[[RowResult], None]


def result_of(source: OlderStore) -> MigrationResult:
    """Return the result of a migration that has not begun."""
    return MigrationResult(attachments=source.blobs.folder, unexpected=len(source.unexpected))


def note_row(result: MigrationResult, row: ReadRow, state: RowState, tell: Tell) -> None:
    """Count one row, and tell of it."""
    told = row_result(result, row, state)
    result.states[told.state] += 1
    tell(told)
    for message in row.unread if isinstance(row, CarriedRow) else ():
        result.tally.refuse_part(UNREAD_LINK)
        tell(RowResult(row.run_id, "refused", code=UNREAD_LINK, message=message))


def row_result(result: MigrationResult, row: ReadRow, state: RowState) -> RowResult:
    """Return what came of one row, and add it to the tally."""
    if isinstance(row, RefusedRow):
        result.tally.refuse(row.code)
        return RowResult(row.run_id, "refused", code=row.code, message=row.message)
    if isinstance(row, OwnRow):
        message = "This program wrote the row: its run comes from the request topic."
        result.tally.rows += 1
        return RowResult(row.run_id, "ours", message=message)
    judged = row.mapped.judged
    artifact, _ = parse_object(judged.built.content)
    report = report_row(row.row, artifact, judged.artifact_sha256)
    result.tally.add(report, artifact, row.blobs.values())
    if state != "conflict":
        return RowResult(row.run_id, state, report, attachments=dict(row.blobs))
    message = "Another request has made the run of this run_id: the row was not published."
    return RowResult(row.run_id, state, report, "RUN_CONFLICT", message, dict(row.blobs))
