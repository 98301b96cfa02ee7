"""What audits left in a store: which there are, their findings, and what all parts found."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pipeline.audit.journal import AUDITS_FOLDER, journal_name, upload_journal
from pipeline.audit.rules.finding import ARCHIVED
from pipeline.audit.rules.parts import AuditPart, JoinedFindings, sum_of
from pipeline.core.store.files import Files, NotAFileError, OpenFile, ReadableFiles
from pipeline.errors import IntegrityError, NotFoundError
from schemas.audit_finding import AuditCode
from schemas.fields import is_audit_id

_LINE_LIMIT_BYTES = 64 * 1024
"""No finding is nearly as long: each of its texts is cut at 2,000 characters."""
_LINES_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class AuditFile:
    """An audit that left something in the store.

    Attributes:
        is_done: Whether it has a report.
        written_ns: When the report, or else the journal or a file of a part, was written last.
        state: How many of its parts have a report, where it has parts and none of its own.
    """

    audit_id: str
    is_done: bool
    written_ns: int
    state: str = ""


def audit_files(files: ReadableFiles) -> list[AuditFile]:
    """Return the audits that left a report or a journal, the last one first; nothing is read.

    Raises:
        StoreError: The disk failed, or a bucket does not answer.
    """
    found: dict[str, AuditFile] = {}
    done = Counter[tuple[str, int]]()
    with files.faults():
        # Of `a.json` and `a.ndjson` the report counts; those of its parts come behind.
        for path, written_ns in sorted(files.written_ns(AUDITS_FOLDER).items()):
            audit_id, _, kind = path.rpartition("/")[2].rpartition(".")
            if kind not in {"json", "ndjson"} or not is_audit_id(audit_id):
                continue
            if (part := AuditPart.named(audit_id)) is None:
                found.setdefault(audit_id, AuditFile(audit_id, kind == "json", written_ns))
                continue
            of_count = part.whole, part.count
            done[of_count] += kind == "json"
            state = f"{done[of_count]} of {part.count} parts are done"
            of_parts = AuditFile(part.whole, False, written_ns, state)
            if not found.setdefault(part.whole, of_parts).is_done:
                found[part.whole] = of_parts
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


def read_findings(files: ReadableFiles, audit_id: str, start: int, most: int) -> FindingsPage:
    """Return findings of an audit, at most so many, from the line that begins at byte `start`.

    Raises:
        NotFoundError: There is no journal, or no line begins there.
        StoreError: The disk failed, or a bucket does not answer.
    """
    findings: list[dict[str, Any]] = []
    with files.faults():
        try:
            opened = files.open(journal_name(audit_id))
        except (FileNotFoundError, NotADirectoryError, NotAFileError) as error:
            raise NotFoundError("NOT_FOUND: The audit has left no findings here.") from error
        with closing(opened) as file:
            if start and file.read(start - 1, 1) != b"\n":
                raise NotFoundError("NOT_FOUND: No finding begins there.")
            for line in _lines(file, start):
                document = _document(line)
                if document is None:
                    break
                if "code" in document:
                    if len(findings) == most:
                        return FindingsPage(findings, start)
                    findings.append(document)
                start += len(line)
    return FindingsPage(findings, None)


def _lines(file: OpenFile, offset: int) -> Iterator[bytes]:
    """Yield the lines from an offset on, each with its end; what is longer than any comes cut."""
    left = b""
    while piece := file.read(offset, _LINE_LIMIT_BYTES):
        offset += len(piece)
        *whole, left = (left + piece).split(b"\n")
        yield from (line + b"\n" for line in whole)
        if len(left) >= _LINE_LIMIT_BYTES:
            break
    if left:
        yield left


def _document(line: bytes) -> dict[str, Any] | None:
    """Return what a line holds; None where it is not whole, as at the end of an audit under way."""
    try:
        document = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def join_parts(
    files: Files, parts: Sequence[AuditPart], reports: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Write the findings of the whole, once; return its report: of the same parts the same.

    Args:
        files: Of the store.
        parts: All parts of one audit.
        reports: Theirs.

    Raises:
        IntegrityError: Findings of a part are gone, or others are there for the whole.
        StoreError: The disk failed, or a bucket does not answer.
    """
    joined, path = JoinedFindings(), journal_name(parts[0].whole)
    lines = _joined(files, parts, reports, joined)
    pieces = iter(lambda: b"".join(islice(lines, _LINES_AT_ONCE)), b"")
    if not upload_journal(files, path, pieces):
        raise IntegrityError(
            f"Expected the findings of all parts at {path}, found another journal: the audit was "
            "begun in another number of parts. Another audit needs another audit_id."
        )
    return sum_of(reports, parts, joined.codes)


def _joined(
    files: ReadableFiles,
    parts: Sequence[AuditPart],
    reports: Sequence[Mapping[str, Any]],
    joined: JoinedFindings,
) -> Iterator[bytes]:
    least = Counter[AuditCode]()
    for part, report in zip(parts, reports, strict=True):
        path, found = journal_name(part.audit_id), Counter[AuditCode]()
        try:
            opened = files.open(path)
        except (FileNotFoundError, NotADirectoryError, NotAFileError) as error:
            raise IntegrityError(
                f"Expected the findings of a part at {path}, found none ({error})."
            ) from error
        with closing(opened) as file:
            for line in _lines(file, 0):
                document = _document(line)
                if document is not None and "code" in document:
                    found[document["code"]] += 1
                    yield from joined.add(line, document)
        # Of two hosts that did the part, the report may be of one, and the findings of the other.
        lost = {code: count for code, count in report["codes"].items() if count > found[code]}
        least |= Counter({code: count for code, count in lost.items() if code != ARCHIVED})
    yield from joined.end()
    joined.codes |= least
