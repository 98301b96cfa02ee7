"""The audit of a store: it compares and reports, read-only.

The procedure, with the same numbers in the code:

1. At one moment, with no batch on its way: the checkpoints of all logs, and the rows of the index.
2. Every log up to its checkpoint, computed again from its leaves; trusted checkpoints; offsets that
   the broker can show and that have no leaf.
3. Leaves compared with each other and with the rows.
4. Date by date: the files that leaves name, then names that no leaf explains.
5. Attachments, quarantined requests, the store root, and what else lies in the store.

A part is what is done as a whole: the ledger (2 and 3), one date, an area of blobs, the rest. A
part that was cut short is done again. A name that nothing explains is looked up once more in the
logs as they are by then: a store goes on while it is audited.
"""

import os
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import KW_ONLY, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

from pipeline.audit import queries
from pipeline.audit.audited_store import NO_INDEX, AuditedStore
from pipeline.audit.checks.archives import ArchiveCheck
from pipeline.audit.checks.blobs import (
    BLOB_FOLDER,
    SLICE_BLOBS,
    check_area,
    check_blob_folder,
    check_blob_names,
)
from pipeline.audit.checks.files import SLICE_FILES, check_files
from pipeline.audit.checks.index import comparisons, compute_store_root, index_missing
from pipeline.audit.checks.logs import (
    AuditedLog,
    BrokerView,
    add_leaves,
    check_logs,
    check_trusted,
    offsets_without_leaf,
    open_log,
    read_notes,
)
from pipeline.audit.checks.names import check_names, still_unexplained
from pipeline.audit.checks.places import check_places, dates_of_runs, folders_in
from pipeline.audit.checks.versions import check_checkpoints, check_versions
from pipeline.audit.journal import AUDITS_FOLDER
from pipeline.audit.plan import AuditPlan, plan_faults
from pipeline.audit.rules.finding import ARCHIVED, Asked, Finding, verdicts
from pipeline.audit.rules.parts import AuditPart, Extent, whole_id
from pipeline.audit.rules.request import SAMPLE_SHARE
from pipeline.audit.steps import (
    LEDGER_PART,
    MANY_WAITING,
    PLACES_PART,
    AuditContext,
    Depth,
    PartDone,
    Parts,
    Step,
    StepPool,
    StepResult,
    Tally,
)
from pipeline.core.layout import ARCHIVES_FOLDER, ArtifactPath, BlobArea, LinkPath, parse_path
from pipeline.core.progress import Progress, no_progress
from pipeline.core.store.identity import STORE_FILE
from pipeline.core.store.log_store import CHECKPOINT_FILE
from pipeline.ledger.log_id import LogId
from pipeline.ledger.tlog.checkpoints import Checkpoint
from pipeline.ledger.tlog.notes import VerifierKey
from pipeline.storage.archives import is_seen
from schemas.audit_report import AUDIT_REPORT_VERSION
from schemas.audit_request import AuditRequest

SUSPECTS_LIMIT: Final = 10_000
"""Most names of one part that wait to be looked up once more."""

SMALL_STORE_LEAVES: Final = 5_000
"""Fewer leaves are audited here: to start a process takes half a second."""

_FOLDERS_WRITTEN_ONCE: Final = (AUDITS_FOLDER, ARCHIVES_FOLDER)

_COUNTED: Final = (
    *("days", "artifacts", "links", "attachments", "quarantined"),
    *("files_read", "bytes_read", "findings"),
)


