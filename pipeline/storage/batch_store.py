"""One batch of judged records becomes files and rows, or nothing does: the procedure.

With the same numbers in `BatchStore._commit`, and what is left if the process dies after a step:

| step | if the process dies after it |
|---|---|
| 1. take the store's lock, begin a transaction | nothing |
| 2. look up what is known, check those files, plan, check the reject limit | nothing |
| 3. lock the logs, compare or append their leaves in memory | nothing |
| 4. create the files, blobs before the files that name them, and the tiles of the logs, by the \
same flushes | whole files without a row; tiles that no checkpoint covers |
| 5. sign and replace the checkpoints | whole files and their leaves, without a row |
| 6. insert rows, positions and the reject window | the same |
| 7. commit | everything |

A record delivered again after 4 to 6 finds its own bytes, and after 5 its own leaf; after 7 it
finds its row, whose source it is. Either way its outcome is the one it would have had. Without a
ledger 3 and 5 are left out.

Events, dead letters and offsets come after: they are the consumer's.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from pipeline.core.dead_letters.carried_record import ReadContent, sha256_of_content
from pipeline.core.envelope import Rejected
from pipeline.core.layout import BlobPath, parse_path
from pipeline.core.record import Partition, RecordSource
from pipeline.core.reject_limit import reject_limit_message, without_first_failures
from pipeline.disk.durable_files import Creation, DurableFiles, NewFile
from pipeline.disk.faults import store_faults
from pipeline.disk.locks import INDEX_LOCK, exclusive_lock
from pipeline.disk.store_identity import StoreIdentity, read_store, refuse_as_root
from pipeline.disk.system_calls import SystemCalls
from pipeline.errors import RejectLimitError, StoreError
from pipeline.ledger.leaf import LedgerLeaf
from pipeline.ledger.log_id import LogId
from pipeline.ledger.writer import Ledger
from pipeline.storage.awaited_blobs import NamedBlobs, forget_awaited, notes_to_write
from pipeline.storage.index import queries
from pipeline.storage.index.run_index import open_index
from pipeline.storage.index.transaction import IndexTransaction
from pipeline.storage.restoring import Restoration, restore_files

Verdict = TypeVar("Verdict")
Settled = TypeVar("Settled")


INTERNAL_ERROR = "INTERNAL_ERROR"
"""Code of a record that our program once could not judge."""

_NOT_STORED = {Creation.DIFFERENT, Creation.NOT_MADE}


@dataclass(frozen=True, slots=True)
class JudgedRecord(Generic[Verdict]):
    """One record with what it is, looked at alone.

    Attributes:
        source: Where the request topic keeps it.
        verdict: What it is.
        timestamp_ms: Its broker time there.
        body_sha256: Of its untouched value; of no bytes for a tombstone.
    """

    source: RecordSource
    verdict: Verdict
    timestamp_ms: int
    body_sha256: str

    @classmethod
    def of(
        cls, source: RecordSource, verdict: Verdict, value: ReadContent | None, timestamp_ms: int
    ) -> "JudgedRecord[Verdict]":
        """Return the record with this `value`, of which `verdict` says what it is."""
        return JudgedRecord(
            source, verdict, timestamp_ms, sha256_of_content(b"" if value is None else value)
        )

    @property
    def log(self) -> LogId:
        """The log that its leaf belongs to."""
        return LogId(self.source.epoch, self.source.id.topic, self.source.id.partition)


@dataclass(frozen=True, slots=True)
class RejectLimit:
    """Whose verdicts count against the reject limit, and how many failures the operator accepts."""

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

    @property
    def known(self) -> Mapping[Any, Any]:
        """The rows that the index had before, each by what names it."""

    def outcomes(self) -> list[Settled]:
        """Return one outcome for each record."""

    def failures(self) -> list[bool]:
        """Tell of each record whether it counts against the reject limit."""

    def leaves(self) -> list[LedgerLeaf]:
        """Return one leaf for each record: the same whether files are intact or not."""

    def new_files(self) -> list[NewFile]:
        """Return the files to create, each before those that name it."""

    def named_blobs(self) -> NamedBlobs:
        """Return the attachments that those files name."""

    def expected_files(self, position: int) -> list[NewFile] | None:
        """Return the files of what the record at `position` makes or has made.

        None where the store knows it with other bytes.
        """

    def note_not_stored(self, paths: frozenset[str]) -> None:
        """Note which of these files are not there with their bytes; the outcomes say so."""

    def add_rows(self, transaction: IndexTransaction) -> None:
        """Write what the index has to hold."""


class BatchStore(ABC, Generic[Verdict, Settled]):
    """A store on disk. One thread at a time; other processes take turns by the store's lock."""

    def __init__(
        self, root: Path, calls: SystemCalls | None = None, *, ledger: Ledger | None = None
    ) -> None:
        """Open the store at `root`.

        Args:
            root: Its folder.
            calls: System calls, for tests.
            ledger: Its logs; None to append no leaves, as for measuring what they cost.

        Raises:
            StoreNotReadyError: There is no store, or its index is missing or damaged.
            StoreError: The disk failed.
        """
        self.root = root
        self._ledger = ledger
        self.identity: StoreIdentity = read_store(root)
        refuse_as_root(root)
        with store_faults(root):
            self._files = DurableFiles(root, calls)
            with exclusive_lock(root / INDEX_LOCK):
                self._files.remove_leftovers()
            self.index = open_index(root)

    def close(self) -> None:
        """Let go of the index."""
        self.index.close()

    @property
    def ledger(self) -> Ledger | None:
        """Its logs; None where no leaves are appended."""
        return self._ledger

    @property
    def group_commits(self) -> bool:
        """Whether the file system supports the group commit."""
        return self._files.group_commits

    def commit(
        self,
        records: Sequence[JudgedRecord[Verdict | Rejected]],
        limit: RejectLimit | None = None,
    ) -> BatchResult[Settled]:
        """Store a batch; return what became of each record.

        Args:
            records: In offset order within each partition.
            limit: Whose reject limit applies; None for none, as in a replay.

        Raises:
            RejectLimitError: Too many records fail; nothing was written.
            IntegrityError: A log is not what was written, or an offset has another leaf.
            StoreError: The disk or the index failed; nothing may be acknowledged.
        """
        return self._commit(records, limit, is_consumed=True)

    def _commit(
        self,
        records: Sequence[JudgedRecord[Verdict | Rejected]],
        limit: RejectLimit | None,
        *,
        is_consumed: bool,
    ) -> BatchResult[Settled]:
        """Do it. Only what is consumed here moves the position and has a leaf."""
        with store_faults(self.root), exclusive_lock(self.root / INDEX_LOCK):  # 1.
            self._check_index_in_place()
            records = self._with_recorded_verdicts(records)
            with self.index.transaction() as transaction:
                plan = self._plan(records, transaction)  # 2.
                accepted = check_reject_limit(
                    records, plan, transaction, limit, self.identity.epoch
                )
                self._create_files(plan, _by_log(records, plan) if is_consumed else {})  # 3. to 5.
                plan.add_rows(transaction)  # 6.
                if is_consumed:
                    transaction.advance(self.identity.epoch, _next_offsets(records))
            # 7. The end of the block commits.
        return BatchResult(plan.outcomes(), accepted)

    def restore(
        self,
        records: Sequence[JudgedRecord[Verdict | Rejected]],
        reached: Mapping[Partition, int],
    ) -> Restoration:
        """Make again what is missing of what `records` once made; what is there stays.

        `commit` never does this: a file that is missing under its row is a finding there. No leaf
        is appended.

        Args:
            records: Those that were first, of which the caller is sure; in offset order within
                each partition.
            reached: The next offset of each partition of which everything has a row now.

        Raises:
            StoreError: The disk or the index failed.
        """
        with store_faults(self.root), exclusive_lock(self.root / INDEX_LOCK):
            self._check_index_in_place()
            with self.index.transaction() as transaction:
                plan = self._plan_as_intact(records, transaction)
                expected = [(r.source, plan.expected_files(n)) for n, r in enumerate(records)]
                restoration = restore_files(self._files, expected)
                places = (parse_path(each.file.path) for each in restoration.files)
                restored = (each.sha256 for each in places if isinstance(each, BlobPath))
                forget_awaited(self.root, restored)
                plan.add_rows(transaction)
                transaction.advance(self.identity.epoch, reached)
        return restoration

    def _with_recorded_verdicts(
        self, records: Sequence[JudgedRecord[Verdict | Rejected]]
    ) -> Sequence[JudgedRecord[Verdict | Rejected]]:
        """Let a leaf with INTERNAL_ERROR stand, whatever a corrected program says today."""
        if self._ledger is None:
            return records
        offsets = defaultdict(list)
        for record in records:
            offsets[record.log].append(record.source.id.offset)
        found = {
            (log, offset): leaf
            for log, wanted in offsets.items()
            for offset, leaf in self._ledger.leaves_of(log, wanted).items()
        }
        if not found:
            return records
        return [apply_recorded_verdict(r, found.get((r.log, r.source.id.offset))) for r in records]

    @abstractmethod
    def _plan(
        self,
        records: Sequence[JudgedRecord[Verdict | Rejected]],
        transaction: IndexTransaction,
    ) -> BatchPlan[Settled]:
        """Look up what is known, and say what to do; nothing is written."""

    @abstractmethod
    def _plan_as_intact(
        self,
        records: Sequence[JudgedRecord[Verdict | Rejected]],
        transaction: IndexTransaction,
    ) -> BatchPlan[Settled]:
        """Do the same without a look at the files that are known."""

    def _create_files(
        self, plan: BatchPlan[Settled], leaves: Mapping[LogId, Sequence[LedgerLeaf]]
    ) -> None:
        """Create the files of the plan, with the leaves that tell of them."""
        if self._ledger is None or not leaves:
            self._create(plan, [])
            return
        with self._ledger.appending(leaves) as batch:  # 3.
            batch.publish(self._create(plan, batch.files))  # 4. and 5.

    def _create(self, plan: BatchPlan[Settled], tiles: Iterable[NewFile]) -> Mapping[str, Creation]:
        """Create files, and note those of the plan that could not be stored whole.

        A file is not created where a blob that it names is there with other bytes: then it is
        missing for every later delivery too, and all agree. A blob that is named and not there
        gets a note that it is awaited.
        """
        named = plan.named_blobs()
        notes = notes_to_write(self.root, named.referred)
        creations = self._files.create([*plan.new_files(), *notes, *tiles])
        forget_awaited(self.root, [*named.referred, *named.brought])
        failed = (path for path, creation in creations.items() if creation in _NOT_STORED)
        plan.note_not_stored(frozenset(failed))
        return creations

    def _check_index_in_place(self) -> None:
        if self.index.was_replaced:
            raise StoreError(
                f"The index of the store {self.root} was rebuilt or removed meanwhile; nothing "
                "was acknowledged; start again."
            )


