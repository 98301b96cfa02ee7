"""The files that an audit leaves: its findings with its progress, and its report.

The findings and how far the audit has come are in `audits/<audit_id>.ndjson`. A line is one JSON
object: first what was asked and when it began, then findings as they are published, and after
those of each part, such as a date, a line that the part is done.
Lines after the last such line are of a part that was cut short: they are cut off, and the part is
done again. An audit that resumes reads the ledger again, so its line may come twice: the last
counts. The states of a part, and what happens if the process dies there:

| state | if the process dies here |
|---|---|
| findings published | published again with the same ids |
| findings written | cut off; the part is done again |
| done, and flushed | it is passed over |

The report, in `audits/<audit_id>.json`, has verdicts, counts, and the size of each log.

Nobody appends to an object of a bucket. So the journal of an audit of such a store is kept beside
it, on the host that audits, and becomes an object once there is a report:

| state | if the process dies here | if another host gets the request |
|---|---|---|
| parts done | they are passed over | the audit begins again |
| report written | the journal becomes an object | the report is published, without findings |
| the journal is an object | it is removed here | nothing is left to do |
"""

import asyncio
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

from pydantic import ValidationError

from pipeline.audit.rules.finding import MISSING_BLOB
from pipeline.audit.rules.parts import is_part_of
from pipeline.audit.steps import LEDGER_PART, PLACES_PART
from pipeline.core.json.canonical import canonical_json
from pipeline.core.json.strict import InvalidJsonError, parse_object
from pipeline.core.store.files import (
    Creation,
    ExpectedFile,
    Files,
    NewFile,
    NotAFileError,
    Presence,
    ReadableFiles,
)
from pipeline.disk.append_only_file import (
    AppendOnlyFile,
    SealedError,
    make_private_folder,
    remove_file,
    seal_file,
)
from pipeline.disk.faults import store_faults
from pipeline.disk.owner import refuse_as_root
from pipeline.disk.regular_files import names_below, open_below
from pipeline.errors import IntegrityError
from pipeline.settings import Settings
from pipeline.storage.archives import is_seen
from schemas.audit_report import AuditReport

AUDITS_FOLDER: Final = "audits"
_PIECE_BYTES: Final = 1 << 20


@dataclass(slots=True)
class JournalState:
    """What a journal records.

    Attributes:
        begun: What was asked and when it began; None where nothing is written yet.
        parts: What each part that is done came to, in the order of their ends.
        missing_blobs: Paths of the blobs that findings report as missing.
        of_ledger: Findings of the first part, which an audit that resumes reads again.
        length: Bytes up to the end of the last of those parts.
    """

    begun: dict[str, Any] | None = None
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    missing_blobs: set[str] = field(default_factory=set)
    of_ledger: set[bytes] = field(default_factory=set)
    length: int = 0


def journal_path(root: Path, audit_id: str) -> Path:
    """Return where the findings of an audit are."""
    return root / journal_name(audit_id)


def journal_name(audit_id: str) -> str:
    """Return where the findings of an audit are, relative to the store."""
    return f"{AUDITS_FOLDER}/{audit_id}.ndjson"


def journal_root(settings: Settings) -> Path:
    """Return below which folder journals are appended to: the store's, or one of this user."""
    if settings.store_url is None:
        return settings.data_dir
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "rmos" / quote(settings.store_url, safe="")


def read_journal(lines: Iterable[bytes]) -> JournalState:
    """Return what the lines of a journal record, up to the first that is not whole."""
    state = JournalState()
    position = 0
    findings: list[tuple[bytes, str | None]] = []
    for line in lines:
        document = _document(line)
        if document is None or (state.begun is None and "begun" not in document):
            break
        position += len(line)
        if "begun" in document:
            state.begun, state.length = document["begun"], position
        elif "done" in document:
            _finish(state, document, findings)
            state.length, findings = position, []
        else:
            missing = document["path"] if document.get("code") in MISSING_BLOB else None
            findings.append((sha256(line).digest(), missing))
    return state


