"""The ASGI application: every group of routes under its paths, behind the middleware."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.telemetry import TelemetryConfig
from opentelemetry.trace import TracerProvider
from starlette.responses import Response

from pipeline.api.answers import add_error_answers, json_answer
from pipeline.api.dependencies import ApiDependencies, Dependencies, LegacyDependencies
from pipeline.api.http.middleware import RequestLimit, RequestMiddleware
from pipeline.api.http.pages import Pages
from pipeline.api.http.request_head import HeadRules
from pipeline.api.http.tokens import OPEN_PATHS, Tokens
from pipeline.api.openapi import document, operation_id
from pipeline.api.routes import advisories, attachments, health, runs, submissions, toolpaths
from pipeline.api.routes import v1 as legacy_runs
from pipeline.core.http_hosts import KnownHosts
from schemas.http_answers import RUNS_PATH

ALIAS = "/runs"
"""The same routes under a second name."""

# Fixed names before those with a parameter in their position: /diff is no run.
_ROUTERS = (
    runs.router,
    toolpaths.router,
    submissions.router,
    advisories.router,
    attachments.router,
)
UNTRACED_PATHS = OPEN_PATHS | {"/metrics"}
_TITLE = "RMOS Runs"
_DESCRIPTION = (
    "Run requests become immutable, hashed artifacts. The same routes are served under "
    f"`{ALIAS}`. HEAD is answered wherever GET is."
)
_POINTERS = {
    "runs": RUNS_PATH,
    "openapi": "/openapi.json",
    "health": "/health/ready",
    "metrics": "/metrics",
}


def create_api(
    deps: ApiDependencies,
    tokens: Tokens | None,
    pages: Pages | None = None,
    traces: TracerProvider | None = None,
) -> RequestMiddleware:
    """Return the ASGI application.

    Args:
        deps: What the routes depend on.
        tokens: Those that are accepted; None where none is needed.
        pages: For people, beside the routes; None for none.
        traces: Reports a span for each request; None for none.
    """
    return _application(deps, tokens, _ROUTERS, pages, traces)


def create_legacy_api(
    deps: LegacyDependencies,
    tokens: Tokens | None,
    pages: Pages | None = None,
    traces: TracerProvider | None = None,
) -> RequestMiddleware:
    """Return the ASGI application of v1 mode; routes that v1 did not have answer 501.

    Args:
        deps: What the routes depend on.
        tokens: Those that are accepted; None where none is needed.
        pages: For people, beside the routes; None for none.
        traces: Reports a span for each request; None for none.
    """
    routers = (legacy_runs.router, legacy_runs.not_served(_ROUTERS))
    return _application(deps, tokens, routers, pages, traces)


def openapi_document(server_url: str) -> dict[str, Any]:
    """Return the OpenAPI document of the API at `server_url`."""
    return document(_with_routes(_ROUTERS), server_url)


def root_answer() -> Response:
    """Return where a program finds what is served."""
    return json_answer({"name": _TITLE, "version": version("rmos-runs"), **_POINTERS})


def _with_routes(
    routers: Sequence[APIRouter],
    pages: Pages | None = None,
    traces: TracerProvider | None = None,
) -> FastAPI:
    app = FastAPI(
        title=_TITLE,
        version=version("rmos-runs"),
        description=_DESCRIPTION,
        openapi_url=None,
        # It would repeat the Host header of the client; ours names a path alone.
        redirect_slashes=False,
        generate_unique_id_function=operation_id,
        telemetry=_telemetry(traces),
    )
    for router in routers:
        app.include_router(router, prefix=RUNS_PATH)
        app.include_router(router, prefix=ALIAS, include_in_schema=False)
    app.include_router(health.router)
    if pages is not None:
        # Before the root of a program: where there are pages, `/` is one of them.
        for router in (*pages.routers, *pages.open_routers):
            app.include_router(router, include_in_schema=False)
    _add_root(app)
    add_error_answers(app)
    return app


def _telemetry(traces: TracerProvider | None) -> TelemetryConfig:
    """Return what FastAPI reports of a request: one span, where there are traces."""
    return {
        "tracer_provider": traces,
        "tracing": traces is not None,
        "operation_spans": False,
        # The metrics and log lines of the API are its own.
        "metrics": False,
        "logs": False,
        "auto_configure": False,
        # Probes and scrapes come every few seconds.
        "exclude": lambda scope: scope["path"] in UNTRACED_PATHS,
    }


def _application(
    deps: Dependencies,
    tokens: Tokens | None,
    routers: Sequence[APIRouter],
    pages: Pages | None,
    traces: TracerProvider | None,
) -> RequestMiddleware:
    app = _with_routes(routers, pages, traces)
    app.state.dependencies = deps
    # For signing in; what is let in is decided around the application.
    app.state.tokens = tokens
    app.state.pages = pages
    settings = deps.settings
    hosts = KnownHosts.of(
        settings.api_host, settings.api_allowed_hosts, asks_tokens=tokens is not None
    )
    return RequestMiddleware(
        app,
        tokens=tokens,
        head_rules=HeadRules(hosts, frozenset(settings.api_allowed_origins)),
        limit=RequestLimit(settings.api_requests, settings.api_client_requests),
        idle_seconds=settings.api_idle_seconds,
        pages=pages,
    )


def _add_root(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return root_answer()

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        # A path, which holds under each name of the host.
        return json_answer(document(app, "/"))
