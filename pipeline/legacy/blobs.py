"""Contents of an older store's attachments: found by their hash, whatever their names end in.

The older store wrote JSON pretty-printed under the hash of its canonical form, so the file's own
hash differs from its name. The canonical form is what we store: its bytes have that hash.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pipeline.core.hashing import sha256_of_bytes
from pipeline.disk.regular_files import open_named
from pipeline.errors import InputError, input_faults
from pipeline.legacy.attachments import INLINE_LIMIT_BYTES, FoundBlob
from pipeline.storage.attachments import LEGACY_JSON_LIMIT_BYTES, PIECE_BYTES, canonical_form
from schemas.fields import is_sha256

BlobState = Literal["as named", "pretty-printed", "missing", "mismatch"]
"""`pretty-printed`: the name is the hash of the canonical JSON, not of the file."""

_NAME_LENGTH = 64


class LegacyBlobs:
    """The files of one folder, flat or in `ab/cd/`; no folder at all has no files."""

    def __init__(self, folder: Path | None) -> None:
        """Look at the names of the files.

        Raises:
            InputError: The folder cannot be read.
        """
        self.folder = folder
        self._paths: dict[str, list[Path]] = {}
        if folder is not None:
            for path in _files_below(folder):
                self._paths.setdefault(path.name[:_NAME_LENGTH], []).append(path)

    def find(self, name: str) -> tuple[BlobState, FoundBlob | None]:
        """Read what is there under `name`; return what it is, and the content if its hash is right.

        Raises:
            InputError: A file cannot be read.
        """
        paths = self._paths.get(name, [])
        read = (_read(path, name) for path in paths)
        wrong: BlobState = "mismatch" if paths else "missing"
        return next((each for each in read if each[1] is not None), (wrong, None))

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a content that was found, as we store them.

        Raises:
            InputError: Its file cannot be read any more, or is another now.
        """
        for path in self._paths.get(name, []):
            state, blob = _read(path, name)
            if blob is None:
                continue
            if state == "pretty-printed":
                yield canonical_form(b"".join(_pieces_of(path))) or b""
            else:
                yield from _pieces_of(path)
            return
        raise InputError(f"The attachment {name} in {self.folder} was there, and is not any more.")


def _files_below(folder: Path) -> Iterator[Path]:
    with input_faults(f"The attachments folder {folder} cannot be read"):
        if not folder.is_dir():
            raise InputError(f"The attachments folder {folder} is no folder that can be read.")
        for path in sorted(folder.rglob("*")):
            if is_sha256(path.name[:_NAME_LENGTH]) and path.name[_NAME_LENGTH:][:1] in {"", "."}:
                yield path


def _read(path: Path, name: str) -> tuple[BlobState, FoundBlob | None]:
    suffix = path.name[_NAME_LENGTH:]
    digest, size = hashlib.sha256(), 0
    kept: list[bytes] | None = []
    for piece in _pieces_of(path):
        digest.update(piece)
        size += len(piece)
        if kept is not None:
            kept = [*kept, piece] if size <= LEGACY_JSON_LIMIT_BYTES else None
    content = None if kept is None else b"".join(kept)
    if digest.hexdigest() == name:
        return "as named", _found(name, size, suffix, content)
    canonical = None if content is None else canonical_form(content)
    if canonical is not None and sha256_of_bytes(canonical) == name:
        return "pretty-printed", _found(name, len(canonical), suffix, canonical)
    return "mismatch", None


def _found(name: str, size_bytes: int, suffix: str, content: bytes | None) -> FoundBlob:
    is_small = size_bytes <= INLINE_LIMIT_BYTES
    return FoundBlob(name, size_bytes, suffix, content if is_small else None)


def _pieces_of(path: Path) -> Iterator[bytes]:
    with input_faults(f"The attachment {path} cannot be read"), open_named(path) as file:
        while piece := file.read(PIECE_BYTES):
            yield piece
