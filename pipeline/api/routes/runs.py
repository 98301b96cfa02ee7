"""The GET routes of runs: the list, one run, its bytes, its evidence, the difference of two."""

import re
from collections.abc import Sequence
from io import SEEK_END
from tempfile import TemporaryFile
from typing import IO, Annotated, Any

import structlog
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from pipeline.api import examples
from pipeline.api.dependencies import ApiDependencies, ApiDeps
from pipeline.api.http.file_answer import SANDBOX, FileAnswer, pieces_of
from pipeline.api.http.headers import combined_tag, content_disposition, entity_tag, is_known
from pipeline.api.http.query import ExactQueryRoute
from pipeline.api.openapi import RUN_ID, answer, errors, raw_answer
from pipeline.core.json.canonical import canonical_json
from pipeline.errors import IntegrityError, StoreError
from pipeline.evidence.bundle import bundle_tag, write_bundle
from pipeline.evidence.evidence import RunEvidence
from pipeline.evidence.gather import gather_evidence
from pipeline.storage.ledger_key import open_store_logs
from pipeline.storage.reader import FoundRun, RunReader
from schemas.http_answers import RunPageAnswer, RunView
from schemas.run_diff import RunDiff
from schemas.run_filter import RunFilter

router = APIRouter(route_class=ExactQueryRoute)

RunIdPath = Annotated[str, Path(json_schema_extra=RUN_ID)]
RunIdQuery = Annotated[str, Query(json_schema_extra=RUN_ID)]
_CODED = re.compile(r"[A-Z_]+: ")
_REVALIDATE = "private, no-cache"
_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "As the client has it."}}

_log = structlog.get_logger(__name__)


@router.get(
    "",
    summary="List runs, newest first",
    responses={
        **errors(422),
        200: answer(RunPageAnswer, examples.RUN_PAGE, "A page of runs."),
    },
)
async def list_runs(deps: ApiDeps, wanted: Annotated[RunFilter, Query()]) -> Response:
    """Return one page. Artifacts are not opened, so a damaged one breaks no list."""
    return Response(await deps.lookup(_page, deps.reader, wanted), media_type="application/json")


def _page(reader: RunReader, wanted: RunFilter) -> bytes:
    return reader.list_runs(wanted).content()


@router.get(
    "/diff",
    summary="Compare two runs",
    responses={**errors(404, 410, 422), 200: answer(RunDiff, examples.RUN_DIFF, "How b differs.")},
)
async def diff_runs(deps: ApiDeps, a: RunIdQuery, b: RunIdQuery) -> Response:
    """Return how run b differs from run a; a is looked for first."""
    return Response(await deps.lookup(_diff, deps.reader, a, b), media_type="application/json")


def _diff(reader: RunReader, a: str, b: str) -> bytes:
    return canonical_json(reader.diff(a, b))


@router.get(
    "/{run_id}",
    summary="Show a run",
    responses={
        **errors(404, 410),
        **_NOT_MODIFIED,
        200: answer(RunView, examples.RUN_VIEW, "The artifact, with its linked advisories."),
    },
)
async def get_run(deps: ApiDeps, request: Request, run_id: RunIdPath) -> Response:
    """Return the artifact, hashed again and compared with the index, with its links merged in."""
    known = request.headers.get("if-none-match")
    tag, content = await deps.lookup(_view, deps.reader, run_id, known)
    headers = {"ETag": tag, "Cache-Control": _REVALIDATE}
    if content is None:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type="application/json")


def _view(reader: RunReader, run_id: str, known: str | None) -> tuple[str, bytes | None]:
    found = reader.find(run_id)
    shown = reader.show(found)
    tag = _tag(found, shown.missing_attachments)
    return tag, None if is_known(tag, known) else shown.content


def _tag(found: FoundRun, missing: Sequence[str]) -> str:
    links = (link.link_sha256 for link in found.links)
    return combined_tag([found.run.artifact_sha256, *links, *missing])


@router.get(
    "/{run_id}/download",
    summary="Download the exact bytes of an artifact",
    response_class=Response,
    responses={
        **errors(404, 410),
        **_NOT_MODIFIED,
        200: raw_answer(
            "The bytes of the file.",
            {"ETag": "The SHA-256 of the bytes."},
            example=examples.ARTIFACT,
        ),
    },
)
async def download_run(deps: ApiDeps, request: Request, run_id: RunIdPath) -> Response:
    """Return the file as it is, checked."""
    found = await deps.lookup(deps.reader.find, run_id)
    tag = entity_tag(found.run.artifact_sha256)
    headers = {
        "ETag": tag,
        "Cache-Control": _REVALIDATE,
        "Content-Disposition": content_disposition("attachment", f"{found.run.run_id}.json"),
    }
    if is_known(tag, request.headers.get("if-none-match")):
        return Response(status_code=304, headers=headers)
    return Response(found.content, headers=headers, media_type="application/json")


@router.get(
    "/{run_id}/evidence",
    summary="Download the evidence about a run",
    response_class=Response,
    responses={
        **errors(404, 410),
        **_NOT_MODIFIED,
        200: raw_answer(
            "A zip file: artifact, links, attachments, proofs, a page and a verifier.",
            {"ETag": "Changes with the bytes, which change as the logs grow."},
        ),
    },
)
async def download_evidence(deps: ApiDeps, request: Request, run_id: RunIdPath) -> Response:
    """Return the bundle that `rmos evidence` writes without trusted checkpoints."""
    # What is not there is not looked for in the logs, which takes as long as they are.
    await deps.lookup(deps.reader.rows_of, run_id)
    found = await deps.transfer(_gathered, deps, run_id)
    tag = entity_tag(await deps.transfer(bundle_tag, found))
    headers = {
        "ETag": tag,
        "Cache-Control": _REVALIDATE,
        "Content-Disposition": content_disposition("attachment", f"evidence-{run_id}.zip"),
        "Content-Security-Policy": SANDBOX,
        "Content-Type": "application/zip",
    }
    if is_known(tag, request.headers.get("if-none-match")):
        return Response(status_code=304, headers=headers)
    if request.state.is_head:
        return Response(headers=headers)
    file = await deps.transfer(_written, deps, found)
    size_bytes = file.seek(0, SEEK_END)
    pieces = pieces_of(file.fileno(), range(size_bytes), deps.transfer)
    return FileAnswer(pieces, file.close, 200, headers | {"Content-Length": str(size_bytes)})


def _gathered(deps: ApiDependencies, run_id: str) -> RunEvidence:
    logs = open_store_logs(deps.settings, deps.reader.store)
    try:
        return gather_evidence(deps.reader, logs, run_id)
    except IntegrityError as error:
        if _CODED.match(str(error)):
            raise
        _log.error("a run is not proven", run_id=run_id, reason=str(error))
        message = f"NOT_PROVEN: The ledger does not prove the run {run_id} as it is stored."
        raise IntegrityError(message) from error


def _written(deps: ApiDependencies, found: RunEvidence) -> IO[bytes]:
    """Return the bundle in a file without name, which is gone when it is closed."""
    try:
        file = TemporaryFile()  # noqa: SIM115  # closed by the answer
        try:
            write_bundle(file, found, deps.reader.attachments)
            file.flush()
        except BaseException:
            file.close()
            raise
    except OSError as error:
        message = f"The evidence cannot be written to a temporary file: {error.strerror}."
        raise StoreError(message) from error
    return file
