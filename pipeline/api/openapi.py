"""The OpenAPI document: each answer of a route with its shape and an example."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from pipeline.api import examples
from pipeline.api.http.tokens import OPEN_PATHS
from schemas.fields import RUN_ID_PATTERN, SHA256_PATTERN
from schemas.http_answers import (
    AdvisorySubmission,
    ErrorAnswer,
    RunSubmission,
)

Responses = dict[int | str, dict[str, Any]]

_ERRORS: dict[int, tuple[str, str]] = {
    400: ("BAD_REQUEST", "The head of the request has two lengths."),
    401: ("UNAUTHORIZED", "No token, or one that is not known."),
    403: ("FORBIDDEN", "The token may only read, or a page of another site asks."),
    404: ("RUN_NOT_FOUND", "There is no such run."),
    408: ("REQUEST_TIMEOUT", "The body did not come in time, or too slowly."),
    409: ("CONFLICT", "The name belongs to something else."),
    410: ("RUN_ARCHIVED", "The run is in a tar of its date, which the field archive names."),
    413: ("TOO_LARGE", "The body is too large."),
    415: ("UNSUPPORTED_MEDIA_TYPE", "The body is of another type."),
    416: ("RANGE_NOT_SATISFIABLE", "No byte lies in the range."),
    421: ("WRONG_HOST", "Host is no name of this API."),
    422: ("INVALID_QUERY", "A value cannot be used."),
    500: ("ARTIFACT_CORRUPT", "What is stored is not what was written, or the server failed."),
    501: ("NOT_IN_V1", "This route is not served in v1 mode."),
    503: ("STORE_UNAVAILABLE", "The store or the broker cannot be used now."),
    507: ("DISK_FULL", "There is no room; nothing was kept."),
}
_REQUEST_SHAPES: tuple[type[BaseModel], ...] = (RunSubmission, AdvisorySubmission)
_REFERENCE = "#/components/schemas/Request{model}"

RUN_ID = {"pattern": RUN_ID_PATTERN, "example": examples.RUN_ID}
SHA256 = {"pattern": SHA256_PATTERN, "example": examples.SHA256}


def answer(shape: type[BaseModel], example: object, description: str) -> dict[str, Any]:
    """Describe one answer."""
    content = {"application/json": {"example": example}}
    return {"model": shape, "description": description, "content": content}


def errors(*statuses: int, **codes: str) -> Responses:
    """Describe errors.

    Args:
        *statuses: Those of this route, beside what any route may answer.
        **codes: Codes instead of the usual ones: `e422="INVALID_REQUEST"`.
    """
    described: Responses = {}
    for status in sorted({400, 401, 403, 421, 422, 500, 503, *statuses}):
        code, message = _ERRORS[status]
        example = {"error": codes.get(f"e{status}", code), "message": message}
        described[status] = answer(ErrorAnswer, example, message)
    return described


def json_body(shape: type[BaseModel], example: object) -> dict[str, Any]:
    """Describe the body of a request that the route itself reads."""
    schema = {"$ref": _REFERENCE.format(model=shape.__name__)}
    content = {"application/json": {"schema": schema, "example": example}}
    return {"requestBody": {"required": True, "content": content}}


BYTES_EXAMPLE = "G90\nG21\nM3 S18000\nG0 Z5.000\n"


def raw_body() -> dict[str, Any]:
    """Describe a body of any bytes."""
    schema = {"type": "string", "format": "binary"}
    content = {"application/octet-stream": {"schema": schema, "example": BYTES_EXAMPLE}}
    return {"requestBody": {"required": True, "content": content}}


def raw_answer(
    description: str, headers: Mapping[str, str], *, example: object = None
) -> dict[str, Any]:
    """Describe an answer that is the bytes of a file.

    Args:
        description: Its meaning.
        headers: Their descriptions, by name.
        example: Of a file that is known to be one JSON object; none for a file of any bytes.
    """
    bytes_of_any_kind = {
        "*/*": {"schema": {"type": "string", "format": "binary"}, "example": BYTES_EXAMPLE}
    }
    one_object = {"application/json": {"schema": {"type": "object"}, "example": example}}
    return {
        "description": description,
        "content": bytes_of_any_kind if example is None else one_object,
        "headers": {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in headers.items()
        },
    }


def operation_id(route: APIRoute) -> str:
    """Return the id of an operation, which generated clients have as the name of a method."""
    return route.name


def document(app: FastAPI, server_url: str) -> dict[str, Any]:
    """Return the OpenAPI document of `app` at `server_url`; it is made once."""
    if app.openapi_schema is None:
        found = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            servers=[{"url": server_url}],
        )
        _put_examples_back(app, found)
        _add_tokens(found)
        _add_request_shapes(found)
        _leave_out_unused_errors(found)
        app.openapi_schema = found
    return app.openapi_schema


def _put_examples_back(app: FastAPI, found: dict[str, Any]) -> None:
    """Put the examples of answers back as they were: FastAPI leaves out every null in them."""
    for route in iter_route_contexts(app.routes):
        if not (isinstance(route.original_route, APIRoute) and route.include_in_schema):
            continue
        for method in route.methods or ():
            answers = found["paths"][route.path_format][method.lower()]["responses"]
            for status, described in route.responses.items():
                for mime, content in described.get("content", {}).items():
                    answers[str(status)]["content"][mime]["example"] = content["example"]


def _add_tokens(found: dict[str, Any]) -> None:
    found["components"]["securitySchemes"] = {
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "Asked for beyond loopback, and wherever there is a file of tokens.",
        }
    }
    # The second alternative is none: an API at loopback may ask for no token.
    found["security"] = [{"token": []}, {}]
    for path in OPEN_PATHS & found["paths"].keys():
        for operation in found["paths"][path].values():
            operation["security"] = []


class _WithoutTitles(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401
        return False


def _add_request_shapes(found: dict[str, Any]) -> None:
    _, definitions = models_json_schema(
        [(shape, "validation") for shape in _REQUEST_SHAPES],
        schema_generator=_WithoutTitles,
        ref_template=_REFERENCE,
    )
    shapes = definitions["$defs"]
    # The run is that of the path.
    del shapes["AdvisorySubmission"]["properties"]["run_id"]
    schemas = found["components"]["schemas"]
    schemas |= {f"Request{name}": shape for name, shape in shapes.items()}


def _leave_out_unused_errors(found: dict[str, Any]) -> None:
    """Remove what FastAPI adds for errors that our routes answer in their own form."""
    for operations in found["paths"].values():
        for operation in operations.values():
            described = operation["responses"].get("422", {}).get("content", {})
            if "HTTPValidationError" in str(described):
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        found["components"]["schemas"].pop(name, None)
