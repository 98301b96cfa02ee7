"""The store of runs: the files and rows of a batch of run requests.

A record delivered again finds its own bytes, or its row, whose source it is: it is `persisted`
again. The procedure of a batch, and what dying in between leaves, is `batch_store`'s.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TypeAlias

from msgspec import structs

from pipeline.core.layout import attachment_path, quarantine_path
from pipeline.core.runs.outcome import Outcome, StoredRun, resolve_rejected, resolve_run, stored_run
from pipeline.core.runs.verdict import JudgedRun, Rejected
from pipeline.core.store.files import NewFile, WrittenAhead
from pipeline.storage.awaited_blobs import missing_blobs
from pipeline.storage.batch_plan import BatchPlan, JudgedRecord, PlannedRecord
from pipeline.storage.batch_store import BatchResult, BatchStore, RejectLimit
from pipeline.storage.index.queries import KnownRows, NewRows
from pipeline.storage.index.tables import indexed_run

RunRecord: TypeAlias = JudgedRecord[JudgedRun | Rejected]


class RunStore(BatchStore[JudgedRun, Outcome]):
    """The runs of a store. One thread at a time; other processes take turns."""

    def write(self, records: Sequence[RunRecord]) -> WrittenAhead:
        """Write ahead what `records` make where the store has none of them; nothing is visible.

        It may be called by another thread while `commit` stores an earlier batch. Which of the
        contents get a name is decided by `commit`, which must get them; else they are to be closed.

        Raises:
            StoreError: The disk failed; nothing is left of what was written.
        """
        runs = (record.verdict for record in records)
        made = (_files_of(run, run.path) for run in runs if isinstance(run, JudgedRun))
        with self.store.faults():
            return self._files.write(chain.from_iterable(made))

    def commit(
        self,
        records: Sequence[RunRecord],
        limit: RejectLimit | None = None,
        written: WrittenAhead | None = None,
    ) -> BatchResult[Outcome]:
        """Store a batch; say of each run which of its attachments are not there by then."""
        result = super().commit(records, limit, written)
        outcomes = result.outcomes
        named = dict(_named(zip(records, outcomes, strict=True)))
        if named:
            # Asked for all of them at once.
            with self.store.faults():
                missing = missing_blobs(self._files, named.values(), result.there)
            for place, lacking in zip(named, missing, strict=True):
                if lacking:
                    outcomes[place] = structs.replace(outcomes[place], missing_attachments=lacking)
        return result

    @staticmethod
    def plan_batch(records: Sequence[RunRecord], known: KnownRows) -> BatchPlan[JudgedRun, Outcome]:
        """Plan a batch of run requests: a pure function of the records and the rows."""
        runs = dict(known.runs)
        rows = []
        planned = []
        for record in records:
            judged = record.verdict
            if isinstance(judged, Rejected):
                planned.append(_planned(record, None, resolve_rejected(judged)))
                continue
            run = runs.get(judged.run_id)
            if is_new := run is None:
                run = runs[judged.run_id] = stored_run(judged, record.source)
                built = judged.built
                rows.append(indexed_run(built.index_fields, run, built.withheld_payloads))
            outcome = resolve_run(judged, run, record.source, intact=True)
            planned.append(_planned(record, run, outcome, is_new=is_new))
        return BatchPlan(planned, known.runs, NewRows(runs=rows))

    @staticmethod
    def _corrupt(planned: PlannedRecord[JudgedRun, Outcome]) -> Outcome:
        judged, row = planned.record.verdict, planned.row
        assert isinstance(judged, JudgedRun)
        assert isinstance(row, StoredRun)
        return resolve_run(judged, row, planned.record.source, intact=False)


def _named(judged: Iterable[tuple[RunRecord, Outcome]]) -> Iterator[tuple[int, list[str]]]:
    """Yield the attachments that stored runs list, each behind its place in the batch."""
    for place, (record, outcome) in enumerate(judged):
        verdict = record.verdict
        if outcome.kind not in {"persisted", "duplicate"} or isinstance(verdict, Rejected):
            continue
        if listed := verdict.built.index_fields.attachments:
            yield place, [sha256 for sha256, _ in listed]


def _planned(
    record: RunRecord, run: StoredRun | None, outcome: Outcome, *, is_new: bool = False
) -> PlannedRecord[JudgedRun, Outcome]:
    judged = record.verdict
    if isinstance(judged, Rejected) or run is None:
        return PlannedRecord(record, None, outcome, is_failure=True)
    built = judged.built
    referred = built.index_fields.attachments
    return PlannedRecord(
        record,
        run,
        outcome,
        is_failure=outcome.is_dead_letter or judged.is_incomplete,
        # Where its run has another artifact, it makes and has made none.
        files=_files_of(judged, run.artifact_path)
        if judged.artifact_sha256 == run.artifact_sha256
        else None,
        is_new=is_new,
        # Most have none.
        attachments=[blob.sha256 for blob in built.blobs] + [sha256 for sha256, _ in referred]
        if built.blobs or referred
        else (),
    )


def _files_of(judged: JudgedRun, path: str) -> list[NewFile]:
    """Return the files that a request makes, its artifact at `path` the last."""
    built = judged.built
    files = [NewFile(attachment_path(blob.sha256), blob.content) for blob in built.blobs]
    kept = built.request_in_quarantine
    if kept is not None:
        files.append(NewFile(quarantine_path(kept.sha256), kept.content, private=True))
    needs = frozenset([file.path for file in files])
    return [*files, NewFile(path, built.content, needs=needs)]
