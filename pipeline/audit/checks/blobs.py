"""Blobs compared with their names: those of one folder, or those that a file or row names.

A blob's name is the hash of its bytes, so it needs no leaf to be checked. One that nothing names
is no fault among the attachments, which anybody may upload; a quarantined request is always that
of a run.
"""

import re
from pathlib import Path
from typing import Final, NamedTuple

from pipeline.audit import queries
from pipeline.audit.checks.places import unexplained_in
from pipeline.audit.rules.finding import Finding, mode_finding
from pipeline.audit.steps import AuditReader, StepResult
from pipeline.core.layout import BlobArea, BlobPath, parse_path
from pipeline.core.store.files import NotAFileError, ReadableFiles
from pipeline.disk.durable_files import FILE_MODE, PRIVATE_FILE_MODE
from pipeline.disk.regular_files import opened, state_of, state_of_any
from pipeline.disk.small_files import PRIVATE_FOLDER_MODE
from pipeline.disk.stored_files import OpenDiskFile
from pipeline.storage.attachments import OpenBlob
from pipeline.storage.awaited_blobs import is_awaited
from schemas.audit_finding import AuditCode

SLICE_BLOBS: Final = 2_000
"""Names looked for in one step."""

BLOB_FOLDER: Final = re.compile(r"[0-9a-f]{2}")


class _Area(NamedTuple):
    """What holds of the blobs of one area.

    Attributes:
        mode: Of their files.
        counted: Under which they are counted.
        missing: Code of one that is not there.
        differs: Code of one with other bytes.
    """

    mode: int
    counted: str
    missing: AuditCode
    differs: AuditCode


_AREAS: Final = {
    BlobArea.ATTACHMENTS: _Area(
        FILE_MODE, "attachments", "ATTACHMENT_MISSING", "ATTACHMENT_DIFFERS"
    ),
    BlobArea.QUARANTINE: _Area(
        PRIVATE_FILE_MODE, "quarantined", "QUARANTINE_MISSING", "QUARANTINE_DIFFERS"
    ),
}


def check_area(reader: AuditReader, area_name: str) -> StepResult:
    """Check what lies beside the folders of blobs of an area."""
    result = StepResult()
    if reader.context.is_whole:
        if reader.store.files.has_folder(area_name):
            _check_folder(reader, area_name, result)
        expected = "a folder of blobs"
        result.add(*unexplained_in(reader.store.files, area_name, BLOB_FOLDER, expected))
    return result


def check_blob_folder(reader: AuditReader, area_name: str, prefix: str) -> StepResult:
    """Check every blob in the folder `prefix` of an area: its name, its mode, its bytes."""
    area = BlobArea(area_name)
    result = StepResult()
    folder = f"{area_name}/{prefix}"
    _check_folder(reader, folder, result)
    for inner, is_folder in reader.store.files.names(folder):
        if not is_folder or not BLOB_FOLDER.fullmatch(inner.rpartition("/")[2]):
            result.suspects.append(inner)
            continue
        _check_folder(reader, inner, result)
        for path, is_folder_too in reader.store.files.names(inner):
            if is_folder_too or not isinstance(parse_path(path), BlobPath):
                result.suspects.append(path)
                continue
            reads = reader.context.depth_of(path) != "names"
            check_blob(reader.root, path, reads=reads, result=result)
            if area is BlobArea.QUARANTINE and not _is_named(reader, path):
                result.suspects.append(path)
    return result


def _is_named(reader: AuditReader, path: str) -> bool:
    return reader.plan.execute(queries.IS_BLOB_NAMED, (path,)).fetchone() is not None


def check_blob_names(reader: AuditReader, first: str, last: str) -> StepResult:
    """Check that the blobs that rows of the index name are there."""
    result = StepResult()
    for path, named_by in reader.plan.execute(queries.NAMED_BLOBS, (first, last)).fetchall():
        check_named_blob(reader, path, named_by, result)
    return result


def check_named_blob(reader: AuditReader, path: str, named_by: str, result: StepResult) -> None:
    """Check that a blob that a file names is there; its bytes where no other step reads them."""
    try:
        if not reader.context.is_whole:
            reads = reader.context.depth_of(path) != "names"
            is_there = check_blob(reader.root, path, reads=reads, result=result)
        else:
            is_there = state_of(str(reader.root / path)) is not None
    except NotAFileError:
        return  # The step that checks the blob itself reports it.
    if not is_there:
        result.add(missing_blob(reader.store.files, path, named_by))


def missing_blob(files: ReadableFiles, path: str, named_by: str) -> Finding:
    """Return the finding that a blob is not there which a file names."""
    expected, area = f"the blob that {named_by} names", BlobArea(path.partition("/")[0])
    if area is BlobArea.ATTACHMENTS and is_awaited(files, path.rpartition("/")[2]):
        return Finding("ATTACHMENT_AWAITED", path, expected, "no file, and none ever came")
    return Finding(_AREAS[area].missing, path, expected, "no file")


def check_blob(root: Path, path: str, *, reads: bool, result: StepResult) -> bool:
    """Check a blob; return whether it is there.

    Args:
        root: Folder of the store.
        path: Of the blob.
        reads: Whether its bytes are looked at too.
        result: Takes what is found.
    """
    area = BlobArea(path.partition("/")[0])
    try:
        with opened(root, path) as file:
            if file is None:
                return False
            descriptor, state = file
            result.count(_AREAS[area].counted)
            result.add(*mode_finding(path, state.st_mode, _AREAS[area].mode))
            if reads:
                check_bytes(path, area, descriptor, result)
    except NotAFileError as error:
        result.add(Finding("FILE_UNREADABLE", path, "a blob that can be read", str(error)))
    return True


def check_bytes(path: str, area: BlobArea, descriptor: int, result: StepResult) -> None:
    """Compare the bytes of an open blob with the hash that ends `path`.

    Raises:
        NotAFileError: The disk failed.
    """
    name = path.rpartition("/")[2]
    try:
        blob = OpenBlob(OpenDiskFile.of(descriptor), name)
        found = blob.check()
    except OSError as error:
        raise NotAFileError(error.strerror) from error
    result.count("files_read")
    result.count("bytes_read", blob.size_bytes)
    if found.error is not None:
        expected, actual = f"SHA-256 {name}", f"SHA-256 {found.actual_sha256}"
        result.add(Finding(_AREAS[area].differs, path, expected, actual))


def _check_folder(reader: AuditReader, path: str, result: StepResult) -> None:
    if path.partition("/")[0] == BlobArea.QUARANTINE.value:
        state = state_of_any(reader.root / path)
        result.add(*mode_finding(path, state.st_mode, PRIVATE_FOLDER_MODE))
