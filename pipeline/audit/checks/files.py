"""One step of an audit: some files of one date, each compared with its leaf.

Checked of each, up to the depth of the audit:

1. It is there, is a file, and has its mode.
2. It has the size and the hash of its leaf; where no leaf can be read, of its row.
3. It is what it should be, and its own hashes can be computed again.
4. Its own content belongs to this path.
5. Its record came near the time that it is dated.
6. The row of the index is the one that it makes.
7. The blobs that it names are there.
"""

from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from itertools import chain
from typing import Final, TypeAlias

from pipeline.audit import queries
from pipeline.audit.checks.blobs import check_named_blob
from pipeline.audit.checks.index import IndexRows
from pipeline.audit.plan import ExpectedFile
from pipeline.audit.rules.content import (
    check_artifact,
    check_date,
    check_link,
    check_time,
)
from pipeline.audit.rules.finding import Finding, mode_finding
from pipeline.audit.steps import AuditReader, Depth, StepResult
from pipeline.core.store.files import OpenFolder
from pipeline.disk.durable_files import FILE_MODE
from pipeline.storage.archives import is_gone
from pipeline.storage.artifacts import withheld_payloads

SLICE_FILES: Final = 512
"""Files of one step: about 40 ms where they are read."""

GROUP_FILES: Final = 8
"""Files that one thread checks: a step gives 64 threads something to do."""

LINK_LIMIT_BYTES: Final = 8 << 20
"""No link is larger: it is a part of a request of at most 4 MiB, escaped anew."""


def check_files(reader: AuditReader, date: str, first: str, last: str) -> StepResult:
    """Check the files of `date` from the name `first` to the name `last`."""
    rows = [
        ExpectedFile._make(row)
        for row in reader.plan.execute(queries.EXPECTED_FILES, (date, first, last)).fetchall()
    ]
    return _FileCheck(reader, date, rows).run()


_Checked: TypeAlias = tuple[StepResult, ExpectedFile, tuple[str, ...]]
"""What some files show, the last of them, and the blobs that it names."""


