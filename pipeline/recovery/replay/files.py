"""Files of a store that no record and no leaf explains.

Procedure, with the same numbers in `find_foreign_files`:

1. Walk over runs, attachments and quarantine. What a record was asked about is explained.
2. Let a batch that is being stored end: its files come before its rows.
3. Ask the index for what no record was read of: of an earlier epoch, removed by retention, or
   stored by a worker since the range ended. It is explained if it has a leaf, or if there
   is no ledger to ask and the row names a record.
4. A blob that has the hash of its name and that nothing names is an upload that waits for its
   run. All else is foreign.

Nothing is written.
"""

import errno
import hashlib
import json
import os
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import chain

from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.layout import BlobArea, BlobPath, attachment_path, parse_path, quarantine_path
from pipeline.core.record import RecordSource
from pipeline.core.runs.outcome import StoredRun
from pipeline.core.store.files import (
    ExpectedFile,
    NewFile,
    NotAFileError,
    Presence,
    ReadableFiles,
)
from pipeline.ledger.log_id import LogId
from pipeline.ledger.reader import StoreLogs
from pipeline.recovery.replay.findings import Finding, what_lies_at
from pipeline.recovery.replay.history import sha256_of_leaf
from pipeline.storage.artifacts import DOCUMENT_LIMIT_BYTES, sha256_of_file
from pipeline.storage.batch_plan import StoredRow, path_of_row, sha256_of_row
from pipeline.storage.store import Store

_DIGEST_BYTES = 8
UNREADABLE = "something that cannot be read"


class PathDigests:
    """A large set of paths, in eight bytes each.

    The digests have a random key: who may write files cannot choose a path that looks like one
    of the others. By chance one of 10 million foreign files would, in a million million stores.
    """

    def __init__(self) -> None:
        self._key = os.urandom(16)
        self._digests = array("Q")
        self._is_sorted = True

    def add(self, path: str) -> None:
        """Add a path; one that is there may be added again."""
        self._digests.append(self._digest(path))
        self._is_sorted = False

    def __contains__(self, path: str) -> bool:
        if not self._is_sorted:
            self._digests = array("Q", sorted(self._digests))
            self._is_sorted = True
        digest = self._digest(path)
        place = bisect_left(self._digests, digest)
        return place < len(self._digests) and self._digests[place] == digest

    def _digest(self, path: str) -> int:
        name = path.encode(errors="surrogateescape")
        digest = hashlib.blake2b(name, digest_size=_DIGEST_BYTES, key=self._key).digest()
        return int.from_bytes(digest, "big")


class FileChecks:
    """Looks at the files of one store.

    Attributes:
        asked_for: Every path that a record, or something that it made, explains.
        sha256_of_upload: As `sha256_of`, for a blob that many may name: it is read once.
    """

    def __init__(self, files: ReadableFiles) -> None:
        self.asked_for = PathDigests()
        self._files = files
        self._presences: dict[ExpectedFile, Presence] = {}
        self._blobs: dict[ExpectedFile, Presence] = {}
        self.sha256_of_upload = cache(self.sha256_of)

    def look_for(self, files: Iterable[NewFile], uploads: Iterable[str]) -> None:
        """Look at many at once, for `presence_of` and `presence_of_upload`.

        Args:
            files: Of some records; what was looked at before is forgotten.
            uploads: Paths of blobs that came by no message. Many may name one: it is read once.

        Raises:
            OSError: We may not or cannot look.
        """
        blobs = {_blob(path) for path in uploads}
        wanted = {*map(_expected, files), *blobs.difference(self._blobs)}
        by_path = {each.path: each for each in wanted}
        found = self._files.presence(by_path.values())
        self._presences = {
            # Of two that should be one file each is compared by itself.
            each: found[each.path]
            if by_path[each.path] is each
            else self._files.presence([each])[each.path]
            for each in wanted
        }
        self._blobs |= {each: self._presences[each] for each in blobs & wanted}
        for path in by_path:
            self.asked_for.add(path)

    def presence_of(self, file: NewFile) -> Presence:
        """Return what is where a file of `look_for` should be."""
        return self._presences[_expected(file)]

    def presence_of_upload(self, path: str) -> Presence:
        """Return the same of an upload."""
        return self._blobs[_blob(path)]

    def sha256_of(self, path: str) -> str | None:
        """Return the hash of a file, in words what else there is, or None where there is nothing.

        Raises:
            OSError: We may not or cannot look.
        """
        self.asked_for.add(path)
        return self.sha256_of_any(path)

    def sha256_of_any(self, path: str) -> str | None:
        """Return the same of a file that nothing explains."""
        try:
            return sha256_of_file(self._files, path)
        except NotAFileError:
            return UNREADABLE
        except OSError as error:
            if error.errno == errno.EIO:
                return UNREADABLE
            raise


