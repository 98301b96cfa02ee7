"""Records that the broker accepts and aiokafka's own parser cannot read: none blocks another."""

import gzip
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.codec import zstd_encode
from aiokafka.consumer import fetcher
from aiokafka.record.memory_records import MemoryRecords

from pipeline.app.persist import persist_worker
from pipeline.broker.aiokafka_fixes.installed import install
from pipeline.core.dead_letters.carried_record import bytes_of_name
from pipeline.core.dead_letters.selection import DeadLetterFilter
from pipeline.core.record import RecordId
from pipeline.recovery.rebuild.index import rebuild_index
from pipeline.settings import Settings
from tests.broker.aiokafka_fixes.record_batches import (
    GZIP,
    ODD_NAMES,
    PLAIN_NAMES,
    STRANGE_BODIES,
    ZSTD,
    batch_bytes,
    record_bytes,
)
from tests.builders import judged, record, run_request, sha256
from tests.e2e.dead_letters import redriven
from tests.e2e.kafka_reading import Place, header_dict, produce, sending, wait_until_consumed
from tests.e2e.store_audit import StoreAudit, audit_store, index_rows
from tests.e2e.worker_processes import WorkerPool, WorkerProcess

pytestmark = pytest.mark.e2e

BAD_VALUE = b'{"run_id": '


@pytest.fixture(autouse=True)
def readable() -> Iterator[None]:
    """Let the test itself read such records; workers in processes of their own install it alone."""
    found = fetcher.MemoryRecords
    install()
    yield
    fetcher.MemoryRecords = found


def request_record(delta: int, run_id: str, **changes: object) -> bytes:
    return record_bytes(delta, *record(run_request(run_id=run_id)), **changes)  # type: ignore[arg-type]


async def send_batch(
    producer: AIOKafkaProducer, settings: Settings, data: bytes, count: int, partition: int
) -> list[Place]:
    """Send a batch as it is."""
    batch = producer.create_batch()
    for _ in range(count):
        assert batch.append(timestamp=None, key=b"k", value=None, headers=[])
    batch.close()
    batch._buffer = bytearray(data)
    topic = settings.topics.run_requests
    future = await producer.send_batch(batch, topic, partition=partition)
    first = (await future).offset
    return [Place(partition, first + each) for each in range(count)]


@pytest.fixture
async def plain_producer(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    """Give a producer that does not number its batches, as ours are built already."""
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers, acks="all")
    await producer.start()
    yield producer
    await producer.stop()


def own_headers(audit: StoreAudit, place: Place) -> list[tuple[bytes, bytes | None]]:
    """Return the headers of a dead letter that are not ours, by their bytes."""
    headers = [(bytes_of_name(name), value) for name, value in audit.letter(place).headers]
    return [each for each in headers if not each[0].startswith(b"rmos-")]


async def test_odd_names_block_nothing_and_keep_their_bytes(
    store_settings: Settings, workers: WorkerPool, plain_producer: AIOKafkaProducer
) -> None:
    settings = store_settings
    worker = workers.start(settings)
    await worker.wait_until_started()
    data = (
        request_record(0, "run_before")
        + request_record(1, "run_odd", headers=ODD_NAMES)
        + record_bytes(2, b"\xff", BAD_VALUE, ODD_NAMES)
        + record_bytes(3, b"plain", BAD_VALUE, PLAIN_NAMES)
        + record_bytes(4, None, None, ODD_NAMES)
        + request_record(5, "run_after")
    )
    places = await send_batch(plain_producer, settings, batch_bytes(data, 6), 6, partition=3)
    beside = [run_request(run_id=f"run_{number}") for number in range(100)]
    await produce(settings, map(sending, beside))
    await wait_until_consumed(settings, check=worker.check)
    assert await worker.stop() == 0

    audit = await audit_store(settings)
    audit.assert_whole()
    assert audit.outcomes() == {"persisted": 103, "INVALID_JSON": 2, "TOMBSTONE": 1}
    for place, run_id in ((places[0], "before"), (places[1], "odd"), (places[5], "after")):
        expected = judged(run_request(run_id=f"run_{run_id}"))
        assert audit.event(place)["artifact_sha256"] == expected.artifact_sha256
    odd, plain, tombstone = places[2], places[3], places[4]
    assert (audit.letter(odd).key, audit.letter(odd).value) == (b"\xff", BAD_VALUE)
    assert (audit.letter(tombstone).key, audit.letter(tombstone).value) == (None, None)
    assert own_headers(audit, odd) == own_headers(audit, tombstone) == list(ODD_NAMES)
    assert own_headers(audit, plain) == list(PLAIN_NAMES)
    traced = dict(audit.events[places[1]][0].headers)
    assert traced["traceparent"] == dict(PLAIN_NAMES)[b"traceparent"]


