"""A record with header names of any bytes is sent with the same bytes."""

import struct
from collections.abc import Sequence

import aiokafka
import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatch

from pipeline.broker.aiokafka_fixes.any_name_batch import AnyNameBatch
from pipeline.broker.connection import BATCH_BYTES
from pipeline.broker.sending.batches import Message, _batches
from pipeline.core.dead_letters.carried_record import bytes_of_name, name_of_bytes
from tests.broker.aiokafka_fixes.record_batches import (
    LZ4,
    ODD_NAMES,
    PLAIN_NAMES,
    ByteHeaders,
    record_bytes,
    unpacked,
)
from tests.broker.aiokafka_fixes.test_tolerant_records import byte_headers, fetched

HEADER_BYTES = 61


class Producer:
    """What makes batches of a producer that is not connected."""

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(BATCH_BYTES, LZ4)


def message(key: bytes, headers: ByteHeaders = PLAIN_NAMES, value: bytes | None = b"v") -> Message:
    return Message("t", 0, key, value, [(name_of_bytes(name), each) for name, each in headers])


def built(queue: Sequence[Message]) -> list[bytes]:
    return [bytes(batch._build()) for batch in _batches(Producer(), queue)]


def sent(queue: Sequence[Message]) -> list[aiokafka.ConsumerRecord]:
    return [each for data in built(queue) for each in fetched(data)]


def test_the_fast_builder_still_refuses_such_names() -> None:
    """Once this fails, the pin can move and `AnyNameBatch` can go."""
    odd = [(name_of_bytes(ODD_NAMES[0][0]), b"x")]
    batch = BatchBuilder(BATCH_BYTES, 0)
    with pytest.raises(UnicodeEncodeError):
        batch.append(timestamp=None, key=b"k", value=b"v", headers=odd)
    # It is as it was: the next record is its first.
    assert batch.append(timestamp=None, key=b"k", value=b"v", headers=[]).offset == 0
    assert [each.key for each in fetched(bytes(batch._build()))] == [b"k"]


def test_the_bytes_of_a_name_are_in_the_batch() -> None:
    (data,) = built([message(b"k", ODD_NAMES)])
    (codec,) = struct.unpack_from(">h", data, 21)
    body = unpacked(codec & DefaultRecordBatch.CODEC_MASK, data[HEADER_BYTES:])
    assert body == record_bytes(0, b"k", b"v", ODD_NAMES)


def test_records_stay_in_order_whatever_their_names() -> None:
    names = [PLAIN_NAMES, ODD_NAMES, PLAIN_NAMES, ODD_NAMES, ()]
    queue = [message(b"%d" % number, each) for number, each in enumerate(names)]
    found = sent(queue)
    assert [each.key for each in found] == [b"0", b"1", b"2", b"3", b"4"]
    assert [byte_headers(each) for each in found] == names
    assert len(built(queue)) == 2


def test_batches_of_any_names_are_closed_when_they_are_full() -> None:
    queue = [message(b"%d" % number, ODD_NAMES, bytes(400_000)) for number in range(5)]
    queue.insert(2, message(b"large", ODD_NAMES, bytes(2 * BATCH_BYTES)))
    found = sent(queue)
    assert [each.key for each in found] == [b"0", b"1", b"large", b"2", b"3", b"4"]
    assert len(built(queue)) == 4


def test_plain_records_are_all_in_one_batch_of_the_fast_builder() -> None:
    (batch,) = _batches(Producer(), [message(b"a"), message(b"b")])
    assert not isinstance(batch, AnyNameBatch)
    assert batch.closed()
    assert list(_batches(Producer(), [])) == []


def test_a_batch_takes_the_state_of_an_idempotent_producer() -> None:
    batch = AnyNameBatch(BATCH_BYTES)
    batch.append(timestamp=None, key=b"k", value=None, headers=message(b"k", ODD_NAMES).headers)
    batch._set_producer_state(7, 2, 40)
    made = DefaultRecordBatch(bytes(batch._build()))
    assert (made.producer_id, made.producer_epoch, made.base_sequence) == (7, 2, 40)
    assert made.validate_crc()


def test_a_name_is_text_without_loss() -> None:
    assert name_of_bytes("größe".encode()) == "größe"
    assert bytes_of_name("größe") == "größe".encode()
    assert len({name_of_bytes(name) for name, _ in ODD_NAMES}) == len(ODD_NAMES)
