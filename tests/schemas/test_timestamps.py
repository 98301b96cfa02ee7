"""Times: what the pattern and the calendar allow, and the one form in which they are stored."""

import calendar
import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.timestamps import (
    format_timestamp,
    microseconds_since_epoch,
    normalise_timestamp,
    parse_timestamp,
)

PATTERN = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})"
)


def oracle(text: str) -> str | None:
    """The stored form by plain counting, without `datetime`; None where there is none."""
    if not PATTERN.fullmatch(text):
        return None
    year, month, day = int(text[0:4]), int(text[5:7]), int(text[8:10])
    hour, minute, second = int(text[11:13]), int(text[14:16]), int(text[17:19])
    fraction, _, offset = re.match(r"\.?([0-9]*)((.*))", text[19:]).groups()
    if not (1 <= month <= 12 and hour <= 23 and minute <= 59 and second <= 59 and year >= 1):
        return None
    if not 1 <= day <= calendar.monthrange(year, month)[1]:
        return None
    shift = 0
    if offset != "Z":
        hours, minutes = int(offset[1:3]), int(offset[4:6])
        if hours > 23 or minutes > 59:
            return None
        shift = (hours * 60 + minutes) * 60 * (-1 if offset[0] == "+" else 1)
    before = year - 1
    days = before * 365 + before // 4 - before // 100 + before // 400 + day
    days += sum(calendar.monthrange(year, m)[1] for m in range(1, month))
    days, rest = divmod(days * 86400 + hour * 3600 + minute * 60 + second + shift, 86400)
    first = 1999 * 365 + 1999 // 4 - 1999 // 100 + 1999 // 400 + 1
    if not first <= days < first + 36525:
        return None
    year, day = 2000, days - first
    while day >= 365 + calendar.isleap(year):
        day -= 365 + calendar.isleap(year)
        year += 1
    month = 1
    while day >= calendar.monthrange(year, month)[1]:
        day -= calendar.monthrange(year, month)[1]
        month += 1
    micros = (fraction + "000000")[:6]
    shown = f".{micros}" if int(micros) else ""
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{year:04}-{month:02}-{day + 1:02}T{clock}{shown}Z"


def ours(text: str) -> str | None:
    try:
        return normalise_timestamp(text)
    except ValueError:
        return None


def two_digits(most: int) -> st.SearchStrategy[str]:
    return st.integers(0, most).map("{:02}".format)


TIMES = st.builds(
    lambda year, rest, fraction, offset: (
        f"{year:04}-{rest[0]}-{rest[1]}T{rest[2]}:{rest[3]}:{rest[4]}{fraction}{offset}"
    ),
    st.sampled_from([0, 1, 1999, 2000, 2024, 2025, 2099, 2100, 9999]) | st.integers(1998, 2101),
    st.tuples(two_digits(13), two_digits(32), two_digits(24), two_digits(60), two_digits(60)),
    st.just("") | st.from_regex(r"\.[0-9]{1,10}", fullmatch=True),
    st.just("Z")
    | st.builds("{}{}:{}".format, st.sampled_from("+-"), two_digits(24), two_digits(60)),
)


@settings(max_examples=600)
@given(TIMES)
@example("2000-01-01T00:00:00+00:01")
@example("2099-12-31T23:59:59.999999999-00:00")
@example("2024-02-29T23:59:59+23:59")
@example("0001-01-01T00:00:00+23:59")
@example("9999-12-31T23:59:59-23:59")
def test_times_are_read_as_counting_says(text: str) -> None:
    assert ours(text) == oracle(text)


@settings(max_examples=200)
@given(st.integers(0, 36525 * 86_400_000_000 - 1))
def test_a_stored_time_is_read_back_and_stored_the_same(microseconds: int) -> None:
    moment = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    stored = format_timestamp(moment)
    assert parse_timestamp(stored) == moment
    assert normalise_timestamp(stored) == stored


def test_times_are_stored_in_utc_and_cut_to_microseconds() -> None:
    wanted = {
        "2025-12-18T14:03:22.123456Z": "2025-12-18T14:03:22.123456Z",
        "2025-12-18T14:03:22.123456789Z": "2025-12-18T14:03:22.123456Z",
        "2025-12-18T14:03:22.1Z": "2025-12-18T14:03:22.100000Z",
        "2025-12-18T14:03:22.000000Z": "2025-12-18T14:03:22Z",
        "2025-12-18T14:03:22.0000009Z": "2025-12-18T14:03:22Z",
        "2025-12-18T14:03:22+00:00": "2025-12-18T14:03:22Z",
        "2025-12-18T14:03:22-00:00": "2025-12-18T14:03:22Z",
        "2026-01-01T00:30:00+01:00": "2025-12-31T23:30:00Z",
        "2025-12-31T23:30:00-01:00": "2026-01-01T00:30:00Z",
        "2024-02-29T00:00:00Z": "2024-02-29T00:00:00Z",
        "2000-01-01T00:00:00Z": "2000-01-01T00:00:00Z",
        "2099-12-31T23:59:59.999999Z": "2099-12-31T23:59:59.999999Z",
        "1999-12-31T23:59:00-00:01": "2000-01-01T00:00:00Z",
    }
    assert {sent: normalise_timestamp(sent) for sent in wanted} == wanted


def test_what_is_no_time_of_the_form_is_refused() -> None:
    texts = [
        "",
        "2025-12-18",
        "2025-12-18T14:03Z",
        "2025-12-18 14:03:22Z",
        "2025-12-18t14:03:22z",
        "2025-12-18T14:03:22",
        "2025-12-18T14:03:22.Z",
        "2025-12-18T14:03:22.1234567890Z",
        "2025-12-18T14:03:22,5Z",
        "2025-12-18T14:03:22+01",
        "2025-12-18T14:03:22+0100",
        "2025-12-18T14:03:22+24:00",
        "2025-12-18T14:03:22+23:60",
        "2025-12-18T24:00:00Z",
        "2025-12-18T14:60:00Z",
        "2025-12-18T14:03:60Z",
        "2025-02-29T00:00:00Z",
        "2025-13-01T00:00:00Z",
        "2025-00-10T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "1999-12-31T23:59:59.999999Z",
        "2000-01-01T00:00:00+00:01",
        "2100-01-01T00:00:00Z",
        "2099-12-31T23:59:59-00:01",
        "2025-12-18T14:03:22Z\n",
        " 2025-12-18T14:03:22Z",
        "\u0662025-12-18T14:03:22Z",
        "+2025-12-18T14:03:22Z",
    ]
    assert [text for text in texts if ours(text) is not None] == []
    for text in texts:
        with pytest.raises(ValueError, match=r"expected|out of range|must be in"):
            parse_timestamp(text)


@pytest.mark.parametrize("clock", ["24:00:00", "14:60:00", "14:03:60"])
def test_what_is_wrong_with_a_time_of_the_form_is_named(clock: str) -> None:
    with pytest.raises(ValueError, match="hours to 23, minutes and seconds to 59"):
        parse_timestamp(f"2025-12-18T{clock}Z")


def test_microseconds_are_counted_exactly_to_the_end_of_the_range() -> None:
    last = datetime(2099, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    assert microseconds_since_epoch(last) == 4102444799999999
    assert microseconds_since_epoch(last + timedelta(microseconds=1)) == 4102444800000000
