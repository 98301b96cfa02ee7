"""The advisories of a run: attach one, list them."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from pipeline.api import examples, publishing
from pipeline.api.answers import ApiError, json_answer
from pipeline.api.dependencies import ApiDeps
from pipeline.api.http.query import ExactQueryRoute
from pipeline.api.http.request_body import read_json_body
from pipeline.api.openapi import answer, errors, json_body
from pipeline.api.publishing import Submission
from pipeline.api.routes.runs import RunIdPath
from pipeline.core.advisories.verdict import judge_advisory_record
from pipeline.core.envelope import Rejected
from pipeline.core.json.canonical import canonical_json
from schemas import http_answers as shapes
from schemas.advisory_event import AdvisoryEvent

router = APIRouter(route_class=ExactQueryRoute)

_INVALID = "INVALID_ADVISORY"
_KIND_NOT_GIVEN = "unknown"
"""As in the original. Over Kafka an advisory names its kind."""


@router.post(
    "/{run_id}/attach-advisory",
    summary="Attach an advisory to a run",
    openapi_extra=json_body(shapes.AdvisorySubmission, examples.ADVISORY_REQUEST),
    responses={
        **errors(404, 408, 409, 413, 415, 422, e422=_INVALID, e409="ADVISORY_CONFLICT"),
        200: answer(shapes.AttachedAnswer, examples.ATTACHED, "It is linked to its run."),
        202: answer(
            shapes.AcceptedAnswer,
            {**examples.ACCEPTED, "advisory_id": "adv_1"},
            "Not judged in time; it will be.",
        ),
        503: answer(
            shapes.RetryAnswer,
            examples.UNCONFIRMED,
            "The broker cannot be used now; send the same again.",
        ),
    },
)
async def attach_advisory(deps: ApiDeps, request: Request, run_id: RunIdPath) -> Response:
    """Publish an advisory, and wait for the event of this very record.

    Its run is that of the path. It never changes the run.
    """
    body = await read_json_body(request, deps.settings.api_idle_seconds)
    await deps.lookup(deps.reader.rows_of, run_id)
    submission = await deps.lookup(_submission, run_id, body)
    return _answer(submission, await publishing.publish(deps.advisories, submission, request))


def _submission(run_id: str, body: bytes) -> Submission:
    document, _ = publishing.parse_body(body, _INVALID)
    if document.get("run_id") is not None:
        message = "Expected no run_id in the body: the run is that of the path."
        raise ApiError(422, _INVALID, message)
    document["run_id"] = run_id
    if document.get("kind") is None:
        document["kind"] = _KIND_NOT_GIVEN
    if document.get("created_at_utc") is None:
        # Not part of what makes two advisories the same, so a retry may have another time.
        document["created_at_utc"] = publishing.now()
    content = canonical_json(document)
    verdict = judge_advisory_record(run_id.encode(), content)
    if isinstance(verdict, Rejected):
        raise publishing.rejected(verdict.code, verdict.message, _INVALID)
    return Submission(run_id, document["created_at_utc"], content, verdict.advisory_id)


def _answer(submission: Submission, event: AdvisoryEvent) -> Response:
    if event.outcome == "waiting":
        raise publishing.accepted(submission)
    if event.outcome == "conflict":
        message = (
            "This advisory_id belongs to an advisory of another kind, engine or content; a "
            "changed one needs a new advisory_id."
        )
        raise ApiError(409, "ADVISORY_CONFLICT", message, {"run_id": submission.run_id})
    if event.outcome == "rejected":
        raise publishing.refused(event.error, submission)
    return json_answer(
        {
            "run_id": submission.run_id,
            "advisory_id": submission.advisory_id,
            "status": "attached" if event.outcome == "linked" else "already_attached",
        }
    )


@router.get(
    "/{run_id}/advisories",
    summary="List the advisories of a run",
    responses={
        **errors(404, 410),
        200: answer(shapes.AdvisoriesAnswer, examples.ADVISORIES, "Oldest first."),
    },
)
async def list_advisories(deps: ApiDeps, run_id: RunIdPath) -> Response:
    """Return the advisories of a run by (created_at_utc, advisory_id)."""
    return json_answer(await deps.lookup(deps.reader.advisories, run_id))