class _FileCheck:
    """One step on its way. Files are checked in as many threads as the store answers at once."""

    def __init__(self, reader: AuditReader, date: str, rows: list[ExpectedFile]) -> None:
        self._reader = reader
        self._inspection = reader.store.inspection
        self._date = date
        self._rows = rows
        run_ids = list(dict.fromkeys(row.run_id for row in rows))
        self._index = IndexRows(reader.index, run_ids) if reader.index is not None else None

    def run(self) -> StepResult:
        rows, total = self._rows, StepResult()
        groups = [rows[first : first + GROUP_FILES] for first in range(0, len(rows), GROUP_FILES)]
        at_once = self._reader.store.files.at_once
        try:
            with self._inspection.folder(
                f"runs/{self._date}", rows[0].name, rows[-1].name
            ) as folder:
                checked = list(chain(*at_once(partial(self._check_group, folder), groups)))
        except OSError as error:
            for row in rows:
                self._add_missing(row, total, f"no folder ({error.strerror or error})")
            return total
        named = {blob: row for _, row, blobs in reversed(checked) for blob in reversed(blobs)}
        of_blobs = dict(zip(named, at_once(self._check_blob, named.items()), strict=True))
        for result, _, blobs in checked:
            total.take(result)
            for blob in blobs:
                if (of_blob := of_blobs.pop(blob, None)) is not None:
                    total.take(of_blob)
        return total

    def _path(self, row: ExpectedFile) -> str:
        return f"runs/{self._date}/{row.name}"

    def _check_group(self, folder: OpenFolder, rows: Sequence[ExpectedFile]) -> list[_Checked]:
        """Check files up to each that names blobs: what is found of those comes behind it."""
        checked, result = list[_Checked](), StepResult()
        for row in rows:
            if blobs := self._check(folder, row, result):
                checked.append((result, row, blobs))
                result = StepResult()
        return [*checked, (result, rows[-1], ())]

    def _check(self, folder: OpenFolder, row: ExpectedFile, result: StepResult) -> tuple[str, ...]:
        """Check a file; return which blobs of those that it names are to be there."""
        path = self._path(row)
        depth = self._reader.context.depth_of(path)
        try:
            if depth != "names":
                return self._check_bytes(row, path, folder, depth, result)
            self._check_name(row, path, folder, result)
        except OSError as error:
            self._add_unreadable(row, error, result)
        return ()

    def _check_name(
        self, row: ExpectedFile, path: str, folder: OpenFolder, result: StepResult
    ) -> None:
        state = folder.state(row.name)
        if state is None:
            self._add_missing(row, result)
            return
        _count(row, result)
        result.add(*mode_finding(path, state.mode, FILE_MODE))
        if row.size_bytes not in {None, state.size_bytes}:
            result.add(_other_size(row, path, state.size_bytes))
        elif row.broker_ms is not None and row.kind == "run":
            result.add(*check_date(path, self._date, row.broker_ms))

    def _check_bytes(
        self, row: ExpectedFile, path: str, folder: OpenFolder, depth: Depth, result: StepResult
    ) -> tuple[str, ...]:
        try:
            with folder.opened(row.name) as (state, read):
                _count(row, result)
                result.findings += mode_finding(path, state.mode, FILE_MODE)
                # 2. A file of another size need not be read.
                limit = LINK_LIMIT_BYTES if row.size_bytes is None else row.size_bytes
                if state.size_bytes > limit or row.size_bytes not in {None, state.size_bytes}:
                    result.add(_other_size(row, path, state.size_bytes))
                    return ()
                content = read()
        except (FileNotFoundError, NotADirectoryError):
            self._add_missing(row, result)
            return ()
        result.count("files_read")
        result.count("bytes_read", len(content))
        found = sha256(content).hexdigest()
        if row.sha256 not in {None, found}:
            # What follows from other bytes is no news.
            result.add(Finding("BYTES_DIFFER", path, f"SHA-256 {row.sha256}", f"SHA-256 {found}"))
        elif depth == "content":
            return self._check_content(row, path, content, found, result)
        return ()

    def _check_content(
        self,
        row: ExpectedFile,
        path: str,
        content: bytes,
        content_sha256: str,
        result: StepResult,
    ) -> tuple[str, ...]:
        check = check_artifact if row.kind == "run" else check_link
        findings, document, blobs = check(path, content)  # 3. and 4.
        result.findings += findings
        if document is None or (findings and any(each.code == "PATH_DIFFERS" for each in findings)):
            return ()
        if row.broker_ms is not None:  # 5.
            result.findings += check_time(path, document["created_at_utc"], row.broker_ms)
        if self._index is not None:  # 6.
            if row.kind == "run":
                payloads = withheld_payloads(self._reader.store.files, document)
                size_bytes = len(content)
                rows = self._index.compare(document, path, content_sha256, size_bytes, payloads)
            else:
                rows = self._index.compare_link(document, path, content_sha256)
            result.findings += rows
        return blobs if self._reader.context.follows_names else ()  # 7.

    def _check_blob(self, named: tuple[str, ExpectedFile]) -> StepResult:
        blob, row = named
        try:
            return check_named_blob(self._reader, blob, self._path(row))
        except OSError as error:
            result = StepResult()
            self._add_unreadable(row, error, result)
            return result

    def _add_unreadable(self, row: ExpectedFile, error: OSError, result: StepResult) -> None:
        expected = f"a file that can be read, with {_bytes_of(row)}"
        found = error.strerror or str(error)
        result.add(Finding("FILE_UNREADABLE", self._path(row), expected, found))

    def _add_missing(self, row: ExpectedFile, result: StepResult, found: str = "no file") -> None:
        path = self._path(row)
        if row.is_archived and is_gone(self._reader.store.files, path):
            result.count("archived")
        elif row.is_waiting:
            waiting = "no file, and a row that says that it is still to be made"
            result.add(Finding("LINK_WAITING", path, f"a link with {_bytes_of(row)}", waiting))
        else:
            result.add(Finding("FILE_MISSING", path, f"a file with {_bytes_of(row)}", found))


def _count(row: ExpectedFile, result: StepResult) -> None:
    result.count("artifacts" if row.kind == "run" else "links")


def _bytes_of(row: ExpectedFile) -> str:
    return "bytes that nothing tells" if row.sha256 is None else f"SHA-256 {row.sha256}"


def _other_size(row: ExpectedFile, path: str, size_bytes: int) -> Finding:
    expected = (
        f"at most {LINK_LIMIT_BYTES:,} bytes"
        if row.size_bytes is None
        else f"{row.size_bytes:,} bytes"
    )
    return Finding("BYTES_DIFFER", path, expected, f"{size_bytes:,} bytes")
