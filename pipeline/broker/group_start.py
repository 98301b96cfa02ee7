"""Where a consumer group without members goes on, set in its name before its first member joins.

The broker takes offsets without a member only of a group that has none: who joins first wins.
"""

from collections import defaultdict
from collections.abc import Mapping

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    IllegalGenerationError,
    RebalanceInProgressError,
    UnknownMemberIdError,
    for_code,
)
from aiokafka.protocol.commit import OffsetCommitRequest

from pipeline.broker.connection import admin_client
from pipeline.settings import Settings

_NO_GENERATION = -1
_NO_MEMBER = ""
_RETENTION_OF_THE_BROKER = -1
_HAS_MEMBERS = {
    error.errno
    for error in (UnknownMemberIdError, IllegalGenerationError, RebalanceInProgressError)
}


async def set_group_start(
    settings: Settings, group: str, offsets: Mapping[tuple[str, int], int]
) -> bool:
    """Let `group` go on at these offsets; tell whether it does, which it does not with members.

    Whoever sets them has just asked where the group stands, so its coordinator is there.

    Args:
        settings: Which broker.
        group: The consumer group.
        offsets: The next offset of each topic and partition.

    Raises:
        BrokerError: The broker cannot be reached, or refuses.
    """
    async with admin_client(settings) as admin:
        codes = await _commit(admin, group, offsets)
    return not codes & _HAS_MEMBERS


async def _commit(
    admin: AIOKafkaAdminClient, group: str, offsets: Mapping[tuple[str, int], int]
) -> set[int]:
    topics = defaultdict(list)
    for (topic, partition), offset in offsets.items():
        topics[topic].append((partition, offset, ""))
    request = OffsetCommitRequest(
        group, _NO_GENERATION, _NO_MEMBER, _RETENTION_OF_THE_BROKER, list(topics.items())
    )
    # aiokafka's admin client has no such question, and its consumer would answer for members.
    response = await admin._client.send(await admin.find_coordinator(group), request)
    codes = {code for _, partitions in response.topics for _, code in partitions} - {0}
    for code in codes - _HAS_MEMBERS:
        raise for_code(code)(f"group {group}")
    return codes
