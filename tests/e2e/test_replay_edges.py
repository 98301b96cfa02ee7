"""What a replay says of records that were removed, refused, not consumed, or sent elsewhere."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewTopic
from aiokafka.admin.records_to_delete import RecordsToDelete

from pipeline.app.persist import persist_worker
from pipeline.broker.admin.topics import partition_offsets
from pipeline.broker.connection import admin_client
from pipeline.broker.local.broker import LocalBroker
from pipeline.broker.reading.ranges import read_topic as read_any_topic
from pipeline.broker.sending.batches import BatchSender, Message
from pipeline.core.envelope import Rejected
from pipeline.core.record import RecordId, RecordSource
from pipeline.disk.store_identity import read_store
from pipeline.errors import TopicsError
from pipeline.settings import Settings
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.ledger_key import open_ledger
from pipeline.storage.run_store import RunStore
from pipeline.storage.store import open_store_to_write
from tests.builders import attachment_ref, run_request, sha256
from tests.e2e.commands import rmos
from tests.e2e.kafka_reading import (
    new_settings,
    produce,
    read_topic,
    sending,
    topics_and_store,
    wait_until,
    wait_until_consumed,
)
from tests.e2e.prepared_store import prepare_store
from tests.e2e.replayed_store import tree_of

pytestmark = [pytest.mark.e2e, pytest.mark.every_topic]

UPLOAD = b"a drawing that came by another way"
UPLOAD_PATH = f"attachments/{sha256(UPLOAD)[:2]}/{sha256(UPLOAD)[2:4]}/{sha256(UPLOAD)}"
DATE = "runs/2025-12-18"


async def replay(
    settings: Settings, command: str, *options: str, status: int = 0
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    ended = await rmos(settings, "replay", command, *options, "--json")
    assert ended.status == status, ended
    *findings, last = ended.documents
    return last["summary"], findings


def emptied(settings: Settings, folder: Path) -> Settings:
    identity = read_store(settings.data_dir)
    other = settings.model_copy(update={"data_dir": folder})
    prepare_store(other, identity.cluster_id, store_id=identity.store_id)
    return other


async def test_what_no_message_brings_and_what_nobody_consumed_is_named(
    store_settings: Settings, tmp_path: Path
) -> None:
    settings = store_settings
    names = [f"run_{number}" for number in range(3)]
    references = [attachment_ref(UPLOAD)]
    async with persist_worker(settings):
        runs = [run_request(run_id=name, attachments=references) for name in names[:2]]
        await produce(settings, map(sending, runs))
        await wait_until_consumed(settings)
    (settings.data_dir / UPLOAD_PATH).parent.mkdir(parents=True)
    (settings.data_dir / UPLOAD_PATH).write_bytes(UPLOAD)
    await produce(settings, [sending(run_request(run_id=names[2]))])

    summary, findings = await replay(settings, "verify")
    assert (findings, summary["records"], summary["pending"]) == ([], 2, 1)
    restored = emptied(settings, tmp_path / "restored")
    summary, findings = await replay(restored, "restore", status=5)
    assert {(each["finding"], each["path"], each["named_by"]) for each in findings} == {
        ("upload_missing", UPLOAD_PATH, f"{DATE}/{name}.json") for name in names[:2]
    }
    assert (summary["upload_missing"], summary["consumed"], summary["pending"]) == (2, 2, 1)
    assert not (restored.data_dir / f"{DATE}/{names[2]}.json").exists()
    # The worker goes on where the group is, and finds the store there too.
    async with persist_worker(restored):
        await wait_until_consumed(restored)
    assert (restored.data_dir / f"{DATE}/{names[2]}.json").exists()
    ended = await rmos(restored, "replay")
    assert ended.status == 5
    assert "2 uploads missing" in ended.out.splitlines()[-1]


async def test_a_record_that_our_program_once_could_not_judge_is_named_and_left(
    store_settings: Settings,
) -> None:
    settings = store_settings
    request = sending(run_request(run_id="run_a"))
    (place,) = await produce(settings, [request])
    (record,) = await read_topic(settings, settings.topics.run_requests)
    source = RecordSource(1, RecordId(record.topic, place.partition, place.offset))
    failed = Rejected("INTERNAL_ERROR", "KeyError while judging the record.")
    store = RunStore(open_store_to_write(settings.data_dir), ledger=open_ledger(settings))
    store.commit([JudgedRecord.of(source, failed, request.value, record.timestamp)])
    store.close()
    before = tree_of(settings.data_dir)
    for command in ("verify", "restore"):
        summary, findings = await replay(settings, command)
        assert [(each["finding"], each["path"]) for each in findings] == [
            ("internal_error", f"{record.topic}/{place.partition}/{place.offset}")
        ]
        assert (summary["internal_error"], summary["differs"]) == (1, False)
    assert tree_of(settings.data_dir) == before


async def test_what_retention_has_removed_is_said_and_never_skipped_silently(
    broker: LocalBroker, tmp_path: Path
) -> None:
    wanted = new_settings(broker, tmp_path / "store", request_retention_ms=7_200_000)
    async with topics_and_store(broker, wanted) as settings:
        topic = settings.topics.run_requests
        runs = [sending(run_request(run_id=f"run_{n}"), partition=4) for n in range(6)]
        async with persist_worker(settings):
            await produce(settings, runs)
            await wait_until_consumed(settings)
        async with admin_client(settings) as admin:
            await admin.delete_records({TopicPartition(topic, 4): RecordsToDelete(4)})

        summary, planned = await replay(settings, "plan")
        assert (summary["removed_by_retention"], summary["lost"]) == (4, 0)
        assert summary["retention_ms"][topic] == 7_200_000
        # What was removed is explained by its leaves.
        summary, findings = await replay(settings, "verify")
        assert (findings, summary["records"]) == ([], 2)

        lost = emptied(settings, tmp_path / "restored")
        summary, planned = await replay(lost, "plan")
        (partition,) = [each for each in planned if each["lost"]]
        assert (partition["partition"], partition["lost"]) == (4, {"from": 0, "to": 4})
        assert summary["lost"] == 4
        told = (await rmos(lost, "replay", "plan")).err
        assert "Retention has removed 4 offsets; of those the store lacks 4" in told
        assert "keeps its records for 2 hours only" in told
        ended = await rmos(lost, "replay", "restore")
        assert ended.status == 6
        assert f"Retention has removed offsets 0 to 3 of {topic}, partition 4" in ended.err
        assert tree_of(lost.data_dir) == {}
        summary, _ = await replay(lost, "restore", "--accept-loss")
        assert summary["consumed"] == 2
        assert (lost.data_dir / f"{DATE}/run_5.json").exists()


async def test_records_are_forwarded_untouched_and_marked(store_settings: Settings) -> None:
    settings = store_settings
    topic, requests = f"{settings.prefix}-elsewhere", settings.topics.run_requests
    # A header's name that is not UTF-8, a value that is missing, a record larger than a batch.
    headers: list[tuple[str, bytes | None]] = [("caf\udce9", b"\xff"), ("empty", None)]
    messages = [
        Message(requests, 5, b"run_a", b"no json", headers),
        Message(requests, 5, b"run_b", None, []),
        Message(requests, 1, b"run_a", b"x" * 2_000_000, [("rmos-replay-of", b"older")]),
    ]
    sender = BatchSender(settings)
    await sender.send(messages)
    await sender.stop()
    await make_topic(settings, topic)
    try:
        summary, _ = await replay(settings, "forward", "--to", topic)
        assert summary == {"command": "forward", "topic": topic, "records": 3}
        assert [
            (each.partition, each.key, each.value, list(each.headers))
            async for each in read_any_topic(settings, topic)
        ] == [
            (
                message.partition % 3,
                message.key,
                message.value,
                [*message.headers, ("rmos-replay-of", place.encode())],
            )
            for message, place in zip(
                (messages[2], *messages[:2]),
                (f"{requests}/1/0", f"{requests}/5/0", f"{requests}/5/1"),
                strict=True,
            )
        ]
        await replay(settings, "forward", "--to", topic, "--range", f"{requests}/5:1-")
        assert (await partition_offsets(settings, [topic]))[topic, 2].end == 3
    finally:
        async with admin_client(settings) as admin:
            await admin.delete_topics([topic])


async def make_topic(settings: Settings, topic: str) -> None:
    async with admin_client(settings) as admin:
        await admin.create_topics([NewTopic(topic, 3, 1)])

    async def is_there() -> bool:
        with suppress(TopicsError):
            return len(await partition_offsets(settings, [topic])) == 3
        return False

    await wait_until(is_there, f"{topic} is there")


async def test_nothing_is_forwarded_where_it_would_be_one_more_request(
    store_settings: Settings,
) -> None:
    settings = store_settings
    topics = settings.topics
    for topic in (topics.run_requests, topics.run_dead_letters, topics.run_events):
        ended = await rmos(settings, "replay", "forward", "--to", topic)
        assert (ended.status, "belongs to this pipeline" in ended.err) == (2, True)
    ended = await rmos(settings, "replay", "forward", "--to", f"{settings.prefix}-nowhere")
    assert ended.status == 6
