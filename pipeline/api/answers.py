"""Answers as bytes: documents as canonical JSON, errors in their one form."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from pipeline.core.json.canonical import canonical_json


class ApiError(Exception):
    """An error that a client is told of.

    Attributes:
        status: HTTP status.
        code: For programs.
        message: One sentence for people; it holds no path of the server.
        details: What else the answer holds.
        headers: What else the answer says.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = dict(details or {})
        self.headers = dict(headers or {})


def json_answer(
    document: Any,  # noqa: ANN401
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return an answer that holds `document`.

    Canonical JSON keeps every digit of what producers sent, which the usual writers do not.
    """
    return Response(canonical_json(document), status, headers, "application/json")


def error_answer(error: ApiError) -> Response:
    """Return the answer that tells of an error."""
    document = {"error": error.code, "message": error.message, **error.details}
    return json_answer(document, error.status, error.headers)


def run_not_found(run_id: str, *, is_name: bool = True) -> ApiError:
    """Say that there is no such run; what cannot name one is not repeated."""
    if not is_name:
        return ApiError(404, "RUN_NOT_FOUND", "There is no such run.")
    return ApiError(404, "RUN_NOT_FOUND", f"There is no run {run_id}.", {"run_id": run_id})
