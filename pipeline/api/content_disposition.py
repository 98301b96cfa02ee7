"""The Content-Disposition header: a file's name that is no more than a name (RFC 6266, 8187)."""

import re
from typing import Literal
from urllib.parse import quote

from pipeline.core.visible_text import without_unseen

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
