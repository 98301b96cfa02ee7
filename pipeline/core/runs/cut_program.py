"""The program that would be cut by a run, and how its hash is known.

A function of the artifact alone, so an index that is made again from the files has the same.
Whether the blob of an attachment is there at the moment is no part of it.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from pipeline.core.layout import attachment_path
from schemas.fields import GcodeKnownBy, is_sha256

GCODE_KIND: Final = "gcode"
"""The kind of an attachment that is a program."""

OLD_HASHES: Final = {
    "toolpaths_sha256": "toolpaths_hash",
    "gcode_sha256": "gcode_hash",
    "opplan_sha256": "opplan_hash",
}
"""What a row of an older store calls the hashes of an artifact; `meta.v1` keeps them."""

OLD_REQUEST_HASH: Final = "request_hash"
"""What it calls the hash of what was evaluated, or of what was asked for."""


class CutProgram(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A program by its hash.

    Attributes:
        known_by: `stored`: computed from G-code that came with the request. `attached`: an
            attachment of kind gcode, or the one at `outputs.gcode_path`, has it as its name.
            `claimed`: only the producer or an older store names it; the content is not known.
    """

    sha256: str
    known_by: GcodeKnownBy


def cut_program(document: Mapping[str, Any]) -> CutProgram | None:
    """Return the program of an artifact.

    None where nothing would be cut because the run is not OK, where no hash is known, and where
    several programs are attached and neither `outputs.gcode_path` nor a claim names one of them.
    """
    if document["status"] != "OK":
        return None
    if (computed := document["hashes"].get("gcode_sha256")) is not None:
        return CutProgram(computed, "stored")
    if (named := attachment_at_gcode_path(document)) is not None:
        return CutProgram(named, "attached")
    refs = document["attachments"]
    claims = claims_of(document, "gcode_sha256")
    claimed = next((each for each in claims if is_sha256(each)), None)
    if claimed is None:
        attached = {ref["sha256"] for ref in refs if ref["kind"] == GCODE_KIND}
        return CutProgram(attached.pop(), "attached") if len(attached) == 1 else None
    # By content, not by kind: the program may be listed as `debug`.
    is_attached = any(ref["sha256"] == claimed for ref in refs)
    return CutProgram(claimed, "attached" if is_attached else "claimed")


def attachment_at_gcode_path(document: Mapping[str, Any]) -> str | None:
    """Return the hash of the attachment that `outputs.gcode_path` names, if it names one."""
    path = document["outputs"].get("gcode_path")
    hashes: Iterable[str] = (ref["sha256"] for ref in document["attachments"])
    return next((sha256 for sha256 in hashes if path == attachment_path(sha256)), None)


def claims_of(document: Mapping[str, Any], name: str) -> list[Any]:
    """Return what a producer or an older store claims to be a hash of an artifact.

    Of a row of an older store it may be anything.
    """
    old = old_values(document)
    inner = old.get("hashes")
    claims = (
        document.get("provenance", {}).get("claimed_hashes", {}).get(name),
        old.get(OLD_HASHES[name]) if name in OLD_HASHES else None,
        inner.get(name) if isinstance(inner, dict) else None,
    )
    return [each for each in claims if each is not None]


def old_values(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a migrated artifact keeps of its row; nothing of any other artifact."""
    if not document.get("provenance", {}).get("legacy"):
        return {}
    old = document["meta"].get("v1")
    return old if isinstance(old, dict) else {}
