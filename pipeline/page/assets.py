"""The assets of the pages: each under a path that holds its hash, kept by browsers for good."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from fastapi import APIRouter
from starlette.responses import Response

from pipeline.api.answers import ApiError

router = APIRouter()

TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_SHOWN_DIGITS = 16
"""Of the hash, in a path: 64 bits, to tell the versions of one file apart."""
_HEADERS = {
    "Cache-Control": "public, max-age=31536000, immutable",
    # Where it is opened by itself, as a document.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of `pipeline/page/static`.

    Attributes:
        name: Its path below that folder.
    """

    name: str
    content: bytes
    mime: str

    @property
    def path(self) -> str:
        """Where it is served; it changes with the content."""
        digits = hashlib.sha256(self.content).hexdigest()[:_SHOWN_DIGITS]
        return f"/static/{digits}/{self.name}"


@cache
def assets() -> dict[str, Asset]:
    """Return all assets by name."""
    return {asset.name: asset for asset in _found(files("pipeline.page") / "static", "")}


def _found(folder: Traversable, above: str) -> Iterator[Asset]:
    for each in sorted(folder.iterdir(), key=lambda entry: entry.name):
        name = above + each.name
        if each.is_dir():
            yield from _found(each, f"{name}/")
        else:
            yield Asset(name, each.read_bytes(), TYPES[f".{each.name.rpartition('.')[2]}"])


@cache
def _by_path() -> dict[str, Asset]:
    return {asset.path: asset for asset in assets().values()}


def asset_path(name: str) -> str:
    """Return where an asset is served, for a template."""
    return assets()[name].path


@router.get("/static/{digits}/{name:path}")
async def get_asset(digits: str, name: str) -> Response:
    """Return an asset; its path under another hash is that of another version."""
    found = _by_path().get(f"/static/{digits}/{name}")
    if found is None:
        raise ApiError(404, "NOT_FOUND", "There is no such asset in this version.")
    return Response(found.content, headers=_HEADERS, media_type=found.mime)
