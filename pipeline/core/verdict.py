"""What one record of the request topic is, looked at alone: a run, or never anything.

Whether the run is new, a duplicate or in conflict is the index's to say (`pipeline.storage`).
"""

from dataclasses import dataclass
from typing import Any

from pipeline.core.artifact import BuiltRun, build_run
from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.layout import artifact_path
from pipeline.core.strict_json import InvalidJsonError, parse_object
from pipeline.topics import REQUEST_VALUE_LIMIT_BYTES
from schemas.fields import is_run_id
from schemas.run_request import RUN_REQUEST_VERSION
from schemas.timestamps import format_timestamp, parse_timestamp


@dataclass(frozen=True, slots=True)
class JudgedRun:
    """A record that makes a run.

    Attributes:
        run_id: The run.
        request_sha256: Of the canonical body: what tells a duplicate from a conflict.
        artifact_sha256: Of the artifact's bytes.
        path: Of the artifact, relative to the store.
        built: The artifact and what is stored with it.
    """

    run_id: str
    request_sha256: str
    artifact_sha256: str
    path: str
    built: BuiltRun

    @property
    def is_incomplete(self) -> bool:
        """Whether the request had violations."""
        return self.built.is_incomplete


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that can never make a run.

    Attributes:
        code: TOMBSTONE, TOO_LARGE, INVALID_JSON, INVALID_IDENTITY, KEY_MISMATCH,
            UNSUPPORTED_VERSION or INTERNAL_ERROR.
        message: One sentence: what was expected and what came.
        run_id: Where it could be read.
    """

    code: str
    message: str
    run_id: str | None = None


class _RejectionError(Exception):
    def __init__(self, code: str, message: str, run_id: str | None = None) -> None:
        super().__init__(message)
        self.rejected = Rejected(code, message, run_id)


def judge_run_record(key: bytes | None, value: bytes | None) -> JudgedRun | Rejected:
    """Return what a record with this `key` and `value` is; the first rule that fits.

    An exception that is not the record's fault or the machine's becomes INTERNAL_ERROR: one
    record that our program cannot handle must not hold up the others.

    Raises:
        OSError: The machine is at fault, not the record.
        MemoryError: The same.
    """
    try:
        return _judge(key, value)
    except _RejectionError as error:
        return error.rejected
    except (OSError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001  # the promise above
        return Rejected("INTERNAL_ERROR", f"{type(error).__name__} while judging the record.")


def _judge(key: bytes | None, value: bytes | None) -> JudgedRun:
    request, body = _parse(value)
    run_id, created_at_utc = _identity(request)
    _check_key(key, run_id)
    _check_version(request, run_id)
    built = build_run(request, body, created_at_utc)
    return JudgedRun(
        run_id,
        built.outline["provenance"]["request_sha256"],
        sha256_of_bytes(built.content),
        artifact_path(created_at_utc, run_id),
        built,
    )


def _parse(value: bytes | None) -> tuple[dict[str, Any], bytes]:
    if value is None:
        code = "TOMBSTONE"
        raise _RejectionError(code, "Expected a request, found a record without a value.")
    if len(value) > REQUEST_VALUE_LIMIT_BYTES:
        code = "TOO_LARGE"
        raise _RejectionError(
            code,
            f"Expected at most {REQUEST_VALUE_LIMIT_BYTES:,} bytes, found {len(value):,}.",
        )
    try:
        return parse_object(value)
    except InvalidJsonError as error:
        text = str(error)
        raise _RejectionError("INVALID_JSON", f"{text[0].upper()}{text[1:]}.") from error


def _identity(request: dict[str, Any]) -> tuple[str, str]:
    run_id = request.get("run_id")
    if not isinstance(run_id, str) or not is_run_id(run_id):
        raise _RejectionError("INVALID_IDENTITY", "Expected a run_id of the published pattern.")
    created_at_utc = request.get("created_at_utc")
    if not isinstance(created_at_utc, str):
        raise _RejectionError(
            "INVALID_IDENTITY",
            "Expected created_at_utc, a time such as 2025-12-18T14:03:22Z.",
            run_id,
        )
    try:
        return run_id, format_timestamp(parse_timestamp(created_at_utc))
    except ValueError as error:
        message = "Expected created_at_utc to be a time that exists, 2000 to 2099, with an offset."
        raise _RejectionError("INVALID_IDENTITY", message, run_id) from error


def _check_key(key: bytes | None, run_id: str) -> None:
    if key != run_id.encode():
        raise _RejectionError(
            "KEY_MISMATCH", "Expected the record's key to be the run_id of its value.", run_id
        )


def _check_version(request: dict[str, Any], run_id: str) -> None:
    version = request.get("schema_version")
    if version is not None and version != RUN_REQUEST_VERSION:
        raise _RejectionError(
            "UNSUPPORTED_VERSION",
            f"Expected schema_version {RUN_REQUEST_VERSION}, found another.",
            run_id,
        )
