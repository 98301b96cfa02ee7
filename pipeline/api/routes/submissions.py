"""POST a run request: publish it, and answer with its outcome."""

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from starlette.responses import Response

from pipeline.api import examples, publishing
from pipeline.api.answers import ApiError, json_answer
from pipeline.api.dependencies import ApiDeps, Threads
from pipeline.api.http.query import ExactQueryRoute
from pipeline.api.http.request_body import read_json_body
from pipeline.api.openapi import answer, errors, json_body
from pipeline.api.publishing import Submission
from pipeline.broker.sending.requests import new_run_id
from pipeline.core.envelope import Parsed
from pipeline.core.json.canonical import canonical_json
from pipeline.core.runs.verdict import Rejected, judge_run_record
from pipeline.core.runs.words import explained
from pipeline.errors import NotFoundError
from pipeline.storage.reader import FoundRun
from schemas import http_answers as shapes
from schemas.run_event import RunEvent

router = APIRouter(route_class=ExactQueryRoute)

Found = TypeVar("Found")

_INVALID = "INVALID_REQUEST"
_SHOWN_VIOLATIONS = 10
_ALIAS = "request_summary"
"""The name of `request` in the original. Only HTTP knows it: what is published and hashed has
`request`, whichever of the two came."""


@router.post(
    "",
    summary="Ask for a run",
    status_code=201,
    openapi_extra=json_body(shapes.RunSubmission, examples.RUN_REQUEST),
    responses={
        **errors(408, 413, 415),
        200: answer(
            shapes.SubmittedRun,
            {**examples.SUBMITTED, "outcome": "duplicate"},
            "It was stored before.",
        ),
        201: answer(shapes.SubmittedRun, examples.SUBMITTED, "The run is stored and OK."),
        202: answer(shapes.AcceptedAnswer, examples.ACCEPTED, "Not judged in time; it will be."),
        409: answer(
            shapes.BlockedRun | shapes.ErrorAnswer,  # type: ignore[arg-type]
            examples.BLOCKED,
            "SAFETY_BLOCKED: stored, and not OK. RUN_CONFLICT: the run_id is another request's.",
        ),
        422: answer(
            shapes.InvalidRequestAnswer, examples.INVALID_REQUEST, "Nothing was published."
        ),
        503: answer(
            shapes.RetryAnswer,
            examples.UNCONFIRMED,
            "The broker cannot be used now; send the same again.",
        ),
    },
)
async def submit_run(deps: ApiDeps, request: Request) -> Response:
    """Publish a request, and wait for the event of this very record.

    A request that is incomplete is refused here, before anything is published.
    """
    body = await read_json_body(request, deps.settings.api_idle_seconds)
    submission = await deps.lookup(submission_of, body)
    event = await publishing.publish(deps.runs, submission, request)
    found = await stored_run(deps.lookup, deps.reader.find, submission, event)
    return _answer(found, submission, event)


def submission_of(body: bytes) -> Submission:
    """Return what to publish of the body of a POST, an identity put into it where it has none.

    Raises:
        ApiError: It is not a complete request; nothing was published.
    """
    document, canonical = publishing.parse_body(body, _INVALID)
    has_alias = _ALIAS in document
    if has_alias:
        _take_alias(document)
    run_id, created_at_utc = document.get("run_id"), document.get("created_at_utc")
    if (run_id is None) != (created_at_utc is None):
        raise ApiError(422, _INVALID, "Expected run_id and created_at_utc both, or none of them.")
    has_identity = run_id is not None
    if not has_identity:
        run_id, created_at_utc = new_run_id(), publishing.now()
        document |= {"run_id": run_id, "created_at_utc": created_at_utc}
    if has_alias or not has_identity:
        # The same value in all else, so the client's own body with both is the same request.
        body = canonical = canonical_json(document)
    _check(body, (document, canonical), name_of_request=_ALIAS if has_alias else "request")
    return Submission(str(run_id), str(created_at_utc), body)


def _take_alias(document: dict[str, Any]) -> None:
    if "request" in document:
        message = f"Expected request or {_ALIAS}, which are two names of one field, not both."
        raise ApiError(422, _INVALID, message)
    document["request"] = document.pop(_ALIAS)


def _check(body: bytes, parsed: Parsed, *, name_of_request: str) -> None:
    """Validate the request as the worker will, so that nothing incomplete is published.

    Raises:
        ApiError: It is not a complete request.
    """
    run_id = parsed[0]["run_id"]
    key = run_id.encode() if isinstance(run_id, str) else None
    verdict = judge_run_record(key, body, parsed)
    if isinstance(verdict, Rejected):
        raise publishing.rejected(verdict.code, verdict.message, _INVALID)
    if verdict.is_incomplete:
        violations = verdict.built.document["decision"]["details"]["violations"]
        as_sent = {"request": name_of_request}
        raise _incomplete(
            [{**each, "field": as_sent.get(each["field"], each["field"])} for each in violations]
        )


def _incomplete(violations: list[dict[str, Any]]) -> ApiError:
    first = [f"{each['field']}: {each['reason']}" for each in violations[:_SHOWN_VIOLATIONS]]
    message = f"Nothing was published. {'; '.join(first)}."
    return ApiError(422, _INVALID, message, {"violations": violations})


async def stored_run(
    lookup: Threads,
    find: Callable[[str], Found],
    submission: Submission,
    event: RunEvent,
) -> Found:
    """Return the run that is stored for a request.

    Raises:
        ApiError: It was in conflict or rejected, or its run is not where this API looks.
    """
    if event.outcome == "conflict":
        message = "This run_id belongs to another request; a changed one needs a new run_id."
        raise ApiError(409, "RUN_CONFLICT", message, {"run_id": submission.run_id})
    if event.outcome == "rejected":
        raise publishing.refused(event.error, submission)
    try:
        return await lookup(find, submission.run_id)
    except NotFoundError as missing:
        message = "The run is stored, and not in the store of this API."
        raise ApiError(503, "STORE_UNAVAILABLE", message, submission.identity) from missing


def _answer(found: FoundRun, submission: Submission, event: RunEvent) -> Response:
    artifact = found.document()
    run = found.run
    program = {"gcode_sha256": event.gcode_sha256, "gcode_known_by": event.gcode_known_by}
    document = {
        "run_id": run.run_id,
        "created_at_utc": artifact["created_at_utc"],
        "status": run.status,
        "may_cut": event.may_cut,
        "decision": artifact["decision"],
        "feasibility_sha256": run.hashes["feasibility_sha256"],
        "artifact_sha256": run.artifact_sha256,
        "artifact_path": run.artifact_path,
        **(program if event.gcode_sha256 is not None else {}),
        "missing_attachments": event.missing_attachments or [],
        "outcome": event.outcome,
    }
    headers = {"Location": submission.location}
    if run.status != "OK":
        message = f"The run is stored and {run.status}: {explained(run.block_reason)}."
        blocked = {"error": "SAFETY_BLOCKED", "message": message, **document}
        return json_answer(blocked, 409, headers)
    return json_answer(document, 201 if event.outcome == "persisted" else 200, headers)
