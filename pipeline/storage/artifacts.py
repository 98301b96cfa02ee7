"""Artifacts and links as files: one read and checked, or all found."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from pipeline.core.advisories.outcome import StoredAdvisory, advisory_of_link
from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.json.strict import InvalidJsonError, parse_object
from pipeline.core.layout import ArtifactPath, LinkPath, parse_path, quarantine_path
from pipeline.core.record import RecordSource
from pipeline.core.runs.artifact import (
    generated_by_row,
    generated_hashes,
    index_fields_of,
    withheld_of,
)
from pipeline.core.runs.artifact_parts import is_shown
from pipeline.core.runs.outcome import StoredRun, run_of_fields
from pipeline.core.runs.recorded_verdict import is_called_safe
from pipeline.core.store.contents import StoreContents
from pipeline.core.store.files import FoundName, NotAFileError, ReadableFiles
from pipeline.core.violations import first_difference
from pipeline.errors import IntegrityError
from pipeline.storage.archives import Archives, archived_error, is_gone
from pipeline.storage.index.tables import IndexedRun, indexed_run
from schemas.advisory_link import AdvisoryLink
from schemas.run_artifact import RunArtifact

DOCUMENT_LIMIT_BYTES: Final = 64 << 20
"""No artifact and no link is nearly as large: a request has at most 4 MiB."""

_PIECE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class FoundArtifact:
    """A file of a run, as the index would keep it."""

    run: StoredRun
    indexed: IndexedRun


@dataclass(frozen=True, slots=True)
class UnexpectedFile:
    """A file below `runs` that is no artifact and no link of its place.

    Attributes:
        path: Relative to the store.
        reason: What was expected and what was found.
    """

    path: str
    reason: str


def read_artifact(store: StoreContents, run: StoredRun) -> bytes:
    """Return the bytes of a run's file, which are those that the index knows.

    Raises:
        ArchivedError: The file is archived.
        IntegrityError: The file is missing, cannot be read, or has other bytes.
    """
    return read_recorded(
        store,
        run.artifact_path,
        run.artifact_sha256,
        sources=(run.source,),
        limit_bytes=run.size_bytes,
    )


def read_recorded(
    store: StoreContents,
    path: str,
    sha256: str,
    *,
    sources: Sequence[RecordSource | None],
    limit_bytes: int = DOCUMENT_LIMIT_BYTES,
) -> bytes:
    """Return the bytes of the artifact or link at `path`, which have the hash on record.

    A file of more bytes than the limit is not read.

    Args:
        store: The store.
        path: Of the file.
        sha256: Of its bytes.
        sources: The record that made its run; of a link that of the advisory too.
        limit_bytes: Most bytes.

    Raises:
        ArchivedError: The file is not there, and the record of its date covers it.
        IntegrityError: The file is missing, cannot be read, or has other bytes.
    """
    try:
        content = store.files.read(path, limit_bytes)
    except OSError as error:
        if is_gone(store.files, path) and (record := Archives(store).covering(path, *sources)):
            raise archived_error(path, record) from error
        raise IntegrityError(
            f"ARTIFACT_CORRUPT: The file {path} cannot be read ({error.strerror or error})."
        ) from error
    found = sha256_of_bytes(content)
    if found != sha256:
        raise IntegrityError(
            f"ARTIFACT_CORRUPT: Expected {path} to have SHA-256 {sha256}, found {found}."
        )
    return content


def find_run_files(
    files: ReadableFiles,
) -> Iterator[FoundArtifact | StoredAdvisory | UnexpectedFile]:
    """Read every file below `runs`, in the order of their paths: artifacts, links and others."""
    with files.faults():
        folders = files.names("runs")
        found = (each for folder in folders for each in _in_folder(files, folder))
        yield from files.at_once(partial(_read, files), (each.path for each in found))


def _in_folder(files: ReadableFiles, found: FoundName) -> list[FoundName]:
    return files.names(found.path) if found.is_folder else [found]


def _read(files: ReadableFiles, path: str) -> FoundArtifact | StoredAdvisory | UnexpectedFile:
    parsed = parse_path(path)
    if not isinstance(parsed, ArtifactPath | LinkPath):
        return UnexpectedFile(path, "expected a date folder and a file named by its run")
    try:
        content = files.read(path, DOCUMENT_LIMIT_BYTES)
    except NotAFileError as error:
        return UnexpectedFile(path, f"expected a file that can be read, found {error}")
    if isinstance(parsed, ArtifactPath):
        return _artifact(files, content, path)
    return _link(content, path, parsed)


def _artifact(
    files: ReadableFiles, content: bytes, relative: str
) -> FoundArtifact | UnexpectedFile:
    document = _document(content, RunArtifact)
    if isinstance(document, str):
        return UnexpectedFile(relative, f"expected an artifact, found something else ({document})")
    fields = index_fields_of(document)
    run = run_of_fields(fields, sha256_of_bytes(content), relative, len(content), source=None)
    expected = str(ArtifactPath(document["created_at_utc"][:10], document["run_id"]))
    if expected != relative:
        return UnexpectedFile(relative, f"expected the artifact of {expected} at its own place")
    return FoundArtifact(run, indexed_run(fields, run, withheld_payloads(files, document)))


def recorded_document(run: StoredRun, content: bytes) -> dict[str, Any]:
    """Return an artifact, which says of its run what the index says.

    Args:
        run: As the index has it.
        content: Of its file, with the hash of the index.

    Raises:
        IntegrityError: It says something else.
    """
    try:
        document, _ = parse_object(content)
        said = run_of_fields(
            index_fields_of(document),
            run.artifact_sha256,
            run.artifact_path,
            run.size_bytes,
            run.source,
        )
    except (InvalidJsonError, KeyError, TypeError, AttributeError):
        said = None
    if said != run:
        raise IntegrityError(
            f"ARTIFACT_CORRUPT: Expected {run.artifact_path} to say what the index says of the "
            "run, found something else: rmos index check compares them."
        )
    return document


def withheld_payloads(files: ReadableFiles, document: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the hashes of what an artifact withholds beside attachments.

    Read from the quarantined request; None where it is missing, changed, or none that a run makes:
    a file of any bytes fits an artifact that was written to name it.
    """
    is_legacy = document["provenance"].get("legacy", False)
    if is_shown(document):
        if not is_legacy or is_called_safe(document["decision"], document["feasibility"]):
            return ()
        # Of what could be cut by this row has nothing but hashes, and those stand in the artifact.
        return tuple(sorted(generated_by_row(document)))
    body = read_kept_request(files, document["provenance"]["request_sha256"])
    if body is None:
        return None
    try:
        request, _ = parse_object(body)
        hashes = generated_by_row(request) if is_legacy else generated_hashes(request)
        return withheld_of(request, hashes)
    except (InvalidJsonError, KeyError, TypeError, AttributeError):
        return None


