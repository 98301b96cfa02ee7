"""Verifies a store by its topics: every record is judged again and compared; read-only.

Procedure, with the same numbers in the code:

1. Fix what is asked for, and how far it was consumed.
2. Read each partition, from its start where a record may have no leaf; judge every record.
3. Compare what it made with the store (`comparison`), and its leaf with the ledger.
4. Report which offsets have no leaf, and which leaves no record.
5. Where everything was asked for, look for files that nothing explains (`foreign_files`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.core.record import RecordId, RecordSource
from pipeline.recovery.replay.comparison import StoreComparison
from pipeline.recovery.replay.files import find_foreign_files
from pipeline.recovery.replay.findings import Finding, Tally
from pipeline.recovery.replay.history import LeafGaps
from pipeline.recovery.replay.partitions import (
    OpenedStore,
    ReplayedPartition,
    identity_for_broker,
    opened_to_read,
    replayed_partitions,
)
from pipeline.recovery.replay.reading import UNLIMITED, JudgedChunk, Reading, read_partitions
from pipeline.recovery.replay.selection import Selection
from pipeline.settings import Settings


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification came to.

    Attributes:
        counts: Records and files, and findings by kind.
        pending: Offsets that are asked for and were not consumed yet.
        foreign_asked: Whether foreign files were looked for.
        differs: Whether topic and store disagree.
    """

    counts: dict[str, int]
    pending: int
    foreign_asked: bool
    differs: bool


async def verify(
    settings: Settings,
    selection: Selection,
    report: Callable[[Finding], None],
    reading: Reading = UNLIMITED,
) -> Verified:
    """Compare what is asked for with the store that the settings name.

    Raises:
        InputError: The selection is of no request topic.
        StoreError: There is no store, it does not fit the broker, or the disk failed.
        IntegrityError: A log is not what was written, so it proves nothing.
        BrokerError: The broker cannot be reached, or a topic is missing.
    """
    identity = await identity_for_broker(settings)
    with opened_to_read(settings) as opened:
        partitions = await replayed_partitions(  # 1.
            settings, selection, opened.ledger, opened.store.index, identity.epoch
        )
        tally = Tally(report)
        verification = _Verification(opened, partitions, tally)
        handle, run_id = verification.handle, selection.run_id
        await read_partitions(settings, partitions, handle, reading=reading, run_id=run_id)  # 2.
        verification.finish(whole_ranges=selection.run_id is None)  # 4.
        if selection.is_everything:
            verification.find_foreign_files()  # 5.
    pending = sum(each.pending for each in partitions)
    return Verified(dict(tally.counts), pending, selection.is_everything, tally.differs)


class _Verification:
    """One verification: its partitions, and what was found so far."""

    def __init__(
        self, opened: OpenedStore, partitions: Sequence[ReplayedPartition], tally: Tally
    ) -> None:
        self._opened = opened
        self._partitions = {each.place: each for each in partitions}
        self._histories = {each.place: each.history() for each in partitions}
        self._gaps = {each.place: LeafGaps(each.log_id) for each in partitions}
        self._tally = tally
        self._comparison = StoreComparison(opened.store, opened.store.index, tally)

    def handle(self, partition: ReplayedPartition, chunk: JudgedChunk) -> None:
        """Compare some records of a partition."""
        observed = self._histories[partition.place].observe(chunk)
        self._tally.counts["records"] += len(observed)
        self._comparison.compare(partition.topic, observed)  # 3.
        if self._opened.ledger is not None:
            self._gaps[partition.place].add(observed)

    def finish(self, *, whole_ranges: bool) -> None:
        """Report leaves that are missing, and those that no record explains.

        Args:
            whole_ranges: Whether every record of the ranges was read.
        """
        for partition in self._partitions.values():
            self._tally.add_all(partition.hole_findings())
        for place, history in self._histories.items():
            self._tally.add_all(self._gaps[place].findings())
            history.leaves.finish()
            for leaf in history.leaves.without_record if whole_ranges else ():
                path = str(RecordId.of(leaf))
                found = leaf.encode().decode()
                self._tally.add(Finding("foreign", "leaf", path, "a record of it", found))

    def find_foreign_files(self) -> None:
        """Report files that nothing explains."""
        opened, files = self._opened, self._comparison.files
        self._tally.add_all(find_foreign_files(opened.store, files, opened.logs, self._was_read))

    def _was_read(self, source: RecordSource) -> bool:
        partition = self._partitions.get(source.id.topic_partition)
        return (
            partition is not None
            and source.epoch == self._opened.store.identity.epoch
            and partition.to_read.beginning <= source.id.offset < partition.end
        )
