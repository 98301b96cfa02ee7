"""The procedure of a batch: judged records become files and rows, or nothing does.

With the same numbers in `BatchStore._commit`, and what is left if the process dies after a step:

| step | if the process dies after it |
|---|---|
| 1. begin a transaction, alone with these partitions; let the index follow the ledger | nothing |
| 2. look up what is known, plan, insert rows: where others were first, plan again; check known \
files and the reject limit | nothing |
| 3. lock the logs, compare or append their leaves in memory | nothing |
| 4. create the files, blobs before the files that name them, and the tiles of the logs, by the \
same flush; what was written ahead gets its name now or never | whole files without a row; tiles \
that no checkpoint covers |
| 5. sign the checkpoints, make all names durable, replace them, flush | whole files and their \
leaves, without a row |
| 6. note the positions | the same |
| 7. commit | everything |

A record delivered again after 4 to 6 finds its own bytes, and after 5 its own leaf; after 7 it
finds its row, whose source it is. Either way its outcome is the one it would have had. Without a
ledger 3 and 5 are left out. Where many hosts share the store, another may have gone on with a log
by 5, and the batch begins again at 1.

Events, dead letters and offsets come after: they are the consumer's.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import structlog

from pipeline.core.envelope import Rejected
from pipeline.core.layout import BlobPath, attachment_path, parse_path
from pipeline.core.record import Partition
from pipeline.core.reject_limit import after_verdicts
from pipeline.core.runs.outcome import StoredRun
from pipeline.core.store.files import Creation, ExpectedFile, NewFile, Presence, WrittenAhead
from pipeline.core.store.identity import StoreIdentity
from pipeline.errors import LogMovedError, StoreAwayError
from pipeline.ledger.leaf import LedgerLeaf
from pipeline.ledger.log_id import LogId
from pipeline.ledger.writer import Ledger
from pipeline.storage.archives import Archives
from pipeline.storage.awaited_blobs import forget_awaited, notes_to_write
from pipeline.storage.batch_plan import (
    AnyOutcome,
    BatchPlan,
    JudgedRecord,
    PlannedRecord,
    StoredRow,
    Verdict,
    apply_recorded_verdict,
    first_offsets,
    next_offsets,
    path_of_row,
    sha256_of_row,
)
from pipeline.storage.catching_up import follow
from pipeline.storage.index import queries
from pipeline.storage.index.queries import BatchState, IndexTransaction, KnownRows
from pipeline.storage.restoring import Restoration, restore_files
from pipeline.storage.store import Store

_log = structlog.get_logger(__name__)

Reported = TypeVar("Reported")
"""The outcome of one record, be it of a store of ours or of v1's."""

_ATTEMPTS = 5
"""A batch that meets others so often in a row pauses, as where the store does not answer."""

_NOT_STORED = {Creation.DIFFERENT, Creation.NOT_MADE}


@dataclass(frozen=True, slots=True)
class RejectLimit:
    """Whose verdicts count against the reject limit, and how many failures the operator accepts."""

    group_id: str
    accepted_rejects: int = 0


@dataclass(frozen=True, slots=True)
class BatchResult(Generic[Reported]):
    """What became of a batch.

    Attributes:
        outcomes: One for each record, in the order of the records.
        accepted_rejects: Failures that went through because the operator accepts them.
        there: Paths of the files that the batch has created or found with their bytes.
    """

    outcomes: list[Reported]
    accepted_rejects: int
    there: frozenset[str] = frozenset()


