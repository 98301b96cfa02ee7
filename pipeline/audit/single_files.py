"""The check of a single file by itself: an artifact, a link or a blob, wherever it lies.

No store is needed, no index and no ledger. What is checked follows from the file:

1. An artifact or a link is in canonical JSON, of its shape, and its own hashes can be computed.
2. In the folder of a date its name and date are those of its content.
3. In a store, or in a folder laid out as one, the blobs that it names are there, with their hash.
4. A file that is named by a SHA-256 has that one.

A file that was replaced together with its hashes is not found here: its leaf finds it.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from pipeline.audit.checks.blobs import check_blob, check_bytes, missing_blob
from pipeline.audit.rules.content import check_artifact, check_link
from pipeline.audit.rules.finding import Finding
from pipeline.audit.steps import StepResult
from pipeline.core.json.strict import InvalidJsonError, parse_object
from pipeline.core.layout import BlobArea, BlobPath, LinkPath, parse_path
from pipeline.core.store.identity import STORE_FILE
from pipeline.disk.inspection import DiskInspection
from pipeline.disk.regular_files import opened, read_open
from pipeline.disk.stored_files import OpenDiskFile, StoredFiles
from pipeline.errors import InputError
from pipeline.storage.artifacts import DOCUMENT_LIMIT_BYTES
from schemas.advisory_link import ADVISORY_LINK_VERSION
from schemas.fields import is_sha256

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def check_file(file: Path) -> list[Finding]:
    """Return what is wrong with a file.

    Raises:
        InputError: It cannot be read.
    """
    root, path = _place_of(file)
    try:
        # A symbolic link that the caller names is followed; inside a store one is a fault.
        whole = file.resolve()
        with opened(whole.parent, whole.name) as found:
            findings = None if found is None else _check(root, path, found[0], found[1].st_size)
    except OSError as error:
        raise InputError(f"{file} cannot be checked: {error.strerror or error}.") from error
    if findings is None:
        raise InputError(f"{file} cannot be checked: there is no such file.")
    # Blobs that it names are reported by their own paths, the file as the caller named it.
    return [replace(each, path=str(file)) if each.path == path else each for each in findings]


def _check(root: Path | None, path: str, descriptor: int, size_bytes: int) -> list[Finding]:
    if is_sha256(path.rpartition("/")[2]):
        found, result = parse_path(path), StepResult()
        area = found.area if isinstance(found, BlobPath) else BlobArea.ATTACHMENTS
        check_bytes(path, area, OpenDiskFile.of(descriptor), result)
        return result.findings
    if size_bytes > DOCUMENT_LIMIT_BYTES:
        expected = f"an artifact or a link, which have at most {DOCUMENT_LIMIT_BYTES:,} bytes"
        return [Finding("FILE_UNREADABLE", path, expected, f"{size_bytes:,} bytes")]
    content, own = read_open(descriptor, size_bytes), parse_path(path)
    is_link = isinstance(own, LinkPath) or (own is None and _is_link(content))
    check = (check_link if is_link else check_artifact)(path, content)
    findings = check.findings
    if root is not None:
        for blob in check.blobs:
            findings += _check_blob(root, blob, path)
    return findings


def _place_of(file: Path) -> tuple[Path | None, str]:
    """Return the store in which a file lies, if any, and its path as far as the layout has it."""
    whole = file.absolute()
    folder = whole.parent
    if _DATE.fullmatch(folder.name):
        is_run_folder = folder.parent.name == "runs"
        root = _root(folder.parent.parent) if is_run_folder else None
        return root, f"runs/{folder.name}/{file.name}"
    blob = "/".join(whole.parts[-4:])
    return None, blob if isinstance(parse_path(blob), BlobPath) else file.name


def _root(folder: Path) -> Path | None:
    """Return `folder` if it is laid out as a store, so that blobs can be asked for."""
    is_one = (folder / STORE_FILE).is_file() or (folder / BlobArea.ATTACHMENTS.value).is_dir()
    return folder if is_one else None


def _is_link(content: bytes) -> bool:
    """Return whether a document is a link by its schema_version, as its name is not known."""
    try:
        return parse_object(content)[0].get("schema_version") == ADVISORY_LINK_VERSION
    except InvalidJsonError:
        return False


def _check_blob(root: Path, path: str, named_by: str) -> Iterator[Finding]:
    result = StepResult()
    if not check_blob(DiskInspection(root), path, reads=True, result=result):
        yield missing_blob(StoredFiles(root), path, named_by)
    # A file that was sent to another machine has its bytes, not its mode.
    yield from (each for each in result.findings if each.code != "MODE_DIFFERS")
