"""One batch of judged records becomes files and rows, or nothing does: the procedure.

With the same numbers in `BatchStore._commit`, and what is left if the process dies after a step:

| step | if the process dies after it |
|---|---|
| 1. take the store's lock, begin a transaction | nothing |
| 2. look up what is known, check those files, plan, check the flood limit | nothing |
| 3. create the files, blobs before the files that name them | whole files without a row |
| 4. insert rows, positions and the flood window | the same |
| 5. commit | everything |

A record delivered again after 3 or 4 finds its own bytes; after 5 it finds its row, whose source
it is. Either way its outcome is the one it would have had.

Events, dead letters and offsets come after: they are the consumer's.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from pipeline.core.flood import FloodWindow
from pipeline.core.outcome import RecordSource
from pipeline.errors import FloodError, StoreError, StoreNotReadyError
from pipeline.storage.durable_files import Creation, DurableFiles, NewFile
from pipeline.storage.faults import store_faults
from pipeline.storage.identity import StoreIdentity, read_store
from pipeline.storage.index import INDEX_FILE, INDEX_LOCK, IndexTransaction, RunIndex
from pipeline.storage.locks import exclusive_lock
from pipeline.storage.system_calls import SystemCalls

Verdict = TypeVar("Verdict")
Settled = TypeVar("Settled")


_NOT_STORED = {Creation.DIFFERENT, Creation.NOT_MADE}


@dataclass(frozen=True, slots=True)
class JudgedRecord(Generic[Verdict]):
    """One record with what it is, looked at alone."""

    source: RecordSource
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class FloodGuard:
    """Whose verdicts count against the flood limit, and how many failures the operator accepts."""

    group_id: str
    accepted_rejects: int = 0


@dataclass(frozen=True, slots=True)
class BatchResult(Generic[Settled]):
    """What became of a batch.

    Attributes:
        outcomes: One for each record, in the order of the records.
        accepted_rejects: Failures that went through because the operator accepts them.
    """

    outcomes: list[Settled]
    accepted_rejects: int


class BatchPlan(Protocol[Settled]):
    """What a batch will do, and what comes of each of its records if it does."""

    def outcomes(self) -> list[Settled]:
        """Return one outcome for each record."""

    def failures(self) -> list[bool]:
        """Tell of each record whether it counts against the flood limit."""

    def new_files(self) -> list[NewFile]:
        """Return the files to create, each before those that name it."""

    def note_not_stored(self, paths: frozenset[str]) -> None:
        """Note which of these files are not there with their bytes; the outcomes say so."""

    def add_rows(self, transaction: IndexTransaction) -> None:
        """Write what the index has to hold."""


class BatchStore(ABC, Generic[Verdict, Settled]):
    """A store on disk. One thread at a time; other processes take turns by the store's lock."""

    def __init__(self, root: Path, calls: SystemCalls | None = None) -> None:
        """Open the store at `root`.

        Raises:
            StoreNotReadyError: There is no store, or its index is missing or damaged.
            StoreError: The disk failed.
        """
        self.root = root
        self.identity: StoreIdentity = read_store(root)
        with store_faults(root):
            self._files = DurableFiles(root, calls)
            with exclusive_lock(root / INDEX_LOCK):
                self._files.remove_leftovers()
            self.index = open_index(root)

    def close(self) -> None:
        """Let go of the index."""
        self.index.close()

    @property
    def group_commits(self) -> bool:
        """Whether the file system supports the group commit."""
        return self._files.group_commits

    def commit(
        self, records: Sequence[JudgedRecord[Verdict]], guard: FloodGuard | None = None
    ) -> BatchResult[Settled]:
        """Store a batch; return what became of each record.

        Args:
            records: In offset order within each partition.
            guard: Whose flood limit applies; None for none, as in a replay.

        Raises:
            FloodError: Too many records fail; nothing was written.
            StoreError: The disk or the index failed; nothing may be acknowledged.
        """
        return self._commit(records, guard, _next_offsets(records))

    def _commit(
        self,
        records: Sequence[JudgedRecord[Verdict]],
        guard: FloodGuard | None,
        next_offsets: Mapping[tuple[str, int], int],
    ) -> BatchResult[Settled]:
        with store_faults(self.root), exclusive_lock(self.root / INDEX_LOCK):  # 1.
            self._check_index_in_place()
            with self.index.transaction() as transaction:
                plan = self._plan(records, transaction)  # 2.
                accepted = check_flood(records, plan, transaction, guard, self.identity.epoch)
                self._create_files(plan)  # 3.
                plan.add_rows(transaction)  # 4.
                transaction.advance(self.identity.epoch, next_offsets)
            # 5. The end of the block commits.
        return BatchResult(plan.outcomes(), accepted)

    @abstractmethod
    def _plan(
        self, records: Sequence[JudgedRecord[Verdict]], transaction: IndexTransaction
    ) -> BatchPlan[Settled]:
        """Look up what is known, and say what to do; nothing is written."""

    def _create_files(self, plan: BatchPlan[Settled]) -> None:
        """Create the files of the plan, and note those that could not be stored whole.

        A file is not created where a blob that it names is there with other bytes: then it is
        missing for every later delivery too, and all agree.
        """
        creations = self._files.create(plan.new_files())
        failed = (path for path, creation in creations.items() if creation in _NOT_STORED)
        plan.note_not_stored(frozenset(failed))

    def _check_index_in_place(self) -> None:
        if self.index.was_replaced:
            message = (
                f"The index of the store {self.root} was rebuilt or removed meanwhile; nothing "
                "was acknowledged; start again."
            )
            raise StoreError(message)


