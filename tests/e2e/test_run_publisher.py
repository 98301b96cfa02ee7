"""The publishing client on the real broker, with the real worker where one is wanted."""

import asyncio
import gc
import json
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import NewTopic
from confluent_kafka import Message as DeliveredMessage
from confluent_kafka import Producer
from msgspec import structs

from pipeline.app.persist import persist_worker
from pipeline.broker.admin.topics import apply_topics, partition_offsets
from pipeline.broker.connection import admin_client, describe_cluster
from pipeline.broker.event_reader import EventReader
from pipeline.broker.local.broker import LocalBroker
from pipeline.broker.publisher import Published, Receipt, RunPublisher
from pipeline.broker.sending import requests as request_sender
from pipeline.broker.sending.batches import BatchSender, Message
from pipeline.broker.sending.requests import DeliveryReport
from pipeline.cli import publish
from pipeline.core.record import Located, RecordId, RecordSource
from pipeline.core.runs.event import run_event
from pipeline.core.runs.outcome import Outcome, OutcomeKind
from pipeline.errors import BrokerError, InputError, ReceiptTimeoutError, TopicsError
from pipeline.settings import Settings
from pipeline.topics import REQUEST_PARTITIONS, REQUEST_VALUE_LIMIT_BYTES
from schemas.run_event import RunEvent
from tests.builders import attachment_ref, encode, incomplete_request, red_request, run_request
from tests.e2e.commands import rmos
from tests.e2e.kafka_reading import new_settings
from tests.e2e.prepared_store import prepare_store

pytestmark = pytest.mark.e2e

DEADLINE_SECONDS = 90.0


def new_run_id() -> str:
    return f"run_{uuid.uuid4().hex}"


def event_of(published: Located, kind: OutcomeKind = "persisted", run_id: str = "r") -> Message:
    outcome = Outcome(kind, run_id=run_id)
    source = RecordSource(1, RecordId.of(published))
    topic = published.topic.replace(".requests", ".events")
    return told(topic, published.partition, run_event(outcome, source))


def told(topic: str, partition: int, value: bytes | None) -> Message:
    return Message(topic, partition, b"key", value, [])


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.01)


async def record_at(settings: Settings, published: Published) -> tuple[bytes, bytes, object]:
    place = TopicPartition(published.topic, published.partition)
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.bootstrap_servers)
    async with consumer:
        consumer.assign([place])
        consumer.seek(place, published.offset)
        record = await consumer.getone()
    return record.key, record.value, record.headers


async def count_of_requests(settings: Settings) -> int:
    ranges = await partition_offsets(settings, [settings.topics.run_requests])
    return sum(each.end - each.beginning for each in ranges.values())


@pytest.fixture
async def publisher(settings: Settings) -> AsyncIterator[RunPublisher]:
    async with RunPublisher(settings) as running:
        yield running


@pytest.fixture
async def events(settings: Settings) -> AsyncIterator[BatchSender]:
    """Give a sender that plays the worker: it tells what the test decides."""
    sender = BatchSender(settings)
    await sender.start()
    yield sender
    await sender.stop()


@pytest.fixture
async def worker(settings: Settings) -> AsyncIterator[None]:
    """Run the real persist worker over a new store."""
    cluster_id = await describe_cluster(settings)
    prepare_store(settings, cluster_id)
    async with persist_worker(settings):
        yield


async def test_published_request_is_the_callers_bytes_without_headers(
    settings: Settings, publisher: RunPublisher
) -> None:
    body = b'{ "run_id" : "as_written",\t"x": 1.0, "y": "\\u00e4", "schema_version": null}\n'
    published = await publisher.publish(body)
    assert published.run_id == "as_written"
    assert await record_at(settings, published) == (b"as_written", body, ())


async def test_published_object_is_sent_without_additions(
    settings: Settings, publisher: RunPublisher
) -> None:
    request = {"run_id": new_run_id(), "größe": [1, 1.0, None], "created_at_utc": "?"}
    _, value, _ = await record_at(settings, await publisher.publish(request))
    assert value == encode(request)


async def test_raw_record_arrives_as_it_is(settings: Settings, publisher: RunPublisher) -> None:
    published = await publisher.publish_raw(b"k", b"\xff{", [("traceparent", b"00-1-2-03")])
    assert published.run_id is None
    headers = (("traceparent", b"00-1-2-03"),)
    assert await record_at(settings, published) == (b"k", b"\xff{", headers)


