"""Headers of downloads: Range, Content-Disposition and ETag.

Ranges are those of RFC 9110 section 14, entity tags of section 8.8; file names follow RFC 6266 and
8187.
"""

import re
from collections.abc import Iterable
from typing import Literal
from urllib.parse import quote

from pipeline.core.hashing import sha256_of_text
from pipeline.core.visible_text import without_unseen

# More digits than any file needs, and few enough for every reader.
_ONE_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


class UnsatisfiableRangeError(Exception):
    """No byte of the whole lies in the range that was asked for."""


def parse_range(header: str | None, size_bytes: int) -> range | None:
    """Return the one range that `header` asks for; None where the whole is to be sent.

    A header of another form, or of several ranges, may be ignored, and is.

    Raises:
        UnsatisfiableRangeError: It begins behind the end.
    """
    found = _ONE_RANGE.fullmatch(header.strip()) if header is not None else None
    if found is None or found[0] == "bytes=-":
        return None
    first, last = found.groups()
    if not first:
        begin, end = max(size_bytes - int(last), 0), size_bytes
    else:
        begin, end = int(first), min(int(last) + 1, size_bytes) if last else size_bytes
        if last and int(last) < begin:
            return None
    if begin >= size_bytes:
        raise UnsatisfiableRangeError
    return range(begin, end)


_NOT_PLAIN = re.compile(r"[^A-Za-z0-9._ ()+,=@#-]")
_ATTR_CHAR = "!#$&+-.^_`|~"
_SHOWN_IN_PLACE = frozenset(
    {"text/plain", "application/json", "image/png", "image/jpeg", "image/gif", "image/webp"}
)
"""What a browser can show without running anything of it."""


def disposition_of(mime: str) -> Literal["inline", "attachment"]:
    """Return how a browser is to treat content of this type: HTML, SVG and the like are saved."""
    plain = mime.partition(";")[0].strip().lower()
    return "inline" if plain in _SHOWN_IN_PLACE else "attachment"


def content_disposition(kind: Literal["inline", "attachment"], filename: str) -> str:
    """Return the header's value; whatever `filename` holds, it stays one quoted name.

    Readers of RFC 8187 take the name but for what is not seen of it, all others one of plain
    characters. A mark that turns the direction of a line around would show `exe.gnp` as `png.exe`.
    """
    name = without_unseen(filename, "_")
    fallback = _NOT_PLAIN.sub("_", name)
    header = f'{kind}; filename="{fallback}"'
    if fallback == name:
        return header
    return f"{header}; filename*=UTF-8''{quote(name, safe=_ATTR_CHAR)}"


_TAG = re.compile(r'(?:W/)?("[^"]*")')


def entity_tag(sha256: str) -> str:
    """Return the tag of exact bytes."""
    return f'"{sha256}"'


def combined_tag(hashes: Iterable[str]) -> str:
    """Return the tag of an answer that these hashes, in their order, decide."""
    return entity_tag(sha256_of_text("\n".join(hashes)))


def is_known(tag: str, if_none_match: str | None) -> bool:
    """Return whether a client that sent this If-None-Match has the answer already."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or tag in _TAG.findall(if_none_match)
