"""Topics and groups on the real broker: made once, compared, looked at."""

import json
import time
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewTopic
from aiokafka.errors import MessageSizeTooLargeError
from typer.testing import CliRunner

from pipeline.broker.admin.groups import committed_offsets, group_members
from pipeline.broker.admin.topics import (
    OffsetRange,
    TopicDifference,
    apply_topics,
    compare_topics,
    partition_offsets,
)
from pipeline.broker.connection import admin_client, describe_cluster
from pipeline.broker.local.broker import LocalBroker
from pipeline.cli.topics import app
from pipeline.errors import BrokerError, TopicsError
from pipeline.settings import Settings
from pipeline.topics import (
    BROKER_MESSAGE_LIMIT_BYTES,
    DEAD_LETTER_MESSAGE_LIMIT_BYTES,
    topic_table,
)
from tests.e2e.kafka_reading import new_settings

pytestmark = [pytest.mark.e2e, pytest.mark.every_topic]

OLD_TIMESTAMP_MS = 1_000_000_000_000


async def create_topic(settings: Settings, topic: NewTopic) -> None:
    async with admin_client(settings) as admin:
        response = await admin.create_topics([topic])
    assert [code for _, code, *_ in response.topic_errors] == [0]


def producer_of(settings: Settings) -> AIOKafkaProducer:
    return AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap_servers,
        acks="all",
        max_request_size=8 * 1024 * 1024,
    )


async def test_apply_twice_makes_the_topics_once(settings_without_topics: Settings) -> None:
    before = await compare_topics(settings_without_topics)
    assert {each.topic for each in before} == {
        topic.name for topic in topic_table(settings_without_topics.prefix)
    }
    assert {(each.setting, each.found) for each in before} == {("topic", None)}
    assert await apply_topics(settings_without_topics) == []
    assert await compare_topics(settings_without_topics) == []
    assert await apply_topics(settings_without_topics) == []


async def test_apply_leaves_a_topic_with_other_settings_alone_and_tells(
    settings_without_topics: Settings,
) -> None:
    settings = settings_without_topics
    name = settings.topics.run_requests
    await create_topic(settings, NewTopic(name, 5, 1, topic_configs={"retention.ms": "1000"}))
    differences = await apply_topics(settings)
    assert differences == await compare_topics(settings)
    assert differences[0] == TopicDifference(name, "partitions", "12", "5")
    assert TopicDifference(name, "retention.ms", "-1", "1000") in differences
    expected = TopicDifference(name, "message.timestamp.type", "LogAppendTime", "CreateTime")
    assert expected in differences
    assert {each.topic for each in differences} == {name}


async def test_another_replication_is_a_difference(settings: Settings) -> None:
    wanted = settings.model_copy(update={"replication": 2})
    found = await compare_topics(wanted)
    assert {(each.setting, each.expected, each.found) for each in found} == {
        ("replication.factor", "2", "1")
    }


async def test_more_replicas_than_brokers_are_refused_in_one_sentence(
    settings_without_topics: Settings,
) -> None:
    wanted = settings_without_topics.model_copy(update={"replication": 3})
    with pytest.raises(BrokerError, match=r"refused to create topic .*replication"):
        await apply_topics(wanted)


async def test_the_broker_sets_the_time_of_requests(settings: Settings) -> None:
    async with producer_of(settings) as producer:
        request = await producer.send_and_wait(
            settings.topics.run_requests, b"{}", timestamp_ms=OLD_TIMESTAMP_MS
        )
        event = await producer.send_and_wait(
            settings.topics.run_events, b"{}", timestamp_ms=OLD_TIMESTAMP_MS
        )
    assert abs(request.timestamp / 1000 - time.time()) < 60
    assert event.timestamp == OLD_TIMESTAMP_MS


