"""The redrive of a dead letter: which may be sent, in which form, and its record.

What an earlier redrive added belongs to the record as it came, so the headers of a record that
was refused three times record all three.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import ValidationError

from pipeline.core.dead_letters.carried_record import Header, LeftAtSource, ReadContent
from pipeline.core.dead_letters.letter import DeadLetterRecord, dead_letter_code, record_headers
from pipeline.core.dead_letters.selection import DeadLetterFilter
from pipeline.core.record import RecordId
from schemas.redrive import RedriveRecord
from schemas.run_event import EventSource

REDRIVE_OF_HEADER = "rmos-redrive-of"
ATTEMPT_HEADER = "rmos-attempt"


@dataclass(frozen=True, slots=True)
class Redrive:
    """One dead letter that was brought back.

    Attributes:
        source: The record that had been refused.
        redriven_as: Where the same record is now.
        attempt: The value of the header of that record.
    """

    source: RecordId
    redriven_as: RecordId
    attempt: int


RedriveStatus = Literal[
    "refused", "held", "redriven before", "ready", "redriven", "changed", "gone"
]
"""Never to be sent; to be sent only if its code or name is given; sent before; to be sent; sent;
not sent, as its bytes are others, or are gone. A plan has the first four, in this order."""

_HELD = "Judged again it would end the same way; name its code or its record to redrive it."


@dataclass(frozen=True, slots=True)
class RedriveResult:
    """The status of one dead letter.

    Attributes:
        redriven_as: Where the record is now, where it was sent, now or before.
        why: Why it was not sent.
    """

    letter: DeadLetterRecord
    status: RedriveStatus
    redriven_as: RecordId | None = None
    why: str | None = None


def plan_redrive(
    letters: Iterable[DeadLetterRecord],
    redrives: Mapping[RecordId, Redrive],
    partitions: Mapping[str, int],
    wanted: DeadLetterFilter,
    *,
    again: bool,
) -> list[RedriveResult]:
    """Return the status of each of `letters`, those that are to be sent last.

    Args:
        letters: Those selected.
        redrives: What was brought back before, by the record that was refused.
        partitions: How many partitions each topic has that may be sent to.
        wanted: What was asked for; what is named, by itself or by its code, is not held.
        again: Whether to bring back also what was brought back before.
    """

    def planned(letter: DeadLetterRecord) -> RedriveResult:
        before = redrives.get(letter.source) if letter.source is not None else None
        if (why_not := _why_not(letter, partitions)) is not None:
            return RedriveResult(letter, "refused", why=why_not)
        if before is not None and not again:
            return RedriveResult(letter, "redriven before", before.redriven_as)
        is_named = wanted.sources or letter.code in wanted.codes
        if not is_named and dead_letter_code(letter.code).only_if_asked:
            return RedriveResult(letter, "held", why=_HELD)
        return RedriveResult(letter, "ready")

    order = get_args(RedriveStatus)
    return sorted(map(planned, letters), key=lambda result: order.index(result.status))


def redriven_headers(letter: DeadLetterRecord, headers: Sequence[Header]) -> list[Header]:
    """Return the headers of the record that is sent.

    Args:
        letter: The dead letter.
        headers: All of its headers.
    """
    return [
        *record_headers(headers),
        (REDRIVE_OF_HEADER, str(letter.source).encode()),
        (ATTEMPT_HEADER, str(letter.attempt + 1).encode()),
    ]


def redrive_record(letter: DeadLetterRecord, redriven_as: RecordId) -> tuple[bytes, bytes]:
    """Return key and value of what is remembered of a redrive."""
    assert letter.source is not None
    record = RedriveRecord(
        source=_place(letter.source),
        dead_letter=_place(letter.place),
        code=letter.code,
        redriven_as=_place(redriven_as),
        attempt=letter.attempt + 1,
    )
    return str(letter.source).encode(), record.model_dump_json().encode()


def read_redrive(value: ReadContent | None) -> Redrive | None:
    """Return the redrive that a record remembers; None where it is no memory of ours."""
    if isinstance(value, LeftAtSource):
        return None
    try:
        record = RedriveRecord.model_validate_json(value or b"")
    except ValidationError:
        return None
    return Redrive(RecordId.of(record.source), RecordId.of(record.redriven_as), record.attempt)


def _why_not(letter: DeadLetterRecord, partitions: Mapping[str, int]) -> str | None:
    source = letter.source
    if source is None:
        return "It does not say which record it is about."
    if letter.body != "none" and letter.body_sha256 is None:
        return "It does not say which SHA-256 its value had: no worker of ours wrote it."
    if source.topic not in partitions:
        return f"{source.topic} is no topic of requests."
    if source.partition >= partitions[source.topic]:
        return f"{source.topic} has no partition {source.partition}."
    return None


def _place(place: RecordId) -> EventSource:
    return EventSource(topic=place.topic, partition=place.partition, offset=place.offset)
