"""A request on its way through the retry topics: untouched, with headers that say whose it is.

Ours are the last headers, in a fixed order, so taking them off gives back what the producer sent.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.core.outcome import RecordSource

Headers = Sequence[tuple[str, bytes | None]]

RETRY_HEADER_NAMES = (
    "rmos-source-epoch",
    "rmos-source-topic",
    "rmos-source-partition",
    "rmos-source-offset",
    "rmos-source-timestamp",
)
_NUMBER = re.compile(rb"-?[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class RetriedRequest:
    """Which request a record of a retry topic is.

    Attributes:
        source: Where the request topic keeps it.
        timestamp_ms: Its broker time there.
        headers: As its producer sent them.
    """

    source: RecordSource
    timestamp_ms: int
    headers: Headers


def retry_headers(
    source: RecordSource, timestamp_ms: int, headers: Headers
) -> list[tuple[str, bytes | None]]:
    """Return the headers of a request that goes to a retry topic."""
    values = (source.epoch, source.topic, source.partition, source.offset, timestamp_ms)
    ours = zip(RETRY_HEADER_NAMES, (str(value).encode() for value in values), strict=True)
    return [*headers, *ours]


def read_retry_headers(headers: Headers, *, request_topic: str) -> RetriedRequest | None:
    """Return which request has these headers; None where they are not ours."""
    ours = headers[-len(RETRY_HEADER_NAMES) :]
    if tuple(name for name, _ in ours) != RETRY_HEADER_NAMES:
        return None
    epoch, topic, partition, offset, timestamp = (value or b"" for _, value in ours)
    numbers = (epoch, partition, offset, timestamp)
    if topic != request_topic.encode() or not all(map(_NUMBER.fullmatch, numbers)):
        return None
    source = RecordSource(int(epoch), request_topic, int(partition), int(offset))
    return RetriedRequest(source, int(timestamp), headers[: -len(RETRY_HEADER_NAMES)])
