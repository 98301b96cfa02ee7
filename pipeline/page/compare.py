"""Two runs beside each other: which may be cut, and everything in which they differ."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from pipeline.api.answers import ApiError
from pipeline.api.dependencies import ApiDeps
from pipeline.core.runs.diff import diff_runs
from pipeline.page.rendering import page
from pipeline.page.route import PageRoute
from pipeline.page.words import shortened, text_of, verdict_of
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
    return await deps.lookup(_page, request, deps.reader, a, b)


def _page(request: Request, reader: RunReader, a: str, b: str) -> Response:
    return page(request, "compare.html", **compare_view(reader.find(a), reader.find(b)))


def compare_view(a: FoundRun, b: FoundRun) -> dict[str, Any]:
    """Return what the page shows of two runs."""
    views = a.view(), b.view()
    diff = diff_runs(*views)
    items = [
        (item["path"], item["op"], _side(item, "a"), _side(item, "b"))
        for item in diff["items"][:_MOST_ITEMS]
    ]
    programs = [each.run.program and each.run.program.sha256 for each in (a, b)]
    return {
        "a": a.run.run_id,
        "b": b.run.run_id,
        "sides": [
            {"run": each.run, "verdict": verdict_of(each.run), "document": view}
            for each, view in zip((a, b), views, strict=True)
        ],
        "diff": diff,
        "meaning": SEVERITIES[diff["diff_severity"]],
        "changed": list(_changed(diff["diff"])),
        "items": items,
        "items_left_out": len(diff["items"]) - len(items),
        "same": _same(*views),
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
    return text_of(leaf[side]) if side in leaf else "–"


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, str]]:
    names = [name for name in _FIELDS if name in a and name in b and a[name] == b[name]]
    hashes = sorted(
        (name, value) for name, value in a["hashes"].items() if b["hashes"].get(name) == value
    )
    return [*((name, shortened(str(a[name]))) for name in names), *hashes]
