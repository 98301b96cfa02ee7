"""The v1 store as a writer: a batch of judged records becomes rows, or nothing does.

The file is replaced once a batch, whole and durable, before anything is published. A record that is
delivered again finds its own row, whose mark names it: it is `persisted` again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from pipeline.core.envelope import Rejected
from pipeline.core.json.strict import InvalidJsonError
from pipeline.core.record import Partition
from pipeline.core.reject_limit import RejectWindow, after_verdicts
from pipeline.legacy.v1.file import V1Store, V1Transaction
from pipeline.legacy.v1.row import V1Source, marked
from pipeline.legacy.v1.text import parse_row
from pipeline.legacy.v1_mode.outcome import JudgedRow, V1Outcome, resolve_row
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.batch_store import BatchResult, RejectLimit

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
