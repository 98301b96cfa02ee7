"""What aiokafka's parser gives up on is read all the same, and all else as before."""

import gzip
from collections.abc import Iterator
from typing import Any

import aiokafka
import pytest
from aiokafka.codec import lz4_encode, snappy_encode, zstd_encode
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from pipeline.broker.aiokafka_fixes.tolerant_records import (
    TolerantRecords,
    install_tolerant_records,
)
from pipeline.core.dead_letters.carried_record import bytes_of_name, name_of_bytes
from tests.broker.aiokafka_fixes.record_batches import (
    GZIP,
    LZ4,
    ODD_NAMES,
    PLAIN_NAMES,
    SNAPPY,
    STRANGE_BODIES,
    ZSTD,
    ByteHeaders,
    batch_bytes,
    lz4_frame,
    record_bytes,
    unpacked,
)

PLACE = aiokafka.TopicPartition("t", 0)
RECORDS = b"".join(
    record_bytes(delta, b"key %d" % delta, b"value" * 20, PLAIN_NAMES) for delta in range(3)
)
PACKERS = [
    (0, bytes),
    (GZIP, gzip.compress),
    (SNAPPY, snappy_encode),
    (LZ4, lz4_encode),
    (ZSTD, zstd_encode),
]


def fetched(data: bytes, parser: Any = TolerantRecords) -> list[aiokafka.ConsumerRecord]:
    """Return the records of an answer of the broker, through aiokafka's own fetcher."""
    level = fetcher.READ_COMMITTED
    return list(fetcher.PartitionRecords(PLACE, parser(data), [], 0, None, None, True, level))


def byte_headers(record: aiokafka.ConsumerRecord) -> ByteHeaders:
    return tuple((bytes_of_name(name), value) for name, value in record.headers)


def with_odd_names() -> bytes:
    return (
        record_bytes(0, b"a", b"first")
        + record_bytes(1, None, None, ODD_NAMES)
        + record_bytes(2, b"c", b"last", PLAIN_NAMES)
    )


@pytest.fixture
def restored() -> Iterator[None]:
    """Take out again what a test installs."""
    found = fetcher.MemoryRecords
    yield
    fetcher.MemoryRecords = found


def test_aiokafka_still_gives_up_on_such_names() -> None:
    """Once this fails, the pin can move and `tolerant_records` can go."""
    assert aiokafka.__version__.startswith("0.14.")
    with pytest.raises(UnicodeDecodeError):
        fetched(batch_bytes(with_odd_names(), 3), MemoryRecords)


@pytest.mark.parametrize(("codec", "pack"), PACKERS)
def test_names_of_any_bytes_are_read_without_loss(codec: int, pack: Any) -> None:
    found = fetched(batch_bytes(pack(with_odd_names()), 3, codec=codec))
    assert [(each.offset, each.key, each.value) for each in found] == [
        (0, b"a", b"first"),
        (1, None, None),
        (2, b"c", b"last"),
    ]
    assert [byte_headers(each) for each in found] == [(), ODD_NAMES, PLAIN_NAMES]
    assert [name for name, _ in found[2].headers] == ["traceparent", "none"]


def test_a_batch_read_again_changes_nothing_about_those_beside_it() -> None:
    plain = batch_bytes(RECORDS, 3)
    odd = batch_bytes(with_odd_names(), 3, base_offset=3)
    last = batch_bytes(RECORDS, 3, base_offset=6)
    cut = batch_bytes(RECORDS, 3, base_offset=9)[:-1]
    found = fetched(plain + odd + last + cut)
    assert [each.offset for each in found] == list(range(9))
    assert found[:3] + found[6:] == fetched(plain, MemoryRecords) + fetched(last, MemoryRecords)


@pytest.mark.parametrize(("codec", "pack"), PACKERS)
def test_both_parsers_read_the_same(codec: int, pack: Any) -> None:
    data = batch_bytes(pack(RECORDS), 3, codec=codec)
    odd = pack(RECORDS + record_bytes(3, b"k", b"v", ODD_NAMES))
    assert (
        fetched(batch_bytes(odd, 4, codec=codec))[:3]
        == fetched(data, MemoryRecords)
        == fetched(data)
    )


@given(
    st.lists(
        st.tuples(
            st.none() | st.binary(max_size=80),
            st.none() | st.binary(max_size=300),
            st.lists(st.tuples(st.binary(max_size=70), st.none() | st.binary(max_size=70))),
        ),
        min_size=1,
    )
)
def test_any_record_is_read_as_it_was_sent(sent: list[Any]) -> None:
    records = b"".join(record_bytes(delta, *each) for delta, each in enumerate(sent))
    found = fetched(batch_bytes(records, len(sent)))
    assert [(r.key, r.value, list(byte_headers(r))) for r in found] == sent


@given(st.binary())
def test_a_name_is_its_bytes_again(name: bytes) -> None:
    assert bytes_of_name(name_of_bytes(name)) == name


def test_attributes_are_one_byte() -> None:
    # aiokafka takes them for a number of any length, and so the next byte for a part of it.
    records = record_bytes(0, b"a", b"v", ODD_NAMES) + record_bytes(1, b"b", b"v", attributes=0x80)
    assert [each.key for each in fetched(batch_bytes(records, 2))] == [b"a", b"b"]


@pytest.mark.parametrize("name", STRANGE_BODIES)
def test_what_the_broker_unpacks_is_unpacked(name: str) -> None:
    codec, pack = STRANGE_BODIES[name]
    body = pack(RECORDS)
    assert unpacked(codec, body) == RECORDS
    assert len(fetched(batch_bytes(body, 3, codec=codec))) == 3


@given(st.binary(max_size=300_000) | st.builds(lambda n: b"abc" * n, st.integers(0, 2_000_000)))
def test_every_codec_gives_back_what_was_packed(data: bytes) -> None:
    assert unpacked(GZIP, gzip.compress(data, 1)) == data
    assert unpacked(SNAPPY, snappy_encode(data)) == data
    assert unpacked(LZ4, lz4_encode(data)) == data
    assert unpacked(LZ4, lz4_frame(data, content_checksum=True)) == data
    assert unpacked(ZSTD, zstd_encode(data)) == data


def test_what_nobody_can_read_is_said_to_be_corrupt() -> None:
    with pytest.raises(CorruptRecordException, match=r"batch at offset 7"):
        fetched(batch_bytes(b"no gzip at all", 1, codec=GZIP, base_offset=7))
    flipped = bytearray(batch_bytes(RECORDS, 3))
    flipped[-1] ^= 1
    with pytest.raises(CorruptRecordException, match="CRC"):
        fetched(bytes(flipped))


@pytest.mark.usefixtures("restored")
def test_it_is_installed_by_a_call_and_once() -> None:
    fetcher.MemoryRecords = MemoryRecords
    install_tolerant_records()
    install_tolerant_records()
    assert fetcher.MemoryRecords is TolerantRecords
    fetcher.MemoryRecords = object
    with pytest.raises(AssertionError):
        install_tolerant_records()
