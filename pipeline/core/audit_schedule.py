"""Which audits a schedule asks for at a given moment.

The audit_id is that of the hour or the date, so any number of schedulers ask for one audit. A
moment that passed while nobody was there is not made up for: an audit sees the store as it is.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from schemas.audit_request import AuditMode, AuditRequest, AuditScope

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

    def due(self, moment: datetime) -> list[AuditRequest]:
        """Return what is due at `moment`, the quick one first."""
        utc = moment.astimezone(UTC)
        due = []
        if self.hourly:
            due.append(_request(hourly_id(utc), "quick"))
        if self.daily_at is not None and utc.hour >= self.daily_at:
            due.append(_request(daily_id(utc), "full"))
        return due


def hourly_id(moment: datetime) -> str:
    """Return the audit_id of the quick audit of an hour."""
    return f"hourly-{moment.astimezone(UTC):%Y-%m-%dT%H}"


def daily_id(moment: datetime) -> str:
    """Return the audit_id of the full audit of a date."""
    return f"daily-{moment.astimezone(UTC):%Y-%m-%d}"


def _request(audit_id: str, mode: AuditMode) -> AuditRequest:
    return AuditRequest.model_validate({"audit_id": audit_id, "scope": _EVERYTHING, "mode": mode})


def seconds_to_next_hour(moment: datetime) -> float:
    """Return how long it is until something else can be due."""
    utc = moment.astimezone(UTC)
    following = utc.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    return (following - utc).total_seconds()
