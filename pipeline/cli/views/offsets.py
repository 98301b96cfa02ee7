"""The output of groups and their moves: rows for people, documents for programs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.broker.admin.groups import GroupPosition, GroupState
from pipeline.broker.admin.open_transactions import OpenTransaction
from pipeline.cli.views.terminal import known
from pipeline.core.record import Partition
from pipeline.recovery.group_moves import OffsetMove
from pipeline.topics import TopicNames

POSITION_COLUMNS = ("group", "topic", "partition", "committed", "end", "lag", "lost")
_MEMBER_FIELDS = ("member_id", "client_id", "host")
_POSITION_FIELDS = ("topic", "partition", "begin", "committed", "end", "lag", "lost")
_TRANSACTION_FIELDS = ("offset", "producer_id", "transactional_id", "since_ms", "timeout_ms")
MOVE_COLUMNS = ("topic", "partition", "from", "to", "difference", "note")


@dataclass(frozen=True, slots=True)
class GroupView:
    """A group, where it is, and where it was before it was moved.

    Attributes:
        kept: The names under which the broker keeps where it was, the latest last.
        transactions: What is open in its partitions.
    """

    state: GroupState
    positions: Sequence[GroupPosition]
    kept: Sequence[str]
    transactions: Mapping[Partition, OpenTransaction]

    @property
    def is_new(self) -> bool:
        """Whether it was never used; then it has no lag."""
        return not self.state.members and all(each.committed is None for each in self.positions)

    @property
    def lag(self) -> int:
        """Offsets that are not consumed yet."""
        return sum(position.lag for position in self.positions)

    def rows(self, *, partitions: bool) -> Iterator[list[Any]]:
        """Yield the cells of the group, then those of its partitions.

        Args:
            partitions: All of them; else those that are behind, or have lost something.
        """
        topics = sorted({each.topic for each in self.positions})
        yield [
            *(self.state.name, topics[0] if len(topics) == 1 else f"{len(topics)} topics"),
            *(f"all {len(self.positions)}", "", "", self.lag),
            sum(each.lost for each in self.positions) or "",
        ]
        for each in self.positions:
            if partitions or each.lag or each.lost:
                committed = "-" if each.committed is None else each.committed
                yield [
                    *(self.state.name, each.topic, each.partition, committed),
                    *(each.end, each.lag, each.lost or ""),
                ]

    def notes(self) -> Iterator[str]:
        """Yield what is said of the group as a whole."""
        name, state = self.state.name, self.state.state
        yield f"{name}: never used" if self.is_new else f"{name}: {state}, {self.lag:,} behind"
        yield from (f"  member {member}" for member in self.state.members)
        held_up = filter(None, map(self._held_up_by, self.positions))
        yield from (f"  held up by {transaction}" for transaction in held_up)
        yield from (f"  snapshot {kept}" for kept in self.kept)

    def document(self) -> dict[str, Any]:
        """Return all of it."""
        return {
            "group": self.state.name,
            "state": self.state.state,
            "lag": self.lag,
            "members": [_named(each, _MEMBER_FIELDS) for each in self.state.members],
            "partitions": [self._partition(each) for each in self.positions],
            "kept": list(self.kept),
        }

    def _partition(self, position: GroupPosition) -> dict[str, Any]:
        document = _named(position, _POSITION_FIELDS)
        transaction = self._held_up_by(position)
        if transaction is not None:
            document["held_up_by"] = known(_named(transaction, _TRANSACTION_FIELDS))
        return document

    def _held_up_by(self, position: GroupPosition) -> OpenTransaction | None:
        """Return the open transaction that the group has got to in a partition."""
        transaction = self.transactions.get(position.place)
        if transaction is None or not position.lag or position.following < transaction.offset:
            return None
        return transaction


def _named(value: object, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}


def move_row(move: OffsetMove) -> list[Any]:
    """Return the cells of a move."""
    position = move.position
    cut = f"asked for {move.wanted}, the log has {position.begin} to {position.end}"
    return [
        position.topic,
        position.partition,
        "-" if position.committed is None else position.committed,
        "-" if move.to is None else move.to,
        f"{move.difference:+}",
        cut if move.is_clamped else "",
    ]


def move_document(move: OffsetMove) -> dict[str, Any]:
    """Return all of a move."""
    position = move.position
    return {
        "topic": position.topic,
        "partition": position.partition,
        "from": position.committed,
        "to": move.to,
        "difference": move.difference,
        "asked_for": move.wanted,
    }


def warnings(moves: Sequence[OffsetMove], group: str, topics: TopicNames) -> Iterator[str]:
    """Yield what moves of `group` mean for the records between."""
    skipped = sum(move.difference for move in moves if move.difference > 0)
    again = -sum(move.difference for move in moves if move.difference < 0)
    if skipped:
        guard = (
            ", and a worker refuses to start over it unless it is given --accept-loss"
            if group in {topics.persist_group, topics.advise_group, topics.migrate_group}
            else ""
        )
        yield (
            f"{skipped:,} offsets are skipped. What was consumed before is in the store; what was "
            f"not gets no file, no event and no dead letter{guard}."
        )
    if again:
        yield (
            f"{again:,} offsets are consumed again: same files, same outcomes; their events and "
            "dead letters are published again."
        )
    if moves and group == topics.persist_v1_group:
        yield (
            f"A worker in v1 mode begins in each partition where {topics.persist_group} stands, if "
            "that is later."
        )
