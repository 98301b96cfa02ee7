"""The application: every group of routes under its paths, errors in one form, and the guard."""

from collections.abc import Sequence
from importlib.metadata import version

from fastapi import APIRouter, FastAPI
from starlette.responses import Response

from pipeline.api import (
    advisories,
    attachments,
    documentation,
    health,
    legacy_runs,
    listing,
    runs,
    submissions,
    uploads,
)
from pipeline.api.answers import json_answer
from pipeline.api.errors import add_error_answers
from pipeline.api.guard import Guard
from pipeline.api.parts import ALIAS, PREFIX, ApiParts, LegacyParts, ServingParts
from pipeline.api.tokens import Tokens

# Fixed names before those with a parameter in the same place: /diff is no run.
_ROUTERS = (
    listing.router,
    submissions.router,
    uploads.router,
    runs.router,
    advisories.router,
    attachments.router,
)
_DESCRIPTION = (
    "Run requests become immutable, hashed artifacts. The same routes are served under "
    f"`{ALIAS}`. Where tokens are asked for: `Authorization: Bearer TOKEN`."
)


def create_api(parts: ApiParts, tokens: Tokens | None) -> Guard:
    """Return the ASGI application.

    Args:
        parts: What the routes work with.
        tokens: Who may use it; None for everybody who can reach it.
    """
    return _application(parts, tokens, _ROUTERS)


def create_legacy_api(parts: LegacyParts, tokens: Tokens | None) -> Guard:
    """Return the ASGI application of v1 mode; what v1 has not is answered 501.

    Args:
        parts: What the routes work with.
        tokens: Who may use it; None for everybody who can reach it.
    """
    return _application(parts, tokens, (legacy_runs.router, legacy_runs.not_served(_ROUTERS)))


def _application(parts: ServingParts, tokens: Tokens | None, routers: Sequence[APIRouter]) -> Guard:
    app = FastAPI(
        title="RMOS Runs",
        version=version("rmos-runs"),
        description=_DESCRIPTION,
        openapi_url=None,
        # A redirect would repeat the Host header of whoever asks.
        redirect_slashes=False,
    )
    app.state.parts = parts
    for router in routers:
        app.include_router(router, prefix=PREFIX)
        app.include_router(router, prefix=ALIAS, include_in_schema=False)
    app.include_router(health.router)
    _add_document(app)
    add_error_answers(app)
    settings = parts.settings
    return Guard(
        app,
        tokens=tokens,
        requests=settings.api_requests,
        idle_seconds=settings.api_idle_seconds,
    )


def _add_document(app: FastAPI) -> None:
    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return json_answer(documentation.document(app))
