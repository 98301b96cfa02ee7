"""Moves an empty consumer group, and keeps a snapshot first so that it can be undone.

The broker keeps it, as what a group of its own has committed, named `<group>.before-<time>`: it
is there for every client of the broker, as durable as the offsets themselves, and needs neither a
store nor a file. A partition where the group had never been is marked by the text beside its
offset. Kafka forgets a group without members after `offsets.retention.minutes`, 7 days by
default; until then every step can be undone.

| state | if the process dies here |
|---|---|
| where it was is kept | the group is where it was |
| moved | done; undo goes back |
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.broker.admin.groups import (
    CommittedOffset,
    GroupPosition,
    commit_offsets,
    committed_offsets,
    committed_with_metadata,
    delete_offsets,
    groups_named,
    refuse_running_workers,
)
from pipeline.broker.admin.topics import partition_offsets
from pipeline.core.record import Partition
from pipeline.errors import BrokerError, NotFoundError, RefusedError
from pipeline.settings import Settings
from pipeline.topics import consumer_groups

_NEVER = "never committed"
"""Beside the offset of a partition where the group had never been."""


Target = Callable[[GroupPosition], int | None]
"""Where a partition is to be moved; None where it is to stay."""


@dataclass(frozen=True, slots=True)
class OffsetMove:
    """One partition of a group that is to be moved.

    Attributes:
        position: Where it is.
        wanted: What was asked for.
        to: Where it goes; None for where a group is that has never been there.
    """

    position: GroupPosition
    wanted: int | None
    to: int | None

    @property
    def difference(self) -> int:
        """How far it goes on; below zero where records are judged again."""
        following = self.position.begin if self.to is None else self.to
        return following - self.position.following

    @property
    def is_clamped(self) -> bool:
        """Whether the log does not reach to what was asked for."""
        return self.wanted != self.to


def moves_within_log(positions: Iterable[GroupPosition], target: Target) -> list[OffsetMove]:
    """Return the moves to `target`, kept within what the log has, without those that stay."""
    moves = []
    for position in positions:
        wanted = target(position)
        if wanted is None:
            continue
        to = min(max(wanted, position.begin), position.end)
        if to != position.committed:
            moves.append(OffsetMove(position, wanted, to))
    return moves


def moves_back(
    positions: Iterable[GroupPosition], saved: Mapping[Partition, int | None]
) -> list[OffsetMove]:
    """Return the moves to where a group was, exactly, whatever the log still has."""
    return [
        OffsetMove(position, to, to)
        for position in positions
        if position.place in saved and (to := saved[position.place]) != position.committed
    ]


async def refuse_live_group(settings: Settings, group: str) -> None:
    """Refuse a group that has members.

    Raises:
        RefusedError: It has members; each is named.
        BrokerError: The broker cannot be reached.
    """
    await refuse_running_workers(settings, "nothing was changed", [group], RefusedError)


async def move_group(settings: Settings, group: str, moves: Sequence[OffsetMove]) -> str:
    """Move an empty group, and keep where it was.

    Returns:
        The name under which the broker keeps where it was.

    Raises:
        RefusedError: The group has members. Nothing was changed.
        BrokerError: The broker cannot be reached, or does not have what was committed.
    """
    await refuse_live_group(settings, group)
    kept_as = await _keep(settings, group)
    wanted = {move.position.place: move.to for move in moves}
    forgotten = [place for place, to in wanted.items() if to is None]
    offsets = {place: CommittedOffset(to, "") for place, to in wanted.items() if to is not None}
    if offsets:
        await commit_offsets(settings, group, offsets)
    if forgotten:
        await delete_offsets(settings, group, forgotten)
    await _check(settings, group, wanted)
    return kept_as


async def kept_positions(settings: Settings, group: str) -> list[str]:
    """Return the names under which the broker keeps where `group` was, the latest last.

    Raises:
        BrokerError: The broker cannot be reached.
    """
    return await groups_named(settings, f"{group}.before-")


async def read_kept(
    settings: Settings, group: str, name: str | None
) -> tuple[str, dict[Partition, int | None]]:
    """Return where `group` was: the latest that is kept, or that of `name`.

    Raises:
        NotFoundError: Nothing is kept, or not under this name.
        BrokerError: The broker cannot be reached.
    """
    names = await kept_positions(settings, group)
    if name is not None and name not in names:
        raise NotFoundError(
            f"There is no snapshot {name}; there are: {', '.join(names) or 'none'}."
        )
    if not names:
        raise NotFoundError(
            f"There is no snapshot of {group}: it was not reset, or longer ago than Kafka keeps."
        )
    chosen = name or names[-1]
    topics = consumer_groups(settings.prefix)[group]
    found = await committed_with_metadata(settings, chosen, topics)
    return chosen, {
        place: None if kept.metadata == _NEVER else kept.offset for place, kept in found.items()
    }


async def _keep(settings: Settings, group: str) -> str:
    moment = datetime.now(UTC)
    name = f"{group}.before-{moment:%Y%m%dT%H%M%S}.{moment.microsecond // 1000:03}Z"
    topics = consumer_groups(settings.prefix)[group]
    committed = await committed_offsets(settings, group, topics)
    never = dict.fromkeys(await partition_offsets(settings, topics), CommittedOffset(0, _NEVER))
    kept = {place: CommittedOffset(offset, "") for place, offset in committed.items()}
    await commit_offsets(settings, name, never | kept)
    return name


async def _check(settings: Settings, group: str, wanted: Mapping[Partition, int | None]) -> None:
    """Read back what was committed.

    Raises:
        BrokerError: The broker has something else.
    """
    topics = consumer_groups(settings.prefix)[group]
    found = await committed_offsets(settings, group, topics)
    for place, offset in wanted.items():
        if found.get(place) != offset:
            raise BrokerError(
                f"Expected {group} to be at {offset} of {place[0]}, partition {place[1]}, found "
                f"{found.get(place)}: somebody else moves it; look with rmos offsets show."
            )
