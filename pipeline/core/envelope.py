"""The common part of every request record: strict JSON, identity, key, known version.

A record that fails here can never succeed, whatever the store holds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pipeline.core.dead_letters.carried_record import LeftAtSource, ReadContent
from pipeline.core.json.strict import InvalidJsonError, parse_object
from pipeline.topics import REQUEST_VALUE_LIMIT_BYTES
from schemas.fields import RUN_ID_RULE, is_run_id
from schemas.timestamps import format_timestamp, parse_timestamp

Judged = TypeVar("Judged")
Parsed = tuple[dict[str, Any], bytes]
"""An object and its canonical bytes."""

_SHOWN_CHARACTERS = 80
"""Of what came, in a message: enough to recognise it."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that can never succeed.

    Attributes:
        code: TOMBSTONE, TOO_LARGE, INVALID_JSON, INVALID_IDENTITY, KEY_MISMATCH,
            UNSUPPORTED_VERSION, INVALID_ADVISORY, INVALID_LEGACY_RUN or INTERNAL_ERROR.
        message: One sentence: what was expected and what came.
        run_id: Where it could be read.
    """

    code: str
    message: str
    run_id: str | None = None


class RejectionError(Exception):
    """Carries a verdict out of the rules that found it, to the function that returns it."""

    def __init__(self, code: str, message: str, run_id: str | None = None) -> None:
        super().__init__(message)
        self.rejected = Rejected(code, message, run_id)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A request whose common part is right.

    Attributes:
        document: As parsed, nothing changed.
        body: Its canonical JSON.
        run_id: The run that it is about.
        created_at_utc: Normalised.
    """

    document: dict[str, Any]
    body: bytes
    run_id: str
    created_at_utc: str


def judged_apart(judge: Callable[[], Judged]) -> Judged | Rejected:
    """Return the verdict of `judge` on one record, or why it is rejected.

    An exception that is not the record's fault or the machine's becomes INTERNAL_ERROR: one
    record that our program cannot handle must not hold up the others.

    Raises:
        OSError: The machine is at fault, not the record.
        MemoryError: The same.
    """
    try:
        return judge()
    except RejectionError as error:
        return error.rejected
    except (OSError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001  # the promise above
        return Rejected("INTERNAL_ERROR", f"{type(error).__name__} while judging the record.")


def open_envelope(
    key: ReadContent | None,
    value: ReadContent | None,
    *,
    version: str,
    needs_version: bool = False,
    parsed: Parsed | None = None,
) -> Envelope:
    """Return the request of a record; the first rule that fails decides.

    Args:
        key: The record's key.
        value: The record's value.
        version: The schema_version that it must have.
        needs_version: Whether a record that names none is refused; else it has `version`.
        parsed: What `parse_object` returns for the value, where the caller has it already.

    Raises:
        RejectionError: It can never succeed.
    """
    document, body = _parse(value, parsed)
    run_id, created_at_utc = _identity(document)
    _check_key(key, run_id)
    _check_version(document, run_id, version, needs_version=needs_version)
    return Envelope(document, body, run_id, created_at_utc)


def _parse(value: ReadContent | None, parsed: Parsed | None) -> Parsed:
    if value is None:
        raise RejectionError("TOMBSTONE", "Expected a request, found a record without a value.")
    if isinstance(value, LeftAtSource) or len(value) > REQUEST_VALUE_LIMIT_BYTES:
        raise RejectionError(
            "TOO_LARGE",
            f"Expected at most {REQUEST_VALUE_LIMIT_BYTES:,} bytes, found {len(value):,}: "
            "upload large contents and name them as attachments.",
        )
    try:
        return parsed or parse_object(value)
    except InvalidJsonError as error:
        raise RejectionError("INVALID_JSON", error.sentence) from error


def _identity(request: dict[str, Any]) -> tuple[str, str]:
    run_id = request.get("run_id")
    if not isinstance(run_id, str) or not is_run_id(run_id):
        raise RejectionError(
            "INVALID_IDENTITY", f"Expected a run_id of {RUN_ID_RULE}; found {_shown(run_id)}."
        )
    created_at_utc = request.get("created_at_utc")
    if not isinstance(created_at_utc, str):
        raise RejectionError(
            "INVALID_IDENTITY",
            "Expected created_at_utc, a time such as 2025-12-18T14:03:22Z, found "
            f"{_shown(created_at_utc)}.",
            run_id,
        )
    try:
        return run_id, format_timestamp(parse_timestamp(created_at_utc))
    except ValueError as error:
        raise RejectionError(
            "INVALID_IDENTITY",
            "Expected created_at_utc to be a time that exists, 2000 to 2099, with an offset, found "
            f"{_shown(created_at_utc)}.",
            run_id,
        ) from error


def _check_key(key: ReadContent | None, run_id: str) -> None:
    if key != run_id.encode():
        found = repr(key[:_SHOWN_CHARACTERS]) if isinstance(key, bytes) else _shown(None)
        raise RejectionError(
            "KEY_MISMATCH",
            f"Expected the record's key to be its run_id {run_id}, found {found}.",
            run_id,
        )


def _check_version(
    request: dict[str, Any], run_id: str, version: str, *, needs_version: bool
) -> None:
    found = request.get("schema_version")
    if found != version and (needs_version or found is not None):
        raise RejectionError(
            "UNSUPPORTED_VERSION",
            f"Expected schema_version {version}, found {_shown(found)}.",
            run_id,
        )


def _shown(found: object) -> str:
    """Return what came, for a message."""
    if found is None:
        return "none"
    return (
        repr(found[:_SHOWN_CHARACTERS]) if isinstance(found, str) else f"a {type(found).__name__}"
    )
