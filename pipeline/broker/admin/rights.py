"""What this user may do with topics and groups, as the broker says it (KIP-430).

A broker without an authorizer lets everybody do everything, and answers so.
"""

from collections.abc import Iterable, Mapping
from enum import IntEnum
from functools import partial

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupAuthorizationFailedError, for_code

from pipeline.broker.admin.topics import with_retries
from pipeline.broker.aiokafka_fixes.clients import ask
from pipeline.broker.aiokafka_fixes.requests import group_with_rights, topics_with_rights
from pipeline.broker.connection import admin_client
from pipeline.settings import Settings

_UNKNOWN = -(2**31)
"""What a broker answers where it was not asked, or does not know."""


class Right(IntEnum):
    """An operation of Kafka's ACLs, by its number in the protocol."""

    READ = 3
    WRITE = 4
    DESCRIBE = 8
    DESCRIBE_CONFIGS = 10

    @property
    def word(self) -> str:
        """Its name as `kafka-acls.sh` writes it."""
        return "".join(part.capitalize() for part in self.name.split("_"))


Rights = Mapping[str, frozenset[Right]]


async def missing_rights(settings: Settings, topics: Rights, groups: Rights) -> list[str]:
    """Return what this user may not do of what it must: `Write on topic rmos.runs.events`.

    Args:
        settings: The broker and the user.
        topics: The operations that are needed, by the name of a topic that is there.
        groups: Likewise of consumer groups.

    Raises:
        BrokerError: No broker answers.
    """
    async with admin_client(settings) as admin:
        of_topics = await _of_topics(admin, topics)
        of_groups = {
            group: await with_retries(partial(_of_group, admin, group)) for group in groups
        }
    return [
        *_missing("topic", topics, of_topics),
        *_missing("group", groups, of_groups),
    ]


def _missing(kind: str, needed: Rights, found: Mapping[str, int]) -> list[str]:
    return [
        f"{right.word} on {kind} {name}"
        for name, rights in needed.items()
        for right in sorted(rights)
        if found.get(name, 0) != _UNKNOWN and not found.get(name, 0) >> right & 1
    ]


async def _of_topics(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, int]:
    """Return the operations on each topic, a bit each; a hidden topic has none."""
    answer = (await ask(admin, topics_with_rights(list(names)))).to_object()
    return {
        each["topic"]: 0 if each["error_code"] else each["authorized_operations"]
        for each in answer["topics"]
    }


async def _of_group(admin: AIOKafkaAdminClient, group: str) -> int:
    """Return the operations on a group, a bit each; a hidden group has none."""
    try:
        coordinator = await admin.find_coordinator(group)
        answer = (await ask(admin, group_with_rights(group), coordinator)).to_object()
        (found,) = answer["groups"]
        if found["error_code"]:
            raise for_code(found["error_code"])(f"group {group}")
    except GroupAuthorizationFailedError:
        return 0
    return int(found["authorized_operations"])
