"""The files of a run for people who are signed in: what the API's routes answer, and pictures.

A cookie opens no route of the API, so what a page links to lies below the page.
"""

from contextlib import closing

from fastapi import APIRouter
from starlette.responses import Response

from pipeline.api.answers import ApiError
from pipeline.api.dependencies import ApiDeps
from pipeline.api.http.headers import entity_tag
from pipeline.api.routes.attachments import Sha256Path, download_attachment
from pipeline.api.routes.runs import RunIdPath, download_run
from pipeline.core.hashing import sha256_of_bytes
from pipeline.disk.faults import store_faults
from pipeline.errors import IntegrityError
from pipeline.page.route import PageRoute
from pipeline.page.run import PICTURE_MIME
from pipeline.storage.reader import RunReader
from schemas.fields import is_sha256

router = APIRouter(route_class=PageRoute)

_LIMIT_BYTES = 4 << 20
"""A larger picture is a download alone."""

_PICTURE_HEADERS = {
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'",
    "Content-Disposition": "inline",
    "Cache-Control": "private, no-cache",
}
"""Nothing in it runs or loads anything, also where it is opened by itself."""

router.add_api_route("/run/{run_id}/artifact", download_run)
router.add_api_route("/run/{run_id}/attachments/{sha256}", download_attachment)


@router.get("/run/{run_id}/pictures/{sha256}")
async def show_picture(deps: ApiDeps, run_id: RunIdPath, sha256: Sha256Path) -> Response:
    """Return a producer's SVG, for an image element alone."""
    return _picture(await deps.lookup(_attached, deps.reader, run_id, sha256))


@router.get("/run/{run_id}/preview.svg")
async def show_preview(deps: ApiDeps, run_id: RunIdPath) -> Response:
    """Return the SVG that came with the request, for an image element alone."""
    return _picture(await deps.lookup(_preview, deps.reader, run_id))


def _picture(content: bytes) -> Response:
    tag = {"ETag": entity_tag(sha256_of_bytes(content))}
    return Response(content, headers={**_PICTURE_HEADERS, **tag}, media_type=PICTURE_MIME)


def _attached(reader: RunReader, run_id: str, sha256: str) -> bytes:
    if not is_sha256(sha256) or reader.named_blob(run_id, sha256).mime != PICTURE_MIME:
        raise _no_picture()
    if reader.rows_of(run_id)[0].status != "OK":
        raise _no_picture()
    with closing(reader.attachments.open(sha256)) as blob, store_faults(reader.root):
        if blob.size_bytes > _LIMIT_BYTES:
            raise _no_picture()
        content = blob.read(0, _LIMIT_BYTES)
    if sha256_of_bytes(content) != sha256:
        message = f"ATTACHMENT_CORRUPT: Expected the blob {sha256} to have this SHA-256."
        raise IntegrityError(message)
    return content


def _preview(reader: RunReader, run_id: str) -> bytes:
    found = reader.find(run_id)
    text = found.document()["outputs"].get("preview_svg") if found.run.status == "OK" else None
    if not text:
        raise _no_picture()
    return str(text).encode()


def _no_picture() -> ApiError:
    return ApiError(404, "NOT_FOUND", "There is no picture that may be shown under this address.")
