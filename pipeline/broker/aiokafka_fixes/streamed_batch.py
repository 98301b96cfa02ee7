"""A batch that aiokafka's parser cannot or must not read at once, as a stream in bounded memory.

Every record is found and keeps its offset. What of a record is larger than anything that is ever
judged or carried (`carried_record`) is hashed as it passes by and not kept.
"""

import hashlib
import struct
from collections.abc import Iterator
from typing import Any

from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordPy

from pipeline.core.dead_letters.carried_record import (
    ALL_HEADERS,
    CARRIED_LIMIT_BYTES,
    Header,
    HeaderKeeper,
    LeftAtSource,
    ReadContent,
    header_bytes,
    name_of_bytes,
)
from pipeline.topics import BROKER_MESSAGE_LIMIT_BYTES

_LONGEST_NUMBER_BITS = 63
_COUNT_AT = 57


def streamed_records(
    batch: Any,  # noqa: ANN401 - aiokafka has no types
    data: bytes | memoryview,
    pieces: Iterator[bytes],
) -> Iterator[_DefaultRecordPy]:
    """Yield the records of a batch, each once it is asked for.

    Args:
        batch: The batch of aiokafka's fast parser; only its header is read.
        data: Its bytes.
        pieces: Its unpacked content.

    Raises:
        CorruptRecordException: It holds no records of the present format.
    """
    (count,) = struct.unpack_from(">i", data, _COUNT_AT)
    stream = _Stream(pieces)
    for _ in range(count):
        yield _record(batch, stream)


def _record(batch: Any, stream: "_Stream") -> _DefaultRecordPy:  # noqa: ANN401
    length = stream.number()
    end = stream.read + length
    stream.byte()  # attributes, in which Kafka has not defined anything
    timestamp = batch.first_timestamp + stream.number()
    if batch.timestamp_type == 1:
        timestamp = batch.max_timestamp
    offset = batch.base_offset + stream.number()
    key = stream.content(CARRIED_LIMIT_BYTES)
    value = stream.content(BROKER_MESSAGE_LIMIT_BYTES)
    headers = _headers(stream)
    if stream.read != end:
        raise CorruptRecordException(
            f"expected a record of {length} bytes, found {stream.read - end + length}"
        )
    return _DefaultRecordPy(offset, timestamp, batch.timestamp_type, key, value, headers)


def _headers(stream: "_Stream") -> list[tuple[str, Any]]:
    """Return all headers of a record, or where they are too large those that are small."""
    keeper = HeaderKeeper()
    whole: list[Header] | None = []
    size_bytes = 0
    for _ in range(stream.number()):
        header = _header(stream, keeper)
        keeper.end(header)
        size_bytes += CARRIED_LIMIT_BYTES if header is None else header_bytes(header)
        if header is None or size_bytes > CARRIED_LIMIT_BYTES:
            whole = None
        elif whole is not None:
            whole.append(header)
    if whole is not None:
        return list(whole)
    kept, all_headers = keeper.kept()
    return [*kept, (ALL_HEADERS, all_headers)]


def _header(stream: "_Stream", keeper: HeaderKeeper) -> Header | None:
    """Return the next header; None where it is too large to be kept."""
    parts: list[bytes | None] = []
    fits = True
    for _ in ("name", "value"):
        size = stream.number()
        keeper.begin(None if size < 0 else size)
        kept = []
        for piece in stream.pieces(max(size, 0)):
            keeper.hash(piece)
            if size <= CARRIED_LIMIT_BYTES:
                kept.append(piece)
        fits = fits and size <= CARRIED_LIMIT_BYTES
        parts.append(None if size < 0 else b"".join(kept))
    name, value = parts
    if name is None:
        raise CorruptRecordException("expected a header with a name, found none")
    return (name_of_bytes(name), value) if fits else None


class _Stream:
    """What a batch holds, read once from its beginning to its end.

    Attributes:
        read: How many bytes were read.
    """

    __slots__ = ("_at", "_piece", "_pieces", "read")

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.read = 0
        self._pieces = pieces
        self._piece = b""
        self._at = 0

    def byte(self) -> int:
        """Return the next byte."""
        while self._at == len(self._piece):
            self._next_piece()
        value = self._piece[self._at]
        self._at += 1
        self.read += 1
        return value

    def number(self) -> int:
        """Return the next number: zigzag, seven bits a byte, the lowest first."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return (value >> 1) ^ -(value & 1)
            shift += 7
            if shift > _LONGEST_NUMBER_BITS:
                raise CorruptRecordException("expected a number of at most 64 bits")

    def content(self, limit_bytes: int) -> ReadContent | None:
        """Return the next key or value; of a larger one its summary."""
        size = self.number()
        if size < 0:
            return None
        if size <= limit_bytes:
            return b"".join(self.pieces(size))
        sha256 = hashlib.sha256()
        for piece in self.pieces(size):
            sha256.update(piece)
        return LeftAtSource(size, sha256.hexdigest())

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield the next `size` bytes."""
        while size:
            if self._at == len(self._piece):
                self._next_piece()
            piece = self._piece[self._at : self._at + size]
            self._at += len(piece)
            self.read += len(piece)
            size -= len(piece)
            yield piece

    def _next_piece(self) -> None:
        # The one before goes first: two of a large block would be too many.
        self._piece, self._at = b"", 0
        piece = next(self._pieces, None)
        if piece is None:
            raise CorruptRecordException(
                "expected more bytes of a record, found the end of its batch"
            )
        self._piece = piece
