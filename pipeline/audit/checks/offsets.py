"""Offsets without a leaf that the broker can still show.

A broker leaves offsets out by itself: where a transaction began, ended or was given up. So a gap
between two leaves is only a fault where the broker shows a record in it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from pipeline.audit.checks.logs import AuditedLog
from pipeline.audit.rules.finding import Finding
from pipeline.ledger.log_id import LogId

READ_OVER: Final = 500
"""Most offsets between two gaps that one question is about.

A question costs a consumer of its own, as much as some hundred records. A producer that sends each
record in a transaction leaves a gap after each: a question for every one would take hours.
"""


@dataclass(frozen=True, slots=True)
class BrokerView:
    """The broker's view of the records of a store, without a broker here.

    Attributes:
        committed: The next offset of the group that writes each log, committed before the audit
            began.
        shown: Returns the offsets of the records of a log's partition that the broker can still
            show, in order, from the first offset given to the one before the second.
    """

    committed: Mapping[LogId, int]
    shown: Callable[[LogId, int, int], Iterable[int]]


def offsets_without_leaf(logs: Sequence[AuditedLog], broker: BrokerView) -> Iterator[Finding]:
    """Yield the consumed offsets that the broker shows and that have no leaf."""
    for log, gaps in _neighbours(_gaps(logs, broker)):
        shown = broker.shown(log, gaps[0][0], gaps[-1][1])
        for first, last in _without_breaks(_inside(gaps, shown)):
            offsets = f"offset {first}" if first == last else f"offsets {first} to {last}"
            expected = "a leaf of every offset that was consumed"
            found = f"none of {offsets}, which the broker shows"
            yield Finding("OFFSET_WITHOUT_LEAF", log.path, expected, found)


def _gaps(logs: Sequence[AuditedLog], broker: BrokerView) -> Iterator[tuple[LogId, int, int]]:
    """Yield what lies between leaves, and between the last leaf and what was committed."""
    following = dict.fromkeys(broker.committed, 0)
    for audited in logs:
        following[audited.log] = audited.next_offset
        for start, end in audited.gaps:
            yield audited.log, start, end
    for log, start in sorted(following.items()):
        committed = broker.committed.get(log, 0)
        if committed > start:
            yield log, start, committed


def _neighbours(
    gaps: Iterable[tuple[LogId, int, int]],
) -> Iterator[tuple[LogId, list[tuple[int, int]]]]:
    """Yield gaps that one question can be about: those of one log, near each other."""
    asked: list[tuple[int, int]] = []
    of: LogId | None = None
    for log, start, end in gaps:
        if of is not None and (log != of or start - asked[-1][1] > READ_OVER):
            yield of, asked
            asked = []
        of = log
        asked.append((start, end))
    if of is not None:
        yield of, asked


def _inside(gaps: Sequence[tuple[int, int]], offsets: Iterable[int]) -> Iterator[int]:
    """Yield those of `offsets` that lie in a gap; both are in order."""
    remaining = iter(gaps)
    start, end = next(remaining)
    for offset in offsets:
        while offset >= end:
            start, end = next(remaining)
        if offset >= start:
            yield offset


def _without_breaks(offsets: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last of each stretch of offsets that follow on each other."""
    # In a stretch, offset and number rise together.
    for _, stretch in groupby(enumerate(offsets), key=lambda pair: pair[1] - pair[0]):
        _, first = next(stretch)
        yield first, max((offset for _, offset in stretch), default=first)  # noqa: B031  # the rest
