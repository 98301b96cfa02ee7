"""What a new audit worker tells of audits before its time: when the last clean one ended.

Without it, every restart would look like a worker that has never had a clean audit.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from pipeline import metrics
from pipeline.audit.report import read_report
from pipeline.audit.rules.codes import MEANINGS, severity_of, worst_severity
from pipeline.core.audit_schedule import daily_id, hourly_id
from pipeline.errors import IntegrityError
from schemas.audit_request import AuditMode
from schemas.timestamps import parse_timestamp

_LOOKED_BACK: Final[tuple[tuple[AuditMode, Callable[[datetime], str], timedelta, int], ...]] = (
    ("quick", hourly_id, timedelta(hours=1), 48),
    ("full", daily_id, timedelta(days=1), 14),
)


def tell_before(root: Path, moment: datetime) -> None:
    """Set the metrics of audits as they stand at `moment`.

    Raises:
        StoreError: The disk failed.
    """
    # A series that begins with its first finding shows no increase.
    for code in MEANINGS:
        metrics.AUDIT_FINDINGS.labels(code, severity_of(code))
    for mode, audit_id, step, number in _LOOKED_BACK:
        ids = (audit_id(moment - step * back) for back in range(number))
        ended = next((found for each in ids if (found := _clean_end(root, each))), None)
        if ended is not None:
            metrics.LAST_CLEAN_AUDIT.labels(mode).set(ended.timestamp())


def _clean_end(root: Path, audit_id: str) -> datetime | None:
    """Return when an audit ended, if it has a report without an error."""
    try:
        found = read_report(root, audit_id)
    except IntegrityError:
        return None  # An audit request of this id tells it.
    if found is None or worst_severity(found[0]["codes"]) == "error":
        return None
    return parse_timestamp(found[0]["finished_at_utc"])
