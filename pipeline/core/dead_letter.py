"""A record that can never succeed, as a dead letter: untouched, with headers that say why."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.core.dead_letters.carried_record import (
    AllHeaders,
    CarriedRecord,
    Header,
    ReadContent,
    carried_record,
)
from pipeline.core.runs.outcome import RecordSource
from schemas.dead_letter import ERROR_MESSAGE_LIMIT_BYTES

_NOT_PRINTABLE_ASCII = re.compile(r"[^ -~]")
_ATTEMPT = re.compile(rb"[1-9][0-9]{0,8}")

Carry = Callable[
    [ReadContent | None, ReadContent | None, Sequence[Header], AllHeaders | None], CarriedRecord
]
"""Says how much of a record a dead letter has: `carried_record`, or `told_record`."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What is sent to the dead letter topic.

    Attributes:
        key: The record's own; None also where it is too large, and the source topic keeps it.
        value: The same.
        headers: The record's own, then ours; of two with one name the last counts.
    """

    key: bytes | None
    value: bytes | None
    headers: list[Header]


def dead_letter(
    record: tuple[ReadContent | None, ReadContent | None, Sequence[Header]],
    source: RecordSource,
    timestamp_ms: int,
    *,
    code: str,
    message: str,
    group: str,
    all_headers: AllHeaders | None = None,
    carry: Carry = carried_record,
) -> DeadLetter:
    """Return the dead letter of a record.

    Args:
        record: Key, value and headers as the broker gave them.
        source: Where the broker keeps the record.
        timestamp_ms: Its broker time.
        code: Why it can never succeed.
        message: The same in one sentence; what is not printable ASCII becomes `?`.
        group: The consumer group that gave up on it.
        all_headers: What is said of its headers, where not all were kept as it was read.
        carry: How much of the record the letter has.
    """
    key, value, headers = record
    carried = carry(key, value, headers, all_headers)
    ours = {
        "rmos-error-code": code,
        "rmos-error-message": _NOT_PRINTABLE_ASCII.sub("?", message)[:ERROR_MESSAGE_LIMIT_BYTES],
        "rmos-source-topic": source.topic,
        "rmos-source-partition": str(source.partition),
        "rmos-source-offset": str(source.offset),
        "rmos-source-timestamp": str(max(timestamp_ms, 0)),
        "rmos-group": group,
        "rmos-attempt": _attempt(headers),
        **carried.told,
    }
    added = [(name, text.encode()) for name, text in ours.items()]
    return DeadLetter(carried.key, carried.value, [*carried.headers, *added])


def _attempt(headers: Sequence[tuple[str, bytes | None]]) -> str:
    """Return how often the record has been tried: what its last redrive says, else 1."""
    for name, value in reversed(headers):
        if name == "rmos-attempt" and value is not None and _ATTEMPT.fullmatch(value):
            return value.decode()
    return "1"
