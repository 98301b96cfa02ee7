"""A batch that is huge when it is unpacked: read in little memory, each record at its offset."""

import gzip
import os
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import aiokafka
import cramjam
import pytest
from aiokafka.codec import lz4_encode, snappy_encode, zstd_encode
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException

from pipeline.broker.aiokafka_fixes import tolerant_records
from pipeline.broker.aiokafka_fixes.decompression import inflate, largest_size
from pipeline.broker.aiokafka_fixes.tolerant_records import (
    INFLATED_LIMIT_BYTES,
    TolerantRecords,
)
from pipeline.core.dead_letters.carried_record import LeftAtSource, keep_headers, split_headers
from tests.broker.aiokafka_fixes.record_batches import (
    GZIP,
    LZ4,
    ODD_NAMES,
    PLAIN_NAMES,
    SNAPPY,
    STRANGE_BODIES,
    ZSTD,
    batch_bytes,
    content,
    lz4_frame,
    number,
    record_bytes,
    unpacked,
)
from tests.builders import sha256

PLACE = aiokafka.TopicPartition("t", 0)
MEBIBYTE = 1024 * 1024
HUGE_BYTES = 24 * MEBIBYTE
PACKERS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "gzip": (GZIP, lambda data: gzip.compress(data, 1)),
    "snappy": (SNAPPY, snappy_encode),
    "snappy, raw": (SNAPPY, lambda data: bytes(cramjam.snappy.compress_raw(data))),
    "lz4": (LZ4, lz4_encode),
    "lz4, independent blocks": (LZ4, lz4_frame),
    "zstd": (ZSTD, zstd_encode),
}


def records_of(data: bytes) -> Iterator[Any]:
    level = fetcher.READ_COMMITTED
    records = fetcher.PartitionRecords(PLACE, TolerantRecords(data), [], 0, None, None, True, level)
    return iter(records)


@pytest.fixture
def everything_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tolerant_records, "INFLATED_LIMIT_BYTES", 0)


@pytest.mark.parametrize("name", PACKERS)
def test_a_huge_value_is_hashed_and_its_neighbours_are_read(name: str) -> None:
    codec, pack = PACKERS[name]
    huge = bytes(HUGE_BYTES)
    records = (
        record_bytes(0, b"before", b"{}")
        + record_bytes(1, b"huge", huge, PLAIN_NAMES)
        + record_bytes(2, b"after", None, ODD_NAMES)
    )
    before, found, after = records_of(batch_bytes(pack(records), 3, codec=codec, base_offset=7))
    assert (before.offset, before.key, before.value) == (7, b"before", b"{}")
    assert (found.offset, found.key) == (8, b"huge")
    assert found.value == LeftAtSource(HUGE_BYTES, sha256(huge))
    assert found.headers == (("traceparent", b"00-1"), ("none", None))
    assert (after.offset, after.key, after.value) == (9, b"after", None)


@pytest.mark.parametrize("name", ["gzip", "lz4, independent blocks", "zstd"])
def test_memory_does_not_grow_with_what_is_inside(name: str) -> None:
    codec, pack = PACKERS[name]
    data = batch_bytes(pack(record_bytes(0, b"k", bytes(HUGE_BYTES))), 1, codec=codec)
    tracemalloc.start()
    try:
        (record,) = records_of(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(record.value) == HUGE_BYTES
    assert peak < 12 * MEBIBYTE


@pytest.mark.usefixtures("everything_streamed")
@pytest.mark.parametrize("name", PACKERS)
def test_the_stream_reads_what_the_parser_reads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codec, pack = PACKERS[name]
    records = b"".join(
        record_bytes(delta, b"k%d" % delta, os.urandom(delta * 37), PLAIN_NAMES)
        for delta in range(99)
    )
    data = batch_bytes(pack(records), 99, codec=codec, base_offset=3)
    streamed = list(records_of(data))
    monkeypatch.setattr(tolerant_records, "INFLATED_LIMIT_BYTES", INFLATED_LIMIT_BYTES)
    assert streamed == list(records_of(data))


@pytest.mark.usefixtures("everything_streamed")
@pytest.mark.parametrize("name", STRANGE_BODIES)
def test_what_is_packed_strangely_is_streamed_too(name: str) -> None:
    codec, pack = STRANGE_BODIES[name]
    records = b"".join(record_bytes(delta, b"k", b"value" * 20) for delta in range(3))
    body = pack(records)
    assert b"".join(inflate(codec, body)) == records
    assert [each.offset for each in records_of(batch_bytes(body, 3, codec=codec))] == [0, 1, 2]


def test_large_keys_and_headers_are_hashed_like_those_that_are_held() -> None:
    large = bytes(8 * MEBIBYTE)
    for headers in (
        [(b"small", b"1"), (b"large", large), (b"caf\xe9", None)],
        [(b"small", b"1"), (large, None)],
        [(b"many", b"x" * 1000)] * 8_000,
    ):
        records = record_bytes(0, large, bytes(16 * MEBIBYTE), headers)
        (record,) = records_of(batch_bytes(zstd_encode(records), 1, codec=ZSTD))
        assert record.key == LeftAtSource(len(large), sha256(large))
        named = [(name.decode(errors="surrogateescape"), value) for name, value in headers]
        kept, all_headers = split_headers(record.headers)
        assert (list(kept), all_headers) == keep_headers(named)


@pytest.mark.parametrize(
    "records",
    [
        pytest.param(record_bytes(0, b"k", b"v")[:-1], id="cut"),
        pytest.param(b"\xff" * 20, id="a number without an end"),
        pytest.param(number(40) + bytes([0]) + number(0) + number(0), id="cut in its key"),
        pytest.param(
            number(9) + b"\0\0\0" + content(b"") + content(b"") + number(1) + number(-1) + b"\1",
            id="a header without a name",
        ),
    ],
)
@pytest.mark.usefixtures("everything_streamed")
def test_what_is_no_record_is_corrupt(records: bytes) -> None:
    with pytest.raises(CorruptRecordException, match="batch at offset 7"):
        list(records_of(batch_bytes(gzip.compress(records), 1, codec=GZIP, base_offset=7)))


@pytest.mark.parametrize("name", PACKERS)
def test_the_largest_size_is_never_too_small_and_near_for_what_clients_send(name: str) -> None:
    codec, pack = PACKERS[name]
    for data in (b"", b"a", os.urandom(100_000), b"some text, again " * 50_000):
        packed = pack(data)
        largest = largest_size(codec, packed, 4 * MEBIBYTE)
        assert len(unpacked(codec, packed)) == len(data) <= largest
        assert largest <= 4 * MEBIBYTE
