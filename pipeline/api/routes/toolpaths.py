"""The GET route of toolpaths: the moves of the program that would be cut by a run."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from pipeline.api import examples
from pipeline.api.dependencies import ApiDeps
from pipeline.api.http.headers import combined_tag, is_known
from pipeline.api.http.query import ExactQueryRoute
from pipeline.api.openapi import answer, errors
from pipeline.api.routes.runs import RunIdPath
from pipeline.core.run_view import joined, members_of
from pipeline.core.toolpath import TEXT_LIMIT_BYTES
from pipeline.core.toolpath.moves import DRAWING_VERSION
from pipeline.storage.reader import RunProgram, RunReader
from schemas.http_answers import ToolpathAnswer

router = APIRouter(route_class=ExactQueryRoute)


@router.get(
    "/{run_id}/toolpath",
    summary="Show the moves of a run's program",
    responses={
        **errors(404, 410, e404="PROGRAM_WITHHELD", e500="ATTACHMENT_CORRUPT"),
        304: {"description": "As the client has it."},
        200: answer(ToolpathAnswer, examples.TOOLPATH, "The moves, as programmed."),
    },
)
async def get_toolpath(deps: ApiDeps, request: Request, run_id: RunIdPath) -> Response:
    """Return the moves of the program that would be cut, and what is not drawn of it."""
    program = await deps.transfer(program_to_draw, deps.reader, run_id)
    headers = headers_of_drawing(program)
    if is_known(headers["ETag"], request.headers.get("if-none-match")):
        return Response(status_code=304, headers=headers)
    drawn = await deps.drawings.document(program.sha256, program.content)
    content = await deps.lookup(_of_run, drawn, program.run_id)
    return Response(content, headers=headers, media_type="application/json")


def program_to_draw(reader: RunReader, run_id: str) -> RunProgram:
    """Return the program of a run: as much as can be drawn, and a byte to see that it is cut.

    Raises:
        NotFoundError: As `RunReader.program_of`.
        IntegrityError: Likewise.
    """
    return reader.program_of(run_id, TEXT_LIMIT_BYTES + 1)


def headers_of_drawing(program: RunProgram) -> dict[str, str]:
    """Return what an answer says of itself that is drawn of a program by this version."""
    tag = combined_tag([program.sha256, f"drawing {DRAWING_VERSION}"])
    return {"ETag": tag, "Cache-Control": "private, no-cache"}


def _of_run(drawn: bytes, run_id: str) -> bytes:
    return joined(members_of(drawn), {"run_id": run_id})
