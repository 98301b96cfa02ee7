"""Records of one topic compared with the store: their files must be there, byte for byte.

Procedure for each record, with the same numbers in the code; nothing is written:

1. Compare its leaf with the one that record and index give today. A leaf with INTERNAL_ERROR
   stands, and is named.
2. Leave it if it was not first: it made no file.
3. Compare what the program makes of it today with the hash that leaf or row knows. Where they
   differ, what is on disk is compared with that hash.
4. Else compare each of its files, byte for byte.
5. A record that was first has a row.
6. Look for the blobs that it names and that came by no message.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from pipeline.core.advisories.verdict import JudgedAdvisory
from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.layout import (
    ArtifactPath,
    BlobArea,
    BlobPath,
    LinkPath,
    attachment_path,
    parse_path,
)
from pipeline.core.record import RecordSource
from pipeline.core.runs.verdict import JudgedRun
from pipeline.core.store.contents import StoreContents
from pipeline.core.store.files import NewFile, Presence
from pipeline.ledger.leaf import LedgerLeaf
from pipeline.recovery.replay.files import FileChecks
from pipeline.recovery.replay.findings import Finding, FindingKind, Tally, what_lies_at
from pipeline.recovery.replay.history import (
    FIRST_KINDS,
    ObservedRecord,
    expected_sha256,
    key_of,
    sha256_of_leaf,
    uploads_of,
)
from pipeline.recovery.replay.request_topics import RequestTopic
from pipeline.storage.archives import Archives
from pipeline.storage.batch_plan import PlannedRecord, StoredRow, path_of_row, sha256_of_row
from pipeline.storage.index.queries import known_rows
from pipeline.storage.index.run_index import RunIndex


@dataclass(frozen=True, slots=True)
class _First:
    """One record that was first.

    Attributes:
        observed: The record.
        judged: Its verdict.
        row: What the index knows under its id.
        files: What the store would make of it; None where the row has other bytes.
    """

    observed: ObservedRecord
    judged: JudgedRun | JudgedAdvisory
    row: StoredRow | None
    files: Sequence[NewFile] | None

    @property
    def place(self) -> str:
        return str(self.observed.record.source.id)

    @property
    def known_sha256(self) -> str:
        """The hash that leaf or row knows, else the one that the program makes."""
        leaf = None if self.observed.leaf is None else sha256_of_leaf(self.observed.leaf)
        row = None if self.row is None else sha256_of_row(self.row)
        return leaf or row or expected_sha256(self.judged)

    @property
    def is_as_known(self) -> bool:
        """Whether the program makes today what leaf or row knows."""
        return self.files is not None and expected_sha256(self.judged) == self.known_sha256

    @property
    def waits(self) -> bool:
        """Whether the index knows it as an advisory without its run."""
        return self.row is not None and path_of_row(self.row) is None


def _with_first(
    known: Mapping[Any, StoredRow], observed: ObservedRecord, planned: PlannedRecord[Any, Any]
) -> tuple[StoredRow | None, _First | None]:
    """Return the row under the id of a record, and what is to be compared if it was first."""
    judged = observed.record.verdict
    if not isinstance(judged, JudgedRun | JudgedAdvisory):
        return None, None
    row = known.get(key_of(judged))
    first = _First(observed, judged, row, planned.files) if observed.was_first(row) else None
    return row, first


class StoreComparison:
    """Compares records with one store, topic by topic in the order of a replay.

    Attributes:
        files: What is looked at.
    """

    def __init__(self, store: StoreContents, index: RunIndex, tally: Tally) -> None:
        """Begin with nothing compared.

        Args:
            store: The store.
            index: Its index.
            tally: Gets what is found.
        """
        self.files = FileChecks(store.files)
        self._store = store
        self._index = index
        self._tally = tally
        self._archives = Archives(store)
        self._runs_without_row: dict[str, str] = {}

    def compare(self, topic: RequestTopic, observed: Sequence[ObservedRecord]) -> None:
        """Compare some records of one partition.

        Raises:
            StoreError: The disk or the index failed.
        """
        with self._index.reading() as connection, self._store.faults():
            records = [each.record for each in observed]
            plan = topic.store.plan_batch(
                records, known_rows(connection, (r.verdict for r in records))
            )
            compared = list(map(partial(_with_first, plan.known), observed, plan.records))
            self._look_for([first for _, first in compared if first is not None])
            for each, planned, (row, first) in zip(observed, plan.records, compared, strict=True):
                self._check_leaf(each, row, planned.leaf)  # 1.
                if first is not None:  # 2.
                    self._check_first(first)

    def _look_for(self, firsts: Sequence[_First]) -> None:
        """Look at all files of some records: each question to a bucket takes as long as all."""
        for first in firsts:
            if first.row is None and isinstance(first.judged, JudgedRun):
                self._runs_without_row[first.judged.run_id] = first.judged.path
        self.files.look_for(
            (file for first in firsts if first.is_as_known for file in self._files_of(first)),
            (path for first in firsts for path in uploads_of(first.judged)),
        )

    def _check_leaf(
        self, observed: ObservedRecord, row: StoredRow | None, expected: LedgerLeaf
    ) -> None:
        leaf, place = observed.leaf, str(observed.record.source.id)
        if observed.is_internal_error:
            self._tally.add(Finding("internal_error", "leaf", place))
        if leaf is None or leaf == expected:
            return
        is_first = leaf.kind in FIRST_KINDS
        if row is not None and _contradicts(row, observed, leaf):
            # The leaf is right: the index is derived.
            wanted = f"{sha256_of_leaf(leaf)}, made by {place if is_first else 'another record'}"
            maker = "no known record" if row.source is None else str(row.source.id)
            path = path_of_row(row) or f"advisory {key_of(observed.record.verdict)}"
            stored = f"{sha256_of_row(row)}, made by {maker}"
            self._tally.add(Finding("different", "row", path, wanted, stored, place))
        elif row is not None or is_first or leaf.body_sha256 != expected.body_sha256:
            wanted, stored = expected.encode().decode(), leaf.encode().decode()
            self._tally.add(Finding("different", "leaf", place, wanted, stored, place))

    def _check_first(self, first: _First) -> None:
        if not first.is_as_known:
            self._check_rendering(first)  # 3.
        else:
            presences = [self._check_file(first, file) for file in self._files_of(first)]  # 4.
            if first.row is None and Presence.MISSING not in presences:  # 5.
                path = self._path_of(first)
                self._tally.add(Finding("missing", "row", path, source=first.place))
        for path in uploads_of(first.judged):  # 6.
            self._check_upload(first, path)

    def _files_of(self, first: _First) -> Sequence[NewFile]:
        if first.files or not isinstance(first.judged, JudgedAdvisory) or first.row is not None:
            return first.files or []
        if first.judged.run_id not in self._runs_without_row:
            return []
        # The index knows nothing of the advisory because it lost its run too.
        blob, link = first.judged.blob, NewFile(self._path_of(first), first.judged.content)
        return (
            [link] if blob is None else [NewFile(attachment_path(blob.sha256), blob.content), link]
        )

    def _check_rendering(self, first: _First) -> None:
        made, known, path = expected_sha256(first.judged), first.known_sha256, self._path_of(first)
        if made != known:
            self._tally.add(Finding("different", "rendering", path, known, made, first.place))
        found = self.files.sha256_of(path)
        if found is None and self._is_archived(first, path):
            return
        if found != known:
            kind: FindingKind = "missing" if found is None else "different"
            finding = Finding(kind, what_lies_at(path), path, known, found, first.place)
            self._tally.add(finding)

    def _check_file(self, first: _First, file: NewFile) -> Presence:
        presence = self.files.presence_of(file)
        if presence is Presence.SAME:
            self._tally.counts["identical"] += 1
            return presence
        kind: FindingKind = "different"
        if presence is Presence.MISSING:
            if self._is_archived(first, file.path):
                return presence
            kind = "waiting" if first.waits else "missing"
        expected, found = sha256_of_bytes(file.content), self.files.sha256_of(file.path)
        what = what_lies_at(file.path)
        self._tally.add(Finding(kind, what, file.path, expected, found, first.place))
        return presence

    def _check_upload(self, first: _First, path: str) -> None:
        presence = self.files.presence_of_upload(path)
        is_missing = presence is Presence.MISSING
        if presence is Presence.SAME or (is_missing and self._is_archived(first, path)):
            return
        kind: FindingKind = "upload_missing" if is_missing else "different"
        expected, found = path.rpartition("/")[2], self.files.sha256_of_upload(path)
        named_by = self._path_of(first)
        finding = Finding(kind, "attachment", path, expected, found, first.place, named_by)
        self._tally.add(finding)

    def _is_archived(self, first: _First, path: str) -> bool:
        """Return whether what is missing at `path` is archived: with the file that it belongs to.

        A request in quarantine never is.
        """
        document = self._path_of(first)
        place, named_by = parse_path(path), parse_path(document)
        is_kept = isinstance(place, BlobPath) and place.area is BlobArea.QUARANTINE
        if is_kept or not isinstance(named_by, ArtifactPath | LinkPath):
            return False
        sources: list[RecordSource | None] = [first.observed.record.source]
        if isinstance(named_by, LinkPath):
            run = self._index.find(named_by.run_id)
            sources.append(None if run is None else run.source)
        if not self._archives.is_archived(document, *sources):
            return False
        if path == document:
            self._tally.counts["archived"] += 1
        return True

    def _path_of(self, first: _First) -> str:
        """Return where the artifact or the link lies, or in words which advisory waits."""
        judged = first.judged
        if isinstance(judged, JudgedRun):
            return judged.path
        known = None if first.row is None else path_of_row(first.row)
        artifact = self._runs_without_row.get(judged.run_id)
        if known is None and artifact is not None:
            date = PurePosixPath(artifact).parent.name
            return str(LinkPath(date, judged.run_id, judged.advisory_id))
        return known or f"advisory {judged.advisory_id} of {judged.run_id}"


def _contradicts(row: StoredRow, observed: ObservedRecord, leaf: LedgerLeaf) -> bool:
    """Return whether a row names another maker, or another artifact or link, than a leaf does."""
    is_first = leaf.kind in FIRST_KINDS
    stored = sha256_of_leaf(leaf)
    return is_first != (row.source == observed.record.source) or stored not in {
        None,
        sha256_of_row(row),
    }
