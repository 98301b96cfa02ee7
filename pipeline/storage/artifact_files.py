"""Artifacts as files: read one and check it, or find them all."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.layout import ArtifactPath, parse_path
from pipeline.core.outcome import StoredRun, run_of_document
from pipeline.errors import IntegrityError
from pipeline.storage.faults import store_faults
from pipeline.storage.index import IndexedRun, indexed_run
from schemas.run_artifact import RunArtifact


@dataclass(frozen=True, slots=True)
class FoundArtifact:
    """A file of a run, as the index would keep it."""

    run: StoredRun
    indexed: IndexedRun


@dataclass(frozen=True, slots=True)
class StrangeFile:
    """A file below `runs` that is no artifact of its place.

    Attributes:
        path: Relative to the store.
        reason: What was expected and what was found.
    """

    path: str
    reason: str


def read_artifact(root: Path, run: StoredRun) -> bytes:
    """Return the bytes of a run's file, which are those that the index knows.

    Raises:
        IntegrityError: The file is missing, cannot be read, or has other bytes.
    """
    try:
        content = (root / run.artifact_path).read_bytes()
    except OSError as error:
        message = f"ARTIFACT_CORRUPT: {run.artifact_path} cannot be read ({error.strerror})."
        raise IntegrityError(message) from error
    found = sha256_of_bytes(content)
    if found != run.artifact_sha256:
        message = (
            f"ARTIFACT_CORRUPT: expected {run.artifact_path} to have SHA-256 "
            f"{run.artifact_sha256}, found {found}."
        )
        raise IntegrityError(message)
    return content


def find_artifacts(root: Path) -> Iterator[FoundArtifact | StrangeFile]:
    """Read every file below `runs`, in the order of their paths; links of advisories are skipped.

    Raises:
        StoreError: The disk failed.
    """
    with store_faults(root):
        for folder in sorted((root / "runs").glob("*")):
            for path in sorted(folder.iterdir()) if folder.is_dir() else [folder]:
                found = _read(path, path.relative_to(root).as_posix())
                if found is not None:
                    yield found


def _read(path: Path, relative: str) -> FoundArtifact | StrangeFile | None:
    place = parse_path(relative)
    if place is None:
        return StrangeFile(relative, "expected a date folder and a file named by its run")
    if not isinstance(place, ArtifactPath):
        return None
    content = path.read_bytes()
    try:
        # The model says whether it is one; the document keeps what was written.
        RunArtifact.model_validate_json(content)
        document = json.loads(content)
    except (ValidationError, ValueError) as error:
        reason = str(error).splitlines()[0]
        return StrangeFile(relative, f"expected an artifact, found something else ({reason})")
    run = run_of_document(document, sha256_of_bytes(content), relative, len(content), source=None)
    expected = str(ArtifactPath(document["created_at_utc"][:10], document["run_id"]))
    if expected != relative:
        return StrangeFile(relative, f"expected the artifact of {expected} at its own place")
    return FoundArtifact(run, indexed_run(document, run))
