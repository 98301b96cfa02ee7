"""What stands at a path that a request does not fit: other methods, or the path without a slash."""

from fastapi import Request
from starlette.routing import Match

_METHODS = ("GET", "POST", "PUT")


def allowed_methods(request: Request) -> list[str]:
    """Return the methods that the path of a request knows; none where there is nothing."""
    if request.scope["path"] == "*":
        # The whole server, as in OPTIONS *.
        return ["GET", "HEAD", "OPTIONS", "POST", "PUT"]
    found = [method for method in _METHODS if _fits(request, request.scope["path"], method)]
    if not found:
        return []
    reading = ["GET", "HEAD"] if "GET" in found else []
    return [*reading, "OPTIONS", *(method for method in found if method != "GET")]


def without_slash(request: Request) -> str | None:
    """Return where a request leads that has a slash too many at its end, if that is a path of ours.

    The host is left out: it would be the one that the client sent.
    """
    path = request.scope["path"]
    bare = path.rstrip("/")
    if bare == path or not any(_fits(request, bare, method) for method in _METHODS):
        return None
    # Still escaped, and one of our paths: so no `//host` that a browser would go to.
    target = request.scope["raw_path"].decode("ascii").rstrip("/")
    query = request.scope["query_string"].decode("latin-1")
    return f"{target}?{query}" if query else target


def _fits(request: Request, path: str, method: str) -> bool:
    # A scope of its own: matching leaves marks in that of the request.
    scope = {"type": "http", "path": path, "root_path": "", "method": method, "headers": []}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)