class BatchStore(ABC, Generic[Verdict, AnyOutcome]):
    """Writes a store. One thread at a time; other processes take turns, as its index lets them."""

    def __init__(self, store: Store, *, ledger: Ledger | None = None) -> None:
        """Write into `store`.

        Args:
            store: Opened to write; closed with this.
            ledger: Its logs; None to append no leaves, as for measuring what they cost.
        """
        self.store = store
        self.ledger = ledger
        self.identity: StoreIdentity = store.identity
        self.index = store.index
        self._files = store.files

    @property
    def name(self) -> str:
        """Which store it is, for people."""
        return self.store.name

    def close(self) -> None:
        """Let go of the index."""
        self.store.close()

    def commit(
        self,
        records: Sequence[JudgedRecord[Verdict | Rejected]],
        limit: RejectLimit | None = None,
        written: WrittenAhead | None = None,
    ) -> BatchResult[AnyOutcome]:
        """Store a batch; return what became of each record.

        Args:
            records: In offset order within each partition.
            limit: Whose reject limit applies; None for none, as in a replay.
            written: Contents that were written ahead for this batch; closed in any case.

        Raises:
            RejectLimitError: Too many records fail; nothing was written.
            IntegrityError: A log is not what was written, or an offset has another leaf.
            StoreError: The disk or the index failed; nothing may be acknowledged.
        """
        with written or nullcontext():
            for _ in range(_ATTEMPTS):
                try:
                    return self._commit(records, limit, is_consumed=True, written=written)
                except LogMovedError as error:
                    if not self.store.logs.is_shared:
                        raise
                    _log.warning("batch begun again", reason=str(error))
        raise StoreAwayError(
            f"The logs of the store {self.name} went on {_ATTEMPTS} times while a batch was "
            "stored: others own its partitions too; nothing was acknowledged."
        )

    def _commit(
        self,
        records: Sequence[JudgedRecord[Verdict | Rejected]],
        limit: RejectLimit | None,
        *,
        is_consumed: bool,
        written: WrittenAhead | None = None,
    ) -> BatchResult[AnyOutcome]:
        """Do it. Only what is consumed here moves the position and has a leaf."""
        following = next_offsets(records)
        group = None if limit is None else limit.group_id
        asked = queries.BatchQuestions(
            self.identity.epoch, group, following, (each.verdict for each in records)
        )
        with self.store.faults(), self._going_on(following, asked.all) as transaction:  # 1.
            state = asked.state(transaction.answers)
            known = state.known
            firsts = first_offsets(records) if is_consumed else {}
            may_lack_rows = transaction.may_lack_rows
            reached = self._follow(firsts, state.positions, transaction) if firsts else {}
            # Not before: by what this process knew then, a log may end before leaves that it has.
            judged = self._with_recorded_verdicts(records, state.positions)
            is_judged_so = all(new is old for new, old in zip(judged, records, strict=True))
            if reached or may_lack_rows or not is_judged_so:
                known = self._known(judged, transaction)
            records = judged
            plan = self._claim(records, known, transaction)  # 2.
            damaged = self._damaged(plan, known)
            accepted = check_reject_limit(plan, damaged, transaction, limit, state)
            leaves = _by_log(plan) if is_consumed and self.ledger is not None else {}
            creations = self._create_files(plan, leaves, written)  # 3. to 5.
            others = {path for path, creation in creations.items() if creation in _NOT_STORED}
            damaged |= others
            if is_consumed:  # 6.
                transaction.advance(self.identity.epoch, following)
        # 7. The end of the block commits.
        outcomes = [
            self._corrupt(each) if damaged and each.path in damaged else each.outcome
            for each in plan.records
        ]
        return BatchResult(outcomes, accepted, frozenset(creations.keys() - others))

    def restore(
        self,
        records: Sequence[JudgedRecord[Verdict | Rejected]],
        reached: Mapping[Partition, int],
    ) -> Restoration:
        """Make again what is missing of what `records` once made; what is there stays.

        `commit` never does this: a file that is missing under its row is a finding there. No leaf
        is appended.

        Args:
            records: Those that the caller knows to be first; in offset order within
                each partition.
            reached: The next offset of each partition whose records all have a row now.
        """
        places = {*next_offsets(records), *reached}
        with self.store.faults(), self._going_on(places) as transaction:
            plan = self._claim(records, self._known(records, transaction), transaction)
            expected = [(each.record.source, each.files) for each in plan.records]
            restoration = restore_files(self._files, expected)
            paths = (parse_path(each.file.path) for each in restoration.files)
            restored = (each.sha256 for each in paths if isinstance(each, BlobPath))
            forget_awaited(self._files, restored)
            transaction.advance(self.identity.epoch, reached)
        return restoration

    def _going_on(
        self, places: Iterable[Partition], questions: Sequence[queries.Question] = ()
    ) -> AbstractContextManager[IndexTransaction]:
        """Begin a transaction in which nobody else goes on with these partitions."""
        logs = [LogId(self.identity.epoch, *place) for place in places]
        return self.index.transaction(logs, questions)

    def follow_ledger(self, committed: Mapping[Partition, int]) -> None:
        """Let the index follow the ledger, where it has lost rows, at a start.

        What the group has not committed comes again, and is left to its batch.

        Args:
            committed: Where the group goes on.

        Raises:
            IntegrityError: A log or a file is not what was written.
            StoreError: Only a record of the topic has what is missing, or the index failed.
        """
        with self.store.faults(), self._going_on(committed) as transaction:
            positions = queries.positions(transaction.connection, self.identity.epoch)
            reached = self._follow(committed, positions, transaction)
            transaction.advance(self.identity.epoch, reached)
        if self.ledger is not None:
            self.ledger.sweep()

    def _follow(
        self,
        firsts: Mapping[Partition, int],
        positions: Mapping[Partition, int],
        transaction: IndexTransaction,
    ) -> dict[Partition, int]:
        if self.ledger is None:
            return {}
        return follow(self.store, self.ledger, transaction, positions=positions, firsts=firsts)

    def _with_recorded_verdicts(
        self,
        records: Sequence[JudgedRecord[Verdict | Rejected]],
        positions: Mapping[Partition, int],
    ) -> Sequence[JudgedRecord[Verdict | Rejected]]:
        """Let a leaf with INTERNAL_ERROR stand, whatever a corrected program decides."""
        if self.ledger is None:
            return records
        offsets = defaultdict(list)
        for record in records:
            offsets[record.log].append(record.source.id.offset)
        reached = {log: positions.get((log.topic, log.partition), 0) for log in offsets}
        found = self.ledger.leaves_of(offsets, reached)
        if not found:
            return records
        return [apply_recorded_verdict(r, found.get((r.log, r.source.id.offset))) for r in records]

    @staticmethod
    def _known(
        records: Sequence[JudgedRecord[Verdict | Rejected]], transaction: IndexTransaction
    ) -> KnownRows:
        return queries.known_rows(transaction.connection, (each.verdict for each in records))

    def _claim(
        self,
        records: Sequence[JudgedRecord[Verdict | Rejected]],
        known: KnownRows,
        transaction: IndexTransaction,
    ) -> BatchPlan[Verdict, AnyOutcome]:
        """Plan a batch and insert its rows; where somebody else was first, plan again with those.

        What was inserted by the first plan stays: each of its ids still has the same first record.
        """
        plan = self.plan_batch(records, known)
        others = transaction.add_rows(plan.rows)
        return self.plan_batch(records, known | others) if others else plan

    @staticmethod
    @abstractmethod
    def plan_batch(
        records: Sequence[JudgedRecord[Verdict | Rejected]], known: KnownRows
    ) -> BatchPlan[Verdict, AnyOutcome]:
        """Return what becomes of a batch where every file is intact; a pure function."""

    @staticmethod
    @abstractmethod
    def _corrupt(planned: PlannedRecord[Verdict, AnyOutcome]) -> AnyOutcome:
        """Return the outcome of a record whose document is not what its row says."""

    def _damaged(self, plan: BatchPlan[Verdict, AnyOutcome], known: KnownRows) -> set[str]:
        """Return the paths of known documents that are not what their rows say."""
        rows = {path: row for row in plan.known.values() if (path := path_of_row(row)) is not None}
        found = self._files.presence(_expected(path, row) for path, row in rows.items())
        archives = Archives(self.store)
        return {
            path
            for path, row in rows.items()
            # What is archived is judged by its row.
            if found[path] is Presence.DIFFERENT
            or (found[path] is Presence.MISSING and not archives.has_row(row, known.runs))
        }

    def _create_files(
        self,
        plan: BatchPlan[Verdict, AnyOutcome],
        leaves: Mapping[LogId, Sequence[LedgerLeaf]],
        written: WrittenAhead | None,
    ) -> dict[str, Creation]:
        """Create the files of the plan and its leaves; return what came of each path."""
        attachments = plan.attachments()
        files = self._new_files(plan.new_files(), attachments)
        if self.ledger is None or not leaves:
            creations = self._files.create(files, written)
            forget_awaited(self._files, attachments)
        else:
            with self.ledger.appending(leaves) as batch:  # 3.
                creations = self._files.link([*files, *batch.files], written)  # 4.
                steps: list[Callable[[], object]] = [partial(batch.publish, creations)]  # 5.
                # A note outlives a power cut too: it stays until the blobs have durable names.
                steps += [partial(forget_awaited, self._files, attachments)] if attachments else []
                list(self._files.at_once(lambda step: step(), steps))
        return creations

    def _new_files(self, files: list[NewFile], attachments: Sequence[str]) -> list[NewFile]:
        """Return the files to create, in order.

        A file is not created where a blob that it names is there with other bytes: then it is
        missing for every later delivery too, and all agree. A blob that is named and not there
        gets a note that it is awaited.
        """
        brought = {file.path for file in files} if attachments else ()
        referred = (each for each in attachments if attachment_path(each) not in brought)
        return [*files, *notes_to_write(self._files, referred)]