@dataclass(eq=False)
class StoreAudit:
    """One audit. Use it as a context: its temporary files and processes are gone at its end.

    Attributes:
        store: The store.
        request: What is asked.
        keys: Whose signatures under checkpoints count.
        trusted: Checkpoints of third parties; the caller has checked who signed them.
        broker: The broker's view of the logs; None where it is not asked.
        processes: How many beside this one; None for so many that there is one a processor, or
            none for a small store.
        share: Of the files that are read in mode `sampled`.
        depth: How closely files are checked that are read.
        extent: What of the store it looks at, by the request.
    """

    store: AuditedStore
    request: AuditRequest
    keys: Sequence[VerifierKey]
    _: KW_ONLY
    trusted: Sequence[Checkpoint] = ()
    broker: BrokerView | None = None
    processes: int | None = None
    share: float = SAMPLE_SHARE
    depth: Depth = "content"

    def __post_init__(self) -> None:
        """Begin with no log."""
        self.extent = Extent(self.request.scope, AuditPart.of(self.request))
        self.logs: list[AuditedLog] = []
        self._store_root: str | None = None
        self._keeps_versions: bool | None = None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._open.close()

    def run(
        self,
        skip: Collection[str] = (),
        progress: Progress = no_progress,
        known_missing: Collection[str] = (),
    ) -> Iterator[Finding | PartDone]:
        """Yield findings as they come, and after those of each part that it is done.

        Args:
            skip: Parts that were done before; the ledger is read all the same.
            progress: Called after each step with how many files of runs were checked; what it
                raises ends the audit.
            known_missing: Paths of blobs that the parts in `skip` reported as missing.

        Raises:
            StoreError: The disk failed, so that nothing can be reported; or there is no room for
                the plan.
            MemoryError: A process was killed, as the kernel does where memory is short.
        """
        with self.store.faults(), plan_faults():
            plan, pool, failed = self._begin()  # 1.
            parts = Parts(skip, known_missing)
            yield from parts.add(LEDGER_PART, StepResult(failed))
            for finding in self._check_ledger(plan, pool):  # 2.
                yield from parts.add(LEDGER_PART, StepResult([finding]))
            total = plan.value(queries.COUNT_EXPECTED)
            part, suspects = LEDGER_PART, list[str]()
            steps = self._steps(plan, pool.context, skip)
            for step, result in pool.run(steps, MANY_WAITING):  # 3. to 5.
                if step.part != part or len(suspects) >= SUSPECTS_LIMIT:
                    yield from parts.add(part, self._unexplained(plan, suspects))
                    part, suspects = step.part, []
                suspects += result.suspects
                self._store_root = self._store_root or result.store_root
                yield from parts.add(step.part, result)
                progress("files of runs", parts.files, total)
            yield from parts.add(part, self._unexplained(plan, suspects))
            yield from parts.end()

    def _begin(self) -> tuple[AuditPlan, StepPool, list[Finding]]:
        """Take the moment that everything is compared as of.

        The plan has the rows of the index and no leaf, the processes of the pool are starting, and
        the findings are about checkpoints and index.
        """
        folder = self._open.enter_context(tempfile.TemporaryDirectory(prefix="rmos-audit-"))
        plan = AuditPlan(Path(folder) / "plan.sqlite3", self.store.files, self.extent)
        self._open.callback(plan.close)
        plan.want(self._named_runs())
        self._open.callback(self.store.index.end)
        with self.store.lock.between_batches():
            notes = read_notes(self.store.logs)
            failed = plan.begin(self.store.index)
            # No worker has opened it: the first one makes the index, before any log or run.
            is_unused = failed == NO_INDEX and not notes and not dates_of_runs(self.store.files)
        findings = self._open_logs(notes)
        replaced = [f"{log.path}/{CHECKPOINT_FILE}" for log in self.logs]
        self._keeps_versions = self.store.inspection.keeps_versions([STORE_FILE, *replaced])
        begun = StepPool(self._count_processes(), self._context(plan), self.store)
        pool = self._open.enter_context(begun)
        # While the processes start.
        failed = failed or plan.copy_rows(self.store.index)
        if failed is not None and not is_unused:
            findings.append(index_missing(failed))
        for log in self.logs:
            is_legacy = log.log.topic == f"{self.store.identity.prefix}.runs.legacy"
            plan.add_log(log.number, log.log, is_legacy=is_legacy)
        return plan, pool, findings

    def _open_logs(self, notes: Mapping[LogId, bytes | None]) -> list[Finding]:
        findings = []
        for number, (log, note) in enumerate(sorted(notes.items())):
            opened, found = open_log(
                self.store.files,
                number,
                log,
                note,
                store_id=self.store.identity.store_id,
                keys=self.keys,
            )
            self.logs.append(opened)
            findings += found
        return findings

    def _count_processes(self) -> int:
        if self.processes is not None:
            return self.processes
        leaves = sum(log.size for log in self.logs)
        return len(os.sched_getaffinity(0)) - 1 if leaves > SMALL_STORE_LEAVES else 0

    def _context(self, plan: AuditPlan) -> AuditContext:
        shares = {"quick": 0.0, "full": 1.0, "sampled": self.share}
        return AuditContext(
            opened=self.store.again,
            plan=str(plan.path),
            audit_id=whole_id(self.request),
            depth=self.depth,
            share=shares[self.request.mode],
            extent=self.extent,
        )

    @property
    def _sees_versions(self) -> bool:
        return bool(self._keeps_versions) and self.request.scope.run_ids is None

    def _check_ledger(self, plan: AuditPlan, pool: StepPool) -> Iterator[Finding]:
        index = self.store.index
        yield from check_logs(self.store, self.logs, plan, pool, LEDGER_PART)
        if plan.begin_strays():
            if plan.has_rows and (failed := plan.begin(index) or plan.copy_rows(index)) is not None:
                yield index_missing(failed)
            add_leaves(self.logs, plan, pool, LEDGER_PART)
        yield from check_trusted(self.store, self.logs, self.trusted)
        if self._sees_versions:
            yield from check_checkpoints(self.store, self.logs, self.keys)
        if self.broker is not None:
            yield from offsets_without_leaf(self.logs, self.broker)
        if not self.logs and (plan.knows_runs or dates_of_runs(self.store.files)):
            expected = "a log of every partition that was consumed"
            yield Finding("LOG_MISSING", "ledger", expected, "no log")
        archives = ArchiveCheck(self.store, self.logs, self.keys, self.extent)
        yield from archives.add_to(plan)
        plan.resolve(has_logs=bool(self.logs))
        yield from archives.count_in(plan)
        for run_id in dict.fromkeys(self.request.scope.run_ids or ()):
            known = plan.value(queries.DATE_OF_RUN, (run_id,))
            if known is None and not self._dates_with(run_id):
                path = f"runs/*/{run_id}.json"
                yield Finding("RUN_UNKNOWN", path, f"a leaf of the run {run_id}", "none, no file")

    def _steps(
        self, plan: AuditPlan, context: AuditContext, skip: Collection[str]
    ) -> Iterator[Step]:
        if self.logs and self.extent.is_everything and context.follows_names:
            # The longest step comes first, so that others run beside it.
            yield Step(LEDGER_PART, compute_store_root)
        # 3. Without logs the rows stand for leaves, and there is nothing to compare.
        if self.logs and LEDGER_PART not in skip:
            yield from comparisons(LEDGER_PART, has_rows=plan.has_rows)
        for date in self._dates(plan):  # 4.
            if date not in skip:
                for ends in plan.slices(queries.EXPECTED_NAMES, date, SLICE_FILES):
                    yield Step(date, check_files, (date, *ends))
                yield Step(date, check_names, (date,))
                yield from self._version_steps(date, f"runs/{date}")
        for area in BlobArea:  # 5.
            if area.value not in skip:
                yield from self._steps_of(area.value, plan, context)
        if PLACES_PART not in skip:
            sizes = tuple((log.log, log.size) for log in self.logs)
            yield Step(PLACES_PART, check_places, (sizes,))
            if self.extent.takes_rest:
                tiles = (f"{log.path}/tile" for log in self.logs)
                yield from self._version_steps(PLACES_PART, *_FOLDERS_WRITTEN_ONCE, *tiles)

    def _version_steps(self, part: str, *folders: str) -> Iterator[Step]:
        for folder in folders if self._sees_versions else ():
            yield Step(part, check_versions, (folder,))

    def _dates(self, plan: AuditPlan) -> list[str]:
        scope = self.request.scope
        if scope.dates is not None:
            return sorted(set(scope.dates))
        dates = set(plan.dates())
        if scope.run_ids is None:
            dates.update(filter(self.extent.has_date, dates_of_runs(self.store.files)))
        for run_id in scope.run_ids or ():
            dates.update(self._dates_with(run_id))
        return sorted(dates)

    def _named_runs(self) -> Iterator[str]:
        """Yield the runs that are asked for, or that a name in the folder of an asked date says."""
        scope = self.request.scope
        yield from scope.run_ids or ()
        dates = dates_of_runs(self.store.files) if self.extent.part is not None else scope.dates
        for date in filter(self.extent.has_date, dates or ()):
            for name in self.store.inspection.each_name(f"runs/{date}"):
                place = parse_path(f"runs/{date}/{name}")
                if isinstance(place, ArtifactPath | LinkPath):
                    yield place.run_id

    def _dates_with(self, run_id: str) -> list[str]:
        """Return the dates in whose folder there is a file of the run."""
        files, dates = self.store.files, dates_of_runs(self.store.files)
        paths = [str(ArtifactPath(date, run_id)) for date in dates]
        seen = files.at_once(partial(is_seen, files), paths)
        return [date for date, is_there in zip(dates, seen, strict=True) if is_there]

    def _steps_of(self, part: str, plan: AuditPlan, context: AuditContext) -> Iterator[Step]:
        yield Step(part, check_area, (part,))
        if context.is_whole:
            for prefix in folders_in(self.store.files, part, BLOB_FOLDER):
                if self.extent.has_folder(prefix):
                    yield Step(part, check_blob_folder, (part, prefix))
        if self.extent.takes_rest:
            yield from self._version_steps(part, part)
        if not context.follows_names:
            for ends in plan.slices(queries.BLOB_PATHS, part, SLICE_BLOBS):
                yield Step(part, check_blob_names, ends)

    def _unexplained(self, plan: AuditPlan, suspects: Sequence[str]) -> StepResult:
        if not suspects:
            return StepResult()
        # Many at a time: each look waits for the store's lock, which writers hold most of the time.
        found = still_unexplained(self.store, plan, self.logs, suspects, keys=self.keys)
        return StepResult(list(found))

    def report(self, tally: Tally, *, started_at_utc: str, finished_at_utc: str) -> dict[str, Any]:
        """Return the report in the shape of `AuditReport`, once every part is done.

        Args:
            tally: Of all parts.
            started_at_utc: When the audit began, as stored times are written.
            finished_at_utc: When it ended.
        """
        leaves = sum(log.size for log in self.logs)
        anchored = sum(log.anchored_size for log in self.logs)
        archived = tally.counts["archived"]
        asked = Asked(
            self.request.mode,
            self.broker is not None,
            len(self.trusted),
            leaves,
            anchored,
            archived,
            None if self._keeps_versions is None else self._sees_versions,
        )
        found = verdicts(tally.codes, asked)
        if (part := self.extent.part) is not None:
            of_whole = f" Part {part.number} of {part.count} of the audit {part.whole}."
            found["integrity"]["reason"] += of_whole
        # The shape of counts is published. It is no finding, and has no code of its own there.
        counted: dict[str, int] = {ARCHIVED: archived} if archived else {}
        of_logs = {"logs": len(self.logs), "leaves": leaves, "anchored_leaves": anchored}
        report: dict[str, Any] = {
            "schema_version": AUDIT_REPORT_VERSION,
            "audit_id": self.request.audit_id,
            "scope": self.request.scope.model_dump(exclude_none=True),
            "mode": self.request.mode,
            "verdicts": found,
            "counts": {name: tally.counts[name] for name in _COUNTED} | of_logs,
            "codes": dict(sorted((counted | dict(tally.codes)).items())),
            "logs": [self._log_document(log) for log in self.logs],
            "started_at_utc": started_at_utc,
            "finished_at_utc": finished_at_utc,
        }
        if self.request.mode == "sampled":
            report["sample_share"] = self.share
        # It is that of the files on the disk only if all that leaves name are there.
        is_whole = found["integrity"]["result"] == "ok" and not tally.codes["LINK_WAITING"]
        if self._store_root is not None and is_whole and not archived:
            report["store_root"] = self._store_root
        return report

    def _log_document(self, log: AuditedLog) -> dict[str, Any]:
        return {
            "origin": log.log.origin(self.store.identity.store_id),
            "size": log.size,
            "root_sha256": log.root.hex(),
            "anchored_size": log.anchored_size,
        }