def _expected(file: NewFile) -> ExpectedFile:
    return ExpectedFile(file.path, sha256_of_bytes(file.content), len(file.content))


def _blob(path: str) -> ExpectedFile:
    return ExpectedFile(path, path.rpartition("/")[2])


WasRead = Callable[[RecordSource], bool]
"""Whether a record was read, so that what it made is explained by itself."""


def find_foreign_files(
    store: Store, checks: FileChecks, logs: StoreLogs | None, was_read: WasRead
) -> Iterator[Finding]:
    """Yield the files of a store that nothing explains, and uploads without a name.

    Raises:
        IntegrityError: A log is not what was written.
        StoreError: The disk or the index failed.
    """
    with store.faults():
        unexpected = [path for path in _paths(store.files) if path not in checks.asked_for]  # 1.
        if not unexpected:
            return
        with store.lock.between_batches():  # 2.
            pass
        rows = _UnreadRows(store.files, checks, logs)
        known: Iterator[StoredRow] = chain(store.index.all_runs(), store.index.all_advisories())
        rows.explain(row for row in known if row.source is None or not was_read(row.source))  # 3.
        foreign = [path for path in unexpected if path not in checks.asked_for]
        yield from map(_finding, foreign, store.files.at_once(checks.sha256_of_any, foreign))  # 4.


def _paths(files: ReadableFiles) -> Iterator[str]:
    for area in ("runs", *(area.value for area in BlobArea)):
        yield from files.paths_below(area)


def _finding(path: str, found: str | None) -> Finding:
    place, what = parse_path(path), what_lies_at(path)
    if what == "attachment" and isinstance(place, BlobPath) and place.sha256 == found:
        return Finding("unreferenced", what, path)
    return Finding("foreign", what, path, "a record that explains it", found)


class _UnreadRows:
    """Explains files by rows whose records cannot be read, as far as the ledger bears them out."""

    def __init__(self, files: ReadableFiles, checks: FileChecks, logs: StoreLogs | None) -> None:
        self._files = files
        self._checks = checks
        self._logs = logs
        self._log_ids = set() if logs is None else set(logs.ids())
        self._without_source: set[str] | None = None

    def explain(self, rows: Iterable[StoredRow]) -> None:
        """Add the files of rows."""
        borne_out = (row for row in rows if self._is_borne_out(row.source, sha256_of_row(row)))
        for row, content in self._files.at_once(self._read, borne_out):
            if (path := path_of_row(row)) is not None:
                self._checks.asked_for.add(path)
            if isinstance(row, StoredRun):
                # Its artifact may be archived; its request never is.
                self._checks.asked_for.add(quarantine_path(row.request_sha256))
            if content is not None and sha256_of_bytes(content) == sha256_of_row(row):
                for named in _blobs_of(json.loads(content)):
                    self._checks.asked_for.add(named)

    def _read(self, row: StoredRow) -> tuple[StoredRow, bytes | None]:
        if (path := path_of_row(row)) is None:
            return row, None
        try:
            return row, self._files.read(path, DOCUMENT_LIMIT_BYTES)
        except OSError:
            return row, None  # the index check reports it

    def _is_borne_out(self, source: RecordSource | None, sha256: str) -> bool:
        if source is None:
            return self._logs is not None and sha256 in self._hashes_of_all_leaves()
        if self._logs is None:
            return True
        log = LogId(source.epoch, source.id.topic, source.id.partition)
        if log not in self._log_ids:
            return False
        reader = self._logs.open(log)
        index = reader.index_of(source.id.offset)
        return index is not None and sha256_of_leaf(reader.leaf(index)) == sha256

    def _hashes_of_all_leaves(self) -> set[str]:
        """Return what any leaf explains: rows without a source, as after a new broker."""
        if self._without_source is None:
            assert self._logs is not None
            explained = (
                sha256_of_leaf(leaf) for reader in self._logs.open_all() for leaf in reader.leaves()
            )
            self._without_source = {sha256 for sha256 in explained if sha256 is not None}
        return self._without_source


def _blobs_of(document: dict[str, object]) -> Iterator[str]:
    """Yield the paths that an artifact or a link names, its request in quarantine included."""
    provenance, attachments = document.get("provenance"), document.get("attachments")
    for reference in attachments if isinstance(attachments, list) else ():
        yield attachment_path(reference["sha256"])
    # Of a run that is OK too: it is kept where the artifact has no place for a value of it.
    if isinstance(provenance, dict):
        yield quarantine_path(provenance["request_sha256"])
    if isinstance(named := document.get("content_sha256"), str):
        yield attachment_path(named)
