"""The toolpath of a run in numbers, and its pictures: of a run that is OK alone, and nothing runs.

They lie below the page of the run: a cookie opens no route of the API.
"""

import asyncio
from contextlib import closing
from typing import Final

from fastapi import APIRouter
from starlette.responses import Response

from pipeline.api.answers import ApiError
from pipeline.api.dependencies import ApiDependencies, ApiDeps
from pipeline.api.http.headers import entity_tag
from pipeline.api.routes.attachments import Sha256Path
from pipeline.api.routes.runs import RunIdPath
from pipeline.api.routes.toolpaths import get_toolpath, program_to_draw
from pipeline.core.hashing import sha256_of_bytes
from pipeline.errors import ArchivedError, IntegrityError, NotFoundError
from pipeline.page.route import PageRoute
from pipeline.page.words import ProgramFacts, program_facts
from pipeline.storage.reader import RunReader
from schemas.fields import is_sha256

router = APIRouter(route_class=PageRoute)

PICTURE_MIME: Final = "image/svg+xml"

AT_ONCE_SECONDS: Final = 0.03
"""So long the page of a run waits for its program to be drawn, which is then kept."""

DRAWING_SECONDS: Final = 5.0
"""So long waits what asks for the facts alone."""

_PICTURE_BYTES = 4 << 20
"""A larger picture is a download alone."""

_PICTURE_HEADERS = {
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'",
    "Content-Disposition": "inline",
    "Cache-Control": "private, no-cache",
}
"""Nothing in it runs or loads anything, also where it is opened by itself."""


async def facts_of_run(deps: ApiDependencies, run_id: str, seconds: float) -> ProgramFacts | None:
    """Return what is known of the program of a run; None where it cannot be drawn, or not yet."""
    try:
        program = await deps.transfer(program_to_draw, deps.reader, run_id)
    except (NotFoundError, IntegrityError, ArchivedError):
        # The page says so itself.
        return None
    drawing = asyncio.ensure_future(deps.drawings.document(program.sha256, program.content))
    await asyncio.wait([drawing], timeout=seconds)
    if not drawing.done():
        # Read once, so that a fault without a reader is not logged.
        drawing.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return None
    return await deps.lookup(program_facts, drawing.result())


router.add_api_route("/run/{run_id}/toolpath.json", get_toolpath)


@router.get("/run/{run_id}/toolpath.svg")
async def show_toolpath(deps: ApiDeps, run_id: RunIdPath) -> Response:
    """Return the toolpath as a picture; of a run that is not OK there is none."""
    program = await deps.transfer(program_to_draw, deps.reader, run_id)
    return _picture(await deps.drawings.picture(program.sha256, program.content))


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
    with closing(reader.attachments.open(sha256)) as blob, reader.store.faults():
        if blob.size_bytes > _PICTURE_BYTES:
            raise _no_picture()
        content = blob.read(0, _PICTURE_BYTES)
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
