"""The bounds of a record that is carried to another topic: the rest is named by its hash.

Compression lets records in that are far above every limit of a topic: a header of 8 MiB of hex, a
million headers, a value of 900 MB of zeros. What we publish about a record must fit whatever came,
so a dead letter carries a record whole or, where it is too large for that, what is small of it. Of
the rest it has size and SHA-256, and the record's offset, where the topic keeps every byte.

Header names are text here that becomes the same bytes again, also where it is not UTF-8. Kafka
calls a header's name a string, and no broker checks it: clients on librdkafka send any bytes. A
byte that is not UTF-8 is held as a lone surrogate, as Python does it for file names, so two
different names are never one text.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pipeline.topics import BROKER_MESSAGE_LIMIT_BYTES, DEAD_LETTER_MESSAGE_LIMIT_BYTES

NAME_ERRORS = "surrogateescape"


def name_of_bytes(name: bytes) -> str:
    """Return a header's name as text."""
    return name.decode(errors=NAME_ERRORS)


def bytes_of_name(name: str) -> bytes:
    """Return the bytes that `name` was read from."""
    return name.encode(errors=NAME_ERRORS)


Header = tuple[str, bytes | None]

CARRIED_LIMIT_BYTES = DEAD_LETTER_MESSAGE_LIMIT_BYTES - 64 * 1024
"""Largest record that a dead letter carries whole, before compression. All that comes uncompressed
is smaller. The rest of the topic's limit is for our headers, and for what lz4 adds to bytes that
it cannot compress."""

KEY_LIMIT_BYTES = 16 * 1024
"""Largest key that is carried of a record that is not carried whole."""

HEADERS_LIMIT_BYTES = 256 * 1024
"""Most bytes of headers that are carried of such a record: with the largest key and the largest
value they are within `CARRIED_LIMIT_BYTES`."""

HEADER_LIMIT_BYTES = 16 * 1024
"""Largest header, name and value, among them: a single large one must not drop the small ones."""

FRAME_BYTES = 64
"""What the log's format adds to a record at most, besides its headers."""

HEADER_FRAME_BYTES = 10
"""What it adds to each header at most: two lengths of up to five bytes."""

_HEADER_MEMORY_BYTES = 150
"""What Python adds to each header: a tuple, a text and bytes."""

_NO_VALUE = b"\xff\xff\xff\xff"


@dataclass(frozen=True, slots=True)
class LeftAtSource:
    """Bytes of a record that were hashed as they were read, and not kept."""

    size_bytes: int
    sha256: str

    def __len__(self) -> int:
        """Return how many there are."""
        return self.size_bytes


ReadContent = bytes | LeftAtSource
"""A key or a value."""


@dataclass(frozen=True, slots=True)
class AllHeaders:
    """What is said of the headers of a record where not all of them are carried.

    Attributes:
        count: How many the record has.
        size_bytes: Bytes of all names and values.
        sha256: Over each name and each value with its length before it, four bytes, the highest
            first; `ff ff ff ff` in place of a value that is not there.
    """

    count: int
    size_bytes: int
    sha256: str


ALL_HEADERS = "rmos-all-headers"
"""Name under which `AllHeaders` stands behind the headers that were kept of a record as it was
read: a place that no producer can write to, as what it sends are bytes."""


