"""Where an empty consumer group goes on: committed in its name, or forgotten.

aiokafka's admin client neither commits nor deletes offsets of a group, so the requests are sent
as the protocol has them. The broker takes an offset without a member only of a group that has
none: a worker that joins in the meantime wins.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka.errors import (
    IllegalGenerationError,
    RebalanceInProgressError,
    UnknownMemberIdError,
    for_code,
)
from aiokafka.protocol.api import Request
from aiokafka.protocol.commit import OffsetCommitRequest

from pipeline.broker.admin.groups import CommittedOffset
from pipeline.broker.admin.topics import with_retries
from pipeline.broker.aiokafka_fixes.clients import ask
from pipeline.broker.aiokafka_fixes.requests import OffsetDeleteRequest
from pipeline.broker.connection import admin_client
from pipeline.core.record import Partition
from pipeline.errors import RefusedError
from pipeline.settings import Settings

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
    """Return the names of all groups that begin so, sorted.

    Raises:
        BrokerError: The broker cannot be reached.
    """
    async with admin_client(settings) as admin:
        listed = await with_retries(admin.list_consumer_groups)
    return sorted(name for name, *_ in listed if name.startswith(beginning))


async def commit_offsets(
    settings: Settings, group: str, offsets: Mapping[Partition, CommittedOffset]
) -> None:
    """Commit `offsets` in the name of `group`, which must be empty.

    Raises:
        RefusedError: The group has members. Nothing was changed.
        BrokerError: The broker cannot be reached.
    """
    by_topic: dict[str, list[tuple[int, int, str]]] = {}
    for (topic, partition), committed in offsets.items():
        by_topic.setdefault(topic, []).append((partition, committed.offset, committed.metadata))
    request = OffsetCommitRequest(
        group, _NO_GENERATION, _NO_MEMBER, _BROKER_DECIDES_RETENTION, list(by_topic.items())
    )
    await _ask_coordinator(settings, group, request)


async def delete_offsets(settings: Settings, group: str, places: Iterable[Partition]) -> None:
    """Let `group`, which must be empty, be as if it had never been in `places`.

    Raises:
        RefusedError: The group has members. Nothing was changed.
        BrokerError: The broker cannot be reached.
    """
    by_topic: dict[str, list[int]] = {}
    for topic, partition in places:
        by_topic.setdefault(topic, []).append(partition)
    await _ask_coordinator(settings, group, OffsetDeleteRequest(group, list(by_topic.items())))


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
