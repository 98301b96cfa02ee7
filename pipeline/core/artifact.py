"""A run request becomes an artifact: a pure function of the request's body.

The procedure, with the same numbers in `build_run`:

1. Find what is wrong with the request's shape; drop each top-level field with a violation.
2. Read the attachments; wrong base64, hash or size drops them all.
3. Hash the payloads that are there; a claimed hash that differs drops the claims.
4. Decide: violations make it incomplete, otherwise the safety policy says.
5. Lay out what is shown: everything for a run that is OK; otherwise what could be cut is
   withheld, named, and the whole body is kept aside.
"""

from dataclasses import dataclass
from typing import Any

from pipeline.core.attachments import (
    KINDS_KEPT_WHEN_BLOCKED,
    AttachmentSet,
    Blob,
    read_attachments,
)
from pipeline.core.canonical_json import canonical_json
from pipeline.core.hashing import sha256_of_bytes, sha256_of_json, sha256_of_text
from pipeline.core.layout import attachment_path
from pipeline.core.request_summary import summarise_request
from pipeline.core.safety import Judgement, judge_safety
from pipeline.core.strict_json import parse_by_rule
from pipeline.core.violations import (
    Violation,
    decision_on_violations,
    shape_violations,
    violation_at,
)
from schemas.run_artifact import RUN_ARTIFACT_VERSION
from schemas.run_request import RunContext, RunRequest

INLINE_GCODE_LIMIT_BYTES = 204_800
"""G-code of more UTF-8 bytes than this becomes an attachment: 200 KiB."""

VERSION_STAMPS = (
    "config_fingerprint",
    "engine_version",
    "post_processor_version",
    "toolchain_version",
)
"""The version stamps that a complete request carries, sorted."""

_OUTLINE_FIELDS = (
    "run_id",
    "created_at_utc",
    "event_type",
    "status",
    "mode",
    "tool_id",
    "material_id",
    "machine_id",
    "workflow_session_id",
    "hashes",
)
_OUTLINE_PARTS = {
    "decision": ("risk_level", "score", "block_reason"),
    "provenance": ("request_sha256", "legacy", "withheld"),
}
_CONTEXT_FIELDS = tuple(name for name in RunContext.model_fields if name != "error")
# Inside these a null is the same as leaving the field out; elsewhere it is the producer's.
_TYPED_OBJECTS = ("decision", "outputs", "hashes", "error")


@dataclass(frozen=True, slots=True)
class BuiltRun:
    """An artifact and what is stored with it.

    Attributes:
        outline: The part of the artifact that index and events tell, in the artifact's shape. It
            goes from process to process with the bytes; the whole document need not.
        content: The artifact's canonical bytes: those of the file.
        blobs: Attachments whose content came with the request, by SHA-256.
        quarantined: The request's canonical body, where the run is not OK.
        is_incomplete: Whether the request had violations.
    """

    outline: dict[str, Any]
    content: bytes
    blobs: tuple[Blob, ...]
    quarantined: Blob | None
    is_incomplete: bool

    @property
    def document(self) -> dict[str, Any]:
        """The artifact as a value, read from its bytes."""
        return parse_by_rule(self.content)


def outline_of(document: dict[str, Any]) -> dict[str, Any]:
    """Return the part of the artifact `document` that index and events tell."""
    outline = {name: document[name] for name in _OUTLINE_FIELDS if name in document}
    for name, kept in _OUTLINE_PARTS.items():
        part = document[name]
        outline[name] = {key: part[key] for key in kept if key in part}
    outline["attachments"] = [
        {"sha256": ref["sha256"], "kind": ref["kind"]} for ref in document["attachments"]
    ]
    return outline


