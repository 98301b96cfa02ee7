"""Names that no leaf explains: added, copied, or not yet in a log.

A name is looked up in the plan, date by date; the files of a date are never all in memory. What
nothing explains is looked up once more at the end of its part, in the logs as they are by then: a
store goes on while it is audited. With the store's lock no batch is on its way, so every file that
was there before has its leaf by then, unless a process died in between.
"""

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import islice
from typing import Final

from pipeline.audit import queries
from pipeline.audit.audited_store import AuditedIndex, AuditedStore
from pipeline.audit.checks.logs import AuditedLog, read_notes
from pipeline.audit.plan import AuditPlan
from pipeline.audit.rules.finding import Finding
from pipeline.audit.steps import AuditReader, StepResult
from pipeline.core.layout import ArchivePath, ArtifactPath, BlobArea, BlobPath, LinkPath, parse_path
from pipeline.core.store.contents import StoreContents
from pipeline.core.store.files import Inspection
from pipeline.errors import IntegrityError
from pipeline.ledger.leaf import parse_leaf
from pipeline.ledger.log_id import LogId
from pipeline.ledger.reader import LogReader
from pipeline.ledger.stored_log import StoredLog
from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.checkpoints import open_checkpoint
from pipeline.ledger.tlog.notes import VerifierKey

_LOOKED_UP: Final = 5_000
"""Names of one question: in their order, many of them are on one page of the plan."""


def check_names(reader: AuditReader, date: str) -> StepResult:
    """Return the names in the folder of `date` that are not expected."""
    result = StepResult()
    result.count("days")
    names = reader.store.inspection.each_name(f"runs/{date}")
    while batch := sorted(islice(names, _LOOKED_UP)):
        for name in _not_expected(reader, date, batch):
            path = f"runs/{date}/{name}"
            if reader.context.extent.scope.run_ids is None or _is_asked(reader, path):
                result.suspects.append(path)
    result.suspects.sort()
    return result


def _not_expected(reader: AuditReader, date: str, names: list[str]) -> list[str]:
    # Bytes that are not UTF-8 are in no name of ours, and SQLite would not keep them.
    foreign = [name for name in names if not name.isascii()]
    own = json.dumps([name for name in names if name.isascii()])
    return foreign + [row[0] for row in reader.plan.execute(queries.UNEXPECTED_NAMES, (own, date))]


def _is_asked(reader: AuditReader, path: str) -> bool:
    place = parse_path(path)
    if not isinstance(place, ArtifactPath | LinkPath):
        return False
    return reader.plan.execute(queries.IS_RUN_ASKED, (place.run_id,)).fetchone() is not None


def still_unexplained(
    store: AuditedStore,
    plan: AuditPlan,
    logs: Sequence[AuditedLog],
    suspects: Sequence[str],
    *,
    keys: Sequence[VerifierKey],
) -> Iterator[Finding]:
    """Yield a finding for each of `suspects` that leaves and rows of by now explain no better."""
    with store.lock.between_batches():
        notes = read_notes(store.logs)
    since = _logged_since(store, logs, notes, keys)
    of_runs = _requests_of_runs(store.index, plan, suspects)
    for path in suspects:
        place = parse_path(path)
        if isinstance(place, BlobPath):
            if place.area is not BlobArea.QUARANTINE or of_runs is None or place.sha256 in of_runs:
                continue
            expected = "no file: no run has this request"
            yield Finding("FILE_UNEXPLAINED", path, expected, "a file")
        elif not _is_explained(place, path, plan, since):
            yield _unexplained(plan, path, _kind_of(store.inspection, plan, path))


def _logged_since(
    store: StoreContents,
    logs: Sequence[AuditedLog],
    notes: Mapping[LogId, bytes | None],
    keys: Sequence[VerifierKey],
) -> set[str | tuple[str, str]]:
    """Return what was logged since the audit began: paths of artifacts, ids of advisories."""
    before = {log.log: (log.note, log.size) for log in logs}
    since: set[str | tuple[str, str]] = set()
    for log, note in notes.items():
        known, size = before.get(log, (None, 0))
        if note is None or known == note:
            continue
        try:
            checkpoint = open_checkpoint(note, keys, origin=log.origin(store.identity.store_id))
            entries = LogReader(StoredLog(store.logs, log), checkpoint, note).entries(size)
            for leaf in map(parse_leaf, entries):
                if leaf.path is not None:
                    since.add(leaf.path)
                elif leaf.advisory_id is not None:
                    since.add((str(leaf.run_id), leaf.advisory_id))
        except (EvidenceError, IntegrityError):
            continue  # The next audit reports what is wrong with it now.
    return since


def _is_explained(
    place: ArtifactPath | LinkPath | ArchivePath | None,
    path: str,
    plan: AuditPlan,
    since: Set[str | tuple[str, str]],
) -> bool:
    if not isinstance(place, LinkPath):
        return path in since
    run, advisory = ArtifactPath(place.date, place.run_id), (place.run_id, place.advisory_id)
    has_run = str(run) in since or plan.value(queries.DATE_OF_RUN, advisory[:1]) == place.date
    return has_run and (advisory in since or plan.value(queries.HAS_ADVISORY, advisory) is not None)


def _requests_of_runs(
    index: AuditedIndex, plan: AuditPlan, suspects: Sequence[str]
) -> set[str] | None:
    """Return which quarantined requests are those of runs; None without rows.

    Of any status: a row that differs from its artifact is found where the artifact is read.
    """
    if not plan.has_rows:
        return None
    places = [place for path in suspects if isinstance(place := parse_path(path), BlobPath)]
    if not places:
        return set()
    return index.requests_of_runs([place.sha256 for place in places])


def _kind_of(inspection: Inspection, plan: AuditPlan, path: str) -> str:
    """Return what is there, in a few words."""
    kind = inspection.kind_of(path)
    if kind != "a file" or parse_path(path) is None:
        return kind
    has_row = plan.value(queries.HAS_ROW_OF_PATH, (path,)) is not None
    return "a file, of which the index has a row" if has_row else kind


def _unexplained(plan: AuditPlan, path: str, found: str) -> Finding:
    place = parse_path(path)
    if isinstance(place, ArtifactPath | LinkPath):
        date = plan.value(queries.DATE_OF_RUN, (place.run_id,))
        if isinstance(place, LinkPath) and date is None:
            expected = f"a leaf of the run {place.run_id}"
            return Finding("LINK_WITHOUT_RUN", path, expected, "a link, and no such leaf")
        if isinstance(place, ArtifactPath) and date is not None:
            expected = f"the run {place.run_id} at {ArtifactPath(date, place.run_id)} alone"
            return Finding("RUN_ID_TWICE", path, expected, "another file of it")
    return Finding("FILE_UNEXPLAINED", path, "no file: no leaf tells of it", found)