async def test_what_is_packed_strangely_is_stored(
    store_settings: Settings, plain_producer: AIOKafkaProducer
) -> None:
    settings = store_settings
    for number, (codec, pack) in enumerate(STRANGE_BODIES.values()):
        records = b"".join(request_record(d, f"run_{number}_{d}") for d in range(2))
        data = batch_bytes(pack(records), 2, codec=codec)
        await send_batch(plain_producer, settings, data, 2, partition=number % 12)
    async with persist_worker(settings):
        await wait_until_consumed(settings)
    audit = await audit_store(settings)
    audit.assert_whole()
    assert audit.outcomes() == {"persisted": 2 * len(STRANGE_BODIES)}


@pytest.mark.every_topic
async def test_an_index_is_rebuilt_past_odd_names(
    store_settings: Settings, plain_producer: AIOKafkaProducer
) -> None:
    settings = store_settings
    data = request_record(0, "run_odd", headers=ODD_NAMES) + request_record(1, "run_after")
    await send_batch(plain_producer, settings, batch_bytes(data, 2), 2, partition=0)
    async with persist_worker(settings):
        await wait_until_consumed(settings)
    rows = {run_id: tuple(row) for run_id, row in index_rows(settings.data_dir).items()}
    (settings.data_dir / "index.sqlite3").unlink()
    report = await rebuild_index(settings)
    assert (report.runs, report.is_clean) == (2, True)
    rebuilt = {run_id: tuple(row) for run_id, row in index_rows(settings.data_dir).items()}
    assert rebuilt == rows


def peak_bytes(worker: WorkerProcess) -> int:
    """Return the most memory that a process has had so far."""
    status = Path(f"/proc/{worker.pid}/status").read_text()
    (line,) = (each for each in status.splitlines() if each.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


@pytest.mark.slow
@pytest.mark.parametrize(("codec", "pack"), [(ZSTD, zstd_encode), (GZIP, gzip.compress)])
@pytest.mark.every_topic
async def test_what_is_huge_inside_takes_little_memory_and_delays_nothing(
    store_settings: Settings,
    workers: WorkerPool,
    plain_producer: AIOKafkaProducer,
    codec: int,
    pack: Callable[[bytes], bytes],
) -> None:
    settings = store_settings
    worker = workers.start(settings)
    await worker.wait_until_started()
    before = peak_bytes(worker)
    huge, large = bytes(200 * 1024 * 1024), bytes(4_500_000)
    data = (
        request_record(0, "run_before")
        + record_bytes(1, b"run_huge", huge)
        + b"".join(record_bytes(delta, b"run_large", large) for delta in range(2, 42))
        + request_record(42, "run_after")
    )
    batch = batch_bytes(pack(data), 43, codec=codec)
    assert len(batch) < 1024 * 1024
    places = await send_batch(plain_producer, settings, batch, 43, partition=3)
    await produce(settings, [sending(run_request(run_id="run_behind"), partition=3)])
    await wait_until_consumed(settings, check=worker.check)
    assert peak_bytes(worker) - before < 150 * 1024 * 1024
    assert await worker.stop() == 0

    # It is hashed as it is read, and never held; its topic still has it.
    source = RecordId(settings.topics.run_requests, 3, places[1].offset)
    (left,) = await redriven(settings, DeadLetterFilter(sources=frozenset({source})))
    assert (left.status, left.why) == (
        "refused",
        f"It is too large to be read here: {source} keeps it.",
    )

    # The audit reads the records whole, as aiokafka does.
    fetcher.MemoryRecords = MemoryRecords
    audit = await audit_store(settings)
    assert audit.outcomes() == {"persisted": 3, "TOO_LARGE": 41}
    letter = audit.letter(places[1])
    assert (letter.key, letter.value) == (b"run_huge", None)
    told = header_dict(letter)
    assert told["rmos-body-sha256"] == sha256(huge).encode()
    assert told["rmos-body-size"] == str(len(huge)).encode()
    assert audit.leaves[places[1]]["body_sha256"] == sha256(huge)
    assert audit.letter(places[2]).value == large