def open_index(root: Path) -> RunIndex:
    """Open the index of the store at `root`; a new store has none yet.

    Raises:
        StoreNotReadyError: The index is missing or empty though there are runs, or damaged.
    """
    path = root / INDEX_FILE
    with exclusive_lock(root / INDEX_LOCK):
        has_runs = any((root / "runs").glob("*/*"))
        if has_runs and not path.exists():
            message = f"The index of the store {root} is missing: run rmos index rebuild."
            raise StoreNotReadyError(message)
        return RunIndex(path, may_be_new=not has_runs)


def _next_offsets(records: Sequence[JudgedRecord[Verdict]]) -> dict[tuple[str, int], int]:
    following: dict[tuple[str, int], int] = {}
    for record in records:
        place = (record.source.topic, record.source.partition)
        following[place] = max(following.get(place, 0), record.source.offset + 1)
    return following


def check_flood(
    records: Sequence[JudgedRecord[Verdict]],
    plan: BatchPlan[Settled],
    transaction: IndexTransaction,
    guard: FloodGuard | None,
    epoch: int,
) -> int:
    """Count this batch's verdicts; return how many failures the operator's word let through.

    Raises:
        FloodError: Too many of the last verdicts are failures.
    """
    if guard is None:
        return 0
    judged_before = transaction.positions(epoch)
    failures = [
        failed
        for record, failed in zip(records, plan.failures(), strict=True)
        if record.source.offset
        >= judged_before.get((record.source.topic, record.source.partition), 0)
    ]
    accepted = min(guard.accepted_rejects, sum(failures))
    window, flooded = transaction.flood_window(guard.group_id).after(
        _without_first_failures(failures, accepted)
    )
    if flooded:
        raise FloodError(_flood_message(window))
    transaction.keep_flood_window(guard.group_id, window)
    return accepted


def _without_first_failures(failures: list[bool], count: int) -> list[bool]:
    kept = []
    for failed in failures:
        if failed and count:
            count -= 1
            continue
        kept.append(failed)
    return kept


def _flood_message(window: FloodWindow) -> str:
    seen = len(window.verdicts)
    return (
        f"{window.verdicts.count('1')} of the last {seen} records are dead letters or "
        "incomplete, so the fault is likely ours or one producer's: nothing of this batch was "
        "written; look at the records, mend the cause, or let the next N through with "
        "--accept-rejects N."
    )
