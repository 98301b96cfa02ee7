"""Notes about blobs that were named before they came: empty files `awaited/<sha256>`.

A worker writes one with the file that names a blob which is not there; whatever brings the blob
removes it. So a blob that is not there and has a note has never come, and one without a note was
there and is gone.

Worker and upload may meet: each does its own step, then looks at the other's. The worker writes
the note, then removes it if the blob is there; an upload links the blob, then removes the note.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from pipeline.core.layout import attachment_path
from pipeline.core.store.files import NewFile
from pipeline.disk.regular_files import is_regular_below

AWAITED_FOLDER: Final = "awaited"
_NOTE: Final = re.compile(r"awaited/[0-9a-f]{64}")


def is_awaited_note(path: str) -> bool:
    """Return whether a path, relative to the store, is that of a note."""
    return _NOTE.fullmatch(path) is not None


def is_awaited(root: Path, sha256: str) -> bool:
    """Return whether a note records that the blob never came."""
    return is_regular_below(root, f"{AWAITED_FOLDER}/{sha256}")


def notes_to_write(root: Path, named: Iterable[str]) -> Iterator[NewFile]:
    """Yield a note for each named blob that is not there."""
    for sha256 in sorted(named):
        if not _is_there(root, sha256):
            yield NewFile(f"{AWAITED_FOLDER}/{sha256}", b"")


def forget_awaited(root: Path, named: Iterable[str]) -> None:
    """Remove the notes of blobs that are there."""
    if not (root / AWAITED_FOLDER).is_dir():
        return
    for sha256 in named:
        if _is_there(root, sha256):
            with suppress(FileNotFoundError):
                _note_of(root, sha256).unlink()


def _note_of(root: Path, sha256: str) -> Path:
    return root / AWAITED_FOLDER / sha256


def _is_there(root: Path, sha256: str) -> bool:
    try:
        (root / attachment_path(sha256)).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def missing_attachments(root: Path, document: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the SHA-256 of each attachment without a file, sorted; no file is read.

    Args:
        root: Folder of the store.
        document: The artifact of the run, or its index fields.
    """
    if not document["attachments"]:
        return ()
    named = {ref["sha256"] for ref in document["attachments"]}
    return tuple(
        sorted(sha256 for sha256 in named if not is_regular_below(root, attachment_path(sha256)))
    )
