"""The artifact of a run request: a pure function of the request's body.

The procedure, with the same numbers in `build_run`:

1. Find what is wrong with the request's shape; drop each top-level field with a violation.
2. Read the attachments; wrong base64, hash or size drops them all.
3. Hash the payloads that are there; a claimed hash that differs drops the claims.
4. Decide: violations make it incomplete, otherwise the safety policy decides.
5. Lay out what is shown: everything for a run that is OK; otherwise what could be cut is
   withheld, named, and the whole body is kept in quarantine.
6. Keep the body of a run that is OK there too where the artifact has no place for a value of it.
"""

from typing import Any

import msgspec

from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.json.canonical import canonical_json
from pipeline.core.json.strict import parse_by_rule
from pipeline.core.layout import BlobArea, BlobPath, parse_path
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
    AttachmentSet,
    Blob,
    read_attachments,
)
from pipeline.core.runs.cut_program import OLD_HASHES, CutProgram, cut_program
from pipeline.core.runs.safety import Judgement, judge_safety
from pipeline.core.violations import (
    Violation,
    decision_on_violations,
    shape_violations,
    violation_at,
)
from schemas.fields import is_sha256
from schemas.run_request import RunRequest

# Inside these a null is the same as leaving the field out; elsewhere it is the producer's.
_TYPED_OBJECTS = ("decision", "outputs", "hashes", "error")