@dataclass(frozen=True, slots=True)
class _Content:
    """What is left of a request once everything wrong has been dropped.

    Attributes:
        fields: Top-level fields without violation, nulls left out.
        attachments: References and inline blobs.
        hashes: Of the payloads that are there, under their names in the artifact's `hashes`.
        claims: Hashes that the producer claims.
    """

    fields: dict[str, Any]
    attachments: AttachmentSet
    hashes: dict[str, str]
    claims: dict[str, str]


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
    hashes = _payload_hashes(fields.get("feasibility", {}), fields.get("outputs", {}))
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
    content = _Content(fields, attachments, hashes, claims)
    document = _frame(fields, created_at_utc, judgement)
    provenance = _provenance(sha256_of_bytes(body), content)
    if judgement.status == "OK":
        blobs = _show(document, content)
    else:
        blobs = _withhold(document, provenance, content, _generated_hashes(request))
    blobs |= _attach_request(document, fields.get("request", {}))
    document["provenance"] = provenance
    return BuiltRun(
        outline_of(document),
        canonical_json(document),
        tuple(blobs.values()),
        None if judgement.status == "OK" else Blob(provenance["request_sha256"], body),
        bool(violations),
    )


def _usable_fields(request: dict[str, Any], violations: list[Violation]) -> dict[str, Any]:
    """Return the fields that have no violation and are not null, typed objects without nulls."""
    dropped = {violation.top for violation in violations}
    fields = {
        name: value for name, value in request.items() if value is not None and name not in dropped
    }
    for name in _TYPED_OBJECTS:
        if name in fields:
            fields[name] = _without_nulls(fields[name])
    return fields


