"""What audits left in a store, for readers: which there are, and their findings piece by piece."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.audit.journal import AUDITS_FOLDER, journal_path
from pipeline.core.store.files import NotAFileError
from pipeline.disk.faults import store_faults
from pipeline.disk.regular_files import entries_below, open_below, state_of_any
from pipeline.errors import NotFoundError
from schemas.fields import is_audit_id

_LINE_LIMIT_BYTES = 64 * 1024
"""No finding is nearly as long: each of its texts is cut at 2,000 characters."""


@dataclass(frozen=True, slots=True)
class AuditFile:
    """An audit that left something in the store.

    Attributes:
        is_done: Whether it has a report.
        written_ns: When the report, or else the journal, was written last.
    """

    audit_id: str
    is_done: bool
    written_ns: int


def audit_files(root: Path) -> list[AuditFile]:
    """Return the audits that left a report or a journal, the last one first; nothing is read.

    Raises:
        StoreError: The disk failed.
    """
    found: dict[str, AuditFile] = {}
    with store_faults(root):
        # Of `a.json` and `a.ndjson` the report counts.
        for path, is_folder in sorted(entries_below(root, AUDITS_FOLDER)):
            audit_id, _, kind = path.rpartition("/")[2].rpartition(".")
            if is_folder or kind not in {"json", "ndjson"} or not is_audit_id(audit_id):
                continue
            state = state_of_any(root / path)
            found.setdefault(audit_id, AuditFile(audit_id, kind == "json", state.st_mtime_ns))
    return sorted(found.values(), key=lambda each: (-each.written_ns, each.audit_id))


@dataclass(frozen=True, slots=True)
class FindingsPage:
    """Some of the findings that a journal holds.

    Attributes:
        findings: In their order.
        following: Where the next page begins, in bytes; None at the end.
    """

    findings: list[dict[str, Any]]
    following: int | None


def read_findings(root: Path, audit_id: str, start: int, most: int) -> FindingsPage:
    """Return findings of an audit, at most so many, from the line that begins at byte `start`.

    Raises:
        NotFoundError: There is no journal, or no line begins there.
        StoreError: The disk failed.
    """
    path = journal_path(root, audit_id).relative_to(root).as_posix()
    findings: list[dict[str, Any]] = []
    with store_faults(root):
        try:
            descriptor, _ = open_below(root, path)
        except (FileNotFoundError, NotADirectoryError, NotAFileError) as error:
            raise NotFoundError("NOT_FOUND: The audit has left no findings here.") from error
        with open(descriptor, "rb") as file:  # noqa: PTH123  # a descriptor, not a path
            file.seek(max(start - 1, 0))
            if start and file.read(1) != b"\n":
                raise NotFoundError("NOT_FOUND: No finding begins there.")
            while line := file.readline(_LINE_LIMIT_BYTES):
                document = _document(line)
                if document is None:
                    break
                if "code" in document:
                    if len(findings) == most:
                        return FindingsPage(findings, start)
                    findings.append(document)
                start += len(line)
    return FindingsPage(findings, None)


def _document(line: bytes) -> dict[str, Any] | None:
    """Return what a line holds; None where it is not whole, as at the end of an audit under way."""
    try:
        document = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
