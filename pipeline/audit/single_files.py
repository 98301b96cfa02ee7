"""Single files checked by themselves: an artifact, a link or a blob, wherever it lies.

No store is needed, no index and no ledger. What is checked follows from the file:

1. An artifact or a link is in canonical JSON, of its shape, and its own hashes can be computed.
2. In the folder of a date its name and date are those of its content.
3. In a store, or in a folder laid out as one, the blobs that it names are there, with their hash.
4. A file that is named by a SHA-256 has that one.

A file that was replaced together with its hashes is not found here: its leaf finds it.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pipeline.audit.checks.blobs import check_blob, check_bytes, missing_blob
from pipeline.audit.rules.content import ContentCheck, check_artifact, check_link
from pipeline.audit.rules.finding import Finding
from pipeline.audit.steps import StepResult
from pipeline.core.json.strict import InvalidJsonError, parse_object
from pipeline.core.layout import ArtifactPath, BlobArea, BlobPath, LinkPath, parse_path
from pipeline.disk.regular_files import opened, read_open
from pipeline.disk.store_identity import STORE_FILE
from pipeline.errors import InputError
from pipeline.storage.artifacts import DOCUMENT_LIMIT_BYTES
from schemas.advisory_link import ADVISORY_LINK_VERSION
from schemas.fields import is_sha256

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a file lies.

    Attributes:
        root: Folder of the store; None where it lies in none.
        path: As the layout writes it, as far as it follows it; else its name.
    """

    root: Path | None
    path: str


def check_file(file: Path) -> list[Finding]:
    """Return what is wrong with a file.

    Raises:
        InputError: It cannot be read.
    """
    place = _place_of(file)
    try:
        # A symbolic link that the caller names is followed; inside a store one is a fault.
        whole = file.resolve()
        with opened(whole.parent, whole.name) as found:
            findings = None if found is None else _check(file, place, *found)
    except OSError as error:
        raise InputError(f"{file} cannot be checked: {error.strerror or error}.") from error
    if findings is None:
        raise InputError(f"{file} cannot be checked: there is no such file.")
    # Blobs that it names are reported by their own paths, the file as the caller named it.
    return [replace(each, path=str(file)) if each.path == place.path else each for each in findings]


def _check(file: Path, place: _Place, descriptor: int, state: os.stat_result) -> list[Finding]:
    if is_sha256(file.name):
        return _check_blob(place, descriptor)
    return _check_document(place, descriptor, state.st_size)


def _place_of(file: Path) -> _Place:
    whole = file.absolute()
    folder = whole.parent
    if _DATE.fullmatch(folder.name):
        is_run_folder = folder.parent.name == "runs"
        root = _root(folder.parent.parent) if is_run_folder else None
        return _Place(root, f"runs/{folder.name}/{file.name}")
    blob = "/".join(whole.parts[-4:])
    if isinstance(parse_path(blob), BlobPath):
        return _Place(None, blob)
    return _Place(None, file.name)


def _root(folder: Path) -> Path | None:
    """Return `folder` if it is laid out as a store, so that blobs can be asked for."""
    is_one = (folder / STORE_FILE).is_file() or (folder / BlobArea.ATTACHMENTS.value).is_dir()
    return folder if is_one else None


def _check_blob(place: _Place, descriptor: int) -> list[Finding]:
    found = parse_path(place.path)
    area = found.area if isinstance(found, BlobPath) else BlobArea.ATTACHMENTS
    result = StepResult()
    check_bytes(place.path, area, descriptor, result)
    return result.findings


def _check_document(place: _Place, descriptor: int, size_bytes: int) -> list[Finding]:
    if size_bytes > DOCUMENT_LIMIT_BYTES:
        expected = f"an artifact or a link, which have at most {DOCUMENT_LIMIT_BYTES:,} bytes"
        return [Finding("FILE_UNREADABLE", place.path, expected, f"{size_bytes:,} bytes")]
    check = _content_check(place, read_open(descriptor, size_bytes))
    return [*check.findings, *_check_blobs(place, check.blobs)]


def _content_check(place: _Place, content: bytes) -> ContentCheck:
    own = parse_path(place.path)
    if isinstance(own, LinkPath):
        return check_link(place.path, content, own)
    if isinstance(own, ArtifactPath):
        return check_artifact(place.path, content, own)
    if _is_link(content):
        return check_link(place.path, content, None)
    return check_artifact(place.path, content, None)


def _is_link(content: bytes) -> bool:
    """Return whether a document is a link by its schema_version, as its name is not known."""
    try:
        document, _ = parse_object(content)
    except InvalidJsonError:
        return False
    return document.get("schema_version") == ADVISORY_LINK_VERSION


def _check_blobs(place: _Place, blobs: Iterable[str]) -> Iterator[Finding]:
    if place.root is None:
        return
    for path in blobs:
        result = StepResult()
        if not check_blob(place.root, path, reads=True, result=result):
            yield missing_blob(place.root, path, place.path)
        # A file that was sent to somebody has its bytes, not its mode.
        yield from (each for each in result.findings if each.code != "MODE_DIFFERS")
