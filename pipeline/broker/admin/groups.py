"""Consumer groups at their coordinator: members, states, committed offsets.

An empty group can be moved: offsets are committed in its name, or deleted. aiokafka's admin client
neither commits nor deletes offsets of a group, so the requests are sent as the protocol has them.
The broker takes an offset without a member only of a group that has none: a worker that joins in
the meantime wins.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import (
    GroupIdNotFound,
    IllegalGenerationError,
    RebalanceInProgressError,
    UnknownMemberIdError,
    for_code,
)
from aiokafka.protocol.api import Request
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest

from pipeline.broker.admin.topics import (
    OffsetRange,
    partition_offsets,
    topic_partitions,
    with_retries,
)
from pipeline.broker.aiokafka_fixes import requests
from pipeline.broker.aiokafka_fixes.clients import ask
from pipeline.broker.connection import admin_client
from pipeline.core.record import Partition
from pipeline.errors import RefusedError, RmosError, StoreNotReadyError
from pipeline.settings import Settings
from pipeline.topics import consumer_groups, store_groups


@dataclass(frozen=True, slots=True)
class CommittedOffset:
    """What a group committed of one partition.

    Attributes:
        offset: The next one that it reads.
        metadata: A text of the client that committed it; workers leave it empty.
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
        holds: The partitions that it was given.
    """

    member_id: str
    client_id: str
    host: str
    holds: tuple[Partition, ...] = ()

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


@dataclass(frozen=True, slots=True)
class GroupPosition:
    """One partition as the log and a group see it.

    Attributes:
        begin: First offset that the log still has.
        end: Offset after the last one.
        committed: Where the group goes on; None where it has never been.
    """

    topic: str
    partition: int
    begin: int
    end: int
    committed: int | None

    @property
    def place(self) -> Partition:
        """Topic and number."""
        return self.topic, self.partition

    @property
    def following(self) -> int:
        """Where a worker would go on: at the log's start where the group has never been."""
        return self.begin if self.committed is None else self.committed

    @property
    def lag(self) -> int:
        """Offsets that are not consumed yet; marks of transactions count too."""
        return max(self.end - max(self.following, self.begin), 0)

    @property
    def lost(self) -> int:
        """Offsets that retention removed before they were consumed."""
        return max(self.begin - self.following, 0)


async def committed_offsets(
    settings: Settings, group: str, topics: Iterable[str]
) -> dict[Partition, int]:
    """Return what `group` committed, without the partitions where it never did."""
    found = await committed_with_metadata(settings, group, topics)
    return {partition: committed.offset for partition, committed in found.items()}


async def waiting_ranges(
    settings: Settings, group: str, topic: str
) -> dict[Partition, OffsetRange]:
    """Return what `group` has not consumed yet of each partition of `topic`, as it ends now."""
    committed = await committed_offsets(settings, group, [topic])
    return {
        partition: OffsetRange(max(log.beginning, committed.get(partition, 0)), log.end)
        for partition, log in (await partition_offsets(settings, [topic])).items()
    }


async def committed_with_metadata(
    settings: Settings, group: str, topics: Iterable[str]
) -> dict[Partition, CommittedOffset]:
    """Return what `group` committed and the texts with it; see `committed_offsets`."""
    partitions = await topic_partitions(settings, topics)
    async with admin_client(settings) as admin:
        return await with_retries(lambda: _committed(admin, group, partitions))


async def group_positions(settings: Settings, group: str) -> list[GroupPosition]:
    """Return where `group` is in each partition that it reads.

    Raises:
        TopicsError: A topic is missing.
        BrokerError: The broker cannot be reached.
    """
    topics = consumer_groups(settings.prefix)[group]
    # In this order, so that a worker that goes on meanwhile never seems to be beyond the end.
    committed = await committed_offsets(settings, group, topics)
    return [
        GroupPosition(*place, found.beginning, found.end, committed.get(place))
        for place, found in sorted((await partition_offsets(settings, topics)).items())
    ]


async def describe_group(settings: Settings, group: str) -> GroupState:
    """Return the state of `group`; one that was never used is Dead."""
    async with admin_client(settings) as admin:
        return await with_retries(lambda: _described_group(admin, group))


async def group_members(settings: Settings, group: str) -> list[str]:
    """Return the member ids of the live members of `group`, sorted; none where it is empty."""
    return sorted(member.member_id for member in (await describe_group(settings, group)).members)


