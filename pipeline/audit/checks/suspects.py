"""Names that nothing explained when the audit began, looked up once more.

A store goes on while it is audited. Whoever holds the store's lock has no batch on its way, so
every file that was there before has its leaf by then, unless a process died in between.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pipeline.audit.checks.logs import AuditedLog, read_notes
from pipeline.audit.checks.names import explain
from pipeline.audit.plan import AuditPlan
from pipeline.audit.rules.finding import Finding
from pipeline.core.layout import ArtifactPath, BlobArea, BlobPath, LinkPath, parse_path
from pipeline.disk.locks import INDEX_LOCK, shared_lock
from pipeline.disk.regular_files import NotAFileError, state_of
from pipeline.errors import IntegrityError
from pipeline.ledger.folder import LogFolder
from pipeline.ledger.leaf import parse_leaf
from pipeline.ledger.log_id import LogId
from pipeline.ledger.reader import LogReader
from pipeline.ledger.tlog.checkpoints import open_checkpoint
from pipeline.ledger.tlog.errors import EvidenceError
from pipeline.ledger.tlog.notes import VerifierKey
from pipeline.storage.index.engine import read_only
from pipeline.storage.index.run_index import INDEX_FILE

_DATE: Final = "SELECT date FROM runs WHERE run_id = ?"
_ADVISORY: Final = "SELECT 1 FROM advisories WHERE run_id = ? AND advisory_id = ?"
_HAS_ROW: Final = "SELECT 1 FROM run_rows WHERE artifact_path = ?"
_OF_RUNS: Final = """SELECT DISTINCT request_sha256 FROM runs
    WHERE request_sha256 IN (SELECT value FROM json_each(?))"""


@dataclass(slots=True)
class _SinceThen:
    """What leaves tell that came after the audit began.

    Attributes:
        paths: Of artifacts.
        runs: run_id and date of their folder.
        advisories: run_id and advisory_id.
    """

    paths: set[str] = field(default_factory=set)
    runs: dict[str, str] = field(default_factory=dict)
    advisories: set[tuple[str, str]] = field(default_factory=set)


def still_unexplained(
    root: Path,
    plan: AuditPlan,
    logs: Sequence[AuditedLog],
    suspects: Sequence[str],
    *,
    store_id: str,
    keys: Sequence[VerifierKey],
) -> Iterator[Finding]:
    """Yield a finding for each of `suspects` that leaves and rows of by now explain no better."""
    with shared_lock(root / INDEX_LOCK):
        notes = read_notes(root)
    since = _leaves_since(root, logs, notes, store_id, keys)
    of_runs = _requests_of_runs(root, plan, suspects)
    for path in suspects:
        place = parse_path(path)
        if isinstance(place, BlobPath):
            if place.area is not BlobArea.QUARANTINE or of_runs is None or place.sha256 in of_runs:
                continue
            told = "no file: no run has this request"
            yield Finding("FILE_UNEXPLAINED", path, told, "a file")
        elif not _is_explained(place, path, plan, since):
            yield explain(plan, path, _kind_of(root, plan, path))


def _leaves_since(
    root: Path,
    logs: Sequence[AuditedLog],
    notes: dict[LogId, bytes | None],
    store_id: str,
    keys: Sequence[VerifierKey],
) -> _SinceThen:
    before = {log.log: log for log in logs}
    since = _SinceThen()
    for log, note in notes.items():
        known = before.get(log)
        if note is None or (known is not None and known.note == note):
            continue
        try:
            checkpoint = open_checkpoint(note, keys, origin=log.origin(store_id))
            reader = LogReader(LogFolder(root, log), checkpoint, note)
            _add(reader.entries(0 if known is None else known.size), since)
        except (EvidenceError, IntegrityError):
            continue  # What is wrong with it now the next audit tells.
    return since


def _add(entries: Iterable[bytes], since: _SinceThen) -> None:
    for entry in entries:
        leaf = parse_leaf(entry)
        if leaf.path is not None and leaf.run_id is not None:
            since.paths.add(leaf.path)
            since.runs[leaf.run_id] = leaf.path.split("/")[1]
        elif leaf.advisory_id is not None and leaf.run_id is not None:
            since.advisories.add((leaf.run_id, leaf.advisory_id))


def _is_explained(
    place: ArtifactPath | LinkPath | None, path: str, plan: AuditPlan, since: _SinceThen
) -> bool:
    if isinstance(place, LinkPath):
        date = since.runs.get(place.run_id) or plan.value(_DATE, (place.run_id,))
        advisory = (place.run_id, place.advisory_id)
        told = advisory in since.advisories or plan.value(_ADVISORY, advisory) is not None
        return told and date == place.date
    return path in since.paths


def _requests_of_runs(root: Path, plan: AuditPlan, suspects: Sequence[str]) -> set[str] | None:
    """Return which quarantined requests are those of runs; None where nobody can tell.

    Of any status: that a row has another than its artifact is told where the artifact is read.
    """
    if not plan.has_rows:
        return None
    places = [place for path in suspects if isinstance(place := parse_path(path), BlobPath)]
    if not places:
        return set()
    # One question for all: the index has no order by request.
    hashes = json.dumps([place.sha256 for place in places])
    try:
        index = read_only(root / INDEX_FILE)
        try:
            return {row[0] for row in index.execute(_OF_RUNS, (hashes,))}
        finally:
            index.close()
    except sqlite3.Error:
        return set()


def _kind_of(root: Path, plan: AuditPlan, path: str) -> str:
    """Return what is there, in a few words."""
    try:
        state_of(str(root / path))
    except NotAFileError as error:
        return str(error)
    if parse_path(path) is not None and plan.value(_HAS_ROW, (path,)) is not None:
        return "a file, of which the index has a row"
    return "a file"
