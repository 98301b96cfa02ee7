"""Requests for audits: which records are valid, which files a sample reads, when one is due.

The audit_id of a schedule is that of the hour or the date, so any number of schedulers request one
audit. An hour without a worker is not made up for: an audit sees the store as it is.
"""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from pipeline.audit.rules.parts import AuditPart
from pipeline.core.dead_letters.carried_record import LeftAtSource, ReadContent
from pipeline.core.envelope import Rejected, RejectionError, judged_apart
from pipeline.core.json.strict import InvalidJsonError, parse_object
from pipeline.core.violations import shape_violations
from pipeline.topics import REQUEST_VALUE_LIMIT_BYTES
from schemas.audit_request import AUDIT_REQUEST_VERSION, AuditMode, AuditRequest, AuditScope

INVALID_AUDIT = "INVALID_AUDIT"
AUDIT_CONFLICT = "AUDIT_CONFLICT"
REPORT_CORRUPT = "ARTIFACT_CORRUPT"
AUDIT_FAILED = "INTERNAL_ERROR"
_MOST_FIELDS = 10


def judge_audit_record(
    key: ReadContent | None, value: ReadContent | None
) -> AuditRequest | Rejected:
    """Return what a record with this `key` and `value` asks for, each date and run id once.

    Raises:
        OSError: The machine is at fault, not the record.
        MemoryError: The same.
    """
    return judged_apart(lambda: _judge(key, value))


def _judge(key: ReadContent | None, value: ReadContent | None) -> AuditRequest:
    document = _parsed(value)
    violations = sorted(set(shape_violations(document, AuditRequest)))
    if violations:
        listed = "; ".join(f"{each.field}: {each.code}" for each in violations[:_MOST_FIELDS])
        raise RejectionError(INVALID_AUDIT, f"Expected an audit request, found {listed}.")
    request = normalised_request(document)
    if request.scope.all is None and AuditPart.named(request.audit_id) is not None:
        raise RejectionError(
            INVALID_AUDIT,
            f"Expected another audit_id than {request.audit_id}: an audit of dates or runs is no "
            "part of one.",
        )
    if key != request.audit_id.encode():
        raise RejectionError(
            INVALID_AUDIT, "Expected the record's key to be the audit_id of its value."
        )
    return request


def _parsed(value: ReadContent | None) -> dict[str, Any]:
    if value is None:
        raise RejectionError(
            INVALID_AUDIT, "Expected an audit request, found a record without a value."
        )
    if isinstance(value, LeftAtSource) or len(value) > REQUEST_VALUE_LIMIT_BYTES:
        raise RejectionError(
            INVALID_AUDIT,
            f"Expected at most {REQUEST_VALUE_LIMIT_BYTES:,} bytes, found {len(value):,}.",
        )
    try:
        return parse_object(value)[0]
    except InvalidJsonError as error:
        raise RejectionError(INVALID_AUDIT, error.sentence) from error


def normalised_request(document: dict[str, Any]) -> AuditRequest:
    """Return the request in the one form in which two that ask for the same are equal.

    Raises:
        pydantic.ValidationError: The document is no audit request.
    """
    request = AuditRequest.model_validate(document)
    scope = request.scope
    listed = {
        name: sorted(set(values))
        for name, values in (("dates", scope.dates), ("run_ids", scope.run_ids))
        if values is not None
    }
    return request.model_copy(
        update={
            "schema_version": AUDIT_REQUEST_VERSION,
            "scope": scope.model_copy(update=listed),
        }
    )


SAMPLE_SHARE: Final = 0.1
"""One file in ten, by default."""

_WHOLE: Final = 1 << 64


def is_sampled(audit_id: str, path: str, share: float = SAMPLE_SHARE) -> bool:
    """Return whether this audit reads the file at `path`.

    The same audit_id reads the same files, whatever else is in the store, so the sample is
    known to anybody who knows the audit_id beforehand.
    """
    digest = sha256(f"{audit_id}\n{path}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") < share * _WHOLE


_EVERYTHING: Final = AuditScope(all=True)


def due_audits(moment: datetime, *, daily_at: int, hourly: bool) -> list[AuditRequest]:
    """Return what is due at `moment`, the quick one first; all in UTC.

    Args:
        moment: Any time.
        daily_at: Hour from which on the daily full audit is due; below zero for none.
        hourly: Whether a quick one is due every hour.
    """
    due = [_request(hourly_id(moment), "quick")] if hourly else []
    if 0 <= daily_at <= moment.astimezone(UTC).hour:
        due.append(_request(daily_id(moment), "full"))
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
