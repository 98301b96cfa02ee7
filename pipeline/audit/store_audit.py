"""The audit of a store: a library that reads, compares and tells, and changes nothing.

The procedure, with the same numbers in the code:

1. At one moment, with no batch on its way: the checkpoints of all logs, and the rows of the index.
2. Every log up to its checkpoint, computed again from its leaves; trusted checkpoints; offsets that
   the broker can show and that have no leaf.
3. Leaves against each other and against the rows.
4. Date by date: the files that leaves tell of, then names that no leaf explains.
5. Attachments, quarantined requests, and what else lies in the store.

A part is what is done as a whole: the ledger (2 and 3), one date, an area of blobs, the rest. One
that is cut short is done again. What nothing explains is looked up once more in the logs as they
are by then: a store goes on while it is audited.
"""

import os
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from pipeline.audit.checks.logs import AuditedLog, check_logs, check_trusted, open_log, read_notes
from pipeline.audit.checks.offsets import BrokerView, offsets_without_leaf
from pipeline.audit.checks.places import dates_on_disk
from pipeline.audit.checks.suspects import still_unexplained
from pipeline.audit.context import AuditContext, Depth
from pipeline.audit.plan import NO_INDEX, AuditPlan, plan_faults
from pipeline.audit.pool import StepPool
from pipeline.audit.report import audit_report
from pipeline.audit.rules.finding import Finding
from pipeline.audit.rules.request import SAMPLE_SHARE
from pipeline.audit.step import StepResult
from pipeline.audit.steps import LEDGER_PART, audit_steps, dates_with
from pipeline.audit.tally import PartDone, Parts, Tally
from pipeline.core.progress import Progress, no_progress
from pipeline.disk.faults import store_faults
from pipeline.disk.locks import INDEX_LOCK, shared_lock
from pipeline.disk.store_identity import StoreIdentity, read_store
from pipeline.ledger.log_id import LogId
from pipeline.ledger.tlog.checkpoints import Checkpoint
from pipeline.ledger.tlog.notes import VerifierKey
from pipeline.storage.index.run_index import INDEX_FILE
from schemas.audit_request import AuditRequest

SUSPECTS_LIMIT: Final = 10_000
"""Most names of one part that wait to be looked up once more."""

SMALL_STORE_LEAVES: Final = 5_000
"""Fewer leaves are audited here: to start a process takes half a second."""