def _without_nulls(value: dict[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in value.items() if item is not None}


def _payload_hashes(feasibility: dict[str, Any], outputs: dict[str, Any]) -> dict[str, str]:
    """Return the hash of every payload that is there, under its name in `hashes`."""
    hashes = {"feasibility_sha256": sha256_of_json(feasibility)}
    if "toolpaths" in outputs:
        hashes["toolpaths_sha256"] = sha256_of_json(outputs["toolpaths"])
    if "gcode_text" in outputs:
        hashes["gcode_sha256"] = sha256_of_text(outputs["gcode_text"])
    if "opplan_json" in outputs:
        hashes["opplan_sha256"] = sha256_of_json(outputs["opplan_json"])
    return hashes


def _claim_violations(
    claims: dict[str, str], hashes: dict[str, str], *, has_feasibility: bool
) -> list[Violation]:
    return [
        violation_at(("hashes", name), "HASH_MISMATCH")
        for name, claimed in claims.items()
        if claimed != hashes.get(name, claimed)
        and (has_feasibility or name != "feasibility_sha256")
    ]


def _unchecked(content: _Content) -> dict[str, str]:
    """Return the claims whose payload is not there."""
    has_feasibility = "feasibility" in content.fields
    return {
        name: claimed
        for name, claimed in content.claims.items()
        if name not in content.hashes or (name == "feasibility_sha256" and not has_feasibility)
    }


def _frame(fields: dict[str, Any], created_at_utc: str, judgement: Judgement) -> dict[str, Any]:
    """Return what every artifact shows, whatever its status."""
    document = {name: fields[name] for name in _CONTEXT_FIELDS if name in fields}
    if "error" in fields:
        document["error"] = fields["error"]
    document |= {
        "schema_version": RUN_ARTIFACT_VERSION,
        "run_id": fields["run_id"],
        "created_at_utc": created_at_utc,
        "mode": fields.get("mode", "unknown"),
        "tool_id": fields.get("tool_id", "unknown"),
        "status": judgement.status,
        "event_type": fields.get("event_type", "unknown"),
        "feasibility": fields.get("feasibility", {}),
        "decision": judgement.decision,
        "advisory_inputs": [],
        "meta": fields.get("meta", {}),
    }
    return document


def _provenance(request_sha256: str, content: _Content) -> dict[str, Any]:
    provenance: dict[str, Any] = {"request_sha256": request_sha256}
    claimed_hashes = _unchecked(content)
    if claimed_hashes:
        provenance["claimed_hashes"] = claimed_hashes
    missing = [name for name in VERSION_STAMPS if name not in content.fields]
    if missing:
        provenance["version_stamps_missing"] = missing
    return provenance


def _show(document: dict[str, Any], content: _Content) -> dict[str, Blob]:
    """Put all that was generated into `document`; return the blobs that go with it."""
    outputs = dict(content.fields.get("outputs", {}))
    refs = list(content.attachments.refs)
    blobs = dict(content.attachments.blobs)
    gcode = outputs.get("gcode_text", "").encode()
    if len(gcode) > INLINE_GCODE_LIMIT_BYTES:
        blob = Blob(content.hashes["gcode_sha256"], gcode)
        blobs[blob.sha256] = blob
        del outputs["gcode_text"]
        outputs["gcode_path"] = attachment_path(blob.sha256)
        if all(ref["sha256"] != blob.sha256 for ref in refs):
            filename = f"{document['run_id']}.nc"
            refs.append(_reference_to(document, blob, "gcode", "text/plain", filename))
    document["outputs"] = outputs
    document["hashes"] = content.hashes
    document["attachments"] = refs
    return blobs


def _withhold(
    document: dict[str, Any],
    provenance: dict[str, Any],
    content: _Content,
    generated: set[str],
) -> dict[str, Blob]:
    """Keep what could be cut out of `document` and name it; return the blobs that may stay."""
    refs = content.attachments.refs
    # By content, not by kind alone: G-code listed as `debug` is still G-code.
    to_cut = generated | {
        ref["sha256"] for ref in refs if ref["kind"] not in KINDS_KEPT_WHEN_BLOCKED
    }
    kept = [ref for ref in refs if ref["sha256"] not in to_cut]
    withheld = {f"outputs.{name}" for name in content.fields.get("outputs", {})}
    withheld |= {f"hashes.{name}" for name in content.hashes if name != "feasibility_sha256"}
    withheld |= {f"attachments.{ref['sha256']}" for ref in refs if ref["sha256"] in to_cut}
    if withheld:
        provenance["withheld"] = sorted(withheld)
    document["outputs"] = {}
    document["hashes"] = {"feasibility_sha256": content.hashes["feasibility_sha256"]}
    document["attachments"] = kept
    names = {ref["sha256"] for ref in kept}
    return {sha256: blob for sha256, blob in content.attachments.blobs.items() if sha256 in names}


def _generated_hashes(request: dict[str, Any]) -> set[str]:
    """Return the hash of every payload that `request` holds or claims, wrong fields included.

    A field that is dropped for a violation is no less dangerous as an attachment.
    """
    outputs, claims = (
        _without_nulls(value) if isinstance(value, dict) else {}
        for value in (request.get("outputs"), request.get("hashes"))
    )
    if not isinstance(outputs.get("gcode_text", ""), str):
        del outputs["gcode_text"]
    return {
        sha256
        for name, sha256 in [*claims.items(), *_payload_hashes({}, outputs).items()]
        if name != "feasibility_sha256" and isinstance(sha256, str)
    }


def _attach_request(document: dict[str, Any], request: dict[str, Any]) -> dict[str, Blob]:
    """Put the request's summary into `document`; return the whole of it where it was cut."""
    summary = summarise_request(request)
    document["request_summary"] = summary.shown
    if summary.complete is None:
        return {}
    content = canonical_json(summary.complete)
    blob = Blob(sha256_of_bytes(content), content)
    filename = f"{document['run_id']}.request.json"
    document["attachments"].append(
        _reference_to(document, blob, "request", "application/json", filename)
    )
    return {blob.sha256: blob}


def _reference_to(
    document: dict[str, Any], blob: Blob, kind: str, mime: str, filename: str
) -> dict[str, Any]:
    return {
        "sha256": blob.sha256,
        "kind": kind,
        "mime": mime,
        "filename": filename,
        "size_bytes": len(blob.content),
        "created_at_utc": document["created_at_utc"],
    }
