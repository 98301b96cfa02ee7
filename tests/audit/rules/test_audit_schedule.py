"""Which audits are due at a moment: of any number of schedulers each says the same."""

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from pipeline.audit.rules.request import due_audits, seconds_to_next_hour
from schemas.audit_request import AuditRequest

moments = st.integers(0, 10**15).map(
    lambda each: datetime(2025, 1, 1, tzinfo=UTC) + timedelta(microseconds=each)
)


def due(*moment: int, daily_at: int = 2, hourly: bool = True) -> list[tuple[str, str]]:
    found = due_audits(datetime(*moment, tzinfo=UTC), daily_at=daily_at, hourly=hourly)
    assert all(each.scope.all for each in found)
    return [(each.audit_id, each.mode) for each in found]


def both(moment: datetime) -> list[AuditRequest]:
    return due_audits(moment, daily_at=2, hourly=True)


def test_the_daily_audit_is_full_and_the_hourly_one_is_quick() -> None:
    assert due(2025, 12, 18, 2, 0) == [
        ("hourly-2025-12-18T02", "quick"),
        ("daily-2025-12-18", "full"),
    ]


def test_the_daily_audit_is_not_due_before_its_hour() -> None:
    assert due(2025, 12, 18, 1, 59) == [("hourly-2025-12-18T01", "quick")]


def test_a_worker_that_starts_late_still_asks_for_the_day() -> None:
    assert due(2025, 12, 18, 23, 59, hourly=False) == [("daily-2025-12-18", "full")]


def test_nothing_is_due_where_nothing_is_set() -> None:
    assert due(2025, 12, 18, 23, 59, daily_at=-1, hourly=False) == []


@given(moments, st.integers(-23, 23))
def test_where_a_clock_hangs_makes_no_difference(moment: datetime, hours: int) -> None:
    elsewhere = moment.astimezone(timezone(timedelta(hours=hours)))
    assert both(elsewhere) == both(moment)


@given(moments)
def test_within_an_hour_the_same_is_due(moment: datetime) -> None:
    seconds = seconds_to_next_hour(moment)
    assert 0 < seconds <= 3600
    last = moment + timedelta(seconds=seconds) - timedelta(microseconds=1)
    assert both(last) == both(moment)
    assert both(last + timedelta(microseconds=1)) != both(moment)
