"""Two runs beside each other: which may be cut, and everything in which they differ."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from pipeline.api.answers import ApiError
from pipeline.api.dependencies import ApiDependencies, ApiDeps
from pipeline.api.routes.toolpaths import program_to_draw
from pipeline.core.runs.diff import diff_runs
from pipeline.errors import IntegrityError, NotFoundError
from pipeline.page.rendering import page
from pipeline.page.route import PageRoute
from pipeline.page.run import CHECKED_BYTES, attachments_of, verdict_with
from pipeline.page.words import (
    ProgramFacts,
    Verdict,
    can_be_drawn,
    program_facts,
    shortened,
    text_of,
)
from pipeline.storage.artifacts import recorded_document
from pipeline.storage.program_verdict import refused_by
from pipeline.storage.reader import FoundRun, RunReader
from schemas.fields import RUN_ID_RULE, is_run_id

router = APIRouter(route_class=PageRoute)

SEVERITIES: Final = {
    "CRITICAL": "Another program, risk or status: what one run allows says nothing of the other.",
    "WARNING": "The evaluation or its score is another one; program, risk and status are the same.",
    "INFO": "Program, toolpaths, risk, status and evaluation are the same.",
}
"""What a severity means, in words."""

_MOST_ITEMS = 500
_FIELDS: Final = (
    *("status", "mode", "event_type", "tool_id", "material_id", "machine_id", "workflow_mode"),
    *("workflow_session_id", "notes"),
)
"""Compared for what is the same."""


class _Path(msgspec.Struct):
    kind: str
    points: msgspec.Raw


class Moves(msgspec.Struct):
    """How a program moves the tool, and how much of it the drawing understood."""

    paths: list[_Path]
    is_whole: bool
    not_drawn_count: int
    conditions_sha256: str
    remarks: list[msgspec.Raw]


moves_of = msgspec.json.Decoder(Moves).decode
"""Reads a drawn program, but for the numbers of its lines."""

RunIdText = Annotated[str | None, Query()]


@router.get("/compare")
async def compare_runs(
    request: Request, deps: ApiDeps, a: RunIdText = None, b: RunIdText = None
) -> Response:
    """Return how run b differs from run a; without both, the form that asks for them."""
    if a is None or b is None:
        return page(request, "compare.html", a=a, b=b, diff=None)
    for run_id in (a, b):
        if not is_run_id(run_id):
            message = f"Expected a run_id: {RUN_ID_RULE}."
            raise ApiError(422, "INVALID_QUERY", message)
    found = [await deps.lookup(_found, deps.reader, run_id) for run_id in (a, b)]
    moves = [await _moves(deps, each) for each in found]
    return await deps.lookup(_page, request, deps.reader, found, moves)


def _found(reader: RunReader, run_id: str) -> FoundRun:
    found = reader.find(run_id)
    recorded_document(found.run, found.content)
    return found


async def _moves(
    deps: ApiDependencies, found: FoundRun
) -> tuple[Moves | None, ProgramFacts | None]:
    """Return how the program of a run moves the tool; None where that cannot be drawn."""
    if not can_be_drawn(found.run):
        return None, None
    try:
        program = await deps.transfer(program_to_draw, deps.reader, found.run.run_id)
    except (NotFoundError, IntegrityError):
        return None, None
    drawn = await deps.drawings.document(program.sha256, program.content)
    return await deps.lookup(lambda: (moves_of(drawn), program_facts(drawn)))


def likeness(a: Moves | None, b: Moves | None) -> str | None:
    """Return whether two programs cut alike.

    Returns:
        `same`: all of both is understood, and they move alike under the same conditions. `drawn`:
        what is drawn of them is the same, and there is more. `conditions`: all is understood, and
        only feeds, speeds, tools, offsets, switches or stops differ. None: the moves differ, or of
        one there is no drawing.
    """
    if a is None or b is None or not a.paths or a.paths != b.paths:
        return None
    if not (a.is_whole and b.is_whole) or a.remarks or b.remarks:
        return "drawn"
    if a.not_drawn_count != b.not_drawn_count:
        return "drawn"
    return "same" if a.conditions_sha256 == b.conditions_sha256 else "conditions"


def _page(
    request: Request,
    reader: RunReader,
    found: Sequence[FoundRun],
    drawn: Sequence[tuple[Moves | None, ProgramFacts | None]],
) -> Response:
    views = [each.view() for each in found]
    verdicts = [
        verdict_with(
            each,
            view,
            attachments_of(reader, each, view["attachments"], CHECKED_BYTES),
            refused_by(reader, each.run),
        )
        for each, view in zip(found, views, strict=True)
    ]
    return page(request, "compare.html", **compare_view(found, views, verdicts, drawn))


NOT_COMPARED: Final = "Programs are withheld or not named: they are not compared."


def meaning_of(severity: str, runs: Sequence[FoundRun]) -> str:
    """Return what a severity means of two runs; no program is said to be the same on a guess."""
    if severity == "CRITICAL" or all(each.run.program for each in runs):
        return SEVERITIES[severity]
    if severity == "WARNING":
        return f"The evaluation or its score is another one. {NOT_COMPARED}"
    return f"Risk, status and evaluation are the same. {NOT_COMPARED}"


def compare_view(
    runs: Sequence[FoundRun],
    views: Sequence[dict[str, Any]],
    verdicts: Sequence[Verdict],
    drawn: Sequence[tuple[Moves | None, ProgramFacts | None]],
) -> dict[str, Any]:
    """Return what the page shows of two runs.

    Args:
        runs: Run a and run b, as all that follows.
        views: Their artifacts with their links.
        verdicts: Whether each may be cut.
        drawn: How each moves the tool, and what is known of its program; None where it is not
            drawn.
    """
    a, b = runs
    diff = diff_runs(*views)
    items = [
        (item["path"], item["op"], _side(item, "a"), _side(item, "b"))
        for item in diff["items"][:_MOST_ITEMS]
    ]
    changed = list(_changed(diff["diff"]))
    programs = [each.run.program and each.run.program.sha256 for each in runs]
    return {
        "a": a.run.run_id,
        "b": b.run.run_id,
        "sides": [
            {
                "run": each.run,
                "verdict": verdict,
                "document": view,
                "has_picture": facts is not None,
                "facts": facts,
            }
            for each, view, verdict, (_, facts) in zip(runs, views, verdicts, drawn, strict=True)
        ],
        "diff": diff,
        "meaning": meaning_of(diff["diff_severity"], runs),
        "changed": changed[:_MOST_ITEMS],
        "changed_left_out": max(len(changed) - _MOST_ITEMS, 0),
        "items": items,
        "items_left_out": len(diff["items"]) - len(items),
        "same": _same(*views),
        "likeness": likeness(*(moves for moves, _ in drawn)),
        "same_program": programs[0] is not None and programs[0] == programs[1],
    }


def _changed(diff: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield each field that differs, with both sides; a leaf of the diff has `a`, `b` or both."""
    for name in sorted(diff):
        found = diff[name]
        if name in _LEAVES:
            yield name, _side(found, "a"), _side(found, "b")
        else:
            for field in sorted(found):
                yield f"{name}.{field}", _side(found[field], "a"), _side(found[field], "b")


_LEAVES = frozenset(
    {
        *("status", "mode", "event_type", "notes", "errors"),
        *("attachments", "advisory_inputs", "withheld"),
    }
)
"""What the diff compares as a whole; all else is a group of fields."""


def _side(leaf: Mapping[str, Any], side: str) -> str:
    value = leaf.get(side, "–")
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return shortened("\n".join(value))
    return text_of(value)


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, str]]:
    names = [name for name in _FIELDS if name in a and name in b and a[name] == b[name]]
    hashes = sorted(
        (name, value) for name, value in a["hashes"].items() if b["hashes"].get(name) == value
    )
    return [*((name, shortened(str(a[name]))) for name in names), *hashes]
