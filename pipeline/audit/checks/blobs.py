"""Blobs compared with their names: those of one folder, or those that a file or row names.

A blob's name is the hash of its bytes, so it needs no leaf to be checked. One that nothing names
is no fault among the attachments, which anybody may upload; a quarantined request is always that
of a run.
"""

import re
from functools import partial
from typing import Final, NamedTuple

from pipeline.audit import queries
from pipeline.audit.checks.places import unexplained_in
from pipeline.audit.rules.finding import Finding, mode_finding
from pipeline.audit.steps import AuditReader, StepResult
from pipeline.core.layout import BlobArea, BlobPath, parse_path
from pipeline.core.store.files import (
    FoundName,
    Inspection,
    NotAFileError,
    OpenFile,
    ReadableFiles,
)
from pipeline.disk.durable_files import FILE_MODE, PRIVATE_FILE_MODE
from pipeline.disk.small_files import PRIVATE_FOLDER_MODE
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
    if reader.context.extent.takes_rest:
        if reader.store.files.has_folder(area_name):
            _check_folder(reader, area_name, result)
        expected = "a folder of blobs"
        result.add(*unexplained_in(reader.store.files, area_name, BLOB_FOLDER, expected))
    return result


def check_blob_folder(reader: AuditReader, area_name: str, prefix: str) -> StepResult:
    """Check every blob in the folder `prefix` of an area: its name, its mode, its bytes."""
    is_quarantine = BlobArea(area_name) is BlobArea.QUARANTINE
    inspection = reader.store.inspection
    result = StepResult()
    folder = f"{area_name}/{prefix}"
    _check_folder(reader, folder, result)
    below = inspection.below(folder, _is_inner)
    for blob, found in reader.store.files.at_once(partial(_check_below, reader), below):
        result.take(found)
        if blob is not None and is_quarantine and not _is_named(reader, blob):
            result.suspects.append(blob)
    return result


def _is_inner(path: str) -> bool:
    return path.count("/") == 2 and BLOB_FOLDER.fullmatch(path.rpartition("/")[2]) is not None  # noqa: PLR2004


def _check_below(reader: AuditReader, entry: FoundName) -> tuple[str | None, StepResult]:
    """Check what lies in a folder of an area; return its path too, if it is a blob."""
    path, is_folder = entry
    result = StepResult()
    if is_folder and _is_inner(path):
        _check_folder(reader, path, result)
    elif is_folder or not isinstance(parse_path(path), BlobPath):
        result.suspects.append(path)
    else:
        reads = reader.context.depth_of(path) != "names"
        check_blob(reader.store.inspection, path, reads=reads, result=result)
        return path, result
    return None, result


def _is_named(reader: AuditReader, path: str) -> bool:
    return reader.plan.execute(queries.IS_BLOB_NAMED, (path,)).fetchone() is not None


def check_blob_names(reader: AuditReader, first: str, last: str) -> StepResult:
    """Check that the blobs that rows of the index name are there."""
    result = StepResult()
    named = reader.plan.execute(queries.NAMED_BLOBS, (first, last)).fetchall()
    check = partial(check_named_blob, reader)
    for found in reader.store.files.at_once(lambda row: check(*row), named):
        result.take(found)
    return result


def check_named_blob(reader: AuditReader, path: str, named_by: str) -> StepResult:
    """Check that a blob that a file names is there; its bytes where no other step reads them."""
    result, files = StepResult(), reader.store.files
    if not reader.context.is_whole:
        reads = reader.context.depth_of(path) != "names"
        is_there = check_blob(reader.store.inspection, path, reads=reads, result=result)
    else:
        try:
            is_there = bool(files.present([path]))
        except OSError:
            return result  # The step that checks the blob itself reports it.
    if not is_there:
        result.add(missing_blob(files, path, named_by))
    return result


def missing_blob(files: ReadableFiles, path: str, named_by: str) -> Finding:
    """Return the finding that a blob is not there which a file names."""
    expected, area = f"the blob that {named_by} names", BlobArea(path.partition("/")[0])
    if area is BlobArea.ATTACHMENTS and is_awaited(files, path.rpartition("/")[2]):
        return Finding("ATTACHMENT_AWAITED", path, expected, "no file, and none ever came")
    return Finding(_AREAS[area].missing, path, expected, "no file")


def check_blob(inspection: Inspection, path: str, *, reads: bool, result: StepResult) -> bool:
    """Check a blob; return whether it is there.

    Args:
        inspection: Of the files of the store.
        path: Of the blob.
        reads: Whether its bytes are looked at too.
        result: Takes what is found.
    """
    area = BlobArea(path.partition("/")[0])
    try:
        with inspection.opened(path) as found:
            if found is None:
                return False
            file, mode = found
            result.count(_AREAS[area].counted)
            result.add(*mode_finding(path, mode, _AREAS[area].mode))
            if reads:
                check_bytes(path, area, file, result)
    except NotAFileError as error:
        result.add(Finding("FILE_UNREADABLE", path, "a blob that can be read", str(error)))
    return True


def check_bytes(path: str, area: BlobArea, file: OpenFile, result: StepResult) -> None:
    """Compare the bytes of an open blob with the hash that ends `path`.

    Raises:
        NotAFileError: It cannot be read.
    """
    name = path.rpartition("/")[2]
    try:
        blob = OpenBlob(file, name)
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
        mode = reader.store.inspection.mode(path)
        result.add(*mode_finding(path, mode, PRIVATE_FOLDER_MODE))
