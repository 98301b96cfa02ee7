"""The verdict on one record of the legacy topic: a run of an older store, or rejected.

Its status and decision are those that were recorded, whatever today's policy would decide; the mark
`provenance.legacy` marks it, and no machine may cut by it. Procedure, with the same numbers in
`_build`:

1. Open the envelope; the shape must be right, as only our own migration publishes here.
2. Hash the payloads anew.
3. Show everything where all verdicts of the row are GREEN or YELLOW and its status is OK; else
   withhold what could be cut.
4. Keep the whole body in quarantine where the artifact does not show all of it.
"""

from typing import Any, Final

from pipeline.core.dead_letters.carried_record import ReadContent
from pipeline.core.envelope import Envelope, Rejected, RejectionError, judged_apart, open_envelope
from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.json.canonical import canonical_json
from pipeline.core.runs.artifact import BuiltRun, generated_by_row, index_fields_of, withheld_of
from pipeline.core.runs.artifact_parts import (
    Content,
    attach_request,
    frame,
    payload_hashes,
    provenance_of,
    show,
    values_without_place,
    withhold,
    without_nulls,
)
from pipeline.core.runs.attachments import (
    KINDS_KEPT_WHEN_BLOCKED,
    AttachmentSet,
    Blob,
    read_attachments,
)
from pipeline.core.runs.recorded_verdict import is_called_safe
from pipeline.core.runs.safety import Judgement
from pipeline.core.runs.verdict import JudgedRun, judged_run
from pipeline.core.violations import Violation, shape_violations
from schemas.legacy_run import LEGACY_RUN_VERSION, LegacyRun

INVALID_LEGACY_RUN: Final = "INVALID_LEGACY_RUN"

LEGACY_KINDS_KEPT = KINDS_KEPT_WHEN_BLOCKED | {
    *("advisory", "ai_provenance_json", "assistant_explanation", "override", "run_diff")
}
"""What older stores attached besides to explain a run; no machine cuts by it."""

GENERATED_VALUES = frozenset(
    {
        *("gcode", "gcode_text", "opplan", "opplan_json", "outputs", "preview_svg"),
        *("toolpaths", "values"),
    }
)
"""Names under `meta.v1` that may hold what could be cut."""

_TYPED_OBJECTS = ("decision", "outputs")
_NAMED_FIELDS = 10


def judge_legacy_record(key: ReadContent | None, value: ReadContent | None) -> JudgedRun | Rejected:
    """Return what a record of the legacy topic is; the first rule that fits.

    Raises:
        OSError: The machine is at fault, not the record.
        MemoryError: The same.
    """
    return judged_apart(lambda: _judge(key, value))


def _judge(key: ReadContent | None, value: ReadContent | None) -> JudgedRun:
    request = open_envelope(key, value, version=LEGACY_RUN_VERSION, needs_version=True)  # 1.
    return judged_run(request.run_id, request.created_at_utc, _build(request))


def _build(request: Envelope) -> BuiltRun:
    fields, attachments = _checked(request)  # 1.
    feasibility = fields.get("feasibility", {})
    hashes = payload_hashes(feasibility, fields.get("outputs", {}))  # 2.
    content = Content(fields, attachments, hashes, {})
    judgement = Judgement(fields["status"], fields["decision"])
    document = frame(fields, request.created_at_utc, judgement)
    document["advisory_inputs"] = fields.get("advisory_inputs", [])
    provenance = provenance_of(sha256_of_bytes(request.body), content) | {"legacy": True}
    withheld: tuple[str, ...] = ()
    if judgement.status == "OK" and is_called_safe(judgement.decision, feasibility):  # 3.
        blobs = show(document, content)
    else:
        generated = generated_by_row(fields)
        withheld = withheld_of(fields, generated)
        blobs = withhold(document, provenance, content, generated, LEGACY_KINDS_KEPT)
        _withhold_values(document, provenance)
    summarised = fields.get("request", {})
    blobs |= attach_request(document, summarised)
    document["provenance"] = provenance
    is_whole = "withheld" not in provenance and document["request_summary"] == summarised
    return BuiltRun(
        index_fields_of(document),
        canonical_json(document),
        tuple(blobs.values()),
        None if judgement.status == "OK" and is_whole else _request_blob(request),  # 4.
        is_incomplete=False,
        unshown=_request_blob(request) if values_without_place(fields, document) else None,
        withheld_payloads=withheld,
    )


def _checked(request: Envelope) -> tuple[dict[str, Any], AttachmentSet]:
    """Return the fields without nulls, and the attachments.

    Raises:
        RejectionError: The record is not what a migration publishes.
    """
    violations = shape_violations(request.document, LegacyRun)
    if violations:
        raise _refused(request, violations)
    fields = without_nulls(request.document)
    for name in _TYPED_OBJECTS:
        if name in fields:
            fields[name] = without_nulls(fields[name])
    attachments = read_attachments(fields.get("attachments", []))
    if attachments.violations:
        raise _refused(request, attachments.violations)
    return fields, attachments


def _refused(request: Envelope, violations: list[Violation]) -> RejectionError:
    ordered = sorted(set(violations))[:_NAMED_FIELDS]
    named = "; ".join(f"{each.field}: {each.code}" for each in ordered)
    message = f"Expected a mapped row of an older store, found {named}."
    return RejectionError(INVALID_LEGACY_RUN, message, request.run_id)


def _withhold_values(document: dict[str, Any], provenance: dict[str, Any]) -> None:
    """Take what could be cut out of `meta.v1` too, and name it."""
    old = document["meta"]["v1"]
    found = old.keys() & GENERATED_VALUES
    if not found:
        return
    shown = {name: value for name, value in old.items() if name not in found}
    document["meta"] = document["meta"] | {"v1": shown}
    named = {f"meta.v1.{name}" for name in found}
    provenance["withheld"] = sorted({*provenance.get("withheld", ()), *named})


def _request_blob(request: Envelope) -> Blob:
    return Blob(sha256_of_bytes(request.body), request.body)