def _expected(path: str, row: StoredRow) -> ExpectedFile:
    # That of an advisory is the size of its content, not of its link.
    size_bytes = row.size_bytes if isinstance(row, StoredRun) else None
    return ExpectedFile(path, sha256_of_row(row), size_bytes)


def _by_log(plan: BatchPlan[Verdict, AnyOutcome]) -> dict[LogId, list[LedgerLeaf]]:
    leaves: defaultdict[LogId, list[LedgerLeaf]] = defaultdict(list)
    for each in plan.records:
        leaves[each.record.log].append(each.leaf)
    return leaves


def check_reject_limit(
    plan: BatchPlan[Verdict, AnyOutcome],
    damaged: Collection[str],
    transaction: IndexTransaction,
    limit: RejectLimit | None,
    state: BatchState,
) -> int:
    """Count the verdicts of a batch; return how many failures the operator let through.

    Each partition has a window of its own: it may go on in another process, on another host.

    Raises:
        RejectLimitError: Too many of the last verdicts of a partition are failures.
    """
    if limit is None:
        return 0
    failures: defaultdict[Partition, list[bool]] = defaultdict(list)
    for each in plan.records:
        topic, partition, offset = each.record.source.id
        if offset >= state.positions.get((topic, partition), 0):
            is_failure = each.is_failure or (bool(damaged) and each.path in damaged)
            failures[topic, partition].append(is_failure)
    windows = {}
    accepted = 0
    for place, found in failures.items():
        left = limit.accepted_rejects - accepted
        windows[place], let_through = after_verdicts(state.windows[place], found, left, place=place)
        accepted += let_through
    transaction.keep_reject_windows(limit.group_id, windows)
    return accepted
