"""The Content-Disposition header: a file's name that is no more than a name (RFC 6266, 8187)."""

import re
from typing import Literal
from urllib.parse import quote

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

    Readers of RFC 8187 take the exact name, all others one of plain characters.
    """
    # What no UTF-8 can express is not in a checked name; it must not fail here all the same.
    name = filename.encode("utf-8", "replace").decode("utf-8")
    fallback = _NOT_PLAIN.sub("_", name)
    header = f'{kind}; filename="{fallback}"'
    if fallback == name:
        return header
    return f"{header}; filename*=UTF-8''{quote(name, safe=_ATTR_CHAR)}"
