"""The list of runs: newest first, filtered, as a page that renews itself."""

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from pipeline.api.application import root_answer
from pipeline.api.dependencies import ApiDeps
from pipeline.page.rendering import page
from pipeline.page.route import PageRoute
from pipeline.storage.index.listing import RunPage
from pipeline.storage.reader import RunReader
from schemas.run_filter import RunFilter

router = APIRouter(route_class=PageRoute)
legacy_router = APIRouter(route_class=PageRoute)
"""The one page of v1 mode, in place of the list."""

_SHOWN_FILTERS = (
    *("date_from", "date_to", "status", "risk_level", "mode", "tool_id_prefix"),
    *("workflow_session_id", "machine_id"),
)
"""Those with a field on the page."""


@router.get("/")
async def list_runs(
    request: Request, deps: ApiDeps, wanted: Annotated[RunFilter, Query()]
) -> Response:
    """Return a page of runs to people, and to a program where else to ask."""
    if asks_for_json(request.headers.get("accept", "")):
        return root_answer()
    return await deps.lookup(_page, request, deps.reader, wanted)


@legacy_router.get("/")
async def show_mode(request: Request) -> Response:
    """Return what v1 mode is to people, and to a program where else to ask."""
    if asks_for_json(request.headers.get("accept", "")):
        return root_answer()
    return page(request, "about_v1.html")


def asks_for_json(accept: str) -> bool:
    """Return whether a client that sent this Accept is a program, which takes no HTML."""
    kinds = {kind.partition(";")[0].strip().lower() for kind in accept.split(",")}
    return "application/json" in kinds and "text/html" not in kinds


def _page(request: Request, reader: RunReader, wanted: RunFilter) -> Response:
    return page(request, "runs.html", **runs_view(reader.list_runs(wanted), wanted))


def runs_view(listed: RunPage, wanted: RunFilter) -> dict[str, Any]:
    """Return what the page shows of one page of the listing."""
    given = wanted.model_dump(exclude_none=True, exclude_defaults=True)
    following = None
    if listed.next_cursor is not None:
        following = _address({**given, "cursor": listed.next_cursor})
    first = {name: value for name, value in given.items() if name != "cursor"}
    return {
        "runs": listed.items,
        "wanted": wanted,
        "others": [
            (name, value, _address({each: first[each] for each in first if each != name}))
            for name, value in first.items()
            if name not in _SHOWN_FILTERS
        ],
        "is_filtered": bool(first),
        "is_first": wanted.cursor is None,
        "here": _address(given),
        "first": _address(first),
        "following": following,
    }


def _address(wanted: Mapping[str, Any]) -> str:
    return f"/?{urlencode(wanted)}" if wanted else "/"
