"""Notes about blobs that were named before they came: empty files `awaited/<sha256>`.

A worker writes one with the file that names a blob which is not there; whatever brings the blob
removes it. So a blob that is not there and has a note has never come, and one without a note was
there and is gone.

Worker and upload may meet: each does its own step, then looks at the other's. The worker writes
the note, then removes it if the blob is there; an upload links the blob, then removes the note.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

from pipeline.core.layout import attachment_path
from pipeline.core.store.files import Files, NewFile, ReadableFiles

AWAITED_FOLDER: Final = "awaited"
_NOTE: Final = re.compile(r"awaited/[0-9a-f]{64}")


def is_awaited_note(path: str) -> bool:
    """Return whether a path, relative to the store, is that of a note."""
    return _NOTE.fullmatch(path) is not None


def is_awaited(files: ReadableFiles, sha256: str) -> bool:
    """Return whether a note records that the blob never came."""
    note = _note_of(sha256)
    return note in files.readable([note])


def notes_to_write(files: ReadableFiles, named: Iterable[str]) -> list[NewFile]:
    """Return a note for each named blob that is not there."""
    wanted = sorted(named)
    present = files.present(map(attachment_path, wanted))
    missing = (sha256 for sha256 in wanted if attachment_path(sha256) not in present)
    return [NewFile(_note_of(sha256), b"") for sha256 in missing]


def forget_awaited(files: Files, named: Iterable[str]) -> None:
    """Remove the notes of blobs that are there."""
    blobs = {_note_of(sha256): attachment_path(sha256) for sha256 in named}
    noted = files.present(blobs)
    there = files.present(blobs[note] for note in noted)
    files.remove([note for note in noted if blobs[note] in there])


def _note_of(sha256: str) -> str:
    return f"{AWAITED_FOLDER}/{sha256}"


def missing_blobs(
    files: ReadableFiles, named: Iterable[Collection[str]], there: AbstractSet[str] = frozenset()
) -> list[tuple[str, ...]]:
    """Return of each group of SHA-256 those without a file, sorted; no file is read.

    Args:
        files: Of the store.
        named: The groups.
        there: Paths of files that are there.
    """
    groups = [set(group) for group in named]
    paths = {attachment_path(sha256) for group in groups for sha256 in group}
    readable = there | files.readable(paths - there)
    return [
        tuple(sorted(sha256 for sha256 in group if attachment_path(sha256) not in readable))
        for group in groups
    ]


def missing_attachments(files: ReadableFiles, document: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the SHA-256 of each attachment without a file, sorted; no file is read.

    Args:
        files: Of the store.
        document: The artifact of the run, or its index fields.
    """
    if not document["attachments"]:
        return ()
    (missing,) = missing_blobs(files, [[ref["sha256"] for ref in document["attachments"]]])
    return missing
