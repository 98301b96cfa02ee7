"""A record in v1 mode: its verdict, and its outcome in the v1 store.

A row without a mark is v1's own or nobody's: which request made it cannot be known, so every
request for its run_id is in conflict with it.

A batch of judged records becomes rows, or nothing does. The file is replaced once a batch, whole
and durable, before anything is published. A record that is delivered again finds its own row, whose
mark names it: it is `persisted` again.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, get_args

from pipeline.core.dead_letters.carried_record import ReadContent
from pipeline.core.envelope import Rejected, judged_apart
from pipeline.core.json.strict import InvalidJsonError
from pipeline.core.record import Partition, RecordSource
from pipeline.core.reject_limit import RejectWindow, after_verdicts
from pipeline.core.runs.cut_program import cut_program
from pipeline.core.runs.event import event_with
from pipeline.core.runs.outcome import OutcomeKind
from pipeline.core.runs.safety import may_cut
from pipeline.core.runs.verdict import JudgedRun, judge_run_record
from pipeline.legacy.v1.file import V1Store, V1Transaction
from pipeline.legacy.v1.row import HASHES, RowMark, V1Source, mark_of, marked, objects_in, v1_row
from pipeline.legacy.v1.text import parse_row
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.batch_store import BatchResult, RejectLimit
from schemas.fields import RISK_LEVELS, RunStatus, is_sha256

_STATUSES = frozenset(get_args(RunStatus))


@dataclass(frozen=True, slots=True)
class JudgedRow:
    """A record that makes a run of the v1 store.

    Attributes:
        row: Without a mark: the judge does not know the record's place.
        mark: Without a source.
        may_cut: Whether a machine may cut by it.
        is_incomplete: Whether the request had violations.
    """

    run_id: str
    row: dict[str, Any]
    mark: RowMark
    may_cut: bool
    is_incomplete: bool


def judge_run_as_row(key: ReadContent | None, value: ReadContent | None) -> JudgedRow | Rejected:
    """Return what a record is, by the judge of the v2 store, as a row of the v1 store.

    Raises:
        OSError: The machine is at fault, not the record.
        MemoryError: The same.
    """
    judged = judge_run_record(key, value)
    if isinstance(judged, Rejected):
        return judged
    return judged_apart(lambda: _judged_row(judged))


def _judged_row(judged: JudgedRun) -> JudgedRow:
    document = judged.built.document
    return JudgedRow(
        judged.run_id,
        v1_row(document),
        RowMark(judged.request_sha256, judged.artifact_sha256),
        may_cut(
            status=document["status"],
            risk_level=document["decision"]["risk_level"],
            legacy="legacy" in document["provenance"],
        ),
        judged.is_incomplete,
    )


@dataclass(frozen=True, slots=True)
class V1Outcome:
    """The outcome of one record.

    Attributes:
        kind: One of four; conflict and rejected mean a dead letter.
        run_id: Where it could be read.
        fields: The stored run in an event; no artifact is named, as there is none.
        code: Why there is a dead letter; None where there is none.
        message: The same in one sentence.
        may_cut: Whether a machine may cut by what this record asked for.
    """

    kind: OutcomeKind
    run_id: str | None = None
    fields: dict[str, Any] | None = None
    code: str | None = None
    message: str | None = None
    may_cut: bool = False

    @property
    def drifted(self) -> bool:
        """Never: a row of v1 has no hash that a program could fail to make again."""
        return False


def resolve_row(judged: JudgedRow, row: dict[str, Any] | None, source: V1Source) -> V1Outcome:
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
    mark, fields = mark_of(row), event_fields(row)
    if mark is None or mark.request_sha256 != judged.mark.request_sha256:
        known = "one that nobody knows" if mark is None else f"that with {mark.request_sha256}"
        message = (
            f"Expected the request that made this row, {known}, found that with SHA-256 "
            f"{judged.mark.request_sha256}. A changed request needs a new run_id."
        )
        return V1Outcome("conflict", judged.run_id, fields, "RUN_CONFLICT", message)
    kind: OutcomeKind = "persisted" if mark.source == source else "duplicate"
    is_stored_so = fields is not None and may_cut(
        status=fields["status"], risk_level=fields["risk_level"]
    )
    return V1Outcome(kind, judged.run_id, fields, may_cut=judged.may_cut and is_stored_so)


def v1_run_event(outcome: V1Outcome, source: RecordSource) -> bytes:
    """Return the value of the event: canonical JSON of a `RunEvent` without an artifact."""
    return event_with(outcome, source, outcome.fields or {})


def epoch_of_cluster(cluster_id: str) -> int:
    """Return a number that stands for the epoch where no v2 store can be asked for it.

    The same for every worker and delivery, and beyond every epoch that was ever counted: an id of
    an event made with it has an id of its own.
    """
    return (1 << 32) + int.from_bytes(hashlib.sha256(cluster_id.encode()).digest()[:8])


def event_fields(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the stored run as an event has it; None where the row lacks it."""
    decision = row.get("decision")
    if not isinstance(decision, dict):
        return None
    status, risk_level = row.get("status"), decision.get("risk_level")
    hashes = {new: row[old] for old, new in HASHES.items() if row.get(old) is not None}
    if (
        status not in _STATUSES
        or risk_level not in RISK_LEVELS
        or "feasibility_sha256" not in hashes
        or not all(map(is_sha256, hashes.values()))
    ):
        return None
    fields = {
        "status": status,
        "risk_level": risk_level,
        "hashes": hashes,
        **_program_of(row, hashes),
    }
    if isinstance(decision.get("block_reason"), str):
        fields["block_reason"] = decision["block_reason"]
    return fields


