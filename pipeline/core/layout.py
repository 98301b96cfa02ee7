"""The path of each thing in the store, and back: relative paths with `/`."""

import re
from dataclasses import dataclass
from enum import Enum

from schemas.fields import is_advisory_id, is_run_id, is_sha256

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_LINK_SEPARATOR = "_advisory_"

ARCHIVES_FOLDER = "archives"
"""The folder of the records of archived dates."""


class BlobArea(Enum):
    """The content-addressed folders."""

    ATTACHMENTS = "attachments"
    QUARANTINE = "quarantine"


@dataclass(frozen=True, slots=True)
class ArtifactPath:
    """The file of a run, in the folder of the UTC date of its created_at_utc."""

    date: str
    run_id: str

    def __str__(self) -> str:
        return f"runs/{self.date}/{self.run_id}.json"


@dataclass(frozen=True, slots=True)
class LinkPath:
    """The file that links an advisory to its run, in the folder of the run."""

    date: str
    run_id: str
    advisory_id: str

    def __str__(self) -> str:
        return f"runs/{self.date}/{self.run_id}{_LINK_SEPARATOR}{self.advisory_id}.json"


@dataclass(frozen=True, slots=True)
class BlobPath:
    """The file of a blob, named by the SHA-256 of its content."""

    area: BlobArea
    sha256: str

    def __str__(self) -> str:
        return f"{self.area.value}/{self.sha256[:2]}/{self.sha256[2:4]}/{self.sha256}"


@dataclass(frozen=True, slots=True)
class ArchivePath:
    """The record of an archived date."""

    date: str

    def __str__(self) -> str:
        return f"{ARCHIVES_FOLDER}/{self.date}.json"


StorePath = ArtifactPath | LinkPath | BlobPath | ArchivePath


def artifact_path(created_at_utc: str, run_id: str) -> str:
    """Return the path of a run's file; `created_at_utc` is normalised."""
    return f"runs/{created_at_utc[:10]}/{run_id}.json"


def attachment_path(sha256: str) -> str:
    """Return the path of an attachment's blob."""
    return f"attachments/{sha256[:2]}/{sha256[2:4]}/{sha256}"


def quarantine_path(sha256: str) -> str:
    """Return the path of a request that is kept because its run is not OK."""
    return f"quarantine/{sha256[:2]}/{sha256[2:4]}/{sha256}"


def date_of(path: str) -> str:
    """Return the date in the path of an artifact or a link, which `parse_path` has taken."""
    return path.split("/", 2)[1]


def parse_path(path: str) -> StorePath | None:
    """Return what lies at `path`, or None where the layout has no such path."""
    parts = path.split("/")
    if len(parts) == 3 and parts[0] == "runs":  # noqa: PLR2004
        return _parse_run_file(parts[1], parts[2])
    if len(parts) == 4 and parts[0] in {area.value for area in BlobArea}:  # noqa: PLR2004
        found = BlobPath(BlobArea(parts[0]), parts[3])
        return found if is_sha256(found.sha256) and str(found) == path else None
    if len(parts) == 2 and parts[0] == ARCHIVES_FOLDER:  # noqa: PLR2004
        date = parts[1].removesuffix(".json")
        return ArchivePath(date) if date != parts[1] and _DATE.fullmatch(date) else None
    return None


def _parse_run_file(date: str, name: str) -> ArtifactPath | LinkPath | None:
    stem = name.removesuffix(".json")
    if stem == name or not _DATE.fullmatch(date):
        return None
    run_id, separator, advisory_id = stem.partition(_LINK_SEPARATOR)
    if not is_run_id(run_id):
        return None
    if not separator:
        return ArtifactPath(date, run_id)
    return LinkPath(date, run_id, advisory_id) if is_advisory_id(advisory_id) else None
