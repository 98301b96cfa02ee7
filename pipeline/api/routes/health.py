"""Health and metrics of the API, at the root."""

from typing import Any

from fastapi import APIRouter, Request
from prometheus_client.exposition import choose_encoder
from starlette.responses import Response

from pipeline import metrics
from pipeline.api import examples
from pipeline.api.answers import json_answer
from pipeline.api.dependencies import Deps
from pipeline.api.openapi import Responses, answer, errors
from schemas.http_answers import LiveAnswer, ReadyAnswer

router = APIRouter()

_TEXT: dict[str, Any] = {
    "description": "Metrics in the text format of Prometheus.",
    "content": {
        "text/plain": {
            "schema": {"type": "string"},
            "example": 'rmos_records_total{group="rmos.persist",outcome="persisted"} 20000.0\n',
        }
    },
}
_NOT_FOR_US: Responses = {status: errors()[status] for status in (400, 421)}
_REFUSED: Responses = {status: errors()[status] for status in (400, 401, 403, 421, 500)}


@router.get(
    "/health/live",
    summary="Is the process alive",
    responses={**_NOT_FOR_US, 200: answer(LiveAnswer, examples.LIVE, "It answers.")},
)
async def get_liveness() -> Response:
    """Answer."""
    return json_answer({"live": True})


@router.get(
    "/health/ready",
    summary="Can the API do its work",
    responses={
        **_NOT_FOR_US,
        200: answer(ReadyAnswer, examples.READY, "It can."),
        503: answer(ReadyAnswer, examples.NOT_READY, "No."),
    },
)
async def get_readiness(deps: Deps) -> Response:
    """Look at what the API rests on."""
    checks, reasons = dict(await deps.checks()), list(deps.reasons())
    is_ready = all(checks.values()) and not reasons
    document = {"ready": is_ready, "checks": checks, "reasons": reasons}
    return json_answer(document, 200 if is_ready else 503)


@router.get(
    "/metrics",
    summary="Metrics",
    response_class=Response,
    responses={**_REFUSED, 200: _TEXT},
)
async def get_metrics(request: Request) -> Response:
    """Return every metric of this process, in the form that is asked for."""
    write, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(write(metrics.REGISTRY), headers={"Content-Type": content_type})