def _program_of(row: Mapping[str, Any], hashes: dict[str, Any]) -> dict[str, Any]:
    refs = objects_in(row.get("attachments"))
    named = [each for each in refs if is_sha256(each.get("sha256")) and "kind" in each]
    empty: dict[str, Any] = {"outputs": {}, "provenance": {}, "meta": {}}
    as_artifact = {"attachments": named, "hashes": hashes, **empty}
    program = cut_program({"status": row["status"], **as_artifact})
    if program is None:
        return {}
    return {"gcode_sha256": program.sha256, "gcode_known_by": program.known_by}


JudgedV1Record: TypeAlias = JudgedRecord[JudgedRow | Rejected]


class V1Runs:
    """Runs in the v1 store. One thread at a time; other processes take turns by its lock.

    The last verdicts are kept in memory alone, as the file has no place for them: a worker that
    is started again after it reached the limit meets it when it has seen 500 records more.
    """

    def __init__(self, path: Path, cluster_id: str) -> None:
        """Prepare; nothing is read or made.

        Args:
            path: The file.
            cluster_id: Of the broker whose records these are.
        """
        self._store = V1Store(path)
        self._cluster_id = cluster_id
        self._window = RejectWindow()
        self._judged: dict[Partition, int] = {}

    def commit(
        self, records: Sequence[JudgedV1Record], limit: RejectLimit | None = None
    ) -> BatchResult[V1Outcome]:
        """Store a batch; return what became of each record.

        Args:
            records: In offset order within each partition.
            limit: How many failures do not count against the reject limit.

        Raises:
            RejectLimitError: Too many records fail; nothing was written.
            StoreError: The disk failed, or the file is no v1 store; nothing may be acknowledged.
        """
        with self._store.transaction() as transaction:
            # Every row is read once a batch, however often it is asked for.
            rows: dict[str, dict[str, Any] | None] = {}
            outcomes = [self._resolved(record, transaction, rows) for record in records]
            failures = [
                _is_failure(record, outcome)
                for record, outcome in zip(records, outcomes, strict=True)
                if record.source.id.offset >= self._judged.get(record.source.id.topic_partition, 0)
            ]
            accepted_rejects = limit.accepted_rejects if limit else 0
            window, accepted = after_verdicts(self._window, failures, accepted_rejects)
        self._window = window
        for record in records:
            self._judged[record.source.id.topic_partition] = record.source.id.offset + 1
        return BatchResult(outcomes, accepted)

    def _resolved(
        self,
        record: JudgedV1Record,
        transaction: V1Transaction,
        rows: dict[str, dict[str, Any] | None],
    ) -> V1Outcome:
        judged = record.verdict
        if isinstance(judged, Rejected):
            return V1Outcome("rejected", judged.run_id, None, judged.code, judged.message)
        run_id, source = judged.run_id, V1Source(self._cluster_id, record.source.id)
        if run_id not in rows:
            if run_id in transaction.texts:
                rows[run_id] = _read(transaction.texts, run_id)
            else:
                row = marked(judged.row, replace(judged.mark, source=source))
                transaction.add(run_id, row)
                rows[run_id] = row
        return resolve_row(judged, rows[run_id], source)


def _read(texts: Mapping[str, str], run_id: str) -> dict[str, Any] | None:
    try:
        return parse_row(texts[run_id])
    except InvalidJsonError:
        return None


def _is_failure(record: JudgedV1Record, outcome: V1Outcome) -> bool:
    incomplete = isinstance(record.verdict, JudgedRow) and record.verdict.is_incomplete
    return outcome.code is not None or incomplete
