"""Whether a record is dated long before or after the broker got it.

A producer may date a record as it likes, so one that is back-dated is accepted as any other. The
broker's time, which the leaf keeps, says when it came.
"""

from typing import Final

from pipeline.audit.rules.finding import Finding
from schemas.timestamps import microseconds_since_epoch, parse_timestamp

LATE_SECONDS: Final = 86_400
"""A record may come so long after its created_at_utc: a day without the network."""

FUTURE_SECONDS: Final = 300
"""A record may be dated so long after the broker's clock: two clocks that differ."""

_DAY_US: Final = 86_400_000_000


def check_time(path: str, created_at_utc: str, broker_ms: int) -> list[Finding]:
    """Return what is wrong with a record's own time, given when the broker got it.

    Args:
        path: Of its file.
        created_at_utc: As the file says.
        broker_ms: Broker time in ms since 1970; below zero where the broker gave none.
    """
    created_us = microseconds_since_epoch(parse_timestamp(created_at_utc))
    return _check(path, created_us, created_us, created_at_utc, broker_ms)


def check_date(path: str, date: str, broker_ms: int) -> list[Finding]:
    """Return what is wrong with the date of a path: a time on that day that would fit is taken.

    For a pass that does not read the files.
    """
    first_us = microseconds_since_epoch(parse_timestamp(f"{date}T00:00:00Z"))
    return _check(path, first_us, first_us + _DAY_US - 1, date, broker_ms)


def _check(path: str, earliest_us: int, latest_us: int, told: str, broker_ms: int) -> list[Finding]:
    if broker_ms < 0:
        return []
    behind_us = broker_ms * 1000 - latest_us
    ahead_us = earliest_us - broker_ms * 1000
    if behind_us > LATE_SECONDS * 1_000_000:
        expected = f"a record that came within {LATE_SECONDS:,} s of its time"
        found = f"one dated {told} that came {behind_us // 1_000_000:,} s after it"
        return [Finding("LATE", path, expected, found)]
    if ahead_us > FUTURE_SECONDS * 1_000_000:
        expected = f"a record dated at most {FUTURE_SECONDS} s after it came"
        found = f"one dated {told} that came {ahead_us // 1_000_000:,} s before it"
        return [Finding("FUTURE", path, expected, found)]
    return []