async def test_nan_is_refused_and_nothing_is_sent(
    settings: Settings, publisher: RunPublisher
) -> None:
    with pytest.raises(InputError, match="JSON cannot express"):
        await publisher.publish(run_request(feasibility={"score": float("nan")}))
    with pytest.raises(InputError, match="no JSON"):
        await publisher.publish(b'{"run_id": "r", "score": NaN}')
    assert await count_of_requests(settings) == 0


async def test_largest_request_is_taken_and_one_byte_more_is_not(
    settings: Settings, publisher: RunPublisher
) -> None:
    room = REQUEST_VALUE_LIMIT_BYTES - len(encode(run_request(notes="")))
    await publisher.publish(run_request(notes="x" * room))
    with pytest.raises(InputError, match="4,194,305 bytes"):
        await publisher.publish(run_request(notes="x" * (room + 1)))
    assert await count_of_requests(settings) == 1


async def test_partition_is_that_of_librdkafka_with_murmur2_random(
    settings: Settings, publisher: RunPublisher
) -> None:
    run_ids = [new_run_id() for _ in range(100)]
    theirs: dict[str, int | None] = {}

    def delivered(_error: object, message: DeliveredMessage) -> None:
        key = message.key()
        assert isinstance(key, bytes)
        theirs[key.decode()] = message.partition()

    producer = Producer(
        {"bootstrap.servers": settings.bootstrap_servers, "partitioner": "murmur2_random"}
    )
    for run_id in run_ids:
        producer.produce(settings.topics.run_requests, b"{}", run_id, on_delivery=delivered)
    assert producer.flush(DEADLINE_SECONDS) == 0
    ours = [(await publisher.publish({"run_id": run_id})).partition for run_id in run_ids]
    assert ours == [theirs[run_id] for run_id in run_ids]
    assert len(set(ours)) == REQUEST_PARTITIONS


async def test_event_of_own_offset_is_found_among_those_of_the_same_run(
    publisher: RunPublisher, events: BatchSender
) -> None:
    request = run_request(run_id="same")
    receipts = [await publisher.send(request) for _ in range(3)]
    places = [await receipt.published() for receipt in receipts]
    kinds: list[OutcomeKind] = ["persisted", "duplicate", "conflict"]
    # Told in another order than asked, each twice, as after a redelivery.
    answers = [event_of(places[index], kinds[index], "same") for index in (2, 2, 1, 1, 0, 0)]
    await events.send(answers)
    found = [await receipt.event() for receipt in receipts]
    assert [event.outcome for event in found] == kinds
    assert [event.source.offset for event in found] == [place.offset for place in places]


