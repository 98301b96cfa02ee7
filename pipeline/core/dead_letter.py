"""A record that can never succeed, as a dead letter: untouched, with headers that say why."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.outcome import RecordSource
from pipeline.topics import BROKER_MESSAGE_LIMIT_BYTES
from schemas.dead_letter import ERROR_MESSAGE_LIMIT_BYTES

_NOT_PRINTABLE_ASCII = re.compile(r"[^ -~]")
_ATTEMPT = re.compile(rb"[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What is sent to the dead letter topic.

    Attributes:
        value: The record's own; None for a tombstone or above 5 MiB, where the source topic
            keeps it.
        headers: The record's own, then ours; of two with one name the last counts.
    """

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


def dead_letter(
    record: tuple[bytes | None, bytes | None, Sequence[tuple[str, bytes | None]]],
    source: RecordSource,
    timestamp_ms: int,
    *,
    code: str,
    message: str,
    group: str,
) -> DeadLetter:
    """Return the dead letter of a record.

    Args:
        record: Key, value and headers as the broker gave them.
        source: Where the broker keeps the record.
        timestamp_ms: Its broker time.
        code: Why it can never succeed.
        message: The same in one sentence; what is not printable ASCII becomes `?`.
        group: The consumer group that gave up on it.
    """
    key, value, headers = record
    ours = {
        "rmos-error-code": code,
        "rmos-error-message": _NOT_PRINTABLE_ASCII.sub("?", message)[:ERROR_MESSAGE_LIMIT_BYTES],
        "rmos-source-topic": source.topic,
        "rmos-source-partition": str(source.partition),
        "rmos-source-offset": str(source.offset),
        "rmos-source-timestamp": str(max(timestamp_ms, 0)),
        "rmos-group": group,
        "rmos-attempt": _attempt(headers),
    }
    if value is not None:
        ours["rmos-body-sha256"] = sha256_of_bytes(value)
        if len(value) > BROKER_MESSAGE_LIMIT_BYTES:
            ours["rmos-body-size"] = str(len(value))
            value = None
    added = [(name, text.encode()) for name, text in ours.items()]
    return DeadLetter(key, value, [*headers, *added])


def _attempt(headers: Sequence[tuple[str, bytes | None]]) -> str:
    """Return how often the record has been tried: what its last redrive says, else 1."""
    for name, value in reversed(headers):
        if name == "rmos-attempt" and value is not None and _ATTEMPT.fullmatch(value):
            return value.decode()
    return "1"
