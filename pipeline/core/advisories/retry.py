"""A request on its way through the retry topics: untouched, with headers that say whose it is.

Ours are the last headers, in a fixed order, so taking them off gives back what the producer sent.
Where its headers leave no room, the large ones stay at the source, and ours say what all were.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.core.dead_letters.carried_record import (
    AllHeaders,
    ReadContent,
    keep_headers,
    record_bytes,
    told_of_headers,
)
from pipeline.core.record import RecordId, RecordSource
from pipeline.topics import BROKER_MESSAGE_LIMIT_BYTES

Headers = Sequence[tuple[str, bytes | None]]

RETRY_HEADER_NAMES = (
    "rmos-source-epoch",
    "rmos-source-topic",
    "rmos-source-partition",
    "rmos-source-offset",
    "rmos-source-timestamp",
)
ALL_HEADERS_NAMES = ("rmos-headers-sha256", "rmos-headers-size", "rmos-headers-count")
"""Behind them, where not all of the producer's headers are carried."""

_FRAME_BYTES = 4096
"""Room for our headers, and for what lz4 adds to bytes that it cannot compress."""

_SHA256 = re.compile(rb"[0-9a-f]{64}")
_NUMBER = re.compile(rb"-?[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class RetriedRequest:
    """Which request a record of a retry topic is.

    Attributes:
        source: Where the request topic keeps it.
        timestamp_ms: Its broker time there.
        headers: As its producer sent them; without the large ones where `all_headers` is given.
        all_headers: What is said of all, where not all are carried.
    """

    source: RecordSource
    timestamp_ms: int
    headers: Headers
    all_headers: AllHeaders | None = None


def fitting_headers(
    key: ReadContent | None,
    value: ReadContent | None,
    headers: Headers,
    all_headers: AllHeaders | None,
) -> tuple[Headers, AllHeaders | None]:
    """Return the headers that a retry topic takes of a request, however it is compressed.

    Those that `keep_headers` keeps always have room beside the largest value and its run_id.

    Args:
        key: Of the request.
        value: Of the request.
        headers: Those that were kept of it as it was read.
        all_headers: What is said of all, where not all were kept.
    """
    size_bytes = record_bytes(key, value, headers)
    if all_headers is not None or size_bytes <= BROKER_MESSAGE_LIMIT_BYTES - _FRAME_BYTES:
        return headers, all_headers
    return keep_headers(headers)


def retry_headers(
    source: RecordSource,
    timestamp_ms: int,
    headers: Headers,
    all_headers: AllHeaders | None = None,
) -> list[tuple[str, bytes | None]]:
    """Return the headers of a request that goes to a retry topic."""
    values = (
        source.epoch,
        source.id.topic,
        source.id.partition,
        source.id.offset,
        timestamp_ms,
    )
    ours = zip(RETRY_HEADER_NAMES, (str(value).encode() for value in values), strict=True)
    told = {} if all_headers is None else told_of_headers(all_headers)
    return [*headers, *ours, *((name, value.encode()) for name, value in told.items())]


def read_retry_headers(headers: Headers, *, request_topic: str) -> RetriedRequest | None:
    """Return which request has these headers; None where they are not ours."""
    headers, all_headers = _without_told(headers)
    ours = headers[-len(RETRY_HEADER_NAMES) :]
    if tuple(name for name, _ in ours) != RETRY_HEADER_NAMES:
        return None
    epoch, topic, partition, offset, timestamp = (value or b"" for _, value in ours)
    numbers = (epoch, partition, offset, timestamp)
    if topic != request_topic.encode() or not all(map(_NUMBER.fullmatch, numbers)):
        return None
    source = RecordSource(int(epoch), RecordId(request_topic, int(partition), int(offset)))
    carried = headers[: -len(RETRY_HEADER_NAMES)]
    return RetriedRequest(source, int(timestamp), carried, all_headers)


def _without_told(headers: Headers) -> tuple[Headers, AllHeaders | None]:
    """Take off what is said of all headers, where it is said."""
    told = headers[-len(ALL_HEADERS_NAMES) :]
    if tuple(name for name, _ in told) != ALL_HEADERS_NAMES:
        return headers, None
    sha256, size, count = (value or b"" for _, value in told)
    if not (_SHA256.fullmatch(sha256) and _NUMBER.fullmatch(size) and _NUMBER.fullmatch(count)):
        return headers, None
    all_headers = AllHeaders(int(count), int(size), sha256.decode())
    return headers[: -len(ALL_HEADERS_NAMES)], all_headers
