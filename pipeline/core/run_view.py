"""The view of a run: its artifact, its linked advisories, and the fields derived from both.

Nothing of it is stored; the same artifact and the same links always give the same view.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from pipeline.core.advisories.outcome import StoredAdvisory
from pipeline.core.json.canonical import canonical_json
from schemas.timestamps import microseconds_since_epoch, parse_timestamp

Members: TypeAlias = dict[str, msgspec.Raw]
"""The members of an object by name, each as its canonical bytes."""

_members = msgspec.json.Decoder(Members).decode
_joined = msgspec.json.Encoder(order="sorted").encode


def members_of(content: bytes) -> Members:
    """Return the members of the object that canonical bytes hold; nothing inside them is parsed."""
    return _members(content)


def joined(members: Members, added: Mapping[str, Any]) -> bytes:
    """Return the canonical bytes of the object with `added` beside, or in place of, its members."""
    return _joined(
        members | {name: msgspec.Raw(canonical_json(value)) for name, value in added.items()}
    )


def run_view(artifact: Mapping[str, Any], links: Sequence[StoredAdvisory]) -> dict[str, Any]:
    """Return the artifact with its links merged into `advisory_inputs`."""
    return {
        **artifact,
        "advisory_inputs": merged_advisories(artifact, links),
        "explanation_status": explanation_status(links),
    }


def merged_advisories(
    artifact: Mapping[str, Any], links: Iterable[StoredAdvisory]
) -> list[dict[str, Any]]:
    """Return the advisories of a migrated artifact and the links, oldest first."""
    own: list[dict[str, Any]] = artifact.get("advisory_inputs", [])
    return sorted([*own, *map(advisory_view, links)], key=_age)


def advisory_view(link: StoredAdvisory) -> dict[str, Any]:
    """Return what is shown of a link; absent values are left out."""
    shown = {
        "advisory_id": link.advisory_id,
        "kind": link.claim.kind,
        "created_at_utc": link.created_at_utc,
        "engine_id": link.claim.engine_id,
        "engine_version": link.claim.engine_version,
        "request_id": link.request_id,
        "title": link.title,
        "content_sha256": link.claim.content_sha256,
        "mime": link.mime,
        "size_bytes": link.size_bytes,
        "link_sha256": link.link_sha256,
    }
    return {name: value for name, value in shown.items() if value is not None}


def explanation_status(links: Iterable[StoredAdvisory]) -> str:
    """Return READY where an explanation of the run exists."""
    return "READY" if any(link.claim.kind == "explanation" for link in links) else "NONE"


def withheld_blobs(artifact: Mapping[str, Any]) -> set[str]:
    """Return the SHA-256 of every attachment that the run names without showing it."""
    prefix = "attachments."
    named: list[str] = artifact["provenance"].get("withheld", [])
    return {name.removeprefix(prefix) for name in named if name.startswith(prefix)}


def _age(advisory: Mapping[str, Any]) -> tuple[int, str]:
    # Those of an older store may have times, or none, in forms of their own: they come first.
    try:
        moment = microseconds_since_epoch(parse_timestamp(str(advisory.get("created_at_utc"))))
    except ValueError:
        moment = 0
    return moment, str(advisory.get("advisory_id"))
