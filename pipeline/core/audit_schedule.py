"""Which audits a schedule asks for at a given moment.

The audit_id is that of the hour or the date, so any number of schedulers ask for one audit. A
moment that passed while nobody was there is not made up for: an audit sees the store as it is.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from schemas.audit_request import AuditRequest, AuditScope

_EVERYTHING: Final = AuditScope(all=True)


@dataclass(frozen=True, slots=True)
class AuditSchedule:
    """When to audit, in UTC.

    Attributes:
        daily_at: Hour from which on the daily full audit is due; None for none.
        hourly: Whether a quick one is due every hour.
    """

    daily_at: int | None
    hourly: bool

    @property
    def is_empty(self) -> bool:
        """Whether nothing is ever due."""
        return self.daily_at is None and not self.hourly

    def due(self, moment: datetime) -> list[AuditRequest]:
        """Return what is due at `moment`, the quick one first."""
        utc = moment.astimezone(UTC)
        due = []
        if self.hourly:
            due.append(_request(f"hourly-{utc:%Y-%m-%dT%H}", "quick"))
        if self.daily_at is not None and utc.hour >= self.daily_at:
            due.append(_request(f"daily-{utc:%Y-%m-%d}", "full"))
        return due


def _request(audit_id: str, mode: str) -> AuditRequest:
    return AuditRequest.model_validate({"audit_id": audit_id, "scope": _EVERYTHING, "mode": mode})


def seconds_to_next_hour(moment: datetime) -> float:
    """Return how long it is until something else can be due."""
    utc = moment.astimezone(UTC)
    following = utc.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    return (following - utc).total_seconds()
