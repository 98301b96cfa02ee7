"""The head of a request: its target in one form, and the rules that it must satisfy."""

import re
from dataclasses import dataclass
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.types import Scope

from pipeline.api.answers import ApiError
from pipeline.core.http_hosts import KnownHosts, is_same_origin

READING = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""

_CLOSE = {"Connection": "close"}
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class HeadRules:
    """Which requests are refused by their head alone: by framing, Host and Origin.

    Attributes:
        hosts: Names under which the API answers.
        origins: Of the pages of other sites that may read and write.
    """

    hosts: KnownHosts
    origins: frozenset[str]

    def refusal(self, scope: Scope) -> ApiError | None:
        """Return why a request is refused, or None."""
        if _has_two_lengths(scope):
            message = "Expected one length: Content-Length or, in HTTP/1.1, Transfer-Encoding."
            return ApiError(400, "BAD_REQUEST", message, headers=_CLOSE)
        if not self.hosts.has(header_of(scope, b"host")):
            message = (
                "This is no name of this API: ask it as localhost or 127.0.0.1, or name the host "
                "in RMOS_API_ALLOWED_HOSTS."
            )
            return ApiError(421, "WRONG_HOST", message, headers=_CLOSE)
        if scope["method"] not in READING and self._is_foreign(Headers(scope=scope)):
            message = (
                "A page of another site may not change anything here, unless its origin is in "
                "RMOS_API_ALLOWED_ORIGINS."
            )
            return ApiError(403, "FOREIGN_ORIGIN", message)
        return None

    def _is_foreign(self, headers: Headers) -> bool:
        # Each of them: a proxy may have added another.
        origins = headers.getlist("origin")
        if origins and self.origins.issuperset(origins):
            return False
        if any(site.lower() == "cross-site" for site in headers.getlist("sec-fetch-site")):
            return True
        host = headers.get("host")
        return not all(is_same_origin(origin, host) for origin in origins)


def header_of(scope: Scope, name: bytes) -> str | None:
    """Return the first value of a header, whose name is in lower case; None where it is not there.

    Starlette's own look-up takes ten times as long where there is none.
    """
    for each, value in scope["headers"]:
        if each == name:
            return str(value, "latin-1")
    return None


def _has_two_lengths(scope: Scope) -> bool:
    """Return whether a proxy in front may see another end of the body (RFC 9112, 6.1 and 6.3)."""
    if header_of(scope, b"transfer-encoding") is None:
        return False
    # HTTP/1.0 has no chunks: for a proxy that speaks it alone the body ends elsewhere.
    return scope["http_version"] == "1.0" or header_of(scope, b"content-length") is not None


def in_origin_form(scope: Scope) -> Scope:
    """Return `scope` with a path alone, where the request line had a whole URL.

    Its host takes the place of that in the header (RFC 9112, 3.2.2).
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
    """Return whether the path holds an escaped slash, which no name of ours does.

    Once unescaped, `run_1%2Fdownload` would be another path.
    """
    return b"%2f" in (scope.get("raw_path") or b"").lower()
