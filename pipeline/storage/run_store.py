"""The store of runs: one batch of judged records becomes files and rows, or nothing does.

The procedure of a batch, with the same numbers in `RunStore.commit`, and what is left if the
process dies after a step:

| step | if the process dies after it |
|---|---|
| 1. take the store's lock, begin a transaction | nothing |
| 2. look up what is known, check those files, plan, check the flood limit | nothing |
| 3. create the files, blobs before the artifacts that name them | whole files without a row |
| 4. insert rows, positions and the flood window | the same |
| 5. commit | everything |

A record delivered again after 3 or 4 finds its own bytes and is `persisted`; after 5 it finds
its row, whose source it is, and is `persisted` too.

Events, dead letters and offsets come after: they are the consumer's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.flood import FloodWindow
from pipeline.core.layout import attachment_path, quarantine_path
from pipeline.core.outcome import (
    Outcome,
    RecordSource,
    StoredRun,
    settle_rejected,
    settle_run,
    stored_run,
)
from pipeline.core.verdict import JudgedRun, Rejected
from pipeline.errors import FloodError, StoreError, StoreNotReadyError
from pipeline.storage.durable_files import Creation, DurableFiles, NewFile
from pipeline.storage.faults import store_faults
from pipeline.storage.identity import StoreIdentity, read_store
from pipeline.storage.index import (
    INDEX_FILE,
    INDEX_LOCK,
    IndexedRun,
    IndexTransaction,
    RunIndex,
    indexed_run,
)
from pipeline.storage.locks import exclusive_lock
from pipeline.storage.system_calls import SystemCalls

_NOT_STORED = {Creation.DIFFERENT, Creation.NOT_MADE}


@dataclass(frozen=True, slots=True)
class JudgedRecord:
    """One record with what it is, looked at alone."""

    source: RecordSource
    verdict: JudgedRun | Rejected


@dataclass(frozen=True, slots=True)
class FloodGuard:
    """Whose verdicts count against the flood limit, and how many failures the operator accepts."""

    group_id: str
    accepted_rejects: int = 0


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of a batch.

    Attributes:
        outcomes: One for each record, in the order of the records.
        accepted_rejects: Failures that went through because the operator accepts them.
    """

    outcomes: list[Outcome]
    accepted_rejects: int


@dataclass(slots=True)
class _Plan:
    """What a batch will do: the run of each record, and the runs that are new."""

    runs: list[StoredRun | None]
    new: dict[str, tuple[JudgedRun, StoredRun]]
    damaged: set[str]


class RunStore:
    """Runs on disk. One thread at a time; other processes take turns by the store's lock."""

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
        self, records: Sequence[JudgedRecord], guard: FloodGuard | None = None
    ) -> BatchResult:
        """Store a batch; return what became of each record.

        Args:
            records: In offset order within each partition.
            guard: Whose flood limit applies; None for none, as in a replay.

        Raises:
            FloodError: Too many records fail; nothing was written.
            StoreError: The disk or the index failed; nothing may be acknowledged.
        """
        with store_faults(self.root), exclusive_lock(self.root / INDEX_LOCK):  # 1.
            self._check_index_in_place()
            with self.index.transaction() as transaction:
                plan = self._plan(records, transaction)  # 2.
                accepted = _check_flood(records, plan, transaction, guard, self.identity.epoch)
                plan.damaged |= self._create_files(plan)  # 3.
                transaction.add_runs(_rows(plan))  # 4.
                transaction.advance(self.identity.epoch, _next_offsets(records))
            # 5. The end of the block commits.
        return BatchResult(_outcomes(records, plan), accepted)

    def _check_index_in_place(self) -> None:
        if self.index.was_replaced:
            message = (
                f"The index of the store {self.root} was rebuilt or removed meanwhile; nothing "
                "was acknowledged; start again."
            )
            raise StoreError(message)

    def _plan(self, records: Sequence[JudgedRecord], transaction: IndexTransaction) -> _Plan:
        judged = [r.verdict.run_id for r in records if isinstance(r.verdict, JudgedRun)]
        known = transaction.known_runs(list(dict.fromkeys(judged)))
        plan = _Plan([], {}, {run.run_id for run in known.values() if not self._is_intact(run)})
        for record in records:
            if isinstance(record.verdict, Rejected):
                plan.runs.append(None)
                continue
            run = known.get(record.verdict.run_id)
            if run is None:
                run = stored_run(record.verdict, record.source)
                known[run.run_id] = run
                plan.new[run.run_id] = (record.verdict, run)
            plan.runs.append(run)
        return plan

    def _is_intact(self, run: StoredRun) -> bool:
        return self._files.holds(run.artifact_path, run.artifact_sha256, run.size_bytes)

    def _create_files(self, plan: _Plan) -> set[str]:
        """Create the files of the new runs; return the runs that could not be stored whole.

        An artifact is not created where a blob that it names is there with other bytes: then
        its file is missing for every later delivery too, and all agree.
        """
        creations = self._files.create(_new_files(plan))
        return {
            run_id
            for run_id, (_, run) in plan.new.items()
            if creations[run.artifact_path] in _NOT_STORED
        }


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


def _new_files(plan: _Plan) -> list[NewFile]:
    """Return every blob of the batch once, then the artifacts that name them."""
    blobs: dict[str, NewFile] = {}
    artifacts = []
    for judged, run in plan.new.values():
        own = _blob_files(judged)
        blobs |= own
        artifacts.append(NewFile(run.artifact_path, judged.built.content, needs=frozenset(own)))
    return [*blobs.values(), *artifacts]


def _blob_files(judged: JudgedRun) -> dict[str, NewFile]:
    files = {}
    for blob in judged.built.blobs:
        path = attachment_path(blob.sha256)
        files[path] = NewFile(path, blob.content)
    kept = judged.built.quarantined
    if kept is not None:
        path = quarantine_path(kept.sha256)
        files[path] = NewFile(path, kept.content, private=True)
    return files


def _rows(plan: _Plan) -> list[IndexedRun]:
    # Also of a damaged run: its row is as if the file were right, so later deliveries agree.
    return [indexed_run(judged.built.outline, run) for judged, run in plan.new.values()]


def _next_offsets(records: Sequence[JudgedRecord]) -> dict[tuple[str, int], int]:
    following: dict[tuple[str, int], int] = {}
    for record in records:
        place = (record.source.topic, record.source.partition)
        following[place] = max(following.get(place, 0), record.source.offset + 1)
    return following


def _outcomes(records: Sequence[JudgedRecord], plan: _Plan) -> list[Outcome]:
    return [
        _outcome(record, run, intact=run is None or run.run_id not in plan.damaged)
        for record, run in zip(records, plan.runs, strict=True)
    ]


def _outcome(record: JudgedRecord, run: StoredRun | None, *, intact: bool) -> Outcome:
    if isinstance(record.verdict, Rejected) or run is None:
        assert isinstance(record.verdict, Rejected)
        return settle_rejected(record.verdict)
    return settle_run(record.verdict, run, record.source, intact=intact)


def _check_flood(
    records: Sequence[JudgedRecord],
    plan: _Plan,
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
        _is_failure(record, outcome)
        for record, outcome in zip(records, _outcomes(records, plan), strict=True)
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


def _is_failure(record: JudgedRecord, outcome: Outcome) -> bool:
    incomplete = isinstance(record.verdict, JudgedRun) and record.verdict.is_incomplete
    return outcome.is_dead_letter or incomplete


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