def _finish(
    state: JournalState, document: dict[str, Any], findings: list[tuple[bytes, str | None]]
) -> None:
    state.parts[document["done"]] = document
    state.missing_blobs.update(path for _, path in findings if path is not None)
    if document["done"] == LEDGER_PART:
        state.of_ledger.update(digest for digest, _ in findings)


def journal_progress(root: Path, audit_id: str) -> tuple[int, int] | None:
    """Return how many of how many files an audit, or its parts here, have done; None if unknown."""
    try:
        names = [name.removesuffix(".ndjson") for name in names_below(root, AUDITS_FOLDER)]
    except OSError:
        return None
    of_parts = (name for name in names if is_part_of(audit_id, name))
    progress = [_progress_of(root, name) for name in (audit_id, *of_parts)]
    found = [each for each in progress if each is not None]
    return (sum(done for done, _ in found), sum(total for _, total in found)) if found else None


def _progress_of(root: Path, audit_id: str) -> tuple[int, int] | None:
    try:
        descriptor, _ = open_below(root, journal_name(audit_id))
        with open(descriptor, "rb") as file:  # noqa: PTH123  # a descriptor, not a path
            parts = read_journal(file).parts
    except OSError:
        return None
    if not parts:
        return None
    counts = [part["counts"] for part in parts.values()]
    done = sum(each.get("artifacts", 0) + each.get("links", 0) for each in counts)
    return done, max(part["files"] for part in parts.values())


