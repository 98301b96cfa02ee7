"""The documentation of the API: its OpenAPI document as a page, without any script."""

import json
from collections.abc import Mapping
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
        example_of=example_of,
    )


@cache
def _document() -> dict[str, Any]:
    return openapi_document("/")


def operations_of(document: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Return method, path and description of each operation of a document, in its order."""
    return [
        (method.upper(), path, described)
        for path, methods in document["paths"].items()
        for method, described in methods.items()
    ]


def example_of(content: Mapping[str, Any]) -> str:
    """Return the example of a body or an answer as text; nothing where it has none."""
    example = content.get("example", "")
    if isinstance(example, str):
        return example
    return json.dumps(example, ensure_ascii=False, indent=2)
