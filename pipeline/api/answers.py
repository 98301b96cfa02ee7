"""Answers as bytes: canonical JSON documents, and errors in one form without server paths."""

from collections.abc import Mapping
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match

from pipeline.core.json.canonical import canonical_json
from pipeline.errors import (
    ArchivedError,
    BrokerError,
    DiskFullError,
    HashMismatchError,
    InputError,
    IntegrityError,
    NotFoundError,
    RmosError,
)
from schemas.fields import is_run_id

_log = structlog.get_logger(__name__)

_BAD_REQUEST = 400
_NOT_FOUND = 404
_NOT_ALLOWED = 405
_METHODS = ("GET", "POST", "PUT")


class ApiError(Exception):
    """An answer that ends a request before its route has another one.

    Attributes:
        status: HTTP status.
        code: For programs.
        message: One sentence for people; it holds no path of the server.
        details: Further fields of the answer.
        headers: Of the answer, besides the usual ones.
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
    """Return the answer that `error` is; one that is no error of HTTP (202) has a status."""
    kind = "status" if error.status < _BAD_REQUEST else "error"
    document = {kind: error.code, "message": error.message, **error.details}
    return json_answer(document, error.status, error.headers)


def error_for(request: Request, error: ApiError) -> Response:
    """Return the answer that `error` is: a page to a person, where there are pages."""
    pages = getattr(request.app.state, "pages", None)
    if pages is not None and pages.reads(request.scope):
        found: Response = pages.error_page(request, error)
        return found
    return error_answer(error)


def add_error_answers(app: FastAPI) -> None:
    """Give `app` an answer to every error."""
    for kind in (ApiError, RmosError, HTTPException, RequestValidationError, ClientDisconnect):
        app.add_exception_handler(kind, _answer)
    # Raised on after it is answered; the middleware logs it.
    app.add_exception_handler(Exception, _answer)


async def _answer(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return _of_the_path(request, error)
    return error_for(request, error_of(request, error))


def error_of(request: Request, error: Exception) -> ApiError:
    """Return what is answered to a request that ends by `error`; what the server did is logged."""
    found = _error_of(request, error)
    if isinstance(error, RmosError) and found.status >= 500:  # noqa: PLR2004
        # The answer leaves the reason out; the operator needs it.
        _log.error("request failed", code=found.code, reason=str(error))
    return found


def _error_of(request: Request, error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestValidationError):
        return _invalid_query(error)
    if isinstance(error, ClientDisconnect):
        # For the log line alone.
        return ApiError(400, "CLIENT_GONE", "The client went away.")
    if isinstance(error, RmosError):
        return _of_ours(request, error)
    return ApiError(500, "INTERNAL_ERROR", "The server failed; its log says why.")


def _of_the_path(request: Request, error: HTTPException) -> Response:
    """Answer where no route fits: with the methods that the path knows, or where else to ask."""
    allowed = _allowed_methods(request)
    if request.method == "OPTIONS" and allowed:
        return Response(status_code=204, headers={"Allow": ", ".join(allowed)})
    if error.status_code == _NOT_ALLOWED and allowed:
        message = f"Expected one of the methods {', '.join(allowed)} at this path."
        headers = {"Allow": ", ".join(allowed)}
        refused = ApiError(405, "METHOD_NOT_ALLOWED", message, headers=headers)
        return error_for(request, refused)
    target = _without_slash(request)
    if target is not None:
        # As in the original; 307 keeps method and body.
        return Response(status_code=307, headers={"Location": target})
    if error.status_code == _NOT_FOUND:
        return error_for(request, ApiError(404, "NOT_FOUND", "There is nothing under this path."))
    return error_for(request, ApiError(error.status_code, "ERROR", "The request failed."))


def _of_ours(request: Request, error: RmosError) -> ApiError:
    run_id = request.path_params.get("run_id")
    known = {"run_id": run_id} if isinstance(run_id, str) and is_run_id(run_id) else {}
    details = {**known, **error.details}
    code, _, text = str(error).partition(": ")
    if isinstance(error, ArchivedError):
        return ApiError(410, code, text, details)
    if isinstance(error, NotFoundError | IntegrityError):
        return ApiError(404 if isinstance(error, NotFoundError) else 500, code, text, details)
    if isinstance(error, InputError):
        code = "HASH_MISMATCH" if isinstance(error, HashMismatchError) else "INVALID_QUERY"
        return ApiError(422, code, str(error))
    if isinstance(error, DiskFullError):
        return ApiError(507, "DISK_FULL", "There is no room for the blob; nothing of it was kept.")
    if isinstance(error, BrokerError):
        message = "The broker does not answer; nothing was published."
        return ApiError(503, "BROKER_UNAVAILABLE", message, details)
    message = "The store cannot be used now; the log of the server says why."
    return ApiError(503, "STORE_UNAVAILABLE", message, details)


def _invalid_query(error: RequestValidationError) -> ApiError:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"][1:])
    return ApiError(422, "INVALID_QUERY", f"{name}: {first['msg']}.")


def _allowed_methods(request: Request) -> list[str]:
    """Return the methods that the path of a request knows; none where there is nothing."""
    if request.scope["path"] == "*":
        # The whole server, as in OPTIONS *.
        return ["GET", "HEAD", "OPTIONS", "POST", "PUT"]
    found = [method for method in _METHODS if _fits(request, request.scope["path"], method)]
    if not found:
        return []
    reading = ["GET", "HEAD"] if "GET" in found else []
    return [*reading, "OPTIONS", *(method for method in found if method != "GET")]


def _without_slash(request: Request) -> str | None:
    """Return where a request leads that has a slash too many at its end, if that is a path of ours.

    The host is left out: it would be the one that the client sent.
    """
    path = request.scope["path"]
    bare = path.rstrip("/")
    if bare == path or not any(_fits(request, bare, method) for method in _METHODS):
        return None
    # Still escaped, and one of our paths: so no `//host` that a browser would go to.
    target = request.scope["raw_path"].decode("ascii").rstrip("/")
    query = request.scope["query_string"].decode("latin-1")
    return f"{target}?{query}" if query else target


def _fits(request: Request, path: str, method: str) -> bool:
    # A scope of its own: matching leaves marks in that of the request.
    scope = {"type": "http", "path": path, "root_path": "", "method": method, "headers": []}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)
