"""What one record of the audit request topic is, looked at alone: an audit, or never anything."""

from typing import Any

from pipeline.core.dead_letters.carried_record import LeftAtSource, ReadContent
from pipeline.core.envelope import Rejected, RejectionError, judged_apart
from pipeline.core.json.strict import InvalidJsonError, parse_object
from pipeline.core.violations import shape_violations
from pipeline.topics import REQUEST_VALUE_LIMIT_BYTES
from schemas.audit_request import AUDIT_REQUEST_VERSION, AuditRequest

INVALID_AUDIT = "INVALID_AUDIT"
AUDIT_CONFLICT = "AUDIT_CONFLICT"
REPORT_CORRUPT = "ARTIFACT_CORRUPT"
AUDIT_FAILED = "INTERNAL_ERROR"
_TOLD_FIELDS = 10


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
        told = "; ".join(f"{each.field}: {each.code}" for each in violations[:_TOLD_FIELDS])
        raise RejectionError(INVALID_AUDIT, f"Expected an audit request, found {told}.")
    request = normalised_request(document)
    if key != request.audit_id.encode():
        message = "Expected the record's key to be the audit_id of its value."
        raise RejectionError(INVALID_AUDIT, message)
    return request


def _parsed(value: ReadContent | None) -> dict[str, Any]:
    if value is None:
        message = "Expected an audit request, found a record without a value."
        raise RejectionError(INVALID_AUDIT, message)
    if isinstance(value, LeftAtSource) or len(value) > REQUEST_VALUE_LIMIT_BYTES:
        message = f"Expected at most {REQUEST_VALUE_LIMIT_BYTES:,} bytes, found {len(value):,}."
        raise RejectionError(INVALID_AUDIT, message)
    try:
        return parse_object(value)[0]
    except InvalidJsonError as error:
        text = str(error)
        raise RejectionError(INVALID_AUDIT, f"{text[0].upper()}{text[1:]}.") from error


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
