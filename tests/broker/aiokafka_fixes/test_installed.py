"""What aiokafka leaves until the collector comes by is gone at once; its batches pack fast."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import TopicPartition, client
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.codec import lz4_decode, lz4_encode
from aiokafka.conn import AIOKafkaConnection
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.producer.message_accumulator import BatchBuilder

from pipeline.broker.aiokafka_fixes import installed
from pipeline.broker.aiokafka_fixes.installed import (
    install_closed_bootstraps,
    install_fast_lz4,
    install_freed_answers,
)
from pipeline.broker.aiokafka_fixes.tolerant_records import TolerantRecords
from tests.broker.aiokafka_fixes.record_batches import batch_bytes, record_bytes

VERSIONS = b"".join(number.to_bytes(2) for key in range(64) for number in (key, 0, 1))


@asynccontextmanager
async def broker_without_metadata() -> AsyncIterator[tuple[str, asyncio.Event, asyncio.Event]]:
    """Give a broker that tells its versions, and no more; then whether it was asked, and left."""
    asked, left = asyncio.Event(), asyncio.Event()

    async def frame(reader: asyncio.StreamReader) -> bytes:
        return await reader.readexactly(int.from_bytes(await reader.readexactly(4)))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        correlation_id = (await frame(reader))[4:8]
        body = correlation_id + b"\0\0" + (64).to_bytes(4) + VERSIONS
        writer.write(len(body).to_bytes(4) + body)
        await frame(reader)
        asked.set()
        assert await reader.read() == b""
        left.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}", asked, left


async def cancelled_start(address: str, asked: asyncio.Event) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    starting = asyncio.create_task(admin.start())
    await asyncio.wait_for(asked.wait(), 60)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await admin.close()


async def is_left(left: asyncio.Event, *, patience_seconds: float) -> bool:
    try:
        await asyncio.wait_for(left.wait(), patience_seconds)
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize("mended", [True, False])
async def test_a_cancelled_start_leaves_no_connection_unlike_that_of_aiokafka(
    monkeypatch: pytest.MonkeyPatch, *, mended: bool
) -> None:
    opened: list[AIOKafkaConnection] = []

    async def create_conn(*address: Any, **options: Any) -> AIOKafkaConnection:
        opened.append(await installed._create_conn(*address, **options))
        return opened[-1]

    monkeypatch.setattr(client, "create_conn", create_conn)
    monkeypatch.setattr(AIOKafkaClient, "bootstrap", installed._bootstrap)
    if mended:
        install_closed_bootstraps()
    async with broker_without_metadata() as (address, asked, left):
        await cancelled_start(address, asked)
        assert await is_left(left, patience_seconds=60 if mended else 0.5) is mended
        for connection in opened:
            connection.close()
        assert await is_left(left, patience_seconds=60)
    assert installed._opened == {}


@pytest.mark.parametrize("mended", [True, False])
def test_an_answer_of_which_records_are_left_is_freed_at_once_unlike_that_of_aiokafka(
    monkeypatch: pytest.MonkeyPatch, *, mended: bool
) -> None:
    monkeypatch.setattr(PartitionRecords, "_unpack_records", installed._unpack_records)
    if mended:
        install_freed_answers()
    answer = TolerantRecords(
        batch_bytes(record_bytes(0, None, b"a") + record_bytes(1, None, b"b"), 2)
    )
    records = PartitionRecords(
        TopicPartition("t", 0), answer, [], 0, None, None, True, READ_COMMITTED
    )
    assert (next(records).value, records.next_fetch_offset) == (b"a", 1)
    held = weakref.ref(answer)
    gc.disable()
    try:
        del answer, records
        assert (held() is None) is mended
    finally:
        gc.enable()


def test_batches_are_packed_at_the_lowest_level() -> None:
    install_fast_lz4()
    lz4 = 3
    packed, plain = (BatchBuilder(1024 * 1024, codec) for codec in (lz4, 0))
    for batch in (packed, plain):
        for number in range(50):
            value = f"event {number} of {number * number} events".encode()
            batch.append(timestamp=0, key=None, value=value)
    records = bytes(plain._build())[61:]
    assert bytes(packed._build())[61:] == lz4_encode(records, 1) != lz4_encode(records, 9)
    assert lz4_decode(lz4_encode(records)) == records
