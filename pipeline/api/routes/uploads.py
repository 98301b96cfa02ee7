"""PUT a blob: streamed to the disk, hashed on the way, there whole or not at all."""

from contextlib import aclosing

from fastapi import APIRouter, Request
from starlette.responses import Response

from pipeline.api.answers import ApiError, json_answer
from pipeline.api.dependencies import ApiDeps
from pipeline.api.http.query import ExactQueryRoute
from pipeline.api.http.request_body import drain, limited_body
from pipeline.api.openapi import examples
from pipeline.api.openapi.documentation import answer, errors, raw_body
from pipeline.api.routes.attachments import Sha256Path
from pipeline.errors import RmosError
from pipeline.storage.reader import stored_answer
from schemas.fields import is_sha256
from schemas.http_answers import StoredAttachment

router = APIRouter(route_class=ExactQueryRoute)


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
    if not is_sha256(sha256):
        await drain(request)
        raise ApiError(404, "NOT_FOUND", "A blob is named by 64 lower-case hex digits.")
    settings = deps.settings
    pieces = limited_body(
        request,
        limit_bytes=settings.upload_limit_bytes,
        idle_seconds=settings.api_idle_seconds,
        way_out="the operator of the API sets RMOS_UPLOAD_LIMIT_BYTES",
    )
    try:
        async with aclosing(pieces):
            stored = await deps.reader.attachments.receive(sha256, pieces, deps.transfer)
    except (ApiError, RmosError):
        await drain(request)
        raise
    return json_answer(stored_answer(stored), 201 if stored.created else 200)
