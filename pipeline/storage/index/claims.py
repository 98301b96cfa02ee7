"""The queue of claims that wait for their run: rows of the index, by partition."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

from sqlalchemy import ColumnElement, bindparam, delete, exists, func, or_, select, union

from pipeline.core.advisories.verdict import JudgedAdvisory
from pipeline.core.record import Partition, RecordSource
from pipeline.ledger.log_id import LogId
from pipeline.storage.index.queries import (
    IndexTransaction,
    known_advisories,
    reported_claims,
)
from pipeline.storage.index.run_index import RunIndex
from pipeline.storage.index.tables import advisories, claims_in_hand, runs

_HAS_RUN = exists().where(runs.c.run_id == advisories.c.run_id)


class ClaimQueue:
    """The claims of one epoch; those of an earlier one cannot be read any more.

    Every method raises a StoreError where the disk or the index failed.
    """

    def __init__(self, index: RunIndex, epoch: int) -> None:
        self._index = index
        self._epoch = epoch

    def partitions(self, topic: str) -> set[int]:
        """Return the partitions of `topic` with a claim that waits or is in hand."""
        query = union(
            select(advisories.c.source_partition).where(*self._waiting(topic)),
            select(claims_in_hand.c.partition).where(
                claims_in_hand.c.epoch == self._epoch, claims_in_hand.c.topic == topic
            ),
        )
        with self._index.reading() as connection:
            return set(connection.execute(query).scalars())

    def last_unreported(self, partition: Partition) -> int | None:
        """Return the last claim that waits and was not reported; None where there is none."""
        query = select(func.max(advisories.c.source_offset)).where(*self._waiting(*partition))
        with self._index.reading() as connection:
            last = connection.execute(query).scalar()
            reported = reported_claims(connection, self._epoch)
        return last if last is not None and last >= reported.get(partition, 0) else None

    def due(
        self, partition: Partition, *, after: int, overdue_to: int, limit: int
    ) -> list[tuple[int, bool]]:
        """Return the claims that can be linked or must be reported, in the order of their records.

        Args:
            partition: Where their records are.
            after: The offset that the records lie behind.
            overdue_to: A claim before this offset has waited too long for its run; it is returned
                unless it was reported.
            limit: Most claims to return.

        Returns:
            The offset of each claim's record, and whether its run is there.
        """
        offset = advisories.c.source_offset
        with self._index.reading() as connection:
            reported = reported_claims(connection, self._epoch).get(partition, 0)
            query = (
                select(offset, _HAS_RUN)
                .where(
                    *self._waiting(*partition),
                    offset > after,
                    or_(_HAS_RUN, offset.between(reported, overdue_to - 1)),
                )
                .order_by(offset)
                .limit(limit)
            )
            return [(found, bool(has_run)) for found, has_run in connection.execute(query)]

    def note_reported(self, partition: Partition, overdue_to: int) -> None:
        """Note that every claim that waits before `overdue_to` was reported."""
        with self._writing(partition) as transaction:
            transaction.note_reported_claims(self._epoch, {partition: overdue_to})

    def in_hand(self, partition: Partition) -> list[int]:
        """Return the offsets of the claims whose events may not have been sent."""
        query = select(claims_in_hand.c.offset).where(*self._of(partition)).order_by("offset")
        with self._index.reading() as connection:
            return list(connection.execute(query).scalars())

    def is_made_by(self, judged: JudgedAdvisory, source: RecordSource) -> bool:
        """Return whether `judged` is the request at `source` that made its claim."""
        with self._index.reading() as connection:
            claim = known_advisories(connection, [judged.key]).get(judged.key)
        return (
            claim is not None and claim.source == source and claim.link_sha256 == judged.link_sha256
        )

    def take(self, partition: Partition, offsets: Sequence[int]) -> None:
        """Note that claims are to be linked, and that their events are to be sent."""
        with self._writing(partition) as transaction:
            transaction.take_claims([(self._epoch, *partition, offset) for offset in offsets])

    def release(self, partition: Partition, offsets: Sequence[int]) -> None:
        """Note that the events of these claims are confirmed.

        No others: after a rebalance the next owner of the partition may have some in hand.
        """
        done = delete(claims_in_hand).where(
            *self._of(partition), claims_in_hand.c.offset == bindparam("done")
        )
        with self._writing(partition) as transaction:
            transaction.connection.execute(done, [{"done": offset} for offset in offsets])

    def _waiting(self, topic: str, partition: int | None = None) -> tuple[ColumnElement[bool], ...]:
        waiting = (
            advisories.c.link_path.is_(None),
            advisories.c.source_epoch == self._epoch,
            advisories.c.source_topic == topic,
        )
        if partition is None:
            return waiting
        return (*waiting, advisories.c.source_partition == partition)

    def _of(self, partition: Partition) -> tuple[ColumnElement[bool], ...]:
        row = claims_in_hand.c
        return (row.epoch == self._epoch, row.topic == partition[0], row.partition == partition[1])

    def _writing(self, partition: Partition) -> AbstractContextManager[IndexTransaction]:
        return self._index.transaction([LogId(self._epoch, *partition)])
