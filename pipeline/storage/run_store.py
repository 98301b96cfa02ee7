"""The store of runs: what a batch of run requests makes of files and rows.

A record delivered again finds its own bytes, or its row, whose source it is: it is `persisted`
again. The procedure of a batch, and what dying in between leaves, is `batch_store`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from pipeline.core.layout import attachment_path, quarantine_path
from pipeline.core.runs.outcome import Outcome, StoredRun, settle_rejected, settle_run, stored_run
from pipeline.core.runs.verdict import JudgedRun, Rejected
from pipeline.disk.durable_files import NewFile
from pipeline.disk.faults import store_faults
from pipeline.ledger.leaf import LedgerLeaf, run_leaf
from pipeline.storage.awaited_blobs import NamedBlobs
from pipeline.storage.batch_store import (
    BatchResult,
    BatchStore,
    JudgedRecord,
    RejectLimit,
)
from pipeline.storage.index import queries
from pipeline.storage.index.tables import IndexedRun, indexed_run
from pipeline.storage.index.transaction import IndexTransaction
from pipeline.storage.missing_attachments import missing_attachments

__all__ = [
    "BatchResult",
    "JudgedRecord",
    "RejectLimit",
    "RunRecord",
    "RunStore",
    "plan_runs",
]

RunRecord: TypeAlias = JudgedRecord[JudgedRun | Rejected]


class RunStore(BatchStore[JudgedRun, Outcome]):
    """Runs on disk. One thread at a time; other processes take turns by the store's lock."""

    def commit(
        self, records: Sequence[RunRecord], limit: RejectLimit | None = None
    ) -> BatchResult[Outcome]:
        """Store a batch; say of each run which of its attachments are not there by then.

        Raises:
            RejectLimitError: As `BatchStore.commit`.
            IntegrityError: Likewise.
            StoreError: Likewise.
        """
        result = super().commit(records, limit)
        with store_faults(self.root):
            outcomes = [
                self._with_missing(record, outcome)
                for record, outcome in zip(records, result.outcomes, strict=True)
            ]
        return BatchResult(outcomes, result.accepted_rejects)

    def _with_missing(self, record: RunRecord, outcome: Outcome) -> Outcome:
        if outcome.kind not in {"persisted", "duplicate"} or isinstance(record.verdict, Rejected):
            return outcome
        missing = missing_attachments(self.root, record.verdict.built.index_fields)
        return replace(outcome, missing_attachments=missing) if missing else outcome

    def _plan(self, records: Sequence[RunRecord], transaction: IndexTransaction) -> "_Plan":
        plan = self._plan_as_intact(records, transaction)
        plan.damaged |= {run.run_id for run in plan.known.values() if not self._is_intact(run)}
        return plan

    def _plan_as_intact(
        self, records: Sequence[RunRecord], transaction: IndexTransaction
    ) -> "_Plan":
        return plan_runs(records, transaction)

    def _is_intact(self, run: StoredRun) -> bool:
        return self._files.holds(run.artifact_path, run.artifact_sha256, run.size_bytes)


def plan_runs(records: Sequence[RunRecord], transaction: IndexTransaction) -> "_Plan":
    """Say what a batch would do where every known file is intact; only rows are read."""
    judged = [r.verdict.run_id for r in records if isinstance(r.verdict, JudgedRun)]
    plan = _Plan(records, queries.known_runs(transaction.connection, list(dict.fromkeys(judged))))
    for record in records:
        plan.add(record)
    return plan