async def test_each_topic_takes_messages_up_to_its_own_limit(settings: Settings) -> None:
    topics = settings.topics
    async with producer_of(settings) as producer:
        large = bytes(BROKER_MESSAGE_LIMIT_BYTES + 1)
        with pytest.raises(MessageSizeTooLargeError):
            await producer.send_and_wait(topics.run_requests, large)
        await producer.send_and_wait(topics.run_dead_letters, large)
        with pytest.raises(MessageSizeTooLargeError):
            await producer.send_and_wait(
                topics.run_dead_letters, bytes(DEAD_LETTER_MESSAGE_LIMIT_BYTES + 1)
            )


async def test_offsets_of_every_partition(settings: Settings) -> None:
    topic = settings.topics.run_requests
    async with producer_of(settings) as producer:
        for _ in range(3):
            await producer.send_and_wait(topic, b"{}", partition=4)
    offsets = await partition_offsets(settings, [topic, settings.topics.run_events])
    assert len(offsets) == 24
    assert offsets[topic, 4] == OffsetRange(0, 3)
    assert {each for key, each in offsets.items() if key != (topic, 4)} == {OffsetRange(0, 0)}


async def test_offsets_of_a_missing_topic_say_so(settings_without_topics: Settings) -> None:
    settings = settings_without_topics
    topic = settings.topics.run_requests
    with pytest.raises(TopicsError, match="rmos topics apply"):
        await partition_offsets(settings, [topic])
    with pytest.raises(TopicsError, match=topic):
        await committed_offsets(settings, settings.topics.persist_group, [topic])


async def test_committed_offsets_and_members_of_a_group(settings: Settings) -> None:
    topic, group = settings.topics.run_requests, settings.topics.persist_group
    assert await committed_offsets(settings, group, [topic]) == {}
    assert await group_members(settings, group) == []

    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=settings.bootstrap_servers,
        group_id=group,
        client_id="persist-1",
        enable_auto_commit=False,
    )
    async with consumer:
        await consumer.getmany(timeout_ms=10)
        (member,) = await group_members(settings, group)
        assert member.startswith("persist-1-")
        await consumer.commit({TopicPartition(topic, 2): 7})
    assert await committed_offsets(settings, group, [topic]) == {(topic, 2): 7}
    assert await group_members(settings, group) == []


async def test_committed_offsets_are_known_as_soon_as_a_broker_is_back(
    mortal_broker: LocalBroker, tmp_path: Path
) -> None:
    # Its coordinator loads for a moment, and says so in a place where aiokafka does not look.
    settings = new_settings(mortal_broker, tmp_path / "store")
    topic, group = settings.topics.run_requests, settings.topics.persist_group
    await apply_topics(settings)
    async with AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap_servers, group_id=group, enable_auto_commit=False
    ) as consumer:
        places = [TopicPartition(topic, number) for number in range(12)]
        consumer.assign(places)
        await consumer.commit(dict.fromkeys(places, 7))
    mortal_broker.stop()
    mortal_broker.start()
    offsets = await committed_offsets(settings, group, [topic])
    assert offsets == {(topic, number): 7 for number in range(12)}


async def test_describe_cluster_reports_the_id_that_the_folder_keeps(
    settings: Settings, broker: LocalBroker
) -> None:
    assert await describe_cluster(settings) == broker.cluster_id


def test_commands_tell_what_is_missing_make_it_and_agree(
    settings_without_topics: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_without_topics
    monkeypatch.setenv("RMOS_PREFIX", settings.prefix)
    monkeypatch.setenv("RMOS_BOOTSTRAP_SERVERS", settings.bootstrap_servers)
    run = CliRunner().invoke

    missing = run(app, ["check"])
    assert missing.exit_code == 5
    assert "missing" in missing.stdout
    document = json.loads(run(app, ["check", "--json"]).stdout)
    assert len(document["differences"]) == document["topics"]

    made = run(app, ["apply"])
    assert made.exit_code == 0, made.output
    assert made.stdout == f"{document['topics']} topics as they must be\n"

    monkeypatch.setenv("RMOS_REQUEST_RETENTION_MS", "86400000")
    shorter = run(app, ["check"])
    assert shorter.exit_code == 5
    assert "retention.ms" in shorter.stdout
    assert "kept for 1 days only" in shorter.stderr