def _document(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        document = json.loads(line)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


class AuditJournal:
    """The journal of one audit, locked by one process."""

    def __init__(self, root: Path, file: AppendOnlyFile) -> None:
        """Read a journal that is taken."""
        self._root = root
        self._file = file
        self.state = read_journal(file.lines())
        file.cut(self.state.length)

    @classmethod
    def take(cls, root: Path, audit_id: str) -> Self | None:
        """Take the journal of an audit, made where it is missing; None where another has it.

        Raises:
            IntegrityError: What is there is no journal, or one that is closed for good.
            StoreError: The disk failed.
        """
        refuse_as_root(root)
        path = journal_name(audit_id)
        with store_faults(root):
            try:
                file = AppendOnlyFile.take(root, path)
            except SealedError as error:
                raise IntegrityError(
                    f"Expected {path} to be the journal of an audit under way, found one that is "
                    "closed and has no report, or something else. Nothing was touched."
                ) from error
            if file is None:
                return None
            try:
                return cls(root, file)
            except BaseException:
                file.close()
                raise

    def close(self) -> None:
        """Close it; another process may take it."""
        self._file.close()

    async def begin(self, begun: Mapping[str, Any]) -> None:
        """Write what was asked and when it began, as the first line.

        Raises:
            StoreError: The disk failed, as of all that writes.
        """
        await self._write([canonical_json({"begun": dict(begun)})], flush=True)
        self.state.begun = dict(begun)

    def has(self, finding: bytes) -> bool:
        """Return whether a finding about the ledger was published before this audit resumed."""
        return sha256(finding + b"\n").digest() in self.state.of_ledger

    async def add(self, findings: Iterable[bytes]) -> None:
        """Write findings of a part; they count once it is done."""
        await self._write(findings, flush=False)

    async def finish_part(self, name: str, result: Mapping[str, Any]) -> None:
        """Write, durably, that a part is done with the findings that were added."""
        document = {"done": name, **result}
        await self._write([canonical_json(document)], flush=True)
        self.state.parts[name] = document

    async def _write(self, lines: Iterable[bytes], *, flush: bool) -> None:
        await asyncio.to_thread(self._append, b"".join(line + b"\n" for line in lines), flush=flush)

    def _append(self, content: bytes, *, flush: bool) -> None:
        with store_faults(self._root):
            self._file.append(content)
            if flush:
                self._file.flush()


def seal_journal(root: Path, audit_id: str) -> None:
    """Make a journal read-only, once there is a report; that there is none is no fault.

    Raises:
        StoreError: The disk failed.
    """
    with store_faults(root):
        seal_file(root, journal_name(audit_id))


@dataclass(frozen=True, slots=True)
class Journals:
    """The journals of audits under way.

    Attributes:
        root: Below which folder they are.
        becoming: The files of the store, where that folder is not the store's: a journal becomes
            one of them at its end.
    """

    root: Path
    becoming: Files | None = None

    @classmethod
    def of(cls, settings: Settings, files: Files) -> Self:
        """Return those of the store with these files, which the settings name."""
        return cls(journal_root(settings), files if settings.is_shared else None)

    def take(self, audit_id: str) -> AuditJournal | None:
        """Take the journal of an audit, as `AuditJournal.take`."""
        if self.becoming is not None:
            with store_faults(self.root):
                make_private_folder(self.root)
        return AuditJournal.take(self.root, audit_id)

    def end(self, audit_id: str) -> None:
        """Close a journal for good, once there is a report; that there is none is no fault.

        Raises:
            StoreError: The disk failed, or a bucket does not answer.
        """
        if self.becoming is None:
            seal_journal(self.root, audit_id)
            return
        path = journal_name(audit_id)
        with store_faults(self.root):
            try:
                descriptor, _ = open_below(self.root, path)
            except (FileNotFoundError, NotADirectoryError):
                return
            with open(descriptor, "rb") as file:  # noqa: PTH123  # a descriptor, not a path
                # One that was given up to another host is not that of the report.
                if PLACES_PART in read_journal(file).parts:
                    file.seek(0)
                    # False where another host did the same audit: what it found is there.
                    upload_journal(self.becoming, path, iter(partial(file.read, _PIECE_BYTES), b""))
            remove_file(self.root, path)


def upload_journal(files: Files, path: str, pieces: Iterable[bytes]) -> bool:
    """Write a journal that is all there, once; return whether these bytes are there now.

    Raises:
        StoreError: The disk failed, or a bucket does not answer.
    """
    digest = sha256()
    with files.faults():
        upload = files.begin_upload()
        try:
            for piece in pieces:
                upload.write(piece)
                digest.update(piece)
            if upload.publish(path):
                return True
        finally:
            upload.end()
        expected = ExpectedFile(path, digest.hexdigest())
        return files.presence([expected])[path] is Presence.SAME


REPORT_LIMIT_BYTES: Final = 16 << 20
"""No report is nearly as large: it has a line a log and a count a kind."""


def report_name(audit_id: str) -> str:
    """Return where the report of an audit is, relative to the store."""
    return f"{AUDITS_FOLDER}/{audit_id}.json"


def has_report(files: ReadableFiles, audit_id: str) -> bool:
    """Return whether an audit has a report; not, where nobody may look.

    Raises:
        StoreAwayError: A bucket does not answer.
    """
    with files.faults():
        return is_seen(files, report_name(audit_id))


def read_report(files: ReadableFiles, audit_id: str) -> tuple[dict[str, Any], bytes] | None:
    """Return the report of an audit and its bytes; None where there is none.

    Raises:
        IntegrityError: What is there is not the report of this audit.
        StoreError: The disk failed.
    """
    with files.faults():
        try:
            content = files.read(report_name(audit_id), REPORT_LIMIT_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except NotAFileError as error:
            raise _no_report(audit_id, str(error)) from error
    try:
        document, canonical = parse_object(content)
        AuditReport.model_validate(document)
    except (InvalidJsonError, ValidationError) as error:
        raise _no_report(audit_id, "something else") from error
    if canonical != content:
        raise _no_report(audit_id, "JSON that is written otherwise")
    if document["audit_id"] != audit_id:
        raise _no_report(audit_id, "that of another audit")
    return document, content


def write_report(files: Files, report: dict[str, Any]) -> bytes:
    """Write the report of an audit, durably; return its bytes.

    Raises:
        IntegrityError: Something else is in its place; it was not touched.
        StoreError: The disk failed.
    """
    content = canonical_json(report)
    path = report_name(report["audit_id"])
    with files.faults():
        creation = files.create([NewFile(path, content)])[path]
    if creation is Creation.DIFFERENT:
        raise _no_report(report["audit_id"], "another file")
    return content


def _no_report(audit_id: str, found: str) -> IntegrityError:
    return IntegrityError(
        f"Expected the report of the audit {audit_id} at {report_name(audit_id)}, found {found}. "
        "Nothing was touched."
    )
