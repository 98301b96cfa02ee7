"""The page of one run: the verdict first, then why, then what it rests on, then the proof."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from pipeline.api.dependencies import ApiDependencies, ApiDeps
from pipeline.api.routes.runs import RunIdPath
from pipeline.core.run_view import merged_advisories
from pipeline.disk.faults import store_faults
from pipeline.errors import NotFoundError
from pipeline.page.markdown import markdown_html
from pipeline.page.rendering import page
from pipeline.page.route import PageRoute
from pipeline.page.run_proof import RunProof, proof_of
from pipeline.page.words import PROGRAM_KNOWN_BY, Verdict, rules_of, table_of, verdict_of
from pipeline.storage.reader import FoundRun, RunReader

router = APIRouter(route_class=PageRoute)

CHECKED_BYTES: Final = 16 << 20
"""So much of the attachments is hashed for the page itself: about 15 ms."""

_READ_BYTES: Final = 20_000
"""An advisory that is longer is not shown, but offered."""

PICTURE_MIME: Final = "image/svg+xml"
_STAMPS: Final = (
    *("engine_version", "toolchain_version", "post_processor_version", "config_fingerprint"),
)
_CONTEXT: Final = (
    *("workflow_session_id", "workflow_mode", "event_type", "toolchain_id", "post_processor_id"),
    *("geometry_ref", "geometry_hash", "parent_run_id", "parent_plan_run_id", "request_id"),
    *("gate_policy_id", "gate_decision", "drift_detected"),
)


@dataclass(frozen=True, slots=True)
class Attachment:
    """An attachment as the page shows it.

    Attributes:
        state: `whole`, `damaged`, `missing` or `not read`.
        is_picture: Whether it is a producer's SVG that may be shown.
    """

    ref: Mapping[str, Any]
    state: str
    is_picture: bool


@dataclass(frozen=True, slots=True)
class Advisory:
    """An advisory as the page shows it.

    Attributes:
        form: `markdown`, `text` or `file`, which is offered alone.
        text: Its content, where it is shown.
        is_kept_back: Whether some verdict withholds its content.
    """

    fields: Mapping[str, Any]
    form: str
    text: str
    is_kept_back: bool


@router.get("/run/{run_id}")
async def show_run(request: Request, deps: ApiDeps, run_id: RunIdPath) -> Response:
    """Return the page of a run; of a damaged one only that it is."""
    return await deps.lookup(_page, request, deps, run_id, CHECKED_BYTES)


@router.get("/run/{run_id}/verified")
async def show_verified_run(request: Request, deps: ApiDeps, run_id: RunIdPath) -> Response:
    """Return the same, with every byte of every attachment read."""
    return await deps.transfer(_page, request, deps, run_id, None)


def _page(
    request: Request, deps: ApiDependencies, run_id: str, checked_bytes: int | None
) -> Response:
    reader = deps.reader
    found = reader.find(run_id)
    document = found.document()
    view = run_view(
        found,
        document,
        attachments=_attachments(reader, found, document["attachments"], checked_bytes),
        advisories=[
            _advisory(reader, run_id, each) for each in merged_advisories(document, found.links)
        ],
        given=reader.show(found).added.get("given", {}),
        proof=proof_of(deps.settings, found.run),
    )
    return page(request, "run.html", markdown=markdown_html, **view)


def run_view(
    found: FoundRun,
    document: Mapping[str, Any],
    *,
    attachments: Sequence[Attachment],
    advisories: Sequence[Advisory],
    given: Mapping[str, Any],
    proof: RunProof | str,
) -> dict[str, Any]:
    """Return what the page shows of a run, of its artifact `document` and what belongs to it."""
    run, provenance = found.run, document["provenance"]
    return {
        "run": run,
        "document": document,
        "verdict": verdict_with(found, attachments),
        "decision": document["decision"],
        "rules": rules_of(document["feasibility"]),
        "feasibility": table_of(document["feasibility"]),
        "details": table_of(document["decision"].get("details", {})),
        "program": run.program,
        "program_known_by": PROGRAM_KNOWN_BY[run.program.known_by] if run.program else "",
        "has_preview": run.status == "OK" and bool(document["outputs"].get("preview_svg")),
        "attachments": attachments,
        "advisories": advisories,
        "withheld": provenance.get("withheld", []),
        "claimed": provenance.get("claimed_hashes", {}),
        "asked": table_of(document["request_summary"]),
        "given": table_of(given) if given else None,
        "meta": table_of(document["meta"]) if document["meta"] else None,
        "context": _present(document, _CONTEXT),
        "stamps": _present(document, _STAMPS),
        "stamps_missing": provenance.get("version_stamps_missing", []),
        "problems": [
            *document.get("errors", []),
            *([table_of(document["error"]).rows] if document.get("error") else []),
        ],
        "proof": proof if isinstance(proof, RunProof) else None,
        "unproven": proof if isinstance(proof, str) else None,
    }


def verdict_with(found: FoundRun, attachments: Sequence[Attachment]) -> Verdict:
    """Return the verdict of a run; a damaged attachment, or a missing program, is a doubt."""
    program = found.run.program
    doubt = None
    for each in attachments:
        name = each.ref["filename"]
        if each.state == "damaged":
            doubt = f"the attachment {name} is not what was stored"
        elif each.state == "missing" and program and program.sha256 == each.ref["sha256"]:
            doubt = f"the store does not have the program {name}"
    return verdict_of(found.run, doubt)


def _present(document: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: document[name] for name in names if name in document}


def _attachments(
    reader: RunReader, found: FoundRun, refs: Sequence[Mapping[str, Any]], budget: int | None
) -> list[Attachment]:
    """Return the attachments; so many bytes of them are read, those of the program first."""
    program = found.run.program and found.run.program.sha256
    states: dict[str, str] = {}
    for sha256 in sorted({ref["sha256"] for ref in refs}, key=lambda each: each != program):
        size_bytes, states[sha256] = _state_of(reader, sha256, budget)
        budget = None if budget is None else budget - size_bytes
    return [
        Attachment(
            ref,
            states[ref["sha256"]],
            is_picture=found.run.status == "OK"
            and ref["mime"] == PICTURE_MIME
            and states[ref["sha256"]] == "whole",
        )
        for ref in refs
    ]


def _state_of(reader: RunReader, sha256: str, budget: int | None) -> tuple[int, str]:
    """Return how many bytes of a blob were read, and what they are."""
    try:
        blob = reader.attachments.open(sha256)
    except NotFoundError:
        return 0, "missing"
    with closing(blob), store_faults(reader.root):
        if budget is not None and blob.size_bytes > budget:
            return 0, "not read"
        return blob.size_bytes, "whole" if blob.check().error is None else "damaged"


def _advisory(reader: RunReader, run_id: str, fields: Mapping[str, Any]) -> Advisory:
    sha256 = fields.get("content_sha256")
    mime = str(fields.get("mime")).partition(";")[0]
    if sha256 is None:
        return Advisory(fields, "none", "", is_kept_back=False)
    try:
        reader.named_blob(run_id, sha256)
        if mime not in {"text/markdown", "text/plain", "application/json"}:
            return Advisory(fields, "file", "", is_kept_back=False)
        with closing(reader.attachments.open(sha256)) as blob, store_faults(reader.root):
            content = blob.read(0, _READ_BYTES + 1)
            is_whole = blob.size_bytes <= _READ_BYTES and blob.check().error is None
    except NotFoundError:
        return Advisory(fields, "none", "", is_kept_back=True)
    if not is_whole:
        return Advisory(fields, "file", "", is_kept_back=False)
    form = "markdown" if mime == "text/markdown" else "text"
    return Advisory(fields, form, content.decode(errors="replace"), is_kept_back=False)
