"""Entity tags: strong ones out of hashes, and what a client says it has (RFC 9110 section 8.8)."""

import re
from collections.abc import Iterable

from pipeline.core.hashing import sha256_of_text

_TAG = re.compile(r'(?:W/)?("[^"]*")')


def entity_tag(sha256: str) -> str:
    """Return the tag of exact bytes."""
    return f'"{sha256}"'


def combined_tag(hashes: Iterable[str]) -> str:
    """Return the tag of an answer that these hashes, in their order, decide."""
    return entity_tag(sha256_of_text("\n".join(hashes)))


def is_known(tag: str, if_none_match: str | None) -> bool:
    """Tell whether a client that sent this If-None-Match has the answer already."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or tag in _TAG.findall(if_none_match)
