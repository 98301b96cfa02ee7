"""Reads the dead letters of every area, each refused record once, and their contents again.

What a list needs is kept of every dead letter; keys, values and headers are read a second time,
for those that were selected, so that memory does not grow with what was refused.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Literal

from aiokafka import ConsumerRecord

from pipeline.broker.admin.topics import OffsetRange, partition_offsets
from pipeline.broker.reading.ranges import read_ranges, read_topic
from pipeline.broker.reading.times import ranges_since
from pipeline.core.dead_letters.carried_record import (
    Header,
    LeftAtSource,
    keep_headers,
    split_headers,
)
from pipeline.core.dead_letters.letter import (
    DeadLetterRecord,
    dead_letter_headers,
    read_dead_letter,
)
from pipeline.core.dead_letters.redrive import Redrive, read_redrive
from pipeline.core.dead_letters.selection import (
    DeadLetterCollection,
    DeadLetterFilter,
    missing_dead_letter,
)
from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.progress import Progress, no_progress
from pipeline.core.record import Partition, RecordId
from pipeline.errors import NotFoundError
from pipeline.settings import Settings
from pipeline.topics import dead_letter_topics, redrive_topic

_PROGRESS_EVERY = 1000

Unsendable = Literal["changed", "refused", "gone"]


@dataclass(frozen=True, slots=True)
class DeadLetterContent:
    """A dead letter with all that it carries.

    Attributes:
        letter: Its fields in a list.
        key: The record's, also where the dead letter left it at its source.
        value: The same; None where it had none, or cannot be read because of `fault`.
        headers: The record's, then ours; the same.
        fault: Why this is not all of the record; None where it is.
        unsendable: What a redrive reports of it: bytes that are not those that were refused, bytes
            that are there and too many to be held, or bytes that are there no more.
    """

    letter: DeadLetterRecord
    key: bytes | None
    value: bytes | None
    headers: list[Header]
    fault: str | None = None
    unsendable: Unsendable | None = None


async def read_dead_letters(
    settings: Settings, *, since_ms: int | None = None, progress: Progress = no_progress
) -> DeadLetterCollection:
    """Return every dead letter that was written at `since_ms` or later.

    Raises:
        TopicsError: A topic is missing.
        BrokerError: The broker cannot be reached.
    """
    ranges = await partition_offsets(settings, dead_letter_topics(settings.prefix))
    if since_ms is not None:
        ranges = await ranges_since(settings, ranges, since_ms)
    letters = DeadLetterCollection()
    count = 0
    async with aclosing(read_ranges(settings, ranges)) as records:
        async for record in records:
            letters.add(_dead_letter_of(record))
            count += 1
            if count % _PROGRESS_EVERY == 0:
                progress("dead letters", count, None)
    return letters


async def select_dead_letters(
    settings: Settings, wanted: DeadLetterFilter, progress: Progress, otherwise: str = ""
) -> tuple[list[DeadLetterRecord], dict[RecordId, Redrive]]:
    """Return the dead letters that fit, and all redrives.

    Raises:
        NotFoundError: A record was named that has no dead letter; `otherwise` ends the sentence.
        TopicsError: A topic is missing.
        BrokerError: The broker cannot be reached.
    """
    redrives = await read_redrives(settings)
    letters = await read_dead_letters(settings, since_ms=wanted.since_ms, progress=progress)
    chosen = letters.selected(wanted)
    if (missing := missing_dead_letter(wanted, chosen)) is not None:
        raise NotFoundError(f"{missing}{otherwise}.")
    return chosen, redrives


@dataclass(slots=True)
class NewestDeadLetters:
    """The dead letters that were written last, as far as one look goes.

    Attributes:
        letters: Those that were read.
        there: How many offsets the topics hold.
        looked_at: How many of them were looked at.
    """

    letters: DeadLetterCollection = field(default_factory=DeadLetterCollection)
    there: int = 0
    looked_at: int = 0


_STEPS = (10, 40, 150)
"""Offsets of each partition that are read one step after the other, from its end back."""

_LOOK_BYTES = 64 << 20
"""So many bytes of values end a look: ten dead letters of the largest kind."""


async def read_newest_dead_letters(settings: Settings, seconds: float) -> NewestDeadLetters:
    """Return the last dead letters of every area: at most 200 a partition, in so many seconds.

    Raises:
        TopicsError: A topic is missing.
        BrokerError: The broker cannot be reached.
    """
    ranges = await partition_offsets(settings, dead_letter_topics(settings.prefix))
    found = NewestDeadLetters(there=sum(each.end - each.beginning for each in ranges.values()))
    # What was read by then counts; a reader that hangs is closed by its own time-outs.
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await _read_back(settings, ranges, found)
    return found


async def _read_back(
    settings: Settings, ranges: Mapping[Partition, OffsetRange], found: NewestDeadLetters
) -> None:
    """Read step by step from the ends of `ranges` back into `found`."""
    size_bytes = 0
    ends = {partition: each.end for partition, each in ranges.items()}
    for most in _STEPS:
        step = {
            partition: OffsetRange(max(ranges[partition].beginning, end - most), end)
            for partition, end in ends.items()
        }
        async with aclosing(read_ranges(settings, step)) as records:
            async for record in records:
                found.letters.add(_dead_letter_of(record))
                size_bytes += len(record.value or b"")
                if size_bytes > _LOOK_BYTES:
                    return
        found.looked_at += sum(each.end - each.beginning for each in step.values())
        ends = {partition: each.beginning for partition, each in step.items()}


async def read_one_dead_letter(settings: Settings, place: RecordId) -> DeadLetterContent | None:
    """Return the dead letter at `place` with all that it carries; None where there is none.

    Raises:
        TopicsError: The topic is missing.
        BrokerError: The broker cannot be reached.
    """
    there = (await partition_offsets(settings, [place.topic])).get(place.topic_partition)
    if there is None or not there.holds(place.offset):
        return None
    record = await _record_at(settings, place)
    if record is None:
        return None
    return await _content(settings, _dead_letter_of(record), record)


async def read_redrives(settings: Settings) -> dict[RecordId, Redrive]:
    """Return what was brought back, by the record that had been refused; the last counts.

    Raises:
        TopicsError: The topic is missing.
        BrokerError: The broker cannot be reached.
    """
    found = {}
    async with aclosing(read_topic(settings, redrive_topic(settings.prefix))) as records:
        async for record in records:
            redrive = read_redrive(record.value)
            if redrive is not None:
                found[redrive.source] = redrive
    return found


async def read_contents(
    settings: Settings, letters: Iterable[DeadLetterRecord]
) -> AsyncGenerator[DeadLetterContent, None]:
    """Yield each of `letters` with all that it carries, in the order of their places.

    One that retention has removed since is left out.

    Raises:
        BrokerError: The broker cannot be reached.
    """
    wanted = {letter.place: letter for letter in letters}
    async with aclosing(read_ranges(settings, _spans(wanted))) as records:
        async for record in records:
            letter = wanted.get(RecordId.of(record))
            if letter is not None:
                yield await _content(settings, letter, record)


async def _content(
    settings: Settings, letter: DeadLetterRecord, record: ConsumerRecord
) -> DeadLetterContent:
    if _is_left(record):
        fault = "It is too large to be read here: no worker of ours wrote it."
        headers = list(split_headers(record.headers)[0])
        return DeadLetterContent(letter, None, None, headers, fault, "refused")
    if letter.is_whole:
        return _checked(letter, record.key, record.value, list(record.headers))
    source = await _record_at(settings, letter.source)
    headers = list(record.headers)
    if source is None:
        fault = f"What it does not carry was left at {letter.source}, and is not there any more."
        return DeadLetterContent(letter, record.key, record.value, headers, fault, "gone")
    if _is_left(source):
        fault = f"It is too large to be read here: {letter.source} keeps it."
        return DeadLetterContent(letter, record.key, record.value, headers, fault, "refused")
    ours = dead_letter_headers(record.headers)
    return _checked(letter, source.key, source.value, [*source.headers, *ours], source.headers)


def _is_left(record: ConsumerRecord) -> bool:
    """Return whether a record is so large that not all of it was kept as it was read."""
    contents = (record.key, record.value)
    return any(isinstance(each, LeftAtSource) for each in contents) or (
        split_headers(record.headers)[1] is not None
    )


def _checked(
    letter: DeadLetterRecord,
    key: bytes | None,
    value: bytes | None,
    headers: list[Header],
    own: Sequence[Header] = (),
) -> DeadLetterContent:
    """Return the content; with a fault where its hashes are not those of what was refused."""
    body_sha256 = None if value is None else letter.body_sha256
    pairs = (
        ("value has", body_sha256, sha256_of_bytes(value or b"")),
        ("key has", letter.key_sha256, None if key is None else sha256_of_bytes(key)),
        ("headers have", letter.headers_sha256, keep_headers(own)[1].sha256),
    )
    for name, expected, found in pairs:
        if expected is not None and found != expected:
            fault = f"Its {name} another SHA-256 than {expected}, which was refused."
            return DeadLetterContent(letter, key, value, headers, fault, "changed")
    return DeadLetterContent(letter, key, value, headers)


async def _record_at(settings: Settings, place: RecordId | None) -> ConsumerRecord | None:
    if place is None:
        return None
    here = {place.topic_partition: OffsetRange(place.offset, place.offset + 1)}
    async with aclosing(read_ranges(settings, here)) as records:
        return await anext(records, None)


def _dead_letter_of(record: ConsumerRecord) -> DeadLetterRecord:
    place = RecordId.of(record)
    return read_dead_letter(place, record.timestamp, record.key, record.value, record.headers)


def _spans(places: Iterable[RecordId]) -> dict[Partition, OffsetRange]:
    """Return for each partition the range from the first of `places` to behind the last."""
    spans: dict[Partition, OffsetRange] = {}
    for place in places:
        known = spans.get(place.topic_partition, OffsetRange(place.offset, place.offset + 1))
        spans[place.topic_partition] = OffsetRange(
            min(known.beginning, place.offset), max(known.end, place.offset + 1)
        )
    return spans
