"""Topics and groups as the broker has them: created, compared and looked at, never altered."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    GroupIdNotFound,
    KafkaError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    for_code,
)
from aiokafka.protocol.commit import OffsetFetchRequest

from pipeline.broker.connection import (
    ANSWER_TIMEOUT_SECONDS,
    admin_client,
    broker_errors,
    client_options,
    close_consumer,
    refuse_hidden,
)
from pipeline.errors import BrokerError, TopicsError
from pipeline.settings import Settings
from pipeline.topics import Topic, topic_table

RETRY_SECONDS = 0.1

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class TopicDifference:
    """One thing about one topic that is not as it must be.

    Attributes:
        topic: Full name.
        setting: `topic` where it is missing; `partitions`, `replication.factor`, or the name
            of a setting of the topic.
        expected: What it must be.
        found: What it is, None where it is missing.
    """

    topic: str
    setting: str
    expected: str
    found: str | None


@dataclass(frozen=True, slots=True)
class OffsetRange:
    """The offsets that a partition holds.

    Attributes:
        beginning: Offset of the first record that is still there.
        end: Offset of the next record to come; equal to `beginning` where there is none.
    """

    beginning: int
    end: int


@dataclass(frozen=True, slots=True)
class CommittedOffset:
    """What a group committed of one partition.

    Attributes:
        offset: The next one that it reads.
        metadata: A text of whoever committed it; workers leave it empty.
    """

    offset: int
    metadata: str


@dataclass(frozen=True, slots=True)
class GroupMember:
    """One live member.

    Attributes:
        member_id: That of the broker.
        client_id: What the client calls itself.
        host: Where it connected from.
    """

    member_id: str
    client_id: str
    host: str

    def __str__(self) -> str:
        return f"{self.client_id} at {self.host} ({self.member_id})"


@dataclass(frozen=True, slots=True)
class GroupState:
    """A group as its coordinator sees it.

    Attributes:
        state: In the broker's word: Stable, Empty, Dead and others.
        members: The live ones, sorted.
    """

    name: str
    state: str
    members: tuple[GroupMember, ...]


async def apply_topics(settings: Settings) -> list[TopicDifference]:
    """Create the topics that are missing; alter and delete nothing.

    Returns:
        What is still not as it must be: topics that were there before with other settings.

    Raises:
        BrokerError: The broker cannot be reached or refuses a topic.
    """
    wanted = _wanted(settings)
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
    wanted = tuple(each for each in _wanted(settings) if needed is None or each.name in needed)
    async with admin_client(settings) as admin:
        there = await _described(admin)
        await refuse_hidden(admin, [topic.name for topic in wanted if topic.name not in there])
        return await _differences(admin, settings, wanted, there)


async def topic_retention_ms(settings: Settings, topics: Iterable[str]) -> dict[str, int]:
    """Return how long the broker keeps each of `topics`, in ms; -1 is for ever.

    Raises:
        BrokerError: The broker cannot be reached or does not show it.
    """
    names = set(topics)
    asked = [topic for topic in _wanted(settings) if topic.name in names]
    async with admin_client(settings) as admin:
        configs = await _configs(admin, asked)
    return {name: int(found["retention.ms"]) for name, found in configs.items()}


async def partition_offsets(
    settings: Settings, topics: Iterable[str]
) -> dict[tuple[str, int], OffsetRange]:
    """Return the offsets that each partition of `topics` holds, open transactions included.

    Raises:
        TopicsError: A topic is missing.
        BrokerError: The broker cannot be reached.
    """
    partitions = await topic_partitions(settings, topics)
    async with _consumer(settings) as consumer:
        beginnings = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
    return {
        (each.topic, each.partition): OffsetRange(beginnings[each], ends[each])
        for each in partitions
    }


async def committed_offsets(
    settings: Settings, group: str, topics: Iterable[str]
) -> dict[tuple[str, int], int]:
    """Return what `group` committed, without the partitions where it never did.

    Raises:
        TopicsError: A topic is missing.
        BrokerError: The broker cannot be reached.
    """
    found = await committed_with_metadata(settings, group, topics)
    return {place: committed.offset for place, committed in found.items()}


async def committed_with_metadata(
    settings: Settings, group: str, topics: Iterable[str]
) -> dict[tuple[str, int], CommittedOffset]:
    """Return what `group` committed and the texts with it; see `committed_offsets`."""
    partitions = await topic_partitions(settings, topics)
    async with admin_client(settings) as admin:
        return await patiently(lambda: _committed(admin, group, partitions))


async def describe_group(settings: Settings, group: str) -> GroupState:
    """Return the state of `group`; one that nobody ever used is Dead.

    Raises:
        BrokerError: The broker cannot be reached.
    """
    async with admin_client(settings) as admin:
        return await patiently(lambda: _described_group(admin, group))


async def group_members(settings: Settings, group: str) -> list[str]:
    """Return the member ids of the live members of `group`, sorted; none where it is empty.

    Raises:
        BrokerError: The broker cannot be reached.
    """
    return sorted(member.member_id for member in (await describe_group(settings, group)).members)


async def patiently(ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
    """Ask a group's coordinator, which after a start needs some time to load its groups.

    The first question about any group also makes the broker create its offsets topic.

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


