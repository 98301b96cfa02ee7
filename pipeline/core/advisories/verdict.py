"""The verdict on one record of the advisory topic by itself: an advisory, or rejected.

Its link is a function of the record's body. Where the link lies follows its run, and whether the
advisory is new, the index decides.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.core.dead_letters.carried_record import ReadContent
from pipeline.core.envelope import Rejected, RejectionError, judged_apart, open_envelope
from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.json.canonical import canonical_json
from pipeline.core.runs.attachments import Blob
from pipeline.core.violations import shape_violations
from schemas.advisory_link import ADVISORY_LINK_VERSION
from schemas.advisory_request import ADVISORY_REQUEST_VERSION, AdvisoryRequest

TEXT_MIME = "text/markdown"
JSON_MIME = "application/json"
_NAMED_FIELDS = 10
_CONTENTS = ("content_text", "content_json", "content_sha256")
_COPIED = ("kind", "engine_id", "engine_version", "request_id", "title")


@dataclass(frozen=True, slots=True)
class AdvisoryClaim:
    """What makes two requests for one advisory_id the same: kind, engine and content."""

    kind: str
    engine_id: str | None
    engine_version: str | None
    content_sha256: str | None


@dataclass(frozen=True, slots=True)
class JudgedAdvisory:
    """A record that makes an advisory.

    Attributes:
        link: The link as a value.
        content: Its canonical bytes: those of the file.
        link_sha256: Of those bytes.
        claim: What another request for the same id must agree on.
        blob: The advisory's content, where it came with the request.
    """

    run_id: str
    advisory_id: str
    link: dict[str, Any]
    content: bytes
    link_sha256: str
    claim: AdvisoryClaim
    blob: Blob | None

    @property
    def key(self) -> tuple[str, str]:
        """Run and advisory: what names it."""
        return self.run_id, self.advisory_id


def judge_advisory_record(
    key: ReadContent | None, value: ReadContent | None
) -> JudgedAdvisory | Rejected:
    """Return what a record with this `key` and `value` is; the first rule that fits.

    Raises:
        OSError: The machine is at fault, not the record.
        MemoryError: The same.
    """
    return judged_apart(lambda: _judge(key, value))


def _judge(key: ReadContent | None, value: ReadContent | None) -> JudgedAdvisory:
    request = open_envelope(key, value, version=ADVISORY_REQUEST_VERSION)
    _check_shape(request.document, request.run_id)
    document = {name: item for name, item in request.document.items() if item is not None}
    blob, mime = _content(document)
    link = _link(document, request.created_at_utc, blob, mime)
    content = canonical_json(link)
    return JudgedAdvisory(
        request.run_id,
        link["advisory_id"],
        link,
        content,
        sha256_of_bytes(content),
        claim_of_link(link),
        blob,
    )


def claim_of_link(link: Mapping[str, Any]) -> AdvisoryClaim:
    """Return what a request must agree on with the one that made `link`."""
    return AdvisoryClaim(
        link["kind"],
        link.get("engine_id"),
        link.get("engine_version"),
        link.get("content_sha256"),
    )


def _check_shape(document: dict[str, Any], run_id: str) -> None:
    code = "INVALID_ADVISORY"
    contents = [name for name in _CONTENTS if document.get(name) is not None]
    if len(contents) > 1:
        message = f"Expected at most one content, found {' and '.join(contents)}."
        raise RejectionError(code, message, run_id)
    violations = sorted(set(shape_violations(document, AdvisoryRequest)))
    if violations:
        named = "; ".join(f"{each.field}: {each.code}" for each in violations[:_NAMED_FIELDS])
        raise RejectionError(code, f"Expected an advisory request, found {named}.", run_id)


def _content(document: dict[str, Any]) -> tuple[Blob | None, str | None]:
    if "content_text" in document:
        return _blob(document["content_text"].encode()), TEXT_MIME
    if "content_json" in document:
        return _blob(canonical_json(document["content_json"])), JSON_MIME
    return None, None


def _blob(content: bytes) -> Blob:
    return Blob(sha256_of_bytes(content), content)


def _link(
    document: dict[str, Any], created_at_utc: str, blob: Blob | None, mime: str | None
) -> dict[str, Any]:
    link = {name: document[name] for name in _COPIED if name in document}
    link |= {
        "schema_version": ADVISORY_LINK_VERSION,
        "run_id": document["run_id"],
        "advisory_id": document["advisory_id"],
        "created_at_utc": created_at_utc,
    }
    if blob is not None:
        link |= {"content_sha256": blob.sha256, "mime": mime, "size_bytes": len(blob.content)}
    elif "content_sha256" in document:
        link["content_sha256"] = document["content_sha256"]
    return link
