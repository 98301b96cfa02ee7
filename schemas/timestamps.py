"""Times as producers write them and as we store them: UTC, `Z`, at most microseconds."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_FORM = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9])"
    r"(?:\.([0-9]{1,9}))?(?:Z|([+-])([0-9]{2}):([0-9]{2}))"
)
TIMESTAMP_PATTERN = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}"
    r"(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$"
)
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST = datetime(2100, 1, 1, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


# A request has one time in several fields, and each is parsed more than once.
@lru_cache(maxsize=256)
def parse_timestamp(text: str) -> datetime:
    """Return the UTC time that `text` names, cut to microseconds.

    The form is checked here and not by `datetime.fromisoformat`, whose idea of a valid time
    changes between Python versions. Which days there are does not.

    Raises:
        ValueError: `text` is not of the form, names no time that exists, or lies outside
            2000-01-01 to 2099-12-31 in UTC.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        if re.match(TIMESTAMP_PATTERN, text):
            raise ValueError("expected hours to 23, minutes and seconds to 59")
        raise ValueError("expected a time such as 2025-12-18T14:03:22Z")
    seconds, fraction, sign, off_hour, off_minute = match.groups(default="")
    moment = datetime.fromisoformat(f"{seconds}.{fraction[:6]:0<6}+00:00")
    if sign:
        moment = _without_offset(moment, sign, int(off_hour), int(off_minute))
    if not _EARLIEST <= moment < _LATEST:
        raise ValueError("expected a time from 2000-01-01 to 2099-12-31 in UTC")
    return moment


def _without_offset(local: datetime, sign: str, hours: int, minutes: int) -> datetime:
    if hours > 23 or minutes > 59:  # noqa: PLR2004
        raise ValueError("expected an offset of at most 23:59")
    offset = timedelta(hours=hours, minutes=minutes)
    try:
        return local - offset if sign == "+" else local + offset
    except OverflowError as error:
        raise ValueError("expected a time from 2000-01-01 to 2099-12-31 in UTC") from error


def format_timestamp(moment: datetime) -> str:
    """Return `moment`, which is in UTC, as stored: `2025-12-18T14:03:22[.ffffff]Z`."""
    # isoformat writes six digits of a fraction, or none where it is zero, and then `+00:00`.
    return f"{moment.isoformat()[:-6]}Z"


def normalise_timestamp(text: str) -> str:
    """Return `text` as stored: in UTC, ending in `Z`, a fraction of six digits or none.

    Raises:
        ValueError: As `parse_timestamp`.
    """
    return format_timestamp(parse_timestamp(text))


def microseconds_since_epoch(moment: datetime) -> int:
    """Return the whole microseconds from 1970-01-01 UTC to `moment`, exactly."""
    return (moment - _EPOCH) // _MICROSECOND