async def test_event_read_before_the_acknowledgement_is_kept(
    publisher: RunPublisher, events: BatchSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = publisher._sender
    send = sender.send

    async def late_acknowledgement(*record: object) -> DeliveryReport:
        kept = await (await send(*record))  # type: ignore[arg-type]
        assert publisher._reader is not None
        matcher = publisher._reader.matcher
        await events.send([event_of(Published(kept.topic, kept.partition, kept.offset, None))])
        await until(lambda: matcher.early_count == 1)
        acknowledged: DeliveryReport = asyncio.get_running_loop().create_future()
        acknowledged.set_result(kept)
        return acknowledged

    monkeypatch.setattr(sender, "send", late_acknowledgement)
    assert (await publisher.publish_and_wait(run_request())).outcome == "persisted"
    assert publisher._reader is not None
    assert publisher._reader.matcher.early_count == 0


async def test_first_event_after_a_long_history_is_found(
    publisher: RunPublisher, events: BatchSender
) -> None:
    old = [event_of(Published("x.requests", 0, number, None)) for number in range(500)]
    await events.send([told(publisher._settings.topics.run_events, 3, each.value) for each in old])
    receipt = await publisher.send(run_request())
    await events.send([event_of(await receipt.published())])
    assert (await receipt.event()).outcome == "persisted"


async def test_events_of_records_of_others_are_found_before_and_after_they_are_told(
    settings: Settings, publisher: RunPublisher, events: BatchSender
) -> None:
    async with RunPublisher(settings) as other:
        told_before, told_after = [
            RecordId.of(await other.publish(run_request(run_id="same"))) for _ in range(2)
        ]
    await events.send([event_of(told_before)])
    assert (await publisher.event_of(told_before)).source.offset == told_before.offset
    with pytest.raises(ReceiptTimeoutError, match=f"in the log at {told_after}"):
        await publisher.event_of(told_after, 0.1)
    waiting = asyncio.ensure_future(publisher.event_of(told_after))
    await events.send([event_of(told_after, "duplicate")])
    found = await waiting
    assert (found.outcome, found.source.offset) == ("duplicate", told_after.offset)


async def test_an_event_older_than_the_look_back_is_not_found(
    publisher: RunPublisher, events: BatchSender
) -> None:
    published = await publisher.publish(run_request())
    await events.send([event_of(published)])
    with pytest.raises(ReceiptTimeoutError):
        await publisher.event_of(published, 0.1, look_back_seconds=-1)


async def test_the_event_of_a_record_of_another_topic_is_not_waited_for(
    settings: Settings, publisher: RunPublisher
) -> None:
    other = RecordId(settings.topics.advisory_requests, 0, 0)
    with pytest.raises(InputError, match=f"a record of {settings.topics.run_requests}, found"):
        await publisher.event_of(other)


async def test_what_others_write_on_the_events_topic_is_passed_over(
    publisher: RunPublisher, events: BatchSender, settings: Settings
) -> None:
    receipt = await publisher.send(run_request())
    published = await receipt.published()
    unexpected = [
        None,
        b"",
        b"\xff",
        b"[]",
        b'{"source": 7}',
        b'{"source": {"topic": [], "partition": {}, "offset": 0}}',
        b"[" * 100_000,
    ]
    await events.send([told(settings.topics.run_events, 0, value) for value in unexpected])
    await events.send([event_of(published)])
    assert (await receipt.event()).outcome == "persisted"


async def test_a_field_that_a_later_worker_adds_is_passed_over(
    publisher: RunPublisher, events: BatchSender
) -> None:
    receipt = await publisher.send(run_request())
    event = event_of(await receipt.published())
    assert event.value is not None
    later = json.loads(event.value) | {"field_of_a_later_worker": 1}
    await events.send([structs.replace(event, value=json.dumps(later).encode())])
    assert (await receipt.event()).outcome == "persisted"


async def test_event_of_another_form_is_reported_and_not_guessed(
    publisher: RunPublisher, events: BatchSender, settings: Settings
) -> None:
    receipt = await publisher.send(run_request())
    published = await receipt.published()
    source = {
        "topic": published.topic,
        "partition": published.partition,
        "offset": published.offset,
    }
    value = json.dumps({"schema_version": "rmos.run_event/9", "source": source}).encode()
    await events.send([told(settings.topics.run_events, 0, value)])
    with pytest.raises(BrokerError, match="not of the form that this release knows"):
        await receipt.event()


async def test_timeout_says_where_the_request_is_and_how_to_retry(publisher: RunPublisher) -> None:
    with pytest.raises(ReceiptTimeoutError) as caught:
        await publisher.publish_and_wait(run_request(run_id="slow"), timeout_seconds=0.1)
    topic = publisher._settings.topics.run_requests
    assert f"The request slow is in the log at {topic}/" in str(caught.value)
    assert "same body with the same run_id: a duplicate is success" in str(caught.value)


async def test_receipt_can_be_asked_again_after_a_timeout(
    publisher: RunPublisher, events: BatchSender
) -> None:
    receipt = await publisher.send(run_request())
    with pytest.raises(ReceiptTimeoutError):
        await receipt.event(0.05)
    await events.send([event_of(await receipt.published())])
    assert (await receipt.event()).outcome == "persisted"


async def test_abandoned_receipts_leave_nothing_behind(publisher: RunPublisher) -> None:
    receipts = [await publisher.send(run_request()) for _ in range(50)]
    for receipt in receipts:
        await receipt.published()
    assert publisher._reader is not None
    waiting = publisher._reader.matcher._waiting
    assert len(waiting) == 50
    receipts.clear()
    del receipt
    gc.collect()
    assert len(waiting) == 0


async def test_missing_topic_is_named_with_its_remedy(settings_without_topics: Settings) -> None:
    with pytest.raises(TopicsError, match=r"\.runs\.requests is missing .* `rmos topics apply`"):
        await RunPublisher(settings_without_topics).start()


async def test_unreachable_broker_is_named() -> None:
    with pytest.raises(BrokerError, match=r"No Kafka broker answers at 127\.0\.0\.1:1 "):
        await RunPublisher(bootstrap_servers="127.0.0.1:1").start()


async def test_deleted_events_end_the_reader_and_the_next_request_has_a_new_one(
    settings: Settings, events: BatchSender
) -> None:
    topic = settings.topics.run_events
    await events.send([told(topic, 0, b"{}")])
    async with RunPublisher(settings) as publisher:
        receipt = await publisher.send(run_request())
        await receipt.published()
        async with admin_client(settings) as admin:
            await admin.delete_topics([topic])
        await apply_topics(settings)
        with pytest.raises(BrokerError, match="is in the log at") as caught:
            await receipt.event()
        assert not isinstance(caught.value, ReceiptTimeoutError)
        again = await publisher.send(run_request())
        await events.send([event_of(await again.published())])
        assert (await again.event()).outcome == "persisted"


async def test_refused_record_fails_alone_and_the_publisher_goes_on(
    settings: Settings, publisher: RunPublisher
) -> None:
    await publisher.publish(run_request())
    too_large = bytes(range(256)) * (24 * 1024)
    with pytest.raises(InputError, match="at most 5,242,880 bytes"):
        await publisher.publish_raw(b"k", too_large)
    await publisher.publish(run_request())
    assert await count_of_requests(settings) == 2


async def test_broker_that_refuses_a_record_takes_the_next_of_that_partition(
    settings_without_topics: Settings,
) -> None:
    settings = settings_without_topics
    small = NewTopic(
        settings.topics.run_requests, 1, 1, topic_configs={"max.message.bytes": "2000"}
    )
    async with admin_client(settings) as admin:
        await admin.create_topics([small])
    await apply_topics(settings)
    async with RunPublisher(settings) as publisher:
        await publisher.publish_raw(b"k", b"small")
        with pytest.raises(InputError, match="too large"):
            await publisher.publish_raw(b"k", random.Random(1).randbytes(5000))
        # The refused record's sequence number is missing: the same producer could not go on.
        assert (await publisher.publish_raw(b"k", b"small")).offset == 1


async def test_nothing_is_left_running_after_the_block(settings: Settings) -> None:
    before = asyncio.all_tasks()
    async with RunPublisher(settings) as publisher:
        receipt = await publisher.send(run_request())
    assert await receipt.published()
    with pytest.raises(BrokerError, match="was stopped"):
        await receipt.event()
    assert asyncio.all_tasks() == before
    gc.collect()


@pytest.mark.slow
async def test_broker_that_restarts_loses_no_event_and_no_request(
    mortal_broker: LocalBroker, tmp_path: Path
) -> None:
    settings = new_settings(mortal_broker, tmp_path / "store")
    await apply_topics(settings)
    async with RunPublisher(settings) as publisher:
        waiting = await publisher.send(run_request(run_id="before"))
        first = await waiting.published()
        await asyncio.to_thread(mortal_broker.stop)
        meanwhile = asyncio.create_task(publisher.publish(run_request(run_id="meanwhile")))
        await asyncio.to_thread(mortal_broker.start)
        assert mortal_broker.bootstrap_servers == settings.bootstrap_servers
        await meanwhile
        events = BatchSender(settings)
        await events.send([event_of(first)])
        assert (await waiting.event()).outcome == "persisted"
        await events.stop()
    assert await count_of_requests(settings) == 2


@pytest.mark.slow
async def test_broker_that_stays_away_is_reported_and_found_again(
    mortal_broker: LocalBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = new_settings(mortal_broker, tmp_path / "store")
    await apply_topics(settings)
    async with RunPublisher(settings) as publisher:
        await publisher.publish(run_request(run_id="a"))
        await asyncio.to_thread(mortal_broker.stop)
        with monkeypatch.context() as patch:
            patch.setattr(request_sender, "DELIVERY_TIMEOUT_SECONDS", 1.0)
            for run_id in ("b", "c"):
                with pytest.raises(BrokerError, match="No Kafka broker answers"):
                    await publisher.publish(run_request(run_id=run_id))
        await asyncio.to_thread(mortal_broker.start)
        await publisher.publish(run_request(run_id="d"))


@pytest.mark.slow
async def test_stop_without_a_broker_ends_soon_and_fails_what_is_under_way(
    mortal_broker: LocalBroker, tmp_path: Path
) -> None:
    settings = new_settings(mortal_broker, tmp_path / "store")
    await apply_topics(settings)
    before = asyncio.all_tasks()
    publisher = RunPublisher(settings)
    await publisher.start()
    acknowledged = await publisher.send(run_request())
    await acknowledged.published()
    await asyncio.to_thread(mortal_broker.kill)
    under_way = await publisher.send(run_request())
    started = time.monotonic()
    await publisher.stop()
    assert time.monotonic() - started < 30
    with pytest.raises(BrokerError, match="stopped before the broker confirmed"):
        await under_way.published()
    with pytest.raises(BrokerError, match="is in the log at"):
        await acknowledged.event()
    del under_way, acknowledged, publisher
    gc.collect()
    assert asyncio.all_tasks() == before


@pytest.mark.usefixtures("worker")
async def test_concurrent_calls_share_one_reader_and_get_their_own_events(
    publisher: RunPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = []
    start = EventReader.start

    async def counted(reader: EventReader) -> None:
        readers.append(reader)
        await start(reader)

    monkeypatch.setattr(EventReader, "start", counted)
    run_ids = [new_run_id() for _ in range(200)]
    found = await asyncio.gather(
        *(publisher.publish_and_wait(run_request(run_id=run_id)) for run_id in run_ids)
    )
    assert [event.run_id for event in found] == run_ids
    assert {(event.outcome, event.may_cut) for event in found} == {("persisted", True)}
    assert len({(event.source.partition, event.source.offset) for event in found}) == 200
    assert len(readers) == 1


@pytest.mark.usefixtures("worker")
async def test_real_worker_answers_each_request_by_its_own_offset(publisher: RunPublisher) -> None:
    red, run_id = red_request(run_id="red"), new_run_id()
    receipts: list[Receipt] = [
        await publisher.send(run_request(run_id=run_id)),
        await publisher.send(run_request(run_id=run_id)),
        await publisher.send(run_request(run_id=run_id, tool_id="other")),
        await publisher.send(red),
        await publisher.send(incomplete_request(run_id="incomplete")),
        await publisher.send({"run_id": "no_time"}),
        await publisher.send_raw(b"key", b"not JSON"),
        await publisher.send_raw(b"key", None),
    ]
    found: list[RunEvent] = [await receipt.event() for receipt in receipts]
    assert [(event.outcome, event.status, event.may_cut) for event in found] == [
        ("persisted", "OK", True),
        ("duplicate", "OK", True),
        ("conflict", "OK", False),
        ("persisted", "BLOCKED", False),
        ("persisted", "BLOCKED", False),
        ("rejected", None, False),
        ("rejected", None, False),
        ("rejected", None, False),
    ]


@pytest.mark.usefixtures("worker")
async def test_publishing_names_the_attachments_that_are_not_there(
    settings: Settings, tmp_path: Path
) -> None:
    named = attachment_ref(b"G1 X1", kind="gcode")
    file = tmp_path / "request.json"
    file.write_bytes(encode(run_request(run_id="upload_first", attachments=[named])))
    # The worker of this process logs beside it.
    done = await rmos(settings, "publish", "run", "--wait", str(file))
    told = f"may_cut=true  missing_attachments={named['sha256']}"
    assert f"upload_first  persisted  OK  {told}" in done.out.splitlines()
    done = await rmos(settings, "publish", "run", "--wait", str(file))
    assert f"upload_first  duplicate  OK  {told}" in done.out.splitlines()


async def test_waiting_at_a_stopped_pipeline_says_for_what_before_it_gives_up(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "QUIET_SECONDS", 0.1)
    patient = settings.model_copy(update={"receipt_timeout_seconds": 1.0})
    monkeypatch.setattr(publish, "read_settings", lambda: patient)
    file = tmp_path / "request.json"
    file.write_bytes(encode(run_request(run_id="run_1")))
    done = await rmos(settings, "publish", "run", "--wait", str(file))
    assert done.status == 6
    waited, gave_up = done.err.splitlines()
    assert waited.startswith("Waiting up to 1 s for the event of run_1 (")
    assert f"no worker of the group {settings.topics.persist_group} runs" in waited
    assert gave_up.startswith("No event within 1 s")