def _by_log(
    records: Sequence[JudgedRecord[Verdict]], plan: BatchPlan[Settled]
) -> dict[LogId, list[LedgerLeaf]]:
    leaves: defaultdict[LogId, list[LedgerLeaf]] = defaultdict(list)
    for record, leaf in zip(records, plan.leaves(), strict=True):
        leaves[record.log].append(leaf)
    return leaves


def apply_recorded_verdict(
    record: JudgedRecord[Verdict | Rejected], leaf: LedgerLeaf | None
) -> JudgedRecord[Verdict | Rejected]:
    """Return the record as its leaf has it: one with INTERNAL_ERROR stands, any other says nothing.

    Args:
        record: As this program judges it.
        leaf: That its offset has already; None where it has none.
    """
    if leaf is None or leaf.code != INTERNAL_ERROR:
        return record
    message = (
        "This record once met a fault of the program, and the ledger says so for ever: redrive "
        "its dead letter."
    )
    return replace(record, verdict=Rejected(INTERNAL_ERROR, message, leaf.run_id))


def _next_offsets(records: Sequence[JudgedRecord[Verdict]]) -> dict[Partition, int]:
    following: dict[Partition, int] = {}
    for record in records:
        place = record.source.id.topic_partition
        following[place] = max(following.get(place, 0), record.source.id.offset + 1)
    return following


def check_reject_limit(
    records: Sequence[JudgedRecord[Verdict]],
    plan: BatchPlan[Settled],
    transaction: IndexTransaction,
    limit: RejectLimit | None,
    epoch: int,
) -> int:
    """Count this batch's verdicts; return how many failures the operator's word let through.

    Raises:
        RejectLimitError: Too many of the last verdicts are failures.
    """
    if limit is None:
        return 0
    judged_before = queries.positions(transaction.connection, epoch)
    failures = [
        failed
        for record, failed in zip(records, plan.failures(), strict=True)
        if record.source.id.offset >= judged_before.get(record.source.id.topic_partition, 0)
    ]
    accepted = min(limit.accepted_rejects, sum(failures))
    window, exceeded = queries.reject_window(transaction.connection, limit.group_id).after(
        without_first_failures(failures, accepted)
    )
    if exceeded:
        raise RejectLimitError(reject_limit_message(window))
    transaction.keep_reject_window(limit.group_id, window)
    return accepted
