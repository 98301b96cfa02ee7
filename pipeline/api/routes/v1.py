"""The routes of v1 mode: answers of v1 from the rows of its file; all others answer 501.

v1 had two routes more. It gave blobs of attachments from a folder of its own, and this mode keeps
rows alone. It let a client change the `meta` of a run, and this program changes no record.
"""

from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from pipeline.api import examples
from pipeline.api.answers import ApiError, json_answer
from pipeline.api.dependencies import LegacyDeps
from pipeline.api.http.query import ExactQueryRoute
from pipeline.api.http.request_body import read_json_body
from pipeline.api.openapi import errors, json_body
from pipeline.api.publishing import Submission, publish
from pipeline.api.routes.runs import RunIdPath, RunIdQuery
from pipeline.api.routes.submissions import stored_run, submission_of
from pipeline.core.runs.words import explained
from pipeline.errors import NotFoundError
from pipeline.legacy.v1.reader import V1Reader, diff_rows
from schemas.fields import is_run_id
from schemas.http_answers import RUNS_PATH, RunSubmission
from schemas.run_event import RunEvent

router = APIRouter(route_class=ExactQueryRoute)

LIMIT_ROWS = 500
_FILTERS = (
    *("event_type", "status", "workflow_session_id", "tool_id", "material_id", "machine_id"),
)
_UNKNOWN_TO_V1 = (
    *("mode", "tool_id_prefix", "risk_level", "gcode_sha256", "date_from", "date_to", "cursor"),
)
"""Parameters of the list that v1 passed over. A list without the filter that was asked for would be
a wrong answer, and a cursor that is passed over never comes to an end."""

Text = Annotated[str | None, Query()]
NotInV1 = Annotated[str | None, Query(include_in_schema=False)]


@router.get("", summary="List runs as v1 did", responses=errors(422, 501))
async def list_runs(
    deps: LegacyDeps,
    request: Request,
    *,
    event_type: Text = None,
    status: Text = None,
    workflow_session_id: Text = None,
    tool_id: Text = None,
    material_id: Text = None,
    machine_id: Text = None,
    limit: Annotated[int, Query(ge=1, le=LIMIT_ROWS)] = 50,
    mode: NotInV1 = None,
    tool_id_prefix: NotInV1 = None,
    risk_level: NotInV1 = None,
    gcode_sha256: NotInV1 = None,
    date_from: NotInV1 = None,
    date_to: NotInV1 = None,
    cursor: NotInV1 = None,
) -> Response:
    """Return the newest runs in short, each filter an exact value."""
    del mode, tool_id_prefix, risk_level, gcode_sha256, date_from, date_to, cursor
    for name in _UNKNOWN_TO_V1:
        if name in request.query_params:
            raise ApiError(501, "NOT_IN_V1", f"v1 does not know the parameter {name}.")
    given = (event_type, status, workflow_session_id, tool_id, material_id, machine_id)
    wanted = {field: value for field, value in zip(_FILTERS, given, strict=True) if value}
    return json_answer(await deps.lookup(deps.reader.list_rows, wanted, limit))


@router.post(
    "",
    summary="Ask for a run",
    openapi_extra=json_body(RunSubmission, examples.RUN_REQUEST),
    responses=errors(408, 409, 413, 415, 422),
)
async def submit_run(deps: LegacyDeps, request: Request) -> Response:
    """Publish a request, and wait for the event of this very record."""
    body = await read_json_body(request, deps.settings.api_idle_seconds)
    submission = await deps.lookup(submission_of, body)
    event = await publish(deps.runs, submission, request)
    row = await stored_run(deps.lookup, deps.reader.find, submission, event)
    return _answer(row, submission, event)


def _answer(row: dict[str, Any], submission: Submission, event: RunEvent) -> Response:
    document = {
        "run_id": submission.run_id,
        "status": "created",
        "created_at_utc": row.get("created_at_utc"),
        "may_cut": event.may_cut,
        "decision": row.get("decision"),
        "feasibility_sha256": row.get("request_hash"),
        "outcome": event.outcome,
    }
    headers = {"Location": submission.location}
    if row.get("status") == "OK":
        return json_answer(document, 200, headers)
    status = row.get("status")
    message = f"The run is stored and {status}: {explained(event.block_reason)}."
    blocked = {**document, "error": "SAFETY_BLOCKED", "message": message, "status": status}
    return json_answer(blocked, 409, headers)


@router.get("/diff", summary="Compare two runs as v1 did", responses=errors(404, 422))
async def diff_runs(deps: LegacyDeps, a: RunIdQuery, b: RunIdQuery) -> Response:
    """Return how run b differs from run a; a is looked for first."""
    rows = [await deps.lookup(_find, deps.reader, run_id) for run_id in (a, b)]
    return json_answer(diff_rows(*rows))


@router.get("/{run_id}", summary="Show a run as v1 did", responses=errors(404))
async def get_run(deps: LegacyDeps, run_id: RunIdPath) -> Response:
    """Return every field of the row; v1 left out those that it was given last."""
    row = await deps.lookup(_find, deps.reader, run_id)
    return json_answer({**row, "attachments": row.get("attachments") or []})


@router.get("/{run_id}/attachments", summary="List the attachments of a run", responses=errors(404))
async def list_attachments(deps: LegacyDeps, run_id: RunIdPath) -> Response:
    """Return what the row lists; the blobs are not served in v1 mode."""
    row = await deps.lookup(_find, deps.reader, run_id)
    listed = [each for each in row.get("attachments") or [] if isinstance(each, dict)]
    named = [
        {**each, "download_url": f"{RUNS_PATH}/{run_id}/attachments/{each.get('sha256')}"}
        for each in listed
    ]
    return json_answer({"run_id": run_id, "count": len(named), "attachments": named})


def _find(reader: V1Reader, run_id: str) -> dict[str, Any]:
    try:
        return reader.find(run_id)
    except NotFoundError as missing:
        # v1 answered with `detail`; what cannot name a run is not repeated.
        details = {"detail": "Run not found"}
        if is_run_id(run_id):
            details = {"detail": f"Run {run_id} not found", "run_id": run_id}
        code, _, message = str(missing).partition(": ")
        raise ApiError(404, code, message, details) from missing


def not_served(routers: Iterable[APIRouter]) -> APIRouter:
    """Return a route that answers 501 for each of `routers` that v1 mode does not have."""
    known = {_name(route) for route in router.routes if isinstance(route, APIRoute)}
    missing = APIRouter()
    for route in (route for each in routers for route in each.routes):
        if isinstance(route, APIRoute) and _name(route) not in known:
            missing.add_api_route(
                route.path,
                _refuse,
                methods=list(route.methods or ()),
                name=route.name,
                summary=f"{route.summary}: not in v1 mode",
                status_code=501,
                responses=errors(501),
            )
    return missing


def _name(route: APIRoute) -> tuple[str, frozenset[str]]:
    return route.path, frozenset(route.methods or ())


async def _refuse() -> Response:
    message = (
        "This route is not served in v1 mode; it is back when RMOS_RUNS_V2_ENABLED is true again."
    )
    raise ApiError(501, "NOT_IN_V1", message)
