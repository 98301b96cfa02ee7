"""Who was first: told by the leaf of a record where there is one, else by those before it.

Without a leaf the partition is read from its start, so that a range from its middle never lets a
later record win. Where records are gone from the middle of the log, nobody can tell whether a later
one was first: it is taken for none.

Consumed records without a leaf, told as ranges: a log that is lost has one, not a million.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.core.envelope import Rejected
from pipeline.ledger.leaf import LedgerLeaf
from pipeline.ledger.log_id import LogId
from pipeline.recovery.replay.expected import FIRST_KINDS, Key, Row, key_of
from pipeline.recovery.replay.findings import Finding
from pipeline.recovery.replay.leaves import LeafCursor
from pipeline.storage.batch_plan import INTERNAL_ERROR, JudgedRecord, apply_recorded_verdict


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

    def was_first(self, row: Row | None) -> bool:
        """Tell whether this record made its run or claimed its advisory.

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
