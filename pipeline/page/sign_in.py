"""Signing in: the cookie is the token itself, so nothing is stored, signed or guessed here.

Scripts cannot read it (HttpOnly), no other site sends it (SameSite=Strict), and no route of the
API takes it. Where the page came by TLS it goes back by TLS alone, to this host alone (`__Host-`).
"""

import re
from contextlib import aclosing
from typing import Final
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Request
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from pipeline.api.dependencies import Deps
from pipeline.api.http.request_body import drained, limited_body
from pipeline.api.http.tokens import Tokens
from pipeline.page.rendering import page
from pipeline.page.route import PageRoute

router = APIRouter(route_class=PageRoute)

_COOKIE: Final = "rmos_token"
_COOKIE_BY_TLS: Final = f"__Host-{_COOKIE}"
_COOKIE_VALUE = re.compile(r"[!#-+\--:<-\[\]-~]{1,1000}")
"""What may stand in a cookie (RFC 6265, cookie-octet); every token of the documents does."""

_OWN_PATH = re.compile(r"/(?![/\\])[!-\[\]-~]*")
"""A path of this host: neither `//elsewhere` nor what a browser reads as such."""

_LIMIT_BYTES = 8192
_SEE_OTHER = 303


def cookie_token(headers: Headers) -> str | None:
    """Return the token that the cookies of a request hold; None for none."""
    cookies: dict[str, str] = {}
    for header in headers.getlist("cookie"):
        cookies |= cookie_parser(header)
    return cookies.get(_COOKIE_BY_TLS) or cookies.get(_COOKIE)


async def ask_for_token(scope: Scope, receive: Receive, send: Send) -> None:
    """Lead a request for a page to the page where one signs in, and from there back."""
    query = scope["query_string"].decode("latin-1")
    wanted = f"{scope['raw_path'].decode('ascii')}{'?' if query else ''}{query}"
    answer: Response = RedirectResponse(f"/sign-in?{urlencode({'next': wanted})}", _SEE_OTHER)
    if "hx-request" in Headers(scope=scope):
        # A part of a page that renews itself: the whole page is to be asked for again.
        answer = Response(status_code=401, headers={"HX-Refresh": "true"})
    await answer(scope, receive, send)


def own_path(wanted: str | None) -> str:
    """Return where to go after signing in: a path of this host, whatever a link says."""
    return wanted if wanted and _OWN_PATH.fullmatch(wanted) else "/"


@router.get("/sign-in")
async def show_sign_in(request: Request, next: str | None = None) -> Response:  # noqa: A002
    """Return the form; where no token is needed, there is nothing to sign in to."""
    if _tokens(request) is None:
        return RedirectResponse(own_path(next), _SEE_OTHER)
    return page(request, "sign_in.html", next=own_path(next), is_refused=False)


@router.post("/sign-in")
async def sign_in(request: Request, deps: Deps) -> Response:
    """Set the cookie, where the token is known, and lead on; nothing of the token is logged."""
    given = await _form(request, deps.settings.api_idle_seconds)
    token, following = given.get("token", "").strip(), own_path(given.get("next"))
    tokens = _tokens(request)
    if tokens is not None:
        is_cookie = _COOKIE_VALUE.fullmatch(token) is not None
        if not is_cookie or tokens.name_of(token) is None:
            return page(request, "sign_in.html", 401, next=following, is_refused=True)
    answer = RedirectResponse(following, _SEE_OTHER)
    if tokens is not None:
        answer.headers.append("set-cookie", _cookie(token, by_tls=_came_by_tls(request)))
    return answer


@router.post("/sign-out")
async def sign_out() -> Response:
    """Take the cookie back; the token itself ends with its line in the file."""
    answer = RedirectResponse("/sign-in", _SEE_OTHER)
    for by_tls in (False, True):
        answer.headers.append("set-cookie", f"{_cookie('', by_tls=by_tls)}; Max-Age=0")
    return answer


def _tokens(request: Request) -> Tokens | None:
    found: Tokens | None = request.app.state.tokens
    return found


async def _form(request: Request, idle_seconds: float) -> dict[str, str]:
    body = bytearray()
    async with drained(request):
        way_out = "a token is shorter"
        async with aclosing(limited_body(request, _LIMIT_BYTES, idle_seconds, way_out)) as pieces:
            async for piece in pieces:
                body += piece
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


def _came_by_tls(request: Request) -> bool:
    """Return whether the browser spoke TLS, to us or to a proxy in front.

    What it says of itself alone decides how its own cookie is kept: a lie harms the liar.
    """
    origin = request.headers.get("origin", "")
    forwarded = request.headers.get("x-forwarded-proto", "")
    return "https" in {request.url.scheme, origin.partition(":")[0], forwarded.strip().lower()}


def _cookie(token: str, *, by_tls: bool) -> str:
    if by_tls:
        return f"{_COOKIE_BY_TLS}={token}; Path=/; HttpOnly; SameSite=Strict; Secure"
    return f"{_COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict"
