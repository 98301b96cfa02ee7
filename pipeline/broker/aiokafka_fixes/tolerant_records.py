"""Read every record that the broker accepted, also where aiokafka's own parser gives up.

aiokafka 0.14 decodes header names as UTF-8 while it parses, and a name that is not raises out of
the poll, before any code of ours has seen the record: its partition would stand still for ever.
Some compressed batches do the same (`decompression`). aiokafka has no setting for it, so
`install_tolerant_records` puts a class of ours in the place where its fetcher takes the parser
from. The fast parser still reads every batch; only one that it cannot, and one that could be too
large when it is unpacked, is read as a stream (`streamed_batch`).
"""

import struct
from collections.abc import Iterator
from typing import Any

import cramjam
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.memory_records import MemoryRecords

from pipeline.broker.aiokafka_fixes.decompression import inflate, largest_size
from pipeline.broker.aiokafka_fixes.streamed_batch import streamed_records
from pipeline.core.dead_letters.carried_record import held_bytes, passed_bytes

INFLATED_LIMIT_BYTES = 16 * 1024 * 1024
"""A batch that could be larger than this is never unpacked at once. A request has at most 4 MiB,
and producers end a batch at 1 MiB or less unless they are configured otherwise."""

TAKEN_LIMIT_BYTES = 16 * 1024 * 1024
"""So many bytes of records are taken from one partition at a time, and one record more: the
records of a batch that is read as a stream are made as they are taken."""

PASSED_LIMIT_BYTES = 256 * 1024 * 1024
"""So many bytes of one partition are hashed and not kept at a time, and one record more: a batch of
5 MiB can hold 150 GB of zeros, and while they are read no heartbeat is sent."""

_AIOKAFKAS_GETALL = FetchResult.getall
_BEFORE_LENGTH = 8
_BEFORE_BATCH = 12
_BEFORE_RECORDS = 61

# What was seen to rise out of the poll; OSError is that of `gzip`.
_GIVEN_UP = (UnicodeDecodeError, OSError, EOFError, struct.error, cramjam.DecompressionError)


def install_tolerant_records() -> None:
    """Let every aiokafka consumer of this process read what the broker accepted.

    Doing it again changes nothing. Consumers that run already are covered too.
    """
    assert fetcher.MemoryRecords in {MemoryRecords, TolerantRecords}
    fetcher.MemoryRecords = TolerantRecords
    if FetchResult.getall is _AIOKAFKAS_GETALL:
        FetchResult.getall = bounded_getall


def bounded_getall(fetched: Any, max_records: int | None = None) -> list[Any]:  # noqa: ANN401
    """Return the next records of one partition: the original's steps, and a bound of their size."""
    if not fetched.check_assignment(fetched._topic_partition) or not fetched.has_more():
        return []
    records: list[Any] = []
    more = take_records(fetched, records, max_records)
    fetched._update_position()
    if not more:
        fetched._partition_records = None
    return records


def take_records(fetched: Any, records: list[Any], max_records: int | None) -> bool:  # noqa: ANN401
    """Add the next records of one partition to `records`; return whether there may be more."""
    taken = passed = 0
    while len(records) != max_records and taken < TAKEN_LIMIT_BYTES and passed < PASSED_LIMIT_BYTES:
        record = next(fetched._partition_records, None)
        if record is None:
            return False
        records.append(record)
        taken += held_bytes(record)
        passed += passed_bytes(record)
    return True


class TolerantRecords:
    """The batches of one partition in one answer of the broker.

    It has what the fetcher of aiokafka asks of `MemoryRecords`.
    """

    def __init__(self, data: bytes) -> None:
        self._fast = MemoryRecords(data)
        self._rest = memoryview(data)

    def size_in_bytes(self) -> int:
        """Return the size of the answer, a cut batch at its end included."""
        return self._fast.size_in_bytes()  # type: ignore[no-any-return]

    def has_next(self) -> bool:
        """Return whether there is another whole batch."""
        return self._fast.has_next()  # type: ignore[no-any-return]

    def next_batch(self) -> "_Batch":
        """Return the next batch; its records are not read yet."""
        batch = self._fast.next_batch()
        (length,) = struct.unpack_from(">i", self._rest, _BEFORE_LENGTH)
        end = _BEFORE_BATCH + length
        data, self._rest = self._rest[:end], self._rest[end:]
        return _Batch(batch, data)


class _Batch:
    """A batch of the fast parser, and its bytes in case that one gives up."""

    __slots__ = ("_data", "_fast")

    def __init__(self, fast: Any, data: memoryview) -> None:  # noqa: ANN401
        self._fast = fast
        self._data = data

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._fast, name)

    def __next__(self) -> Any:  # noqa: ANN401
        # The fetcher takes the record of a control batch so; none but a broker writes those.
        return next(self._fast)

    def __iter__(self) -> Iterator[Any]:
        codec, body = self._fast.compression_type, bytes(self._data[_BEFORE_RECORDS:])
        if codec != DefaultRecordBatch.CODEC_NONE and self._could_be_large(codec, body):
            return self._streamed(codec, body)
        # All at once: a batch is read by one parser or by the other, never half by each.
        try:
            return iter(list(self._fast))
        except _GIVEN_UP as error:
            return iter(list(self._streamed(codec, body, error)))

    def _could_be_large(self, codec: int, body: bytes) -> bool:
        try:
            return largest_size(codec, body, INFLATED_LIMIT_BYTES) > INFLATED_LIMIT_BYTES
        except Exception as error:
            raise self._unreadable(error) from error

    def _streamed(self, codec: int, body: bytes, *given_up: Exception) -> Iterator[Any]:
        try:
            yield from streamed_records(self._fast, self._data, inflate(codec, body))
        except Exception as error:
            raise self._unreadable(*given_up, error) from error

    def _unreadable(self, *found: Exception) -> CorruptRecordException:
        return CorruptRecordException(
            f"expected records that can be read in the batch at offset "
            f"{self._fast.base_offset}, found {', then '.join(map(repr, found))}"
        )
