"""Turns what a caller calls a request into the bytes that are sent, unchanged."""

import json
from collections.abc import Mapping
from typing import Any

from pipeline.errors import InputError
from pipeline.topics import REQUEST_VALUE_LIMIT_BYTES
from schemas.advisory_request import AdvisoryRequest
from schemas.fields import RUN_ID_RULE, is_run_id
from schemas.run_request import RunRequest

Request = Mapping[str, Any] | RunRequest | AdvisoryRequest | bytes
"""A request as the caller has it: an object, a model, or its JSON text in UTF-8."""


def encode_request(request: Request) -> tuple[str, bytes]:
    """Return the run_id and the body of a request.

    A mapping is written as `json.dumps` writes it, a model with the fields that were set, and
    bytes stay as they are.

    Raises:
        InputError: It is no JSON object, JSON cannot express a value, its run_id is missing or
            not of the pattern, or it is above 4 MiB.
    """
    if isinstance(request, bytes):
        document, value = _parsed(request), request
    else:
        document = _document(request)
        value = _dumped(document)
    run_id = document.get("run_id")
    if not isinstance(run_id, str) or not is_run_id(run_id):
        message = f"Expected a run_id of {RUN_ID_RULE}; found {run_id!r:.120}."
        raise InputError(message)
    if len(value) > REQUEST_VALUE_LIMIT_BYTES:
        message = (
            f"The request {run_id} has {len(value):,} bytes, the limit is "
            f"{REQUEST_VALUE_LIMIT_BYTES:,}: upload large blobs and name them by their hashes."
        )
        raise InputError(message)
    return run_id, value


def _document(request: Mapping[str, Any] | RunRequest | AdvisoryRequest) -> dict[str, Any]:
    if isinstance(request, RunRequest | AdvisoryRequest):
        return request.model_dump(exclude_unset=True)
    return dict(request)


def _dumped(document: dict[str, Any]) -> bytes:
    try:
        text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode()
    # NaN, an integer of too many digits and a lone surrogate are ValueErrors, a date a TypeError.
    except (ValueError, TypeError, RecursionError) as error:
        message = f"The request has a value that JSON cannot express: {error}."
        raise InputError(message) from error


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        # Decoded here, as json.loads would take UTF-16 too.
        document = json.loads(body.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        message = f"The request is no JSON in UTF-8: {error}."
        raise InputError(message) from error
    if not isinstance(document, dict):
        message = f"Expected a request to be a JSON object, found {type(document).__name__}."
        raise InputError(message)
    return document


def _refuse_constant(name: str) -> None:
    message = f"{name} is not JSON"
    raise ValueError(message)