def _wanted(settings: Settings) -> tuple[Topic, ...]:
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


async def _create(admin: AIOKafkaAdminClient, topics: list[Topic], replication: int) -> None:
    new = [
        NewTopic(topic.name, topic.partitions, replication, topic_configs=topic.configs)
        for topic in topics
    ]
    response = await admin.create_topics(new)
    # aiokafka raises for none of them; somebody who applies at the same time is no fault.
    for name, code, reason, *_ in response.topic_errors:
        if code not in (0, TopicAlreadyExistsError.errno):
            message = f"The broker refused to create topic {name}: {reason or for_code(code)}"
            raise BrokerError(message)


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
                message = f"The broker does not show the settings of topic {name}: {reason}"
                raise BrokerError(message)
            answers[name] = {entry[0]: entry[1] for entry in entries}
    return answers


async def topic_partitions(settings: Settings, topics: Iterable[str]) -> list[TopicPartition]:
    """Return every partition of `topics`.

    Raises:
        TopicsError: A topic is missing.
        BrokerError: The broker cannot be reached, or does not show a topic to this user.
    """
    names = list(topics)
    async with admin_client(settings) as admin:
        there = await _described(admin)
        missing = [name for name in names if name not in there]
        await refuse_hidden(admin, missing)
    if missing:
        message = (
            f"Topic {missing[0]} is missing at {settings.bootstrap_servers}: "
            "run `rmos topics apply`."
        )
        raise TopicsError(message)
    return [
        TopicPartition(name, number)
        for name in names
        for number in sorted(each["partition"] for each in there[name]["partitions"])
    ]


@asynccontextmanager
async def _consumer(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    """Connect a consumer that joins no group and reads no record."""
    consumer = AIOKafkaConsumer(
        **client_options(settings),
        enable_auto_commit=False,
        request_timeout_ms=int(ANSWER_TIMEOUT_SECONDS * 1000),
    )
    async with broker_errors(settings):
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
                await consumer.start()
            yield consumer
        finally:
            await close_consumer(consumer)


async def _committed(
    admin: AIOKafkaAdminClient, group: str, partitions: Iterable[TopicPartition]
) -> dict[tuple[str, int], CommittedOffset]:
    numbers: dict[str, list[int]] = {}
    for each in partitions:
        numbers.setdefault(each.topic, []).append(each.partition)
    coordinator = await admin.find_coordinator(group)
    # aiokafka's own ways, the consumer's too, pass over the error of the whole answer: a
    # coordinator that is still loading would look like a group that never committed.
    request = OffsetFetchRequest(group, list(numbers.items()))
    response = await admin._client.send(coordinator, request)
    answers = [
        (topic, number, offset, metadata, code)
        for topic, listed in response.topics
        for number, offset, metadata, code in listed
    ]
    for code in (response.error_code, *(code for *_, code in answers)):
        if code != 0:
            raise for_code(code)(f"group {group}")
    return {
        (topic, number): CommittedOffset(offset, metadata or "")
        for topic, number, offset, metadata, _ in answers
        if offset >= 0
    }


async def _described_group(admin: AIOKafkaAdminClient, group: str) -> GroupState:
    (response,) = await admin.describe_consumer_groups([group])
    (described,) = response.groups
    code, _group, state, _protocol_type, _protocol, members, *_ = described
    # Newer answers say so of a group that nobody ever used, older ones call it dead.
    if code == GroupIdNotFound.errno:
        return GroupState(group, "Dead", ())
    if code != 0:
        raise for_code(code)(f"group {group}")
    found = (GroupMember(member[0], member[1], member[2].lstrip("/")) for member in members)
    ordered = sorted(found, key=lambda member: (member.client_id, member.member_id))
    return GroupState(group, state, tuple(ordered))
