"""PageRoute: the route of a page, whose errors are pages too."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import Response

from pipeline.api.answers import ApiError, error_of
from pipeline.api.http.query import ExactQueryRoute
from pipeline.errors import RmosError
from pipeline.page.rendering import PAGE_HEADERS, page

_TITLES = {
    "RUN_NOT_FOUND": "There is no such run",
    "ATTACHMENT_NOT_FOUND": "There is no such attachment",
    "BLOB_NOT_FOUND": "The store does not have this attachment",
    "NOT_FOUND": "There is nothing here",
    "INVALID_QUERY": "This cannot be asked",
    "ARTIFACT_CORRUPT": "This run is damaged: do not cut",
    "RUN_ARCHIVED": "This run is archived: do not cut",
    "RUN_UNEXPLAINED": "Nobody vouches for this run: do not cut",
    "ATTACHMENT_CORRUPT": "This attachment is damaged",
    "STORE_UNAVAILABLE": "The store cannot be used now",
    "TOO_BUSY": "Too many ask at a time",
    "METHOD_NOT_ALLOWED": "A page is only read",
    "INTERNAL_ERROR": "The server failed",
}


class PageRoute(ExactQueryRoute):
    """A route that answers by a page, also where it fails; it takes the parameters it declares."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler; each of its answers has the headers of a page, or stricter ones."""
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                answer = await handle(request)
            except (ApiError, RmosError, RequestValidationError) as error:
                answer = error_page(request, error_of(request, error))
            for name, value in PAGE_HEADERS.items():
                answer.headers.setdefault(name, value)
            return answer

        return answered


def error_page(request: Request, error: ApiError) -> Response:
    """Return the page of an error; nothing of what failed is on it."""
    title = _TITLES.get(error.code, "This did not work")
    answer = page(request, "error.html", error.status, title=title, error=error)
    answer.headers.update(error.headers)
    return answer
