"""What becomes of a record, given the v1 store: the same four outcomes, from rows and their marks.

A row without a mark is v1's own or nobody's: which request made it cannot be known, so every
request for its run_id is in conflict with it.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

from pipeline.core.record import RecordSource
from pipeline.core.runs.event import event_with
from pipeline.core.runs.outcome import OutcomeKind
from pipeline.core.runs.safety import may_cut
from pipeline.legacy.v1_mode.row import JudgedRow, V1RecordId, mark_of, told_of


@dataclass(frozen=True, slots=True)
class V1Outcome:
    """What became of one record.

    Attributes:
        kind: One of four; conflict and rejected mean a dead letter.
        run_id: Where it could be read.
        told: What an event tells of the stored run; no artifact is named, as there is none.
        code: Why there is a dead letter; None where there is none.
        message: The same in one sentence.
        may_cut: Whether a machine may cut by what this record asked for.
    """

    kind: OutcomeKind
    run_id: str | None = None
    told: dict[str, Any] | None = None
    code: str | None = None
    message: str | None = None
    may_cut: bool = False

    @property
    def drifted(self) -> bool:
        """Never: a row of v1 has no hash that a program could fail to make again."""
        return False


def settle_row(judged: JudgedRow, row: dict[str, Any] | None, source: V1RecordId) -> V1Outcome:
    """Return the outcome of a record whose run_id the file now holds.

    Args:
        judged: What the record asks for.
        row: What the file holds, made by this very record where the run is new; None where it
            cannot be read.
        source: The record.
    """
    if row is None:
        message = "Expected a row of this run, found one that cannot be read. Nothing was touched."
        return V1Outcome("rejected", judged.run_id, None, "ARTIFACT_CORRUPT", message)
    mark, told = mark_of(row), told_of(row)
    if mark is None or mark.request_sha256 != judged.mark.request_sha256:
        known = "one that nobody knows" if mark is None else f"that with {mark.request_sha256}"
        message = (
            f"Expected the request that made this row, {known}, found that with SHA-256 "
            f"{judged.mark.request_sha256}. A changed request needs a new run_id."
        )
        return V1Outcome("conflict", judged.run_id, told, "RUN_CONFLICT", message)
    kind: OutcomeKind = "persisted" if mark.source == source else "duplicate"
    return V1Outcome(
        kind, judged.run_id, told, may_cut=judged.may_cut and told is not None and _may_cut(told)
    )


def _may_cut(told: dict[str, Any]) -> bool:
    return may_cut(status=told["status"], risk_level=told["risk_level"])


def v1_run_event(outcome: V1Outcome, source: RecordSource) -> bytes:
    """Return the value of the event: canonical JSON of a `RunEvent` without an artifact."""
    return event_with(outcome, source, outcome.told or {})


def epoch_of_cluster(cluster_id: str) -> int:
    """Return a number that stands for the epoch where no v2 store can be asked for it.

    The same for every worker and delivery, and beyond every epoch that was ever counted: an id of
    an event made with it is nobody else's.
    """
    return (1 << 32) + int.from_bytes(hashlib.sha256(cluster_id.encode()).digest()[:8])
