"""The routes of attachments: list, verify, download, upload."""

import hashlib
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from typing import Annotated

import structlog
from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from pipeline.api import examples
from pipeline.api.answers import ApiError, json_answer
from pipeline.api.dependencies import ApiDependencies, ApiDeps, ThreadPool
from pipeline.api.http.file_answer import SANDBOX, FileAnswer, pieces_of
from pipeline.api.http.headers import (
    UnsatisfiableRangeError,
    content_disposition,
    disposition_of,
    entity_tag,
    is_known,
    parse_range,
)
from pipeline.api.http.query import ExactQueryRoute
from pipeline.api.http.request_body import drained, limited_body
from pipeline.api.openapi import SHA256, answer, errors, raw_answer, raw_body
from pipeline.api.routes.runs import RunIdPath
from pipeline.errors import IntegrityError, NotFoundError
from pipeline.storage.attachments import OpenBlob, stored_answer
from pipeline.storage.reader import NamedBlob
from schemas.fields import is_sha256
from schemas.http_answers import AttachmentsAnswer, StoredAttachment, VerificationAnswer

router = APIRouter(route_class=ExactQueryRoute)

CHECKED_FIRST_LIMIT_BYTES = 16 << 20
"""Up to this size a blob is read and hashed before its first byte is sent: about 15 ms."""

Sha256Path = Annotated[str, Path(json_schema_extra=SHA256)]
_UNKNOWN_MIME = "application/octet-stream"

_log = structlog.get_logger(__name__)


@router.get(
    "/{run_id}/attachments",
    summary="List the attachments of a run",
    responses={
        **errors(404, 410),
        200: answer(AttachmentsAnswer, examples.ATTACHMENTS, "In the order of the run."),
    },
)
async def list_attachments(deps: ApiDeps, run_id: RunIdPath) -> Response:
    """Return what the run lists; whether the blobs are there is what verify tells."""
    return json_answer(await deps.lookup(deps.reader.attachments_of, run_id))


@router.get(
    "/{run_id}/attachments/verify",
    summary="Verify the attachments of a run",
    responses={
        **errors(404, 410),
        200: answer(VerificationAnswer, examples.VERIFICATION, "What every byte says."),
    },
)
async def verify_attachments(deps: ApiDeps, run_id: RunIdPath) -> Response:
    """Read every byte of every attachment and compare it with its name."""
    return json_answer(await deps.transfer(deps.reader.verify_attachments, run_id))


@router.get(
    "/{run_id}/attachments/{sha256}",
    summary="Download an attachment of a run",
    response_class=Response,
    responses={
        **errors(404, 410, e404="ATTACHMENT_NOT_FOUND", e500="ATTACHMENT_CORRUPT"),
        304: {"description": "As the client has it."},
        200: raw_answer("The blob.", {"ETag": "Its SHA-256."}),
        206: raw_answer("The bytes that were asked for.", {"Content-Range": "Which they are."}),
        416: errors(416, e416="RANGE_NOT_SATISFIABLE")[416],
    },
)
async def download_attachment(
    deps: ApiDeps, request: Request, run_id: RunIdPath, sha256: Sha256Path
) -> Response:
    """Stream a blob, if the run or one of its links names it; Range is understood."""
    named = await deps.lookup(_named, deps, run_id, sha256)
    headers = _headers(named)
    if is_known(headers["ETag"], request.headers.get("if-none-match")):
        return Response(status_code=304, headers=headers)
    blob = await deps.transfer(deps.reader.attachments.open, sha256)
    with ExitStack() as stack:
        stack.callback(blob.close)
        wanted = _wanted(request, blob, headers["ETag"])
        status = 200 if wanted is None else 206
        headers |= _of_part(blob, wanted)
        if blob.size_bytes <= CHECKED_FIRST_LIMIT_BYTES:
            await deps.transfer(blob.refuse_changed)
        if request.state.is_head:
            return Response(status_code=status, headers=headers)
        stack.pop_all()
    return FileAnswer(_stream(blob, wanted, deps.transfer), blob.close, status, headers)


