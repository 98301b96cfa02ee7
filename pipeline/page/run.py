"""The page of one run: the verdict first, then why, then what it rests on, then the proof.

The files that it links to lie below it: a cookie opens no route of the API.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from pipeline.api.dependencies import ApiDependencies, ApiDeps
from pipeline.api.routes.advisories import list_advisories
from pipeline.api.routes.attachments import download_attachment
from pipeline.api.routes.runs import RunIdPath, download_evidence, download_run
from pipeline.core.run_view import merged_advisories
from pipeline.core.runs.outcome import StoredRun
from pipeline.core.runs.words import program_doubt
from pipeline.errors import (
    IntegrityError,
    NotFoundError,
    RmosError,
    StoreNotReadyError,
)
from pipeline.ledger.reader import find_run_leaf
from pipeline.page.pictures import (
    AT_ONCE_SECONDS,
    DRAWING_SECONDS,
    PICTURE_MIME,
    facts_of_run,
)
from pipeline.page.rendering import markdown_cells, markdown_html, page
from pipeline.page.route import PageRoute
from pipeline.page.words import (
    PROGRAM_KNOWN_BY,
    ProgramFacts,
    Verdict,
    can_be_drawn,
    rules_of,
    table_of,
    verdict_of,
)
from pipeline.storage.artifacts import recorded_document
from pipeline.storage.ledger_key import open_store_logs
from pipeline.storage.program_verdict import refused_by
from pipeline.storage.reader import FoundRun, RunReader
from schemas.fields import is_sha256

router = APIRouter(route_class=PageRoute)

CHECKED_BYTES: Final = 16 << 20
"""So much of the attachments is hashed for the page itself: about 15 ms."""

_READ_BYTES: Final = 20_000
"""An advisory that is longer is not shown, but offered."""

_SHOWN_ADVISORIES: Final = 10
_SHOWN_CHARACTERS: Final = 40_000
"""Of the texts of all advisories of a page."""

_SHOWN_CELLS: Final = 10_000
"""Of the tables of all of them: a quarter of a second. A row of one character fills all columns."""

_MOST_BRACKETS: Final = 1_000
"""Of a text as Markdown: 20,000 of them, each perhaps a link, take 0.3 s. More are plain text."""

_MOST_LISTED: Final = 100
"""Of the warnings."""

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
        state: `whole`, `damaged`, `missing`, `not read` or `withheld`.
        is_picture: Whether it is a producer's SVG that may be shown.
    """

    ref: Mapping[str, Any]
    state: str
    is_picture: bool


@dataclass(frozen=True, slots=True)
class Advisory:
    """An advisory as the page shows it.

    Attributes:
        form: `markdown` or `text`, which are shown; `file`, which is offered alone; `none` where
            there is no content; `withheld`, `missing` or `damaged`, which is not offered.
        text: Its content, where it is shown.
    """

    fields: Mapping[str, Any]
    form: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class RunProof:
    """Where the log recorded a run.

    Attributes:
        log: Its path, as `rmos ledger` names it.
        index: Of the leaf, from 0.
        size: Of the checkpoint, in leaves.
        note: The checkpoint itself, signed.
    """

    log: str
    index: int
    size: int
    note: str


@router.get("/run/{run_id}")
async def show_run(request: Request, deps: ApiDeps, run_id: RunIdPath) -> Response:
    """Return the page of a run; of a damaged one only that it is."""
    facts = None
    if request.headers.get("hx-target") == "program-facts":
        facts = await facts_of_run(deps, run_id, DRAWING_SECONDS)
    elif "hx-request" not in request.headers:
        # The verdict does not wait for a long program; a page that renews it has the facts.
        facts = await facts_of_run(deps, run_id, AT_ONCE_SECONDS)
    return await deps.lookup(_page, request, deps, run_id, CHECKED_BYTES, facts)


@router.get("/run/{run_id}/verified")
async def show_verified_run(request: Request, deps: ApiDeps, run_id: RunIdPath) -> Response:
    """Return the same, with every byte of every attachment read."""
    facts = await facts_of_run(deps, run_id, DRAWING_SECONDS)
    return await deps.transfer(_page, request, deps, run_id, None, facts)


def _page(
    request: Request,
    deps: ApiDependencies,
    run_id: str,
    checked_bytes: int | None,
    facts: ProgramFacts | None,
) -> Response:
    reader = deps.reader
    found = reader.find(run_id)
    document = recorded_document(found.run, found.content)
    advisories, older = _Advisories(reader, found, document).newest()
    view = run_view(
        found,
        document,
        attachments=attachments_of(reader, found, document["attachments"], checked_bytes),
        advisories=advisories,
        given=reader.show(found).added.get("given", {}),
        proof=proof_of(deps, found.run),
        refused_by=refused_by(reader, found.run),
    )
    return page(
        request,
        "run.html",
        markdown=markdown_html,
        facts=facts,
        asks_for_facts=facts is None and "hx-request" not in request.headers,
        older_advisories=older,
        most_listed=_MOST_LISTED,
        **view,
    )


