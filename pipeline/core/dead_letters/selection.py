"""The selection of dead letters, each record once, by code, topic, time or name."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from pipeline.core.dead_letters.letter import DeadLetterRecord
from pipeline.core.record import RecordId


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """What a dead letter must be; whatever is empty or None asks for nothing.

    Attributes:
        sources: The record that was refused, or the dead letter itself, is one of these.
        codes: Why it was refused.
        topics: Where the record was, or where its dead letter is.
        since_ms: The dead letter was written then or later.
        until_ms: It was written before that.
    """

    sources: frozenset[RecordId] = frozenset()
    codes: frozenset[str] = frozenset()
    topics: frozenset[str] = frozenset()
    since_ms: int | None = None
    until_ms: int | None = None

    def fits(self, letter: DeadLetterRecord) -> bool:
        """Return whether `letter` is meant."""
        source_topic = letter.source.topic if letter.source is not None else None
        return (
            (not self.sources or not self.sources.isdisjoint({letter.source, letter.place}))
            and (not self.codes or letter.code in self.codes)
            and (not self.topics or not self.topics.isdisjoint({source_topic, letter.place.topic}))
            and (self.since_ms is None or letter.timestamp_ms >= self.since_ms)
            and (self.until_ms is None or letter.timestamp_ms < self.until_ms)
        )


class DeadLetterCollection:
    """Dead letters by the record that they are about; of several the last one counts.

    A record that is delivered again has another dead letter each time, all in one partition.
    """

    def __init__(self) -> None:
        self._letters: dict[RecordId, DeadLetterRecord] = {}

    def add(self, letter: DeadLetterRecord) -> None:
        """Take one more dead letter."""
        known = self._letters.get(letter.identity)
        if known is None:
            self._letters[letter.identity] = letter
            return
        last = letter if _is_after(letter, known) else known
        self._letters[letter.identity] = replace(last, letters=known.letters + 1)

    def selected(self, wanted: DeadLetterFilter) -> list[DeadLetterRecord]:
        """Return those that `wanted` fits, in the order in which they were written."""
        fitting = (letter for letter in self._letters.values() if wanted.fits(letter))
        return sorted(fitting, key=lambda letter: (letter.timestamp_ms, letter.identity))


def missing_dead_letter(
    wanted: DeadLetterFilter, letters: Iterable[DeadLetterRecord]
) -> str | None:
    """Return a sentence on records of `wanted` without a dead letter; None where each has one."""
    there = {place for letter in letters for place in (letter.source, letter.place)}
    unknown = sorted(wanted.sources - there)
    if not unknown:
        return None
    has_others = replace(wanted, sources=frozenset()) != DeadLetterFilter()
    fitting = " that fits the other options" if has_others else ""
    return f"There is no dead letter of {unknown[0]}{fitting}"


def _is_after(letter: DeadLetterRecord, other: DeadLetterRecord) -> bool:
    mine, theirs = letter.place, other.place
    if (mine.topic, mine.partition) == (theirs.topic, theirs.partition):
        return mine.offset > theirs.offset
    # Two partitions for one record: not ours, so clocks are all there is to compare.
    return letter.timestamp_ms > other.timestamp_ms
