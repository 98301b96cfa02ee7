"""Where a consumer group would go on, partition by partition, and what that means."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pipeline.core.record import Partition


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
        if (place := (position.topic, position.partition)) in saved
        and (to := saved[place]) != position.committed
    ]
