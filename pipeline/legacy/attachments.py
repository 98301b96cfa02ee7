"""Attachments of a row of an older store: references in our form, contents where they fit."""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.json.canonical import canonical_json
from pipeline.legacy.fields import ATTACHMENT_FIELDS, UnmappedFields, same_json
from pipeline.legacy.v1.row import objects_in
from pipeline.topics import REQUEST_VALUE_LIMIT_BYTES
from schemas.fields import is_sha256
from schemas.timestamps import normalise_timestamp

INLINE_LIMIT_BYTES = REQUEST_VALUE_LIMIT_BYTES // 4 * 3
"""Base64 makes four bytes of three: a larger content fits into no message."""

_ADVISORY_KIND = "advisory"
_OTHER_MIME = "application/octet-stream"
_MIMES = {
    ".json": "application/json",
    ".md": "text/markdown",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}
# Where an advisory of an older store names its content; the id itself may be its hash.
_CONTENT_NAMES = ("content_sha256", "advisory_sha256", "advisory_id")
_DEFAULTS = {"kind": "unknown", "mime": _OTHER_MIME, "filename": "attachment", "size_bytes": 0}


_OUTPUT_KINDS = {
    "gcode_text": ("gcode", "text/plain", ".nc"),
    "opplan_json": ("opplan", "application/json", ".opplan.json"),
    "toolpaths": ("toolpaths", "application/json", ".toolpaths.json"),
    "preview_svg": ("preview_svg", "image/svg+xml", ".svg"),
}
"""Kind, mime and ending of an output that has no room in a message; unsafe, they are withheld."""


@dataclass(frozen=True, slots=True)
class FoundBlob:
    """A content that was found, its hash checked.

    Attributes:
        size_bytes: Of the content as we store it.
        suffix: Of the file's name in the older store, such as `.json`.
        content: None where it is larger than any message.
    """

    sha256: str
    size_bytes: int
    suffix: str
    content: bytes | None


