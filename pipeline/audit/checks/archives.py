"""The records of archived dates, held to the ledger: one that is wrong covers nothing.

A log that is not as it was written is reported by itself, and contradicts no record.
"""

from collections.abc import Iterator, Sequence

from pipeline.audit.checks.logs import AuditedLog
from pipeline.audit.plan import AuditPlan
from pipeline.audit.rules.finding import Finding
from pipeline.audit.rules.parts import Extent
from pipeline.core.layout import ArchivePath
from pipeline.core.store.contents import StoreContents
from pipeline.errors import IntegrityError, StoreError
from pipeline.ledger.reader import StoreLogs
from pipeline.ledger.tlog.notes import VerifierKey
from pipeline.storage.archives import ArchivedLog, ArchiveRecord, Archives, contradiction


class ArchiveCheck:
    """The records of one audit, once its logs were read."""

    def __init__(
        self,
        store: StoreContents,
        logs: Sequence[AuditedLog],
        keys: Sequence[VerifierKey],
        extent: Extent,
    ) -> None:
        """Look at nothing yet."""
        self._store = store
        self._logs = {log.log.path: log for log in logs}
        self._opened = StoreLogs(store, keys)
        self._extent = extent
        self._reasons: dict[ArchivedLog, str | None] = {}
        self._records: list[ArchiveRecord] = []

    def add_to(self, plan: AuditPlan) -> Iterator[Finding]:
        """Let the plan know what the records cover; yield what is wrong with them."""
        archives = Archives(self._store)
        numbers = {path: log.number for path, log in self._logs.items()}
        for date in archives.dates():
            record = archives.of(date)
            if record is None:
                continue
            wrong = next(filter(None, map(self._reason, record.logs)), None)
            if wrong is None:
                plan.add_archive(record, numbers)
                self._records.append(record)
            elif self._extent.has_date(date):
                yield _finding(record, wrong)

    def count_in(self, plan: AuditPlan) -> Iterator[Finding]:
        """Yield the records that count other files than they cover, once the plan is resolved."""
        if not self._records:
            return
        counted = plan.archived_counts()
        for record in self._records:
            expected = counted.get(record.date, (0, 0))
            if self._extent.has_date(record.date) and expected != (record.artifacts, record.links):
                artifacts, links = expected
                reason = (
                    f"expected {artifacts:,} artifacts and {links:,} links, as the ledger says, "
                    f"found {record.artifacts:,} and {record.links:,}"
                )
                yield _finding(record, reason)

    def _reason(self, log: ArchivedLog) -> str | None:
        # Dates that were archived together say the same of all logs.
        if log not in self._reasons:
            self._reasons[log] = self._contradiction(log)
        return self._reasons[log]

    def _contradiction(self, log: ArchivedLog) -> str | None:
        audited = self._logs.get(log.log)
        if audited is None:
            return contradiction(log, None)
        if not audited.is_intact:
            return None
        try:
            # As it is now: the dates may have been archived since the audit began.
            return contradiction(log, self._opened.open(audited.log))
        except (IntegrityError, StoreError):
            return None


def _finding(record: ArchiveRecord, found: str) -> Finding:
    path, expected = str(ArchivePath(record.date)), "the record of an archived date"
    return Finding("FILE_UNREADABLE", path, expected, found)