class HeaderKeeper:
    """Takes the headers of a record one by one and keeps those that are small."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._kept: list[Header] = []
        self._kept_bytes = 0
        self._count = 0
        self._size_bytes = 0

    def begin(self, size_bytes: int | None) -> None:
        """Take note of the size of the next name or value; None for a value that is not there."""
        self._hash.update(_NO_VALUE if size_bytes is None else size_bytes.to_bytes(4, "big"))
        self._size_bytes += size_bytes or 0

    def hash(self, data: bytes) -> None:
        """Take bytes of the name or value that was begun."""
        self._hash.update(data)

    def end(self, header: Header | None) -> None:
        """Keep a header whose bytes were hashed, if it is small; None for one that is too large."""
        self._count += 1
        if header is None:
            return
        size_bytes = header_bytes(header)
        if (
            size_bytes <= HEADER_LIMIT_BYTES
            and self._kept_bytes + size_bytes <= HEADERS_LIMIT_BYTES
        ):
            self._kept.append(header)
            self._kept_bytes += size_bytes

    def add(self, header: Header) -> Self:
        """Take a header that is there as a whole."""
        for part in (bytes_of_name(header[0]), header[1]):
            self.begin(None if part is None else len(part))
            self.hash(part or b"")
        self.end(header)
        return self

    def kept(self) -> tuple[list[Header], AllHeaders]:
        """Return what is kept, and what is said of all."""
        return self._kept, AllHeaders(self._count, self._size_bytes, self._hash.hexdigest())


def keep_headers(headers: Iterable[Header]) -> tuple[list[Header], AllHeaders]:
    """Return the small ones of `headers`, and what is said of all."""
    keeper = HeaderKeeper()
    for header in headers:
        keeper.add(header)
    return keeper.kept()


def split_headers(headers: Sequence[Any]) -> tuple[Sequence[Header], AllHeaders | None]:
    """Return the headers of a record as it was read, and what is said of all if some are left."""
    if headers and isinstance(headers[-1][1], AllHeaders):
        return headers[:-1], headers[-1][1]
    return headers, None


def header_bytes(header: Header) -> int:
    """Return the most bytes that a header can take in a log."""
    name, value = header
    return len(bytes_of_name(name)) + len(value or b"") + HEADER_FRAME_BYTES


def record_bytes(
    key: ReadContent | None, value: ReadContent | None, headers: Iterable[Header] = ()
) -> int:
    """Return the most bytes that a record can take in a log, before compression.

    What was left at its source counts for nothing: it is not in memory.
    """
    contents = sum(len(each) for each in (key, value) if isinstance(each, bytes))
    return contents + sum(map(header_bytes, headers)) + FRAME_BYTES


def held_bytes(record: Any) -> int:  # noqa: ANN401 - aiokafka has no types
    """Return about how many bytes a record that was read takes in memory."""
    key, content, headers = record.key, record.value, record.headers
    size = (len(key) if isinstance(key, bytes) else 0) + (
        len(content) if isinstance(content, bytes) else 0
    )
    for name, value in split_headers(headers)[0] if headers else ():
        size += len(name) + len(value or b"") + _HEADER_MEMORY_BYTES
    return size


def passed_bytes(record: Any) -> int:  # noqa: ANN401 - aiokafka has no types
    """Return about how many bytes of a record were hashed as they were read, and not kept."""
    _, all_headers = split_headers(record.headers)
    left = [each for each in (record.key, record.value) if isinstance(each, LeftAtSource)]
    return sum(map(len, left)) + (0 if all_headers is None else all_headers.size_bytes)


def sha256_of_content(content: ReadContent) -> str:
    """Return the SHA-256 of a key or a value."""
    if isinstance(content, LeftAtSource):
        return content.sha256
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True, slots=True)
class CarriedRecord:
    """What a dead letter has of a record.

    Attributes:
        key: The record's; None also where it was left.
        value: The same.
        headers: The record's, in their order, but for those that were left.
        summary: What is said of a value and of what was left, by the names of headers of ours.
    """

    key: bytes | None
    value: bytes | None
    headers: list[Header]
    summary: dict[str, str]


def carried_record(
    key: ReadContent | None,
    value: ReadContent | None,
    headers: Sequence[Header],
    all_headers: AllHeaders | None = None,
) -> CarriedRecord:
    """Return what a dead letter carries of a record: all of it wherever it fits.

    Args:
        key: Of the record.
        value: Of the record.
        headers: Of the record; those that were kept of them where it was read.
        all_headers: What is said of all, where not all were kept.
    """
    summary = {}
    carried_value = None
    if value is not None:
        summary["rmos-body-sha256"] = sha256_of_content(value)
        if isinstance(value, bytes) and len(value) <= BROKER_MESSAGE_LIMIT_BYTES:
            carried_value = value
        else:
            summary["rmos-body-size"] = str(len(value))
    if (
        isinstance(key, bytes | None)
        and all_headers is None
        and record_bytes(key, carried_value, headers) <= CARRIED_LIMIT_BYTES
    ):
        return CarriedRecord(key, carried_value, list(headers), summary)
    carried_key = None
    if isinstance(key, bytes) and len(key) <= KEY_LIMIT_BYTES:
        carried_key = key
    elif key is not None:
        summary |= _summary_of_key(key)
    kept, summarized = list(headers), all_headers
    if summarized is None:
        kept, summarized = keep_headers(headers)
    if len(kept) < summarized.count:
        summary |= summary_of_headers(summarized)
    return CarriedRecord(carried_key, carried_value, kept, summary)


def summarized_record(
    key: ReadContent | None,
    value: ReadContent | None,
    headers: Sequence[Header],
    all_headers: AllHeaders | None = None,
) -> CarriedRecord:
    """Return what is left of a dead letter whose topic refuses the parts of `carried_record`."""
    summary = {} if key is None else _summary_of_key(key)
    if value is not None:
        summary |= {"rmos-body-sha256": sha256_of_content(value), "rmos-body-size": str(len(value))}
    summarized = all_headers or keep_headers(headers)[1]
    if summarized.count:
        summary |= summary_of_headers(summarized)
    return CarriedRecord(None, None, [], summary)


def _summary_of_key(key: ReadContent) -> dict[str, str]:
    return {"rmos-key-sha256": sha256_of_content(key), "rmos-key-size": str(len(key))}


def summary_of_headers(headers: AllHeaders) -> dict[str, str]:
    """Return what is said of all headers, by the names of headers of ours."""
    return {
        "rmos-headers-sha256": headers.sha256,
        "rmos-headers-size": str(headers.size_bytes),
        "rmos-headers-count": str(headers.count),
    }