def blob_names(row: Mapping[str, Any], advisories: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the hash of every content that a row or its advisories name, each once, in order."""
    named = [each.get("sha256") for each in objects_in(row.get("attachments"))]
    in_advisories = (name for advisory in advisories for name in _content_names(advisory))
    return list(dict.fromkeys(name for name in [*named, *in_advisories] if is_sha256(name)))


def take_attachments(
    unmapped: UnmappedFields,
    advisories: Sequence[Mapping[str, Any]],
    blobs: Mapping[str, FoundBlob],
    created_at_utc: str,
) -> list[dict[str, Any]]:
    """Return the references of a row; the list stays where it has anything else.

    Contents of advisories are attached besides, as the older store kept them among its
    attachments.

    Args:
        unmapped: The row.
        advisories: Of the run.
        blobs: What was found, by SHA-256.
        created_at_utc: Of the run: the time of what has none.

    Raises:
        ValueError: A time is there and cannot be read.
    """
    listed = unmapped.get("attachments")
    refs = [
        _reference(item, blobs, created_at_utc)
        for item in objects_in(listed)
        if is_sha256(item.get("sha256"))
    ]
    if isinstance(listed, list) and same_json(_in_utc(listed), refs):
        unmapped.keep_rest("attachments", None)
    known = {ref["sha256"] for ref in refs}
    return [*refs, *_of_advisories(advisories, blobs, known, created_at_utc)]


def with_contents(
    refs: Sequence[dict[str, Any]], blobs: Mapping[str, FoundBlob], used_bytes: int
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Put each content into its reference as long as the message has room, the first first.

    Args:
        refs: The references.
        blobs: What was found.
        used_bytes: Size of the message without any content.

    Returns:
        The attachments of the message, and the hashes of the contents without room.
    """
    room = REQUEST_VALUE_LIMIT_BYTES - used_bytes
    attachments = []
    done: set[str] = set()
    oversized = []
    for ref in refs:
        blob = blobs.get(ref["sha256"])
        if blob is None or blob.sha256 in done:
            attachments.append(ref)
            continue
        done.add(blob.sha256)
        inlined = ref | {"content_base64": base64.b64encode(blob.content or b"").decode()}
        size = len(canonical_json(inlined)) - len(canonical_json(ref))
        if blob.content is None or size > room:
            oversized.append(blob.sha256)
            attachments.append(ref)
        else:
            room -= size
            attachments.append(inlined)
    return attachments, tuple(oversized)


def oversized_outputs(document: dict[str, Any]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return a message with so many of its outputs as attachments that it fits, the largest first.

    Returns:
        The message, which may be too large all the same, and the contents by their SHA-256: the
        store takes them directly.
    """
    outputs = dict(document.get("outputs", {}))
    sizes = {name: len(canonical_json(outputs[name])) for name in _OUTPUT_KINDS if name in outputs}
    contents: dict[str, bytes] = {}
    for name in sorted(sizes, key=sizes.__getitem__, reverse=True):
        if len(canonical_json(document)) <= REQUEST_VALUE_LIMIT_BYTES:
            break
        value = outputs.pop(name)
        content = value.encode() if isinstance(value, str) else canonical_json(value)
        sha256 = sha256_of_bytes(content)
        contents[sha256] = content
        refs = list(document.get("attachments", []))
        if all(ref["sha256"] != sha256 for ref in refs):
            refs.append(_output_reference(document, name, sha256, len(content)))
        others = {field: item for field, item in document.items() if field != "outputs"}
        document = {**others, **({"outputs": outputs} if outputs else {}), "attachments": refs}
    return document, contents


def _output_reference(
    document: Mapping[str, Any], name: str, sha256: str, size_bytes: int
) -> dict[str, Any]:
    kind, mime, ending = _OUTPUT_KINDS[name]
    return {
        "sha256": sha256,
        "kind": kind,
        "mime": mime,
        "filename": f"{document['run_id']}{ending}",
        "size_bytes": size_bytes,
        "created_at_utc": document["created_at_utc"],
    }


def _reference(
    item: Mapping[str, Any], blobs: Mapping[str, FoundBlob], created_at_utc: str
) -> dict[str, Any]:
    values = {
        name: value if (value := item.get(name)) is not None and fits(value) else _DEFAULTS[name]
        for name, fits in ATTACHMENT_FIELDS.items()
        if name in _DEFAULTS
    }
    blob = blobs.get(item["sha256"])
    if blob is not None:
        values["size_bytes"] = blob.size_bytes
    moment = item.get("created_at_utc")
    return values | {
        "sha256": item["sha256"],
        "created_at_utc": _time(moment) if moment else created_at_utc,
    }


def _time(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a time, found {type(value).__name__}")  # noqa: TRY004
    return normalise_timestamp(value)


def _in_utc(items: list[Any]) -> list[Any]:
    """Return the list with its times as we write them: the form of a time is not kept."""
    return [
        item | {"created_at_utc": f"{moment.removesuffix('+00:00')}Z"}
        if isinstance(item, dict)
        and isinstance(moment := item.get("created_at_utc"), str)
        and moment.endswith("+00:00")
        else item
        for item in items
    ]


def _of_advisories(
    advisories: Iterable[Mapping[str, Any]],
    blobs: Mapping[str, FoundBlob],
    known: set[str],
    created_at_utc: str,
) -> Iterator[dict[str, Any]]:
    for advisory in advisories:
        for name in _content_names(advisory):
            blob = blobs.get(name) if is_sha256(name) else None
            if blob is None or blob.sha256 in known:
                continue
            known.add(blob.sha256)
            yield {
                "sha256": blob.sha256,
                "kind": _ADVISORY_KIND,
                "mime": _mime(advisory, blob),
                "filename": f"advisory_{blob.sha256[:12]}{blob.suffix}",
                "size_bytes": blob.size_bytes,
                "created_at_utc": created_at_utc,
            }


def _content_names(advisory: Mapping[str, Any]) -> Iterator[Any]:
    return (advisory.get(name) for name in _CONTENT_NAMES)


def _mime(advisory: Mapping[str, Any], blob: FoundBlob) -> str:
    mime = advisory.get("mime")
    if mime is not None and ATTACHMENT_FIELDS["mime"](mime):
        return str(mime)
    return _MIMES.get(blob.suffix, _OTHER_MIME)
