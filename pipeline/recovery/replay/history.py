"""A record compared with its leaf: whether it was first, and the bytes that it made.

A leaf decides which record was first. Without one the partition is read from its start, so
that a range from its middle never lets a later record win; behind a hole in the log it is unknown,
so a later record is taken for one that was not first.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from pipeline.core.advisories.verdict import JudgedAdvisory
from pipeline.core.envelope import Rejected
from pipeline.core.layout import attachment_path
from pipeline.core.runs.verdict import JudgedRun
from pipeline.ledger.leaf import LedgerLeaf
from pipeline.ledger.log_id import LogId
from pipeline.ledger.reader import LogReader
from pipeline.recovery.replay.findings import Finding
from pipeline.storage.batch_plan import (
    INTERNAL_ERROR,
    JudgedRecord,
    StoredRow,
    apply_recorded_verdict,
)

Verdict: TypeAlias = JudgedRun | JudgedAdvisory | Rejected
Key: TypeAlias = str | tuple[str, str]

FIRST_KINDS = frozenset({"run", "advisory"})
"""Leaves of records that made a run or claimed an advisory."""


def key_of(verdict: JudgedRun | JudgedAdvisory) -> Key:
    """Return what only one request can have: the run_id, or run_id and advisory_id."""
    return verdict.run_id if isinstance(verdict, JudgedRun) else verdict.key


def expected_sha256(verdict: JudgedRun | JudgedAdvisory) -> str:
    """Return the hash of the artifact or of the link."""
    return verdict.artifact_sha256 if isinstance(verdict, JudgedRun) else verdict.link_sha256


def sha256_of_leaf(leaf: LedgerLeaf) -> str | None:
    """Return the hash of the artifact or of the link in a leaf."""
    return leaf.sha256 or leaf.link_sha256


def uploads_of(verdict: JudgedRun | JudgedAdvisory) -> list[str]:
    """Return the paths of the blobs that are named and came with no message, each once."""
    if isinstance(verdict, JudgedAdvisory):
        named = verdict.claim.content_sha256
        return [attachment_path(named)] if named is not None and verdict.blob is None else []
    inline = {blob.sha256 for blob in verdict.built.blobs}
    hashes = (sha256 for sha256, _ in verdict.built.index_fields.attachments)
    return list(dict.fromkeys(attachment_path(each) for each in hashes if each not in inline))


class LeafCursor:
    """The leaves of a range of offsets, each covered by the log's checkpoint.

    Attributes:
        without_record: Leaves that were passed without a record of their offset.
    """

    def __init__(self, reader: LogReader | None, begin: int, end: int) -> None:
        """Begin before the leaf of the first offset from `begin`.

        Args:
            reader: The log; None where it does not exist.
            begin: First offset of the range.
            end: Offset after the last one.
        """
        self.without_record: list[LedgerLeaf] = []
        self._leaves = (
            iter(())
            if reader is None
            else reader.leaves(reader.first_from(begin), reader.first_from(end))
        )
        self._next = next(self._leaves, None)
        self._end = end

    def take(self, offset: int) -> LedgerLeaf | None:
        """Return the leaf of a record; offsets must grow from call to call."""
        while self._next is not None and self._next.offset < offset:
            self.without_record.append(self._advance())
        is_its = self._next is not None and self._next.offset == offset
        return self._advance() if is_its else None

    def finish(self) -> None:
        """Pass what is left: the partition has no more records in this range."""
        self.take(self._end)

    def _advance(self) -> LedgerLeaf:
        leaf = self._next
        assert leaf is not None, "the caller has looked"
        self._next = next(self._leaves, None)
        return leaf


def covers(reader: LogReader | None, begin: int, end: int) -> bool:
    """Return whether every offset of a range has a leaf.

    Raises:
        IntegrityError: The log is not what was written.
    """
    if reader is None:
        return begin >= end
    return reader.first_from(end) - reader.first_from(begin) == max(end - begin, 0)


@dataclass(frozen=True, slots=True)
class ObservedRecord:
    """One record of a range.

    Attributes:
        record: As it stands: what once was INTERNAL_ERROR is so for ever.
        leaf: That of its offset; None where there is none.
        is_first_read: Whether no record of its partition that was read before asked for the same.
    """

    record: JudgedRecord[Any]
    leaf: LedgerLeaf | None
    is_first_read: bool

    @property
    def is_internal_error(self) -> bool:
        """Whether our program could not judge it, once or now."""
        verdict = self.record.verdict
        return isinstance(verdict, Rejected) and verdict.code == INTERNAL_ERROR

    def was_first(self, row: StoredRow | None) -> bool:
        """Return whether this record made its run or claimed its advisory.

        Args:
            row: What the index knows under the same id; it decides where there is no leaf, as
                only the index knows of records in another partition or epoch.
        """
        if isinstance(self.record.verdict, Rejected):
            return False
        if self.leaf is not None:
            return self.leaf.kind in FIRST_KINDS
        if row is not None:
            return row.source == self.record.source
        return self.is_first_read


class PartitionHistory:
    """What was read of one partition so far, from as far back as it takes.

    It remembers the id of every request, some 150 bytes each, unless all of the range has leaves.
    """

    def __init__(
        self, begin: int, leaves: LeafCursor, *, remembers: bool, known_to: int | None = None
    ) -> None:
        """Begin with nothing read.

        Args:
            begin: First offset of the range; what lies before it is remembered alone.
            leaves: Those of the range.
            remembers: Whether some of the range may have no leaf.
            known_to: First offset at which a record is gone; None where none is.
        """
        self.leaves = leaves
        self._begin = begin
        self._remembers = remembers
        self._known_to = known_to
        self._asked_for: set[Key] = set()

    def observe(self, chunk: Iterable[JudgedRecord[Any]]) -> list[ObservedRecord]:
        """Return the records of `chunk` that are in the range, in their order."""
        return [
            observed
            for record in chunk
            if (observed := self._observe(record)).record.source.id.offset >= self._begin
        ]

    def _observe(self, record: JudgedRecord[Any]) -> ObservedRecord:
        in_range = record.source.id.offset >= self._begin
        leaf = self.leaves.take(record.source.id.offset) if in_range else None
        record = apply_recorded_verdict(record, leaf)
        return ObservedRecord(record, leaf, self._is_first(record))

    def _is_first(self, record: JudgedRecord[Any]) -> bool:
        if not self._remembers or isinstance(record.verdict, Rejected):
            return False
        if self._known_to is not None and record.source.id.offset >= self._known_to:
            return False
        key = key_of(record.verdict)
        if key in self._asked_for:
            return False
        self._asked_for.add(key)
        return True


class LeafGaps:
    """Those of one partition."""

    def __init__(self, log: LogId) -> None:
        self._log = log
        self._gaps: list[tuple[int, int]] = []
        self._is_open = False

    def add(self, observed: Sequence[ObservedRecord]) -> None:
        """Take the next records."""
        for each in observed:
            offset = each.record.source.id.offset
            if each.leaf is not None:
                self._is_open = False
            elif self._is_open:
                self._gaps[-1] = (self._gaps[-1][0], offset)
            else:
                self._gaps.append((offset, offset))
                self._is_open = True

    def findings(self) -> Iterator[Finding]:
        """Yield a finding for each range, which names it as an option of a replay does."""
        for first, last in self._gaps:
            place = f"{self._log.topic}/{self._log.partition}:{first}-{last + 1}"
            yield Finding("missing", "leaf", place, f"leaves in {self._log.path}")