class StoreAudit:
    """One audit. Use it as a context: what it needs beside the store is gone at its end."""

    def __init__(
        self,
        root: Path,
        request: AuditRequest,
        keys: Sequence[VerifierKey],
        *,
        trusted: Sequence[Checkpoint] = (),
        broker: BrokerView | None = None,
        processes: int | None = None,
        share: float = SAMPLE_SHARE,
        depth: Depth | None = None,
        scratch: Path | None = None,
    ) -> None:
        """Prepare; nothing is read yet but the store's identity.

        Args:
            root: Folder of the store.
            request: What is asked.
            keys: Whose signatures under checkpoints count.
            trusted: Checkpoints that somebody else kept; the caller has checked who signed them.
            broker: What the broker can say; None where nobody asks it.
            processes: How many; 0 for none beside this one; None for as many as there are
                processors, or none for a small store.
            share: Of the files that are read in mode `sampled`.
            depth: Of files that are read, where it is to be another than the mode says.
            scratch: Folder for the plan, about 600 bytes a leaf; None for the system's.

        Raises:
            StoreNotReadyError: There is no store.
            StoreError: The disk failed.
        """
        self.root = root
        self.request = request
        self.identity: StoreIdentity = read_store(root)
        self.logs: list[AuditedLog] = []
        self.share = share if request.mode == "sampled" else None
        self._keys = keys
        self._trusted = trusted
        self._broker = broker
        self._processes = processes
        self._depth: Depth = depth or "content"
        self._scratch = scratch
        self._store_root: str | None = None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._open.close()

    def run(
        self,
        skip: Collection[str] = (),
        progress: Progress = no_progress,
        told_missing: Collection[str] = (),
    ) -> Iterator[Finding | PartDone]:
        """Yield findings as they come, and after those of each part that it is done.

        Args:
            skip: Parts that were done before; the ledger is read all the same.
            progress: Called after each step with how many files of runs were looked at;
                what it raises ends the audit.
            told_missing: Paths of blobs that the parts in `skip` told to be missing.

        Raises:
            StoreError: The disk failed, so that not even a finding can be told; or there is no
                room for the plan.
            MemoryError: A process was killed, as the kernel does where memory is short.
        """
        with store_faults(self.root), plan_faults():
            moment = self._begin()  # 1.
            parts = Parts(skip, told_missing)
            yield from parts.add(LEDGER_PART, StepResult(moment.findings))
            for finding in self._check_ledger(moment):  # 2.
                yield from parts.add(LEDGER_PART, StepResult([finding]))
            total = moment.plan.value("SELECT count(*) FROM expected")
            steps = audit_steps(
                moment.pool.context, moment.plan, self.request.scope, self.logs, skip
            )
            part, suspects = LEDGER_PART, list[str]()
            for step, result in moment.pool.run(steps):  # 3. to 5.
                if step.part != part or len(suspects) >= SUSPECTS_LIMIT:
                    yield from parts.add(part, self._unexplained(moment.plan, suspects))
                    part, suspects = step.part, []
                suspects += result.suspects
                self._store_root = self._store_root or result.store_root
                yield from parts.add(step.part, result)
                progress("files of runs", parts.files, total)
            yield from parts.add(part, self._unexplained(moment.plan, suspects))
            yield from parts.end()

    def _begin(self) -> "_Moment":
        """Take the moment that everything is held against."""
        folder = self._open.enter_context(
            tempfile.TemporaryDirectory(prefix="rmos-audit-", dir=self._scratch)
        )
        plan = AuditPlan(Path(folder) / "plan.sqlite3")
        self._open.callback(plan.close)
        index = self.root / INDEX_FILE
        with shared_lock(self.root / INDEX_LOCK):
            notes = read_notes(self.root)
            failed = plan.begin(index)
            # No worker has opened it: the first one makes the index, before any log or run.
            is_unused = failed == NO_INDEX and not notes and not dates_on_disk(self.root)
        findings = self._open_logs(notes)
        pool = self._open.enter_context(StepPool(self._count_processes(), self._context(plan)))
        # While the processes start.
        failed = failed or plan.copy_rows()
        if failed is not None and not is_unused:
            missing = Finding("INDEX_MISSING", INDEX_FILE, "an index that can be read", failed)
            findings.append(missing)
        for log in self.logs:
            is_legacy = log.log.topic == f"{self.identity.prefix}.runs.legacy"
            plan.add_log(log.number, log.log, is_legacy=is_legacy)
        return _Moment(plan, pool, findings)

    def _open_logs(self, notes: Mapping[LogId, bytes | None]) -> list[Finding]:
        findings = []
        for number, (log, note) in enumerate(sorted(notes.items())):
            opened, found = open_log(
                self.root, number, log, note, store_id=self.identity.store_id, keys=self._keys
            )
            self.logs.append(opened)
            findings += found
        return findings

    def _count_processes(self) -> int:
        if self._processes is not None:
            return self._processes
        leaves = sum(log.size for log in self.logs)
        return len(os.sched_getaffinity(0)) if leaves > SMALL_STORE_LEAVES else 0

    def _context(self, plan: AuditPlan) -> AuditContext:
        shares = {"quick": 0.0, "full": 1.0, "sampled": self.share or 0.0}
        return AuditContext(
            root=str(self.root),
            plan=str(plan.path),
            audit_id=self.request.audit_id,
            depth=self._depth,
            share=shares[self.request.mode],
            is_whole=self.request.scope.all is not None,
            of_some_runs=self.request.scope.run_ids is not None,
        )

    def _check_ledger(self, moment: "_Moment") -> Iterator[Finding]:
        plan = moment.plan
        yield from check_logs(self.root, self.logs, plan, moment.pool, LEDGER_PART)
        yield from check_trusted(self.root, self.logs, self._trusted, self.identity.store_id)
        if self._broker is not None:
            yield from offsets_without_leaf(self.logs, self._broker)
        if not self.logs and (plan.knows_runs or dates_on_disk(self.root)):
            expected = "a log of every partition that was consumed"
            yield Finding("LOG_MISSING", "ledger", expected, "no log")
        plan.settle(self.request.scope, has_logs=bool(self.logs))
        for run_id in dict.fromkeys(self.request.scope.run_ids or ()):
            known = plan.value("SELECT 1 FROM runs WHERE run_id = ?", (run_id,))
            if known is None and not dates_with(self.root, run_id):
                path = f"runs/*/{run_id}.json"
                yield Finding("RUN_UNKNOWN", path, f"a leaf of the run {run_id}", "none, no file")

    def _unexplained(self, plan: AuditPlan, suspects: Sequence[str]) -> StepResult:
        if not suspects:
            return StepResult()
        # Many at a time: each look waits for the store's lock, which writers hold most of the time.
        store_id, keys = self.identity.store_id, self._keys
        found = still_unexplained(
            self.root, plan, self.logs, suspects, store_id=store_id, keys=keys
        )
        return StepResult(list(found))

    def report(
        self,
        tally: Tally,
        *,
        started_at_utc: str,
        finished_at_utc: str,
    ) -> dict[str, Any]:
        """Return the report in the shape of `AuditReport`, once every part is done.

        Args:
            tally: Of all parts.
            started_at_utc: When the audit began, as stored times are written.
            finished_at_utc: When it ended.
        """
        return audit_report(
            self.request,
            tally,
            self.logs,
            store_id=self.identity.store_id,
            trusted=len(self._trusted),
            asked_broker=self._broker is not None,
            sample_share=self.share,
            started_at_utc=started_at_utc,
            finished_at_utc=finished_at_utc,
            store_root=self._store_root,
        )


@dataclass(frozen=True, slots=True)
class _Moment:
    """What an audit begins with.

    Attributes:
        plan: With the rows of the index, and no leaf yet.
        pool: Whose processes are starting.
        findings: What is wrong with checkpoints and index.
    """

    plan: AuditPlan
    pool: StepPool
    findings: list[Finding]
