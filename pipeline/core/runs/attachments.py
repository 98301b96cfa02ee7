"""Attachments of a run request: blobs out of base64, references as an artifact lists them."""

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.violations import Violation, violation_at
from schemas.timestamps import normalise_timestamp

KINDS_KEPT_WHEN_BLOCKED = frozenset(
    {
        "feasibility",
        "geometry",
        "dxf_input",
        "geometry_svg",
        "geometry_spec_json",
        "manifest",
        "debug",
        "request",
    }
)
"""What explains a verdict; every other kind may be something to cut by."""


class Blob(NamedTuple):
    """Content that is stored under its own hash."""

    sha256: str
    content: bytes


@dataclass(frozen=True, slots=True)
class AttachmentSet:
    """The attachments of one request, or what is wrong with them.

    Attributes:
        refs: As an artifact lists them, in the order of the request.
        blobs: Content that came inline, by SHA-256.
        violations: Not empty: nothing of the other two may be used.
    """

    refs: list[dict[str, Any]]
    blobs: dict[str, Blob]
    violations: list[Violation]


def read_attachments(listed: list[dict[str, Any]]) -> AttachmentSet:
    """Return the attachments of a request whose list has the right shape."""
    refs: list[dict[str, Any]] = []
    blobs: dict[str, Blob] = {}
    violations: list[Violation] = []
    for index, attachment in enumerate(listed):
        refs.append(_reference(attachment))
        text = attachment.get("content_base64")
        if text is None:
            continue
        content = _decode(text)
        if content is None:
            violations.append(violation_at(("attachments", index, "content_base64"), "BAD_BASE64"))
            continue
        blob = Blob(sha256_of_bytes(content), content)
        violations.extend(_differences(index, attachment, blob))
        blobs[blob.sha256] = blob
    return AttachmentSet(refs, blobs, violations)


def _reference(attachment: dict[str, Any]) -> dict[str, Any]:
    shown = {
        name: attachment[name] for name in ("sha256", "kind", "mime", "filename", "size_bytes")
    }
    return shown | {"created_at_utc": normalise_timestamp(attachment["created_at_utc"])}


def _decode(text: str) -> bytes | None:
    """Return the bytes, or None where `text` is not the one padded base64 of any."""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    # Python reads texts whose unused bits are not zero, or that go on after the padding.
    return content if base64.b64encode(content).decode() == text else None


def _differences(index: int, attachment: dict[str, Any], blob: Blob) -> Iterator[Violation]:
    if attachment["sha256"] != blob.sha256:
        yield violation_at(("attachments", index, "sha256"), "HASH_MISMATCH")
    if attachment["size_bytes"] != len(blob.content):
        yield violation_at(("attachments", index, "size_bytes"), "SIZE_MISMATCH")
