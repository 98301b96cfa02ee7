"""Refuse what must not happen to a store while its workers run."""

from pipeline.broker.admin.topics import group_members
from pipeline.errors import StoreNotReadyError
from pipeline.recovery.replay.request_topics import request_topics
from pipeline.settings import Settings


async def refuse_running_workers(settings: Settings, reason: str) -> None:
    """Refuse while a group that writes into the store has members.

    Args:
        settings: The broker, and the names of the groups.
        reason: What would happen, for the sentence.

    Raises:
        StoreNotReadyError: It has.
        BrokerError: No broker answers.
    """
    for topic in request_topics(settings.topics):
        for group in topic.groups:
            members = await group_members(settings, group)
            if members:
                message = (
                    f"Stop the workers of {group} first, {len(members)} of them run: {reason}."
                )
                raise StoreNotReadyError(message)
