"""Pages beside the routes of the API: which paths are theirs, and where a browser has its token.

A cookie goes along with every request of a browser, whatever page made it. So it counts for pages
alone, which only read: no route of the API takes it, and nothing that writes does.
"""

from collections.abc import Callable
from dataclasses import dataclass

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Scope

from pipeline.api.answers import ApiError
from pipeline.api.http.request_head import READING, header_of
from pipeline.api.http.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Pages:
    """What people open.

    Attributes:
        routers: Of pages, in the order in which their paths are matched.
        open_routers: Of what needs no token: signing in, and the assets of its page.
        cookie_token: Returns the token that the cookies of a request hold; None for none.
        ask_for_token: Answers a request for a page whose token is not known.
        error_page: Returns an error as a page.
    """

    routers: tuple[APIRouter, ...]
    open_routers: tuple[APIRouter, ...]
    cookie_token: Callable[[Headers], str | None]
    ask_for_token: ASGIApp
    error_page: Callable[[Request, ApiError], Response]

    def reads(self, scope: Scope) -> bool:
        """Return whether a person reads the answer, who asked for no route of the API."""
        accepted = header_of(scope, b"accept") or ""
        return "text/html" in accepted and scope["path"].split("/")[1] not in _OF_PROGRAMS

    def is_open(self, scope: Scope) -> bool:
        """Return whether a request needs no token for its path."""
        return _has(self.open_routers, scope)

    def takes_cookie(self, scope: Scope) -> bool:
        """Return whether the token of a request may be in a cookie."""
        return (
            scope["method"] in READING
            and header_of(scope, b"authorization") is None
            and _has(self.routers, scope)
        )

    def let_in(self, scope: Scope, tokens: Tokens) -> bool:
        """Return whether the cookie of a request holds a token that is known; its log line says."""
        token = self.cookie_token(Headers(scope=scope))
        known = tokens.name_of(token) if token is not None else None
        scope["state"]["signed_in"] = known
        return known is not None


_OF_PROGRAMS = frozenset({"api", "runs", "health", "metrics", "openapi.json"})
"""Where the paths of programs begin."""


def _has(routers: tuple[APIRouter, ...], scope: Scope) -> bool:
    return any(
        route.path_regex.match(scope["path"])
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute)
    )
