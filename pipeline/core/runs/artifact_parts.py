"""The parts of an artifact: all of the request, or only what cannot be cut.

Shared by the requests of today and the rows of older stores, which are decided differently and
shown alike.

An artifact has no place for some values of a request that it shows. G-code that is too large to
stand in an artifact takes `outputs.gcode_path` for itself, and a decision gives way to an
evaluation with a worse risk. The bytes of an artifact are fixed by the version that its
request names, so such values are read from the quarantined request.

A free-form request is shown without verdicts or secrets, and of bounded width.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pipeline.core.hashing import sha256_of_bytes, sha256_of_json, sha256_of_text
from pipeline.core.json.canonical import canonical_json
from pipeline.core.layout import attachment_path
from pipeline.core.runs.attachments import KINDS_KEPT_WHEN_BLOCKED, AttachmentSet, Blob
from pipeline.core.runs.safety import Judgement
from schemas.fields import normalise_risk
from schemas.run_artifact import RUN_ARTIFACT_VERSION
from schemas.run_request import RunContext

ITEM_LIMIT = 200
"""Longest list, and widest object below the top, that is shown."""

TOP_LEVEL_KEY_LIMIT = 80

_CLIENT_VERDICTS = frozenset({"feasibility", "safety"})
_SECRET_KEY = re.compile(r"passw(or)?d|token|secret|api[_-]?key|credential", re.IGNORECASE)
_REDACTED = "[redacted]"

# One of these stands in the canonical bytes of every request whose first step changes something,
# unless a letter outside ASCII stands for one of theirs.
_SIGNS = (b"passw", b"token", b"secret", b"api", b"credential", b'"feasibility"', b'"safety"')
_LETTERS_FOR_ASCII = tuple(letter.encode() for letter in "\u017f\u212a\u0130\u0131")
"""All that IGNORECASE takes for s, k or i: long s, the kelvin, I with a dot and i without."""


@dataclass(frozen=True, slots=True)
class RequestSummary:
    """What is shown of a request.

    Attributes:
        shown: The summary itself.
        complete: The request before anything was shortened, without verdicts and secrets;
            None where `shown` is all of it.
    """

    shown: dict[str, Any]
    complete: dict[str, Any] | None


def summarise_request(request: dict[str, Any]) -> RequestSummary:
    """Return the summary of a free-form `request`.

    First the keys `feasibility` and `safety` go, at every depth: only the server's evaluation
    counts. Then values under keys that name a secret are redacted. Then wide lists and objects
    are replaced by their length, and the top is cut to its first keys in sorted order.
    """
    content = canonical_json(request)
    if is_shown_whole(request, content):
        return RequestSummary(request, None)
    complete = _without_verdicts_and_secrets(request)
    shown = {key: _shortened(complete[key]) for key in sorted(complete)[:TOP_LEVEL_KEY_LIMIT]}
    return RequestSummary(shown, None if _is_all_of(shown, complete) else complete)


def is_shown_whole(request: dict[str, Any], content: bytes) -> bool:
    """Return whether the summary of `request`, with this canonical JSON, is certainly all of it."""
    if len(request) > TOP_LEVEL_KEY_LIMIT:
        return False
    if not content.isascii():
        for letter in _LETTERS_FOR_ASCII:
            if letter in content:
                return False
    folded = content.lower()
    for sign in _SIGNS:
        if sign in folded:
            return False
    # A list of 201 elements has 200 commas of its own.
    return content.count(b",") < ITEM_LIMIT


def _is_all_of(shown: dict[str, Any], complete: dict[str, Any]) -> bool:
    # A part that needed no shortening is the very same object.
    return len(shown) == len(complete) and all(
        shown[key] is value for key, value in complete.items()
    )


@lru_cache(maxsize=4096)
def _names_secret(key: str) -> bool:
    return _SECRET_KEY.search(key) is not None


def _without_verdicts_and_secrets(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return {
            key: _REDACTED if _names_secret(key) else _without_verdicts_and_secrets(item)
            for key, item in value.items()
            if key not in _CLIENT_VERDICTS
        }
    if isinstance(value, list):
        return [_without_verdicts_and_secrets(item) for item in value]
    return value


def _shortened(value: Any) -> Any:  # noqa: ANN401
    """Return `value` with wide parts replaced by their length; itself where nothing is wide."""
    if isinstance(value, dict):
        if len(value) > ITEM_LIMIT:
            return {"type": "dict", "len": len(value)}
        items = {key: _shortened(item) for key, item in value.items()}
        return value if all(items[key] is item for key, item in value.items()) else items
    if isinstance(value, list):
        if len(value) > ITEM_LIMIT:
            return {"type": "list", "len": len(value)}
        elements = [_shortened(item) for item in value]
        same = all(new is old for new, old in zip(elements, value, strict=True))
        return value if same else elements
    return value


INLINE_GCODE_LIMIT_BYTES = 204_800
"""G-code of more UTF-8 bytes than this becomes an attachment: 200 KiB."""

VERSION_STAMPS = (
    "config_fingerprint",
    "engine_version",
    "post_processor_version",
    "toolchain_version",
)
"""The version stamps that a complete request carries, sorted."""

_CONTEXT_FIELDS = tuple(name for name in RunContext.model_fields if name != "error")


@dataclass(frozen=True, slots=True)
class Content:
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


def without_nulls(value: dict[str, Any]) -> dict[str, Any]:
    """Return `value` without its members that are null."""
    return {key: item for key, item in value.items() if item is not None}


def payload_hashes(feasibility: dict[str, Any], outputs: dict[str, Any]) -> dict[str, str]:
    """Return the hash of every payload that is there, under its name in `hashes`."""
    hashes = {"feasibility_sha256": sha256_of_json(feasibility)}
    if "toolpaths" in outputs:
        hashes["toolpaths_sha256"] = sha256_of_json(outputs["toolpaths"])
    if "gcode_text" in outputs:
        hashes["gcode_sha256"] = sha256_of_text(outputs["gcode_text"])
    if "opplan_json" in outputs:
        hashes["opplan_sha256"] = sha256_of_json(outputs["opplan_json"])
    return hashes


def frame(fields: dict[str, Any], created_at_utc: str, judgement: Judgement) -> dict[str, Any]:
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


def provenance_of(request_sha256: str, content: Content) -> dict[str, Any]:
    """Return the provenance of an artifact; more may be added."""
    provenance: dict[str, Any] = {"request_sha256": request_sha256}
    claimed_hashes = _unchecked(content)
    if claimed_hashes:
        provenance["claimed_hashes"] = claimed_hashes
    missing = [name for name in VERSION_STAMPS if name not in content.fields]
    if missing:
        provenance["version_stamps_missing"] = missing
    return provenance


def _unchecked(content: Content) -> dict[str, str]:
    """Return the claims whose payload is not there."""
    has_feasibility = "feasibility" in content.fields
    return {
        name: claimed
        for name, claimed in content.claims.items()
        if name not in content.hashes or (name == "feasibility_sha256" and not has_feasibility)
    }


def show(document: dict[str, Any], content: Content) -> dict[str, Blob]:
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


def withhold(
    document: dict[str, Any],
    provenance: dict[str, Any],
    content: Content,
    generated: set[str],
    kinds_kept: frozenset[str] = KINDS_KEPT_WHEN_BLOCKED,
) -> dict[str, Blob]:
    """Keep what could be cut out of `document` and name it; return the blobs that may stay."""
    refs = content.attachments.refs
    # By content, not by kind alone: G-code listed as `debug` is still G-code.
    to_cut = generated | {ref["sha256"] for ref in refs if ref["kind"] not in kinds_kept}
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


def attach_request(document: dict[str, Any], request: dict[str, Any]) -> dict[str, Blob]:
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


_EMPTY: tuple[object, ...] = (None, [], {})


def values_without_place(request: Mapping[str, Any], artifact: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of `request` that `artifact`, which shows it, lacks; by dotted path.

    Args:
        request: The request's fields.
        artifact: What they make. One that withholds something does not show the request.
    """
    if not is_shown(artifact):
        return {}
    found = {}
    path = (request.get("outputs") or {}).get("gcode_path")
    if path is not None and path != artifact["outputs"].get("gcode_path"):
        found["outputs.gcode_path"] = path
    decision = request.get("decision") or {}
    if any(_is_overruled(name, value, artifact["decision"]) for name, value in decision.items()):
        found["decision"] = decision
    return found


def is_shown(artifact: Mapping[str, Any]) -> bool:
    """Return whether an artifact shows what was generated."""
    return artifact["status"] == "OK" and "withheld" not in artifact["provenance"]


def _is_overruled(name: str, value: Any, shown: Mapping[str, Any]) -> bool:  # noqa: ANN401
    if value in _EMPTY:
        return False
    given = normalise_risk(value) if name == "risk_level" else value
    return bool(given != shown.get(name))