class IndexFields(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What index and events hold of an artifact; values as they stand there.

    It goes from process to process with the bytes of the artifact; the whole document need not.

    Attributes:
        program: What would be cut by it; None where that is not known.
        attachments: SHA-256 and kind of each.
        withheld: Names of what is withheld.
    """

    run_id: str
    created_at_utc: str
    event_type: Any
    status: Any
    mode: Any
    tool_id: Any
    material_id: Any
    machine_id: Any
    workflow_session_id: Any
    risk_level: Any
    score: Any
    block_reason: Any
    hashes: Any
    request_sha256: Any
    legacy: Any
    program: CutProgram | None
    attachments: list[tuple[str, str]]
    withheld: list[str]


class BuiltRun(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An artifact and what is stored with it.

    Attributes:
        index_fields: What index and events hold of it.
        content: The artifact's canonical bytes: those of the file.
        blobs: Attachments whose content came with the request, by SHA-256.
        quarantined: The request's canonical body, where the run is not OK.
        is_incomplete: Whether the request had violations.
        unshown: The same body of a run that is shown, where the artifact has no place for a
            value of it.
        withheld_payloads: SHA-256 of every G-code, toolpaths and operation plan that came inline,
            as a claim or by `outputs.gcode_path` and is withheld, sorted.
    """

    index_fields: IndexFields
    content: bytes
    blobs: tuple[Blob, ...]
    quarantined: Blob | None
    is_incomplete: bool
    unshown: Blob | None = None
    withheld_payloads: tuple[str, ...] = ()

    @property
    def request_in_quarantine(self) -> Blob | None:
        """The body that is stored besides; None where the artifact shows all of it."""
        return self.quarantined or self.unshown

    @property
    def document(self) -> dict[str, Any]:
        """The artifact as a value, read from its bytes."""
        return parse_by_rule(self.content)


def index_fields_of(document: dict[str, Any]) -> IndexFields:
    """Return the part of the artifact `document` that index and events hold."""
    get, decision, provenance = document.get, document["decision"], document["provenance"]
    return IndexFields(
        document["run_id"],
        document["created_at_utc"],
        document["event_type"],
        document["status"],
        document["mode"],
        document["tool_id"],
        get("material_id"),
        get("machine_id"),
        get("workflow_session_id"),
        decision["risk_level"],
        decision.get("score"),
        decision.get("block_reason"),
        document["hashes"],
        provenance["request_sha256"],
        provenance.get("legacy", False),
        cut_program(document),
        [(ref["sha256"], ref["kind"]) for ref in document["attachments"]],
        provenance.get("withheld", []),
    )


def build_run(request: dict[str, Any], body: bytes, created_at_utc: str) -> BuiltRun:
    """Return the run that `request` makes.

    Args:
        request: The parsed request, with an identity that has been checked.
        body: Its canonical JSON.
        created_at_utc: Its normalised time.
    """
    # 1.
    violations = shape_violations(request, RunRequest)
    fields = _usable_fields(request, violations)
    # 2.
    attachments = read_attachments(fields.get("attachments", []))
    if attachments.violations:
        violations += attachments.violations
        attachments = AttachmentSet([], {}, [])
    # 3.
    hashes = payload_hashes(fields.get("feasibility", {}), fields.get("outputs", {}))
    claims = fields.get("hashes", {})
    mismatches = _claim_violations(claims, hashes, has_feasibility="feasibility" in fields)
    if mismatches:
        violations += mismatches
        claims = {}
    # 4.
    judgement = (
        Judgement("BLOCKED", decision_on_violations(violations))
        if violations
        else judge_safety(
            decision=fields.get("decision"),
            feasibility=fields["feasibility"],
            producer_status=fields.get("status"),
            producer_failed="error" in fields,
        )
    )
    # 5.
    content = Content(fields, attachments, hashes, claims)
    document = frame(fields, created_at_utc, judgement)
    provenance = provenance_of(sha256_of_bytes(body), content)
    generated: set[str] = set()
    if judgement.is_ok:
        blobs = show(document, content)
    else:
        generated = generated_hashes(request)
        blobs = withhold(document, provenance, content, generated)
    blobs |= attach_request(document, fields.get("request", {}))
    document["provenance"] = provenance
    request_blob = Blob(provenance["request_sha256"], body)
    return BuiltRun(
        index_fields_of(document),
        canonical_json(document),
        tuple(blobs.values()),
        None if judgement.is_ok else request_blob,
        bool(violations),
        request_blob if values_without_place(fields, document) else None,  # 6.
        withheld_payloads=() if judgement.is_ok else withheld_of(request, generated),
    )


def _usable_fields(request: dict[str, Any], violations: list[Violation]) -> dict[str, Any]:
    """Return the fields that have no violation and are not null, typed objects without nulls."""
    dropped = {violation.top for violation in violations}
    fields = {
        name: value for name, value in request.items() if value is not None and name not in dropped
    }
    for name in _TYPED_OBJECTS:
        if name in fields:
            fields[name] = without_nulls(fields[name])
    return fields


def _claim_violations(
    claims: dict[str, str], hashes: dict[str, str], *, has_feasibility: bool
) -> list[Violation]:
    return [
        violation_at(("hashes", name), "HASH_MISMATCH")
        for name, claimed in claims.items()
        if claimed != hashes.get(name, claimed)
        and (has_feasibility or name != "feasibility_sha256")
    ]


def generated_hashes(request: dict[str, Any]) -> set[str]:
    """Return the hash of every payload that `request` holds or claims, wrong fields included.

    A field that is dropped for a violation is no less dangerous as an attachment.
    """
    outputs, claims = (
        without_nulls(value) if isinstance(value, dict) else {}
        for value in (request.get("outputs"), request.get("hashes"))
    )
    if not isinstance(outputs.get("gcode_text", ""), str):
        del outputs["gcode_text"]
    return {
        sha256
        for name, sha256 in [*claims.items(), *payload_hashes({}, outputs).items()]
        if name != "feasibility_sha256" and is_sha256(sha256)
    }


def withheld_of(fields: dict[str, Any], generated: set[str]) -> tuple[str, ...]:
    """Return the hashes that no run may lead to, where the one of `fields` withholds: sorted.

    Beside what was generated, that is the attachment at `outputs.gcode_path`: listed as `debug` it
    stands in an artifact that is not OK, and still is the program.

    Args:
        fields: Of the request, or of the row of an older store.
        generated: What `generated_hashes` or `generated_by_row` finds in them.
    """
    outputs = fields.get("outputs")
    path = outputs.get("gcode_path") if isinstance(outputs, dict) else None
    named = parse_path(path) if isinstance(path, str) else None
    if isinstance(named, BlobPath) and named.area is BlobArea.ATTACHMENTS:
        generated = {*generated, named.sha256}
    return tuple(sorted(generated))


def generated_by_row(fields: dict[str, Any]) -> set[str]:
    """Return the hashes of what was generated: of what is there, and those that the row has."""
    old = fields["meta"]["v1"]
    inner = old.get("hashes")
    claims = {name: old.get(name) for name in OLD_HASHES.values()}
    if isinstance(inner, dict):
        claims |= {f"hashes.{name}": item for name, item in inner.items() if "feasib" not in name}
    return generated_hashes({"outputs": fields.get("outputs"), "hashes": claims})
