"""Topics and their offsets as the broker has them: created, compared, looked up, never altered."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    KafkaError,
    NodeNotReadyError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)

from pipeline.broker.aiokafka_fixes.clients import ask
from pipeline.broker.aiokafka_fixes.requests import NO_TOPIC_ID, topic_with_id
from pipeline.broker.connection import (
    ANSWER_TIMEOUT_MS,
    ANSWER_TIMEOUT_SECONDS,
    admin_client,
    reader,
    refuse_hidden,
)
from pipeline.core.record import Partition
from pipeline.errors import BrokerError, TopicsError
from pipeline.settings import Settings
from pipeline.topics import Topic, former_topics, topic_table

RETRY_SECONDS = 0.1

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class TopicDifference:
    """One thing about one topic that is not as it must be.

    Attributes:
        topic: Full name.
        setting: `topic` where it is missing; `partitions`, `replication.factor`, or the name
            of a setting of the topic.
        expected: The required value.
        found: The present value; None where the topic is missing.
    """

    topic: str
    setting: str
    expected: str
    found: str | None


async def apply_topics(settings: Settings) -> list[TopicDifference]:
    """Create the topics that are missing; alter and delete nothing.

    Returns:
        What is still not as it must be: topics that were there before with other settings.

    Raises:
        BrokerError: The broker cannot be reached or refuses a topic.
    """
    wanted = wanted_topics(settings)
    async with admin_client(settings) as admin:
        there = await _described(admin)
        missing = [topic for topic in wanted if topic.name not in there]
        await refuse_hidden(admin, [topic.name for topic in missing])
        if missing:
            await _create(admin, missing, settings.replication)
            there = await _described_when_made(admin, missing)
        return await _differences(admin, settings, wanted, there)


async def compare_topics(
    settings: Settings, needed: Collection[str] | None = None
) -> list[TopicDifference]:
    """Return what is not as it must be, in the order of the topic table.

    Args:
        settings: Which broker and prefix.
        needed: The topics to look at; None for all.

    Raises:
        BrokerError: The broker cannot be reached, or does not show a topic to this user.
    """
    wanted = tuple(
        each for each in wanted_topics(settings) if needed is None or each.name in needed
    )
    async with admin_client(settings) as admin:
        there = await _described(admin)
        await refuse_hidden(admin, [topic.name for topic in wanted if topic.name not in there])
        return await _differences(admin, settings, wanted, there)


async def topics_no_longer_used(settings: Settings) -> list[str]:
    """Return the topics of an older version that the broker still has."""
    async with admin_client(settings) as admin:
        there = await _described(admin)
    return [name for name in former_topics(settings.prefix) if name in there]


async def topic_retention_ms(settings: Settings, topics: Iterable[str]) -> dict[str, int]:
    """Return how long the broker keeps each of `topics`, in ms; -1 is for ever.

    Raises:
        BrokerError: The broker cannot be reached or does not show it.
    """
    names = set(topics)
    asked = [topic for topic in wanted_topics(settings) if topic.name in names]
    async with admin_client(settings) as admin:
        configs = await _configs(admin, asked)
    return {name: int(found["retention.ms"]) for name, found in configs.items()}


@dataclass(frozen=True, slots=True)
class TopicLook:
    """One topic as a broker has it.

    Attributes:
        topic_id: Of this topic and no other, also of no later one of its name; None where the
            broker gives none.
        partitions: How many it has.
    """

    topic_id: str | None
    partitions: int


async def look_at_topic(admin: AIOKafkaAdminClient, topic: str) -> TopicLook | None:
    """Return the state of `topic` at the broker; None where there is no such topic.

    Raises:
        KafkaError: The broker does not answer, or does not show it.
    """
    response = await ask(admin, topic_with_id(topic))
    (found,) = response.to_object()["topics"]
    if found["error_code"] == UnknownTopicOrPartitionError.errno:
        return None
    if found["error_code"] != 0:
        raise for_code(found["error_code"])(f"topic {topic}")
    topic_id = found.get("topic_id", NO_TOPIC_ID)
    return TopicLook(None if topic_id == NO_TOPIC_ID else str(topic_id), len(found["partitions"]))


async def with_retries(ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
    """Ask a broker that may need some time until it answers.

    A group's coordinator loads its groups after a start, and the first question about any group
    makes the broker create its offsets topic.

    Raises:
        KafkaError: It refuses, or is not ready within about 10 s.
    """
    deadline = asyncio.get_running_loop().time() + ANSWER_TIMEOUT_SECONDS
    while True:
        try:
            return await ask()
        except KafkaError as error:
            if not error.retriable or asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(RETRY_SECONDS)


def wanted_topics(settings: Settings) -> tuple[Topic, ...]:
    """Return the topics as they must be, by the settings."""
    return topic_table(
        settings.prefix,
        request_retention_ms=settings.request_retention_ms,
        replication=settings.replication,
    )


async def _described(admin: AIOKafkaAdminClient) -> dict[str, dict[str, Any]]:
    """Return the metadata of every topic by name.

    Asking for a topic by name would create it on brokers that make topics by themselves.
    """
    return {
        topic["topic"]: topic for topic in await admin.describe_topics() if topic["error_code"] == 0
    }


async def wait_for_controller(admin: AIOKafkaAdminClient) -> None:
    """Wait until the cluster has a controller, which creates and deletes topics.

    A broker that goes on after a pause answers without any broker, until its controller has heard
    from it. aiokafka's admin client then has no node to ask, or an AttributeError for the
    controller.

    Raises:
        KafkaError: It names no broker, or has no controller, for ANSWER_TIMEOUT_SECONDS.
    """

    async def asked() -> None:
        if (await admin.describe_cluster())["controller_id"] < 0:
            raise NodeNotReadyError("The cluster has no controller.")

    await with_retries(asked)


async def _create(admin: AIOKafkaAdminClient, topics: list[Topic], replication: int) -> None:
    new = [
        NewTopic(topic.name, topic.partitions, replication, topic_configs=topic.configs)
        for topic in topics
    ]
    await wait_for_controller(admin)
    response = await admin.create_topics(new)
    # aiokafka raises for none of them; another client that applies at the same time is no fault.
    for name, code, reason, *_ in response.topic_errors:
        if code not in (0, TopicAlreadyExistsError.errno):
            raise BrokerError(
                f"The broker refused to create topic {name}: {reason or for_code(code)}"
            )


async def _described_when_made(
    admin: AIOKafkaAdminClient, topics: list[Topic]
) -> dict[str, dict[str, Any]]:
    """Wait until the broker that we ask has heard from its controller of the new topics."""
    deadline = asyncio.get_running_loop().time() + ANSWER_TIMEOUT_SECONDS
    while True:
        there = await _described(admin)
        if all(topic.name in there for topic in topics):
            return there
        if asyncio.get_running_loop().time() > deadline:
            return there
        await asyncio.sleep(RETRY_SECONDS)


async def _differences(
    admin: AIOKafkaAdminClient,
    settings: Settings,
    wanted: tuple[Topic, ...],
    there: dict[str, dict[str, Any]],
) -> list[TopicDifference]:
    present = [topic for topic in wanted if topic.name in there]
    configs = await _configs(admin, present)
    found = []
    for topic in wanted:
        if topic.name not in there:
            expected = f"{topic.partitions} partitions"
            found.append(TopicDifference(topic.name, "topic", expected, None))
        else:
            found += _layout_differences(topic, there[topic.name]["partitions"], settings)
            found += _config_differences(topic, configs[topic.name])
    return found


def _layout_differences(
    topic: Topic, partitions: list[dict[str, Any]], settings: Settings
) -> list[TopicDifference]:
    topics = settings.topics
    may_grow = topic.name in {topics.run_requests, topics.advisory_requests}
    accepted = settings.request_partitions if may_grow else topic.partitions
    count = len(partitions)
    # Partitions may differ in their replicas; the fewest are what a fault leaves us with.
    replicas = min((len(each["replicas"]) for each in partitions), default=0)
    pairs = (
        ("partitions", count if topic.partitions <= count <= accepted else accepted, count),
        ("replication.factor", settings.replication, replicas),
    )
    return [
        TopicDifference(topic.name, setting, str(expected), str(found))
        for setting, expected, found in pairs
        if expected != found
    ]


def _config_differences(topic: Topic, found: dict[str, str]) -> list[TopicDifference]:
    return [
        TopicDifference(topic.name, setting, expected, found.get(setting, ""))
        for setting, expected in topic.configs.items()
        if found.get(setting) != expected
    ]


async def _configs(admin: AIOKafkaAdminClient, topics: list[Topic]) -> dict[str, dict[str, str]]:
    """Return the settings of each topic that the table has an opinion about."""
    if not topics:
        return {}
    questions = [
        ConfigResource(ConfigResourceType.TOPIC, topic.name, topic.configs) for topic in topics
    ]
    answers = {}
    for response in await admin.describe_configs(questions):
        for code, reason, _type, name, entries in response.resources:
            if code == TopicAuthorizationFailedError.errno:
                raise TopicAuthorizationFailedError(name)
            if code != 0:
                raise BrokerError(
                    f"The broker does not show the settings of topic {name}: {reason}"
                )
            answers[name] = {entry[0]: entry[1] for entry in entries}
    return answers


async def topic_partitions(settings: Settings, topics: Iterable[str]) -> list[TopicPartition]:
    """Return every partition of `topics`.

    Raises:
        BrokerError: The broker cannot be reached, or does not show a topic to this user.
    """
    names = list(topics)
    async with admin_client(settings) as admin:
        there = await _described(admin)
        missing = [name for name in names if name not in there]
        await refuse_hidden(admin, missing)
    if missing:
        raise TopicsError(
            f"Topic {missing[0]} is missing at {settings.bootstrap_servers}: "
            "run `rmos topics apply`."
        )
    return [
        TopicPartition(name, number)
        for name in names
        for number in sorted(each["partition"] for each in there[name]["partitions"])
    ]


@dataclass(frozen=True, slots=True)
class OffsetRange:
    """The offsets that a partition holds.

    Attributes:
        beginning: Offset of the first record that is still there.
        end: Offset of the next record to come; equal to `beginning` where there is none.
    """

    beginning: int
    end: int

    def holds(self, offset: int) -> bool:
        """Tell whether `offset` is one of them."""
        return self.beginning <= offset < self.end


async def partition_offsets(
    settings: Settings, topics: Iterable[str]
) -> dict[Partition, OffsetRange]:
    """Return the offsets that each partition of `topics` holds, open transactions included."""
    partitions = await topic_partitions(settings, topics)
    # One that reads committed records would get the start of an open transaction.
    async with reader(
        settings, isolation_level="read_uncommitted", request_timeout_ms=ANSWER_TIMEOUT_MS
    ) as consumer:
        beginnings = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
    return {
        (each.topic, each.partition): OffsetRange(beginnings[each], ends[each])
        for each in partitions
    }