async def refuse_running_workers(
    settings: Settings,
    reason: str,
    groups: Iterable[str] | None = None,
    error: type[RmosError] = StoreNotReadyError,
) -> None:
    """Refuse what must not happen to a store while a group has members.

    Args:
        settings: The broker.
        reason: What would happen, for the sentence.
        groups: The groups to look at; None for all that write into a store.
        error: What is raised.

    Raises:
        StoreNotReadyError: A group has members, each named; or `error`, where another is given.
    """
    for group in store_groups(settings.prefix) if groups is None else groups:
        members = (await describe_group(settings, group)).members
        if members:
            named = "; ".join(map(str, members))
            raise error(
                f"Stop the workers of {group} first, {len(members)} of them run ({named}): "
                f"{reason}."
            )


async def _committed(
    admin: AIOKafkaAdminClient, group: str, partitions: Iterable[TopicPartition]
) -> dict[Partition, CommittedOffset]:
    numbers: dict[str, list[int]] = {}
    for each in partitions:
        numbers.setdefault(each.topic, []).append(each.partition)
    coordinator = await admin.find_coordinator(group)
    # aiokafka's own ways, the consumer's too, pass over the error of the whole answer: a
    # coordinator that is still loading would look like a group that never committed.
    request = OffsetFetchRequest(group, list(numbers.items()))
    response = await ask(admin, request, coordinator)
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
    # Newer answers do so for a group that was never used, older ones call it dead.
    if code == GroupIdNotFound.errno:
        return GroupState(group, "Dead", ())
    if code != 0:
        raise for_code(code)(f"group {group}")
    found = (
        GroupMember(member[0], member[1], member[2].lstrip("/"), _held(member[4]))
        for member in members
    )
    ordered = sorted(found, key=lambda member: (member.client_id, member.member_id))
    return GroupState(group, state, tuple(ordered))


def _held(assignment: bytes) -> tuple[Partition, ...]:
    """Return the partitions that a member was given; none while the group finds its members."""
    try:
        held = ConsumerProtocolMemberAssignment.decode(assignment).partitions()
    # Any client may join the group, with an assignment of any form.
    except (ValueError, TypeError, struct.error):
        return ()
    return tuple(sorted((each.topic, each.partition) for each in held))


_NO_GENERATION = -1
_NO_MEMBER = ""
_BROKER_DECIDES_RETENTION = -1
_GROUP_SUBSCRIBED_TO_TOPIC = 86
"""Of Kafka 2.4 and later; aiokafka has no name for it."""

_LIVE = {
    error.errno
    for error in (UnknownMemberIdError, IllegalGenerationError, RebalanceInProgressError)
} | {_GROUP_SUBSCRIBED_TO_TOPIC}


async def groups_named(settings: Settings, beginning: str) -> list[str]:
    """Return the names of all groups that begin so, sorted."""
    async with admin_client(settings) as admin:
        listed = await with_retries(admin.list_consumer_groups)
    return sorted(name for name, *_ in listed if name.startswith(beginning))


async def commit_offsets(
    settings: Settings, group: str, offsets: Mapping[Partition, CommittedOffset]
) -> None:
    """Commit `offsets` in the name of `group`, which must be empty.

    Raises:
        RefusedError: The group has members. Nothing was changed.
    """
    by_topic: dict[str, list[tuple[int, int, str]]] = {}
    for (topic, partition), committed in offsets.items():
        by_topic.setdefault(topic, []).append((partition, committed.offset, committed.metadata))
    request = OffsetCommitRequest(
        group, _NO_GENERATION, _NO_MEMBER, _BROKER_DECIDES_RETENTION, list(by_topic.items())
    )
    await _ask_coordinator(settings, group, request)


async def delete_offsets(settings: Settings, group: str, partitions: Iterable[Partition]) -> None:
    """Let `group`, which must be empty, be as if it had never been in `partitions`.

    Raises:
        RefusedError: The group has members. Nothing was changed.
    """
    by_topic: dict[str, list[int]] = {}
    for topic, partition in partitions:
        by_topic.setdefault(topic, []).append(partition)
    await _ask_coordinator(settings, group, requests.delete_offsets(group, list(by_topic.items())))


async def _ask_coordinator(settings: Settings, group: str, request: Request[Any]) -> None:
    async def asked() -> None:
        coordinator = await admin.find_coordinator(group)
        _raise_first(group, await ask(admin, request, coordinator))

    async with admin_client(settings) as admin:
        await with_retries(asked)


def _raise_first(group: str, response: Any) -> None:  # noqa: ANN401 - aiokafka has no types
    """Raise the first error of an answer.

    Raises:
        RefusedError: The group has members.
        KafkaError: Any other.
    """
    whole = getattr(response, "error_code", 0)
    codes = (code for _, partitions in response.topics for _, code in partitions)
    for code in (whole, *codes):
        if code in _LIVE:
            raise RefusedError(f"The group {group} got a member meanwhile: nothing was changed.")
        if code != 0:
            raise for_code(code)(f"group {group}")