@dataclass(slots=True)
class _Plan:
    """What a batch will do.

    Attributes:
        records: The batch.
        known: The runs that the index has, by run_id.
        runs: The run of each record.
        new: The runs that are new, by run_id.
        damaged: Those whose file is not what their row says.
    """

    records: Sequence[RunRecord]
    known: dict[str, StoredRun]
    runs: list[StoredRun | None] = field(default_factory=list)
    new: dict[str, tuple[JudgedRun, StoredRun]] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)

    def add(self, record: RunRecord) -> None:
        """Say what to do for one more record."""
        if isinstance(record.verdict, Rejected):
            self.runs.append(None)
            return
        run_id = record.verdict.run_id
        run = self.known.get(run_id) or self._new_run(run_id)
        if run is None:
            run = stored_run(record.verdict, record.source)
            self.new[run_id] = (record.verdict, run)
        self.runs.append(run)

    def _new_run(self, run_id: str) -> StoredRun | None:
        return self.new[run_id][1] if run_id in self.new else None

    def outcomes(self) -> list[Outcome]:
        return [
            _outcome(record, run, intact=run is None or run.run_id not in self.damaged)
            for record, run in zip(self.records, self.runs, strict=True)
        ]

    def failures(self) -> list[bool]:
        return [
            _is_failure(record, outcome)
            for record, outcome in zip(self.records, self.outcomes(), strict=True)
        ]

    def leaves(self) -> list[LedgerLeaf]:
        return [
            run_leaf(
                _outcome(record, run, intact=True),
                record.source,
                body_sha256=record.body_sha256,
                timestamp_ms=record.timestamp_ms,
            )
            for record, run in zip(self.records, self.runs, strict=True)
        ]

    def new_files(self) -> list[NewFile]:
        """Return every blob of the batch once, then the artifacts that name them."""
        blobs: dict[str, NewFile] = {}
        artifacts = []
        for judged, run in self.new.values():
            own = _blob_files(judged)
            blobs |= own
            artifacts.append(NewFile(run.artifact_path, judged.built.content, needs=frozenset(own)))
        return [*blobs.values(), *artifacts]

    def named_blobs(self) -> NamedBlobs:
        brought = {blob.sha256 for judged, _ in self.new.values() for blob in judged.built.blobs}
        named = (
            ref["sha256"]
            for judged, _ in self.new.values()
            for ref in judged.built.index_fields["attachments"]
        )
        return NamedBlobs.of(brought, named)

    def expected_files(self, position: int) -> list[NewFile] | None:
        """Return the files that a record has made; None where its run has another artifact."""
        judged, run = self.records[position].verdict, self.runs[position]
        if isinstance(judged, Rejected) or run is None:
            return []
        if judged.artifact_sha256 != run.artifact_sha256:
            return None
        own = _blob_files(judged)
        artifact = NewFile(run.artifact_path, judged.built.content, needs=frozenset(own))
        return [*own.values(), artifact]

    def note_not_stored(self, paths: frozenset[str]) -> None:
        self.damaged |= {
            run_id for run_id, (_, run) in self.new.items() if run.artifact_path in paths
        }

    def add_rows(self, transaction: IndexTransaction) -> None:
        # Also of a damaged run: its row is as if the file were right, so later deliveries agree.
        transaction.add_runs(self._rows())

    def _rows(self) -> list[IndexedRun]:
        return [
            indexed_run(judged.built.index_fields, run, judged.built.withheld_payloads)
            for judged, run in self.new.values()
        ]


def _blob_files(judged: JudgedRun) -> dict[str, NewFile]:
    files = {}
    for blob in judged.built.blobs:
        path = attachment_path(blob.sha256)
        files[path] = NewFile(path, blob.content)
    kept = judged.built.request_in_quarantine
    if kept is not None:
        path = quarantine_path(kept.sha256)
        files[path] = NewFile(path, kept.content, private=True)
    return files


def _outcome(record: RunRecord, run: StoredRun | None, *, intact: bool) -> Outcome:
    if isinstance(record.verdict, Rejected) or run is None:
        assert isinstance(record.verdict, Rejected)
        return settle_rejected(record.verdict)
    return settle_run(record.verdict, run, record.source, intact=intact)


def _is_failure(record: RunRecord, outcome: Outcome) -> bool:
    incomplete = isinstance(record.verdict, JudgedRun) and record.verdict.is_incomplete
    return outcome.is_dead_letter or incomplete
