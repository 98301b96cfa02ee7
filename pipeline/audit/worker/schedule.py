"""The schedule of audits: any number of workers request the same audits when they are due."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import structlog

from pipeline import metrics
from pipeline.audit.journal import has_report, read_report
from pipeline.audit.rules.finding import MEANINGS, severity_of, worst_severity
from pipeline.audit.rules.request import daily_id, due_audits, hourly_id, seconds_to_next_hour
from pipeline.audit.worker.asking import publish_audit
from pipeline.broker.sending.requests import RequestSender
from pipeline.consumers.engine.readiness import PUT_OFF_LIMIT, Standing
from pipeline.core.store.files import ReadableFiles
from pipeline.errors import BrokerError, IntegrityError, StoreAwayError
from pipeline.settings import Settings
from schemas.audit_request import AuditMode
from schemas.timestamps import parse_timestamp

LONGEST_WAIT_SECONDS = 60.0
"""Between two looks at the clock, as a machine may have slept."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class AuditScheduler:
    """Publishes what is due, each request once a process, and none whose report is there."""

    settings: Settings
    files: ReadableFiles
    sender: RequestSender
    clock: Callable[[], datetime]
    standing: Standing
    _failures: int = 0
    _asked: set[str] = field(default_factory=set)

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self.ask()
            await asyncio.sleep(min(LONGEST_WAIT_SECONDS, seconds_to_next_hour(self.clock())))

    async def ask(self) -> list[str]:
        """Ask for what is due now and was not asked for yet; return the audit_ids."""
        daily_at, hourly = self.settings.audit_daily_at, self.settings.audit_hourly
        due = due_audits(self.clock(), daily_at=daily_at, hourly=hourly)
        self._asked &= {each.audit_id for each in due}
        asked = []
        try:
            for request in due:
                if not self._is_known(request.audit_id):
                    await publish_audit(self.sender, self.settings, request)
                    self._asked.add(request.audit_id)
                    asked.append(request.audit_id)
        except (BrokerError, StoreAwayError) as error:
            _log.warning("audits not asked for yet", why=str(error))
            self._failures += 1
            if self._failures > PUT_OFF_LIMIT:
                why = (
                    f"An audit that is due could not be asked for in {PUT_OFF_LIMIT} tries: {error}"
                )
                self.standing.report("schedule", why)
        else:
            self._failures = 0
            self.standing.clear("schedule")
        return asked

    def _is_known(self, audit_id: str) -> bool:
        return audit_id in self._asked or has_report(self.files, audit_id)


_LOOKED_BACK: Final[tuple[tuple[AuditMode, Callable[[datetime], str], timedelta, int], ...]] = (
    ("quick", hourly_id, timedelta(hours=1), 48),
    ("full", daily_id, timedelta(days=1), 14),
)


def show_last_audits(files: ReadableFiles, moment: datetime) -> None:
    """Set the metrics of audits as they stand at `moment`: when the last clean one ended.

    Without it, every restart would look like a worker that has never had a clean audit.

    Raises:
        StoreError: The disk failed.
    """
    # A series that begins with its first finding shows no increase.
    for code in MEANINGS:
        metrics.AUDIT_FINDINGS.labels(code, severity_of(code))
    for mode, audit_id, step, number in _LOOKED_BACK:
        ids = (audit_id(moment - step * back) for back in range(number))
        ended = next((found for each in ids if (found := _clean_end(files, each))), None)
        if ended is not None:
            metrics.LAST_CLEAN_AUDIT.labels(mode).set(ended.timestamp())


def _clean_end(files: ReadableFiles, audit_id: str) -> datetime | None:
    """Return when an audit ended, if it has a report without an error."""
    try:
        found = read_report(files, audit_id)
    except IntegrityError:
        return None  # An audit request of this id reports it.
    if found is None or worst_severity(found[0]["codes"]) == "error":
        return None
    return parse_timestamp(found[0]["finished_at_utc"])
