"""The page of v1 mode: what is served then, and what is not."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from pipeline.api.application import root_answer
from pipeline.page.rendering import page
from pipeline.page.route import PageRoute
from pipeline.page.runs import asks_for_json

router = APIRouter(route_class=PageRoute)


@router.get("/")
async def show_mode(request: Request) -> Response:
    """Return what v1 mode is to people, and to a program where else to ask."""
    if asks_for_json(request.headers.get("accept", "")):
        return root_answer()
    return page(request, "about_v1.html")
