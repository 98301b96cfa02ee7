"""The request as the routes understand it, out of any form that HTTP allows for it."""

import re
from urllib.parse import unquote

from starlette.types import Scope

_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)


def in_origin_form(scope: Scope) -> Scope:
    """Return `scope` with a path alone, where the request line had a whole URL.

    Its host is the one that counts, whatever the header says (RFC 9112, 3.2.2).
    """
    found = _ABSOLUTE.fullmatch(scope.get("raw_path") or b"")
    if found is None:
        return scope
    path = found[2] or b"/"
    others = [header for header in scope["headers"] if header[0] != b"host"]
    return {
        **scope,
        "raw_path": path,
        "path": unquote(path.decode("ascii")),
        "headers": [(b"host", found[1]), *others],
    }


def has_hidden_slash(scope: Scope) -> bool:
    """Tell whether a part of the path holds an escaped slash, which no name of ours does.

    Once unescaped, `run_1%2Fdownload` would be another path.
    """
    return b"%2f" in (scope.get("raw_path") or b"").lower()
