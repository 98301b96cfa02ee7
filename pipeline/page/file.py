"""The page that answers: may this file be cut? The file itself never leaves the browser."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from pipeline.api.answers import ApiError
from pipeline.api.dependencies import ApiDeps
from pipeline.page.rendering import page
from pipeline.page.route import PageRoute
from pipeline.page.words import spoken_verdict
from pipeline.storage.index.listing import RunPage
from pipeline.storage.program_verdict import ProgramVerdict, program_verdict
from pipeline.storage.reader import RunReader
from schemas.run_filter import RunFilter

router = APIRouter(route_class=PageRoute)

_SHOWN_RUNS = 20
_DIGEST = re.compile("(?<![0-9A-Za-z])[0-9A-Fa-f]{64}(?![0-9A-Za-z])")


@router.get("/file")
async def ask_for_file(
    request: Request, deps: ApiDeps, sha256: Annotated[str | None, Query()] = None
) -> Response:
    """Return the answer for the SHA-256 of a file, or the form that asks for it."""
    if sha256 is None:
        return page(request, "file.html", sha256=None, verdict=None)
    # A command prints words before and behind it; two hashes are of two files.
    digests = {each.lower() for each in _DIGEST.findall(sha256)}
    if len(digests) != 1:
        message = (
            "Expected one SHA-256 of a file, 64 hexadecimal digits, as a command prints it. "
            "Without it: do not cut."
        )
        raise ApiError(422, "INVALID_QUERY", message)
    return await deps.lookup(_page, request, deps.reader, digests.pop())


def _page(request: Request, reader: RunReader, sha256: str) -> Response:
    found = program_verdict(reader, sha256)
    listed = reader.list_runs(RunFilter(gcode_sha256=sha256, limit=_SHOWN_RUNS))
    decided = reader.rows_of(found.run_id)[0].risk_level if found.may_cut and found.run_id else None
    return page(request, "file.html", **file_view(found, listed, decided))


def file_view(found: ProgramVerdict, listed: RunPage, risk_level: str | None) -> dict[str, Any]:
    """Return what the page shows of a program: the verdict, and the runs that know it.

    `risk_level` is that of the run that releases it; None where none does.
    """
    return {
        "sha256": found.sha256,
        "verdict": spoken_verdict(found.words, risk_level),
        "decided_by": found.run_id,
        "runs": listed.items,
        "has_more": listed.next_cursor is not None,
    }
