"""GET the list of runs, page by page."""

import re
from datetime import date
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from pipeline.api.answers import ApiError, json_answer
from pipeline.api.dependencies import ApiDeps
from pipeline.api.http.query import ExactQueryRoute
from pipeline.api.openapi import examples
from pipeline.api.openapi.documentation import answer, errors
from pipeline.storage.index.listing import DEFAULT_LIMIT, RunFilter
from schemas.fields import LABEL_LIMIT_CHARACTERS, RiskLevel, RunStatus
from schemas.http_answers import RunPageAnswer

router = APIRouter(route_class=ExactQueryRoute)

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

Text = Annotated[str | None, Query(max_length=LABEL_LIMIT_CHARACTERS)]
Day = Annotated[
    str | None, Query(description="UTC date, inclusive.", json_schema_extra={"format": "date"})
]


@router.get(
    "",
    summary="List runs, newest first",
    responses={
        **errors(422),
        200: answer(RunPageAnswer, examples.RUN_PAGE, "A page of runs."),
    },
)
async def list_runs(
    deps: ApiDeps,
    *,
    status: RunStatus | None = None,
    mode: Text = None,
    tool_id: Text = None,
    tool_id_prefix: Text = None,
    event_type: Text = None,
    risk_level: RiskLevel | None = None,
    workflow_session_id: Text = None,
    material_id: Text = None,
    machine_id: Text = None,
    date_from: Day = None,
    date_to: Day = None,
    limit: Annotated[int, Query(description="Clamped to 1 to 200.")] = DEFAULT_LIMIT,
    cursor: Annotated[str | None, Query(description="next_cursor of the page before.")] = None,
) -> Response:
    """Return one page. Artifacts are not opened, so a damaged one breaks no list."""
    wanted = RunFilter(
        status=status,
        mode=mode,
        tool_id=tool_id,
        tool_id_prefix=tool_id_prefix,
        event_type=event_type,
        risk_level=risk_level,
        workflow_session_id=workflow_session_id,
        material_id=material_id,
        machine_id=machine_id,
        date_from=_day("date_from", date_from),
        date_to=_day("date_to", date_to),
    )
    page = await deps.lookup(deps.reader.list_runs, wanted, limit=limit, cursor=cursor)
    return json_answer(page.as_json())


def _day(name: str, text: str | None) -> date | None:
    if text is None:
        return None
    try:
        # Python takes other forms too, and a date has one here.
        if _DAY.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    message = f"{name}: expected a date that exists, such as 2025-12-18."
    raise ApiError(422, "INVALID_QUERY", message)
