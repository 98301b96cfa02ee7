"""Whether a group went past records that the store does not have.

Nobody but a worker that has stored a record commits its offset. Where a group stands beyond its
store all the same, somebody else has committed in its name, or the store is an older copy.
"""

from pipeline.broker.admin.offsets import OffsetRange
from pipeline.broker.reading.ranges import holds_records
from pipeline.core.record import Partition
from pipeline.settings import Settings


async def is_beyond_store(
    settings: Settings, place: Partition, *, committed: int, kept: int, log: OffsetRange
) -> bool:
    """Tell whether the group went past records that the store has not seen.

    The group also goes past what ends a transaction, of which the store is told nothing. Where
    it stands beyond the log's end, the log is read from its start, so nothing is passed over.

    Args:
        settings: The broker.
        place: The partition.
        committed: Where the group goes on.
        kept: Before it, every record is in the store or was given up.
        log: What the broker has.

    Raises:
        BrokerError: No broker answers.
    """
    if not kept < committed <= log.end:
        return False
    if kept < log.beginning:
        return True
    return await holds_records(settings, *place, kept, committed)


def beyond_store(place: Partition, *, committed: int, stored: int) -> str:
    """Say where the group and the store stand, without an end."""
    return (
        f"The group has committed offset {committed} of {place[0]}, partition {place[1]}, the "
        f"store has records up to {stored}"
    )


def ways_back(settings: Settings, group: str) -> str:
    """Say what to do about it, as the rest of a sentence."""
    name = group.removeprefix(f"{settings.prefix}.")
    return (
        f"if somebody else reads with this group, stop that and run rmos offsets reset {name} "
        "--to-store; if only the index is old, run rmos index rebuild; if the files are, run "
        "rmos replay restore; to go on without them, start with --accept-loss"
    )
