"""The documentation of the API: its OpenAPI document as a page, without any script."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from pipeline.api.application import openapi_document
from pipeline.api.dependencies import ApiDeps
from pipeline.page.rendering import page
from pipeline.page.route import PageRoute

router = APIRouter(route_class=PageRoute)

_SHAPES = "#/components/schemas/"


@dataclass(frozen=True, slots=True)
class Content:
    """A body, or an answer: its shape as JSON Schema, and an example as text; each may be none."""

    mime: str
    schema: Mapping[str, Any]
    example: str | None


@dataclass(frozen=True, slots=True)
class Operation:
    """One route with one method.

    Attributes:
        parameters: As OpenAPI has them.
        body: What is sent; none for a route that only reads.
        answers: Status, meaning and contents, by status.
    """

    name: str
    method: str
    path: str
    summary: str
    description: str
    parameters: list[Mapping[str, Any]]
    body: list[Content]
    answers: list[tuple[str, str, list[Content]]]


@router.get("/docs")
async def show_api_docs(request: Request, deps: ApiDeps) -> Response:
    """Return the routes of the API and the shapes of what they take and answer."""
    return await deps.lookup(_page, request)


def _page(request: Request) -> Response:
    document = _document()
    return page(
        request,
        "api_docs.html",
        info=document["info"],
        operations=operations_of(document),
        shapes=document["components"]["schemas"],
        shape_name=lambda reference: reference.removeprefix(_SHAPES),
    )


@cache
def _document() -> dict[str, Any]:
    return openapi_document("/")


def operations_of(document: Mapping[str, Any]) -> list[Operation]:
    """Return the operations of an OpenAPI document, in its order."""
    return [
        Operation(
            name=described["operationId"],
            method=method.upper(),
            path=path,
            summary=described["summary"],
            description=described.get("description", ""),
            parameters=described.get("parameters", []),
            body=list(_contents(described.get("requestBody", {}))),
            answers=[
                (status, answer["description"], list(_contents(answer)))
                for status, answer in sorted(described["responses"].items())
            ],
        )
        for path, methods in document["paths"].items()
        for method, described in methods.items()
    ]


def _contents(described: Mapping[str, Any]) -> Iterator[Content]:
    for mime, content in described.get("content", {}).items():
        example = content.get("example")
        if example is not None and not isinstance(example, str):
            example = json.dumps(example, ensure_ascii=False, indent=2)
        yield Content(mime, content.get("schema", {}), example)
