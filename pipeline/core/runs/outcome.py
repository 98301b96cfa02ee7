"""The outcome of a record given the store: persisted, duplicate, conflict, rejected.

A function of the record and of those before it in its partition, never of timing: the offset
that first made a run is `persisted` again whenever it is delivered again.
"""

from typing import Literal

import msgspec

from pipeline.core.record import RecordSource
from pipeline.core.runs.artifact import IndexFields
from pipeline.core.runs.cut_program import CutProgram
from pipeline.core.runs.safety import may_cut
from pipeline.core.runs.verdict import JudgedRun, Rejected

OutcomeKind = Literal["persisted", "duplicate", "conflict", "rejected"]


class StoredRun(msgspec.Struct, frozen=True, gc=False):
    """What the index holds of a run.

    A Struct, as are all values that there is one of for every record: it is made in a fifth of the
    time of a named tuple. None of them is in a cycle, so the collector need not look at them.

    Attributes:
        source: The record that first made it; None where only its file is known, so that
            nobody vouches for it.
        hashes: As in its artifact.
        program: What would be cut by it; None where that is not known.
    """

    run_id: str
    source: RecordSource | None
    status: str
    risk_level: str
    block_reason: str | None
    hashes: dict[str, str]
    artifact_sha256: str
    artifact_path: str
    size_bytes: int
    request_sha256: str
    legacy: bool
    program: CutProgram | None = None

    @property
    def may_cut(self) -> bool:
        """Whether a machine may cut by it; never by what no record explains."""
        return self.source is not None and may_cut(
            status=self.status, risk_level=self.risk_level, legacy=self.legacy
        )


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What became of one record.

    Attributes:
        kind: One of four; conflict and rejected mean a dead letter.
        run_id: Where it could be read.
        run: The run that the store holds under this run_id, as far as it may be shown.
        code: Why there is a dead letter; None where there is none.
        message: The same in one sentence.
        drifted: Our program renders other bytes than it once did: our fault, and an alarm.
        may_cut: Whether a machine may cut by what this record asked for.
        missing_attachments: SHA-256 of what the run names and the store has not at the moment.
    """

    kind: OutcomeKind
    run_id: str | None = None
    run: StoredRun | None = None
    code: str | None = None
    message: str | None = None
    drifted: bool = False
    may_cut: bool = False
    missing_attachments: tuple[str, ...] = ()

    @property
    def is_dead_letter(self) -> bool:
        """Whether the record can never succeed."""
        return self.code is not None


def stored_run(judged: JudgedRun, source: RecordSource) -> StoredRun:
    """Return what the index will hold of a run that `source` makes."""
    return run_of_fields(
        judged.built.index_fields,
        judged.artifact_sha256,
        judged.path,
        len(judged.built.content),
        source,
    )


def run_of_fields(
    fields: IndexFields,
    artifact_sha256: str,
    path: str,
    size_bytes: int,
    source: RecordSource | None,
) -> StoredRun:
    """Return what the index holds of the artifact with these fields."""
    return StoredRun(
        fields.run_id,
        source,
        fields.status,
        fields.risk_level,
        fields.block_reason,
        fields.hashes,
        artifact_sha256,
        path,
        size_bytes,
        fields.request_sha256,
        fields.legacy,
        fields.program,
    )


def resolve_rejected(rejected: Rejected) -> Outcome:
    """Return the outcome of a record that can never make a run."""
    return Outcome("rejected", run_id=rejected.run_id, code=rejected.code, message=rejected.message)


def resolve_run(
    judged: JudgedRun, run: StoredRun, source: RecordSource, *, intact: bool
) -> Outcome:
    """Return the outcome of a record whose run_id the store now holds.

    Args:
        judged: What the record asks for.
        run: What the store holds; made by this very record where the run is new.
        source: The record.
        intact: Whether the file is there with the bytes that `run` names.
    """
    if not intact:
        return Outcome(
            "rejected",
            run_id=run.run_id,
            code="ARTIFACT_CORRUPT",
            message=f"Expected {run.artifact_path} with SHA-256 {run.artifact_sha256}, "
            "found no file or other bytes there. Nothing was touched.",
        )
    if run.request_sha256 != judged.request_sha256:
        return Outcome(
            "conflict",
            run_id=run.run_id,
            run=run,
            code="RUN_CONFLICT",
            message=f"Expected the request with SHA-256 {run.request_sha256}, which made this "
            f"run, found {judged.request_sha256}. A changed request needs a new run_id.",
        )
    drifted = run.artifact_sha256 != judged.artifact_sha256
    return Outcome(
        "persisted" if run.source == source else "duplicate",
        run_id=run.run_id,
        run=run,
        drifted=drifted,
        may_cut=run.may_cut and (not drifted or stored_run(judged, source).may_cut),
    )
