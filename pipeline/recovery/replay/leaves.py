"""Leaves of one log beside the records of its partition, both read once, in the same order."""

from bisect import bisect_left
from collections.abc import Iterator

from pipeline.ledger.folder import ledger_faults
from pipeline.ledger.leaf import LedgerLeaf, parse_leaf
from pipeline.ledger.reader import LogReader


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
        self._leaves = iter(()) if reader is None else _leaves(reader, begin, end)
        self._waiting = next(self._leaves, None)

    def take(self, offset: int) -> LedgerLeaf | None:
        """Return the leaf of a record; offsets must grow from call to call."""
        while self._waiting is not None and self._waiting.offset < offset:
            self.without_record.append(self._waiting)
            self._waiting = next(self._leaves, None)
        leaf = self._waiting
        if leaf is None or leaf.offset != offset:
            return None
        self._waiting = next(self._leaves, None)
        return leaf

    def finish(self) -> None:
        """Pass what is left: the partition has no more records in this range."""
        while self._waiting is not None:
            self.without_record.append(self._waiting)
            self._waiting = next(self._leaves, None)


def next_offset(reader: LogReader | None) -> int:
    """Return the offset after that of the last leaf; 0 where there is none.

    Raises:
        IntegrityError: The log is not what was written.
    """
    return reader.leaf(reader.size - 1).offset + 1 if reader is not None and reader.size else 0


def covers(reader: LogReader | None, begin: int, end: int) -> bool:
    """Tell whether every offset of a range has a leaf.

    Raises:
        IntegrityError: The log is not what was written.
    """
    if reader is None:
        return begin >= end
    return _place(reader, end) - _place(reader, begin) == max(end - begin, 0)


def _leaves(reader: LogReader, begin: int, end: int) -> Iterator[LedgerLeaf]:
    for entry in reader.entries(_place(reader, begin), _place(reader, end)):
        with ledger_faults(reader.log):
            leaf = parse_leaf(entry)
        yield leaf


def _place(reader: LogReader, offset: int) -> int:
    """Return the index of the first leaf at or after an offset."""
    return bisect_left(range(reader.size), offset, key=lambda index: reader.leaf(index).offset)