def read_kept_request(files: ReadableFiles, sha256: str) -> bytes | None:
    """Return the quarantined request of this SHA-256; None where it is missing or changed."""
    try:
        content = files.read(quarantine_path(sha256), DOCUMENT_LIMIT_BYTES)
    except (FileNotFoundError, NotADirectoryError, NotAFileError):
        return None
    return content if sha256_of_bytes(content) == sha256 else None


def _link(content: bytes, relative: str, parsed: LinkPath) -> StoredAdvisory | UnexpectedFile:
    document = _document(content, AdvisoryLink)
    if isinstance(document, str):
        return UnexpectedFile(relative, f"expected a link, found something else ({document})")
    # Only its run decides the folder where it belongs.
    expected = str(LinkPath(parsed.date, document["run_id"], document["advisory_id"]))
    if expected != relative:
        return UnexpectedFile(relative, f"expected the link of {expected} at its own place")
    return advisory_of_link(document, sha256_of_bytes(content), relative, source=None)


def _document(content: bytes, shape: type[BaseModel]) -> dict[str, Any] | str:
    """Return what is written in a file of `shape`, or in a few words why it is none."""
    try:
        # The model decides whether it is one; the document keeps what was written.
        shape.model_validate_json(content)
        document: dict[str, Any] = json.loads(content)
    except ValidationError as error:
        return first_difference(error)
    except ValueError as error:
        return str(error)
    return document


def sha256_of_file(files: ReadableFiles, path: str) -> str | None:
    """Return the SHA-256 of a file of any size; None where there is none.

    Raises:
        NotAFileError: Something else is there, or it may not be read.
    """
    try:
        file = files.open(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with closing(file):
        digest, offset = hashlib.sha256(), 0
        while piece := file.read(offset, _PIECE_BYTES):
            digest.update(piece)
            offset += len(piece)
        return digest.hexdigest()