def run_view(
    found: FoundRun,
    document: Mapping[str, Any],
    *,
    attachments: Sequence[Attachment],
    advisories: Sequence[Advisory],
    given: Mapping[str, Any],
    proof: RunProof | str,
    refused_by: str | None,
) -> dict[str, Any]:
    """Return what the page shows of a run, of its artifact `document` and what belongs to it.

    `refused_by` is the run_id of another run that refuses the same program.
    """
    run, provenance = found.run, document["provenance"]
    return {
        "run": run,
        "document": document,
        "verdict": verdict_with(found, document, attachments, refused_by),
        "decision": document["decision"],
        "rules": rules_of(document["feasibility"]),
        "feasibility": table_of(document["feasibility"]),
        "details": table_of(document["decision"].get("details", {})),
        "program": run.program,
        "refused_by": refused_by,
        "program_known_by": PROGRAM_KNOWN_BY[run.program.known_by] if run.program else "",
        "has_picture": can_be_drawn(run) and not _is_program_away(run, attachments),
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


def verdict_with(
    found: FoundRun,
    document: Mapping[str, Any],
    attachments: Sequence[Attachment],
    refused_by: str | None,
) -> Verdict:
    """Return the verdict of a run; arguments as for `run_view`.

    A damaged attachment is a doubt, and so is a program that is missing or was not read, or that
    the record does not name.
    """
    program = found.run.program
    doubt = program_doubt(found.run, document)
    for each in attachments:
        name, is_program = each.ref["filename"], program and program.sha256 == each.ref["sha256"]
        if each.state == "damaged":
            doubt = f"the attachment {name} is not what was stored"
        elif each.state == "missing" and is_program:
            doubt = f"the store does not have the program {name}"
        elif each.state == "not read" and is_program:
            doubt = f"the program {name} is too large to be read for this page"
    return verdict_of(found.run, doubt, refused_by)


def _is_program_away(run: StoredRun, attachments: Sequence[Attachment]) -> bool:
    """Return whether the program is an attachment that is not whole."""
    return any(
        run.program is not None
        and each.ref["sha256"] == run.program.sha256
        and each.state in {"missing", "damaged"}
        for each in attachments
    )


def _present(document: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: document[name] for name in names if name in document}


def attachments_of(
    reader: RunReader, found: FoundRun, refs: Sequence[Mapping[str, Any]], budget: int | None
) -> list[Attachment]:
    """Return the attachments of a run as they are now.

    Args:
        reader: Of its store.
        found: The run.
        refs: As its artifact lists them.
        budget: So many bytes are read, those of the program first; None for all.
    """
    program = found.run.program and found.run.program.sha256
    states: dict[str, str] = {}
    for sha256 in sorted({ref["sha256"] for ref in refs}, key=lambda each: each != program):
        if not found.run.may_cut and reader.withholds([sha256]):
            states[sha256] = "withheld"
            continue
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
    with closing(blob), reader.store.faults():
        if budget is not None and blob.size_bytes > budget:
            return 0, "not read"
        return blob.size_bytes, "whole" if blob.check().error is None else "damaged"


class _Advisories:
    """Reads the advisories of a run, as many and as much as one page may show."""

    def __init__(self, reader: RunReader, found: FoundRun, document: dict[str, Any]) -> None:
        self._reader = reader
        self._run_id = found.run.run_id
        self._document = document
        self._listed = merged_advisories(document, found.links)
        self._characters = _SHOWN_CHARACTERS
        self._cells = _SHOWN_CELLS

    def newest(self) -> tuple[list[Advisory], int]:
        """Return the newest advisories, the last one first, and how many older ones there are."""
        shown = [self._read(each) for each in self._listed[: -_SHOWN_ADVISORIES - 1 : -1]]
        return shown, len(self._listed) - len(shown)

    def _read(self, fields: Mapping[str, Any]) -> Advisory:
        sha256 = fields.get("content_sha256")
        mime = str(fields.get("mime")).partition(";")[0]
        if sha256 is None:
            return Advisory(fields, "none")
        try:
            self._reader.named_blob(self._run_id, sha256)
        except NotFoundError:
            is_withheld = is_sha256(sha256) and self._reader.is_withheld(self._document, sha256)
            return Advisory(fields, "withheld" if is_withheld else "missing")
        _, state = _state_of(self._reader, sha256, CHECKED_BYTES)
        if state in {"missing", "damaged"}:
            return Advisory(fields, state)
        if mime not in {"text/markdown", "text/plain", "application/json"}:
            return Advisory(fields, "file")
        with closing(self._reader.attachments.open(sha256)) as blob, self._reader.store.faults():
            if state != "whole" or blob.size_bytes > min(_READ_BYTES, self._characters):
                return Advisory(fields, "file")
            text = blob.read(0, _READ_BYTES).decode(errors="replace")
        self._characters -= len(text)
        if mime != "text/markdown":
            return Advisory(fields, "text", text)
        cells = markdown_cells(text)
        if cells > self._cells or text.count("[") > _MOST_BRACKETS:
            return Advisory(fields, "text", text)
        self._cells -= cells
        return Advisory(fields, "markdown", text)


def proof_of(deps: ApiDependencies, run: StoredRun) -> RunProof | str:
    """Return the proof of a run, checked against the signed root; or why there is none."""
    try:
        found = find_run_leaf(open_store_logs(deps.settings, deps.reader.store), run)
        proof = found.reader.prove(found.index)
    except StoreNotReadyError:
        # Its text names a path of the server.
        return "This server does not have the public key of the ledger, so it checked no signature."
    except IntegrityError as error:
        return str(error)
    except RmosError:
        return "The ledger cannot be read now; the log of the server says why."
    return RunProof(
        found.reader.log.path, proof.index, found.reader.size, proof.checkpoint.decode()
    )


router.add_api_route("/run/{run_id}/artifact", download_run)
router.add_api_route("/run/{run_id}/evidence", download_evidence)
router.add_api_route("/run/{run_id}/advisories.json", list_advisories)
router.add_api_route("/run/{run_id}/attachments/{sha256}", download_attachment)
