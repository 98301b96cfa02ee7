"""Refuse what must not happen to a store while its workers run."""

from pipeline.broker.admin.groups import group_members
from pipeline.errors import StoreNotReadyError
from pipeline.settings import Settings
from pipeline.topics import store_groups


async def refuse_running_workers(settings: Settings, reason: str) -> None:
    """Refuse while a group that writes into the store has members.

    Args:
        settings: The broker, and the names of the groups.
        reason: What would happen, for the sentence.

    Raises:
        StoreNotReadyError: It has.
        BrokerError: No broker answers.
    """
    for group in store_groups(settings.prefix):
        members = await group_members(settings, group)
        if members:
            raise StoreNotReadyError(
                f"Stop the workers of {group} first, {len(members)} of them run: {reason}."
            )