def _named(deps: ApiDependencies, run_id: str, sha256: str) -> NamedBlob:
    if not is_sha256(sha256):
        message = "ATTACHMENT_NOT_FOUND: Neither the run nor a link of it names this blob."
        raise NotFoundError(message)
    return deps.reader.named_blob(run_id, sha256)


def _headers(named: NamedBlob) -> dict[str, str]:
    mime = named.mime or _UNKNOWN_MIME
    filename = named.filename or named.sha256
    return {
        "Content-Type": mime,
        "Content-Disposition": content_disposition(disposition_of(mime), filename),
        "Content-Security-Policy": SANDBOX,
        "ETag": entity_tag(named.sha256),
        "Cache-Control": "private, no-cache",
        "Accept-Ranges": "bytes",
    }


def _wanted(request: Request, blob: OpenBlob, tag: str) -> range | None:
    if request.headers.get("if-range", tag) != tag:
        return None
    try:
        return parse_range(request.headers.get("range"), blob.size_bytes)
    except UnsatisfiableRangeError as error:
        message = f"Expected a range within {blob.size_bytes:,} bytes."
        headers = {"Content-Range": f"bytes */{blob.size_bytes}"}
        raise ApiError(416, "RANGE_NOT_SATISFIABLE", message, headers=headers) from error


def _of_part(blob: OpenBlob, wanted: range | None) -> dict[str, str]:
    if wanted is None:
        return {"Content-Length": str(blob.size_bytes)}
    content_range = f"bytes {wanted.start}-{wanted.stop - 1}/{blob.size_bytes}"
    return {"Content-Length": str(len(wanted)), "Content-Range": content_range}


def _stream(blob: OpenBlob, wanted: range | None, threads: ThreadPool) -> AsyncGenerator[bytes]:
    # The file that was checked, whatever has its name by now.
    pieces = pieces_of(blob.descriptor, wanted or range(blob.size_bytes), threads)
    if wanted is None and blob.size_bytes > CHECKED_FIRST_LIMIT_BYTES:
        return _hashed(blob, pieces, threads)
    return pieces


async def _hashed(
    blob: OpenBlob, pieces: AsyncGenerator[bytes], threads: ThreadPool
) -> AsyncGenerator[bytes]:
    """Yield a whole blob, its last piece only if all of it has the hash of its name.

    A blob that was changed must not arrive whole: the client sees that the answer broke off.
    """
    digest = hashlib.sha256()
    last = b""
    async with aclosing(pieces):
        async for piece in pieces:
            await threads(digest.update, piece)
            if last:
                yield last
            last = piece
    if digest.hexdigest() != blob.sha256:
        _log.error("a blob is corrupt; its download was broken off", sha256=blob.sha256)
        raise IntegrityError(
            f"ATTACHMENT_CORRUPT: Expected the blob {blob.sha256} to have this SHA-256."
        )
    yield last


@router.put(
    "/attachments/{sha256}",
    summary="Upload a blob",
    status_code=201,
    openapi_extra=raw_body(),
    responses={
        **errors(
            404,
            408,
            413,
            415,
            422,
            507,
            e404="NOT_FOUND",
            e422="HASH_MISMATCH",
            e500="ATTACHMENT_CORRUPT",
        ),
        200: answer(StoredAttachment, {**examples.STORED, "status": "exists"}, "It was there."),
        201: answer(StoredAttachment, examples.STORED, "It is there for good."),
    },
)
async def upload_attachment(deps: ApiDeps, request: Request, sha256: Sha256Path) -> Response:
    """Store raw bytes under their SHA-256; bytes of another hash leave nothing behind."""
    async with drained(request):
        if not is_sha256(sha256):
            raise ApiError(404, "NOT_FOUND", "A blob is named by 64 lower-case hex digits.")
        limit, idle = deps.settings.upload_limit_bytes, deps.settings.api_idle_seconds
        way_out = "the operator of the API sets RMOS_UPLOAD_LIMIT_BYTES"
        async with aclosing(limited_body(request, limit, idle, way_out)) as pieces:
            stored = await deps.reader.attachments.receive(sha256, pieces, deps.transfer)
    return json_answer(stored_answer(stored), 201 if stored.created else 200)
