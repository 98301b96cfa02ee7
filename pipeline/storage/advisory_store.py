"""The store of advisories: the links and rows of a batch of advisory requests.

The first well-formed request for an id makes its row. Its link is made with the row where the
run is there, else when that same record is given again later; never from another record. The
artifact of the run is neither read nor touched. The procedure of a batch, and what dying in
between leaves, is `batch_store`'s.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TypeAlias

from pipeline.core.advisories.outcome import (
    AdvisoryOutcome,
    StoredAdvisory,
    resolve_advisory,
    resolve_rejected_advisory,
    stored_advisory,
)
from pipeline.core.advisories.verdict import JudgedAdvisory
from pipeline.core.envelope import Rejected
from pipeline.core.layout import LinkPath, attachment_path
from pipeline.core.runs.outcome import StoredRun
from pipeline.core.store.files import NewFile
from pipeline.storage.batch_plan import BatchPlan, JudgedRecord, PlannedRecord
from pipeline.storage.batch_store import BatchResult, BatchStore
from pipeline.storage.index.claims import ClaimQueue
from pipeline.storage.index.queries import KnownRows, NewRows

AdvisoryRecord: TypeAlias = JudgedRecord[JudgedAdvisory | Rejected]


class AdvisoryStore(BatchStore[JudgedAdvisory, AdvisoryOutcome]):
    """The advisories of a store. One thread at a time; other processes take turns."""

    def retry_links(self, records: Sequence[AdvisoryRecord]) -> BatchResult[AdvisoryOutcome]:
        """Store records that `commit` has judged before: their runs may have come meanwhile.

        They move no position, have their leaves, and count against no reject limit.

        Raises:
            StoreError: The disk or the index failed; nothing may be acknowledged.
        """
        return self._commit(records, None, is_consumed=False)

    @property
    def claims(self) -> ClaimQueue:
        """The claims of this epoch that wait for their run."""
        return ClaimQueue(self.index, self.identity.epoch)

    @staticmethod
    def plan_batch(
        records: Sequence[AdvisoryRecord], known: KnownRows
    ) -> BatchPlan[JudgedAdvisory, AdvisoryOutcome]:
        """Plan a batch of advisory requests: a pure function of the records and the rows."""
        advisories = dict(known.advisories)
        claimed, linked = {}, {}
        planned = []
        for record in records:
            judged = record.verdict
            if isinstance(judged, Rejected):
                planned.append(_planned(record, None, resolve_rejected_advisory(judged)))
                continue
            key = judged.key
            path = _link_path(judged, known.runs.get(judged.run_id))
            advisory = advisories.get(key)
            makes_link = path is not None
            if advisory is None:
                advisory = claimed[key] = stored_advisory(judged, record.source, path)
            elif path is not None and _makes_link(record, judged, advisory):
                advisory = linked[key] = replace(advisory, link_path=path)
            else:
                makes_link = False
            advisories[key] = advisory
            outcome = resolve_advisory(judged, advisory, record.source, intact=True)
            planned.append(_planned(record, advisory, outcome, is_new=makes_link))
        rows = NewRows(claimed=list(claimed.values()), linked=list(linked.values()))
        return BatchPlan(planned, known.advisories, rows)

    @staticmethod
    def _corrupt(planned: PlannedRecord[JudgedAdvisory, AdvisoryOutcome]) -> AdvisoryOutcome:
        judged, row = planned.record.verdict, planned.row
        assert isinstance(judged, JudgedAdvisory)
        assert isinstance(row, StoredAdvisory)
        return resolve_advisory(judged, row, planned.record.source, intact=False)


def _planned(
    record: AdvisoryRecord,
    advisory: StoredAdvisory | None,
    outcome: AdvisoryOutcome,
    *,
    is_new: bool = False,
) -> PlannedRecord[JudgedAdvisory, AdvisoryOutcome]:
    judged = record.verdict
    if isinstance(judged, Rejected) or advisory is None:
        return PlannedRecord(record, None, outcome, is_failure=True)
    named = judged.link.get("content_sha256")
    return PlannedRecord(
        record,
        advisory,
        outcome,
        # Waiting is no failure: runs and advisories come by different topics.
        is_failure=outcome.is_dead_letter,
        files=_files_of(judged, advisory),
        is_new=is_new,
        attachments=[
            *([] if judged.blob is None else [judged.blob.sha256]),
            *([] if named is None else [named]),
        ],
    )


def _files_of(judged: JudgedAdvisory, advisory: StoredAdvisory) -> list[NewFile] | None:
    """Return the files that a request makes; None where its advisory has another link."""
    if judged.link_sha256 != advisory.link_sha256:
        return None
    if advisory.link_path is None:
        return []
    blob = judged.blob
    files = [] if blob is None else [NewFile(attachment_path(blob.sha256), blob.content)]
    needs = frozenset(file.path for file in files)
    return [*files, NewFile(advisory.link_path, judged.content, needs=needs)]


def _link_path(judged: JudgedAdvisory, run: StoredRun | None) -> str | None:
    """Return where the link lies: in the folder of its run, whatever its own date."""
    if run is None:
        return None
    date = PurePosixPath(run.artifact_path).parent.name
    return str(LinkPath(date, judged.run_id, judged.advisory_id))


def _makes_link(record: AdvisoryRecord, judged: JudgedAdvisory, advisory: StoredAdvisory) -> bool:
    """Return whether this record may make the link of a claim that waits: only the claim's own."""
    return (
        advisory.link_path is None
        and advisory.source == record.source
        and advisory.link_sha256 == judged.link_sha256
    )
