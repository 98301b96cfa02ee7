"""An older store compared with its migrated runs: `rmos migrate status` and `verify`.

What a row must have become is computed from the source anew, by the same mapping, and compared by
hash with the bytes on the disk: nothing that was copied once is taken for proof of itself. No
broker is asked, and nothing is repaired.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pipeline.core.layout import BlobArea, attachment_path, quarantine_path
from pipeline.core.progress import Progress
from pipeline.core.runs.outcome import StoredRun
from pipeline.core.store.files import NotAFileError, ReadableFiles
from pipeline.disk.contents import disk_contents
from pipeline.errors import IntegrityError
from pipeline.legacy.backup import backups_of, check_backup, named_sha256
from pipeline.legacy.mapping import UNREAD_LINK
from pipeline.legacy.source import (
    CarriedRow,
    OlderStore,
    OwnRow,
    ReadRow,
    RefusedRow,
    read_source,
)
from pipeline.storage.archives import Archives
from pipeline.storage.artifacts import sha256_of_file
from pipeline.storage.index.run_index import RunIndex, open_index_to_read
from pipeline.storage.store import open_store_to_read

_ROWS = 500


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference from the source.

    Attributes:
        run_id: The row; None for the source itself.
        code: SOURCE_CHANGED, BACKUP_CHANGED, MISSING, DIFFERENT, NOT_INDEXED, RUN_UNEXPLAINED, or
            why the row cannot be carried over.
        path: Of the file that is concerned, relative to the store.
        expected: The SHA-256 that must be there; None where the reason is enough.
        found: The one that is there; None for nothing.
        reason: Why a row cannot be carried over or its run is not shown, or what is wrong with a
            backup: a sentence.
    """

    run_id: str | None
    code: str
    path: str | None
    expected: str | None
    found: str | None
    reason: str | None = None


@dataclass(slots=True)
class MigrationStatus:
    """How much of a source is here.

    Attributes:
        backups: Those of a v1 file that are there, the newest first.
        runs: Of the whole store.
        states: How many rows are migrated, unexplained, missing, different and refused.
    """

    backups: list[Path]
    runs: int
    states: Counter[str]


def migration_status(
    source: OlderStore, root: Path, *, backup_dir: Path | None, progress: Progress
) -> MigrationStatus:
    """Count how many rows of `source` the index of the store at `root` has; no file is read.

    Raises:
        InputError: An attachment of the source cannot be read.
        StoreError: There is no store, or its index cannot be used.
    """
    with closing(open_store_to_read(root)) as store:
        backups = backups_of(source.path, backup_dir) if source.sha256 else []
        rows = _with_runs(source, store.index, progress)
        states = Counter(_state(row, run) for row, run in rows)
        return MigrationStatus(backups, store.index.count(), states)


def _state(row: ReadRow, run: StoredRun | None) -> str:
    if isinstance(row, RefusedRow):
        return "refused"
    if run is None:
        return "missing"
    if run.artifact_sha256 != row.artifact_sha256:
        return "different"
    return "unexplained" if run.source is None else "migrated"


def verify_migration(
    source: OlderStore, root: Path, *, backup_dir: Path | None, progress: Progress
) -> Iterator[Difference]:
    """Compare every row of `source` with the files and the index of the store at `root`.

    Raises:
        InputError: An attachment of the source cannot be read.
        StoreError: There is no store, or it cannot be read.
    """
    store = disk_contents(root)
    yield from _source_differences(source, backup_dir)
    archives = Archives(store)
    with closing(open_index_to_read(root)) as index:
        for row, run in _with_runs(source, index, progress):
            if isinstance(row, RefusedRow):
                yield Difference(row.run_id, row.code, None, None, None, row.message)
            else:
                yield from _row_differences(store.files, row, run, archives)
            for reason in row.unread if isinstance(row, CarriedRow) else ():
                yield Difference(row.run_id, UNREAD_LINK, None, None, None, reason)


def _source_differences(source: OlderStore, backup_dir: Path | None) -> Iterator[Difference]:
    """Compare the bytes of a v1 file with those that were migrated: its backups have their hash."""
    if source.sha256 is None:
        return
    named = named_sha256(source.path)
    backups = [] if named else backups_of(source.path, backup_dir)
    for backup in backups:
        try:
            check_backup(backup)
        except IntegrityError as error:
            yield Difference(None, "BACKUP_CHANGED", str(backup), None, None, str(error))
    known = [named] if named else [named_sha256(backup) for backup in backups]
    if known and source.sha256 not in known:
        yield Difference(
            None, "SOURCE_CHANGED", str(source.path), f"SHA-256 {known[0]}", source.sha256
        )


def _with_runs(
    source: OlderStore, index: RunIndex, progress: Progress
) -> Iterator[tuple[ReadRow, StoredRun | None]]:
    rows = read_source(source)
    done = 0
    while chunk := list(islice(rows, _ROWS)):
        known = index.find_all([row.run_id for row in chunk])
        for row in chunk:
            yield row, known.get(row.run_id)
            done += 1
            progress("rows compared", done, len(source.rows))


def _row_differences(
    kept: ReadableFiles, row: CarriedRow | OwnRow, run: StoredRun | None, archives: Archives
) -> Iterator[Difference]:
    expected = row.artifact_sha256
    if run is None or run.artifact_sha256 != expected:
        found = None if run is None else run.artifact_sha256
        yield Difference(row.run_id, "NOT_INDEXED", None, expected, found)
    elif run.source is None:
        reason = "no leaf and no record explains the file, so nobody is shown the run"
        path = run.artifact_path
        yield Difference(row.run_id, "RUN_UNEXPLAINED", path, expected, expected, reason)
    if isinstance(row, OwnRow):
        files = {} if run is None else {run.artifact_path: expected}
    else:
        files = _files_of(row)
    for path, sha256 in files.items():
        found = _sha256_of(kept, path)
        if found is None and run is not None and _is_archived(path, run, archives):
            continue
        if found != sha256:
            code = "MISSING" if found is None else "DIFFERENT"
            yield Difference(row.run_id, code, path, sha256, found)


def _is_archived(path: str, run: StoredRun, archives: Archives) -> bool:
    """Return whether what is missing went into a tar with the artifact of its run."""
    is_kept = path.startswith(BlobArea.QUARANTINE.value)
    return not is_kept and archives.is_archived(run.artifact_path, run.source)


def _files_of(row: CarriedRow) -> dict[str, str]:
    """Return every file that a row must have made, with its SHA-256."""
    judged = row.mapped.judged
    names = [*(blob.sha256 for blob in judged.built.blobs), *row.mapped.oversized]
    files = {judged.path: judged.artifact_sha256}
    files |= {attachment_path(name): name for name in names}
    if judged.built.request_in_quarantine is not None:
        name = judged.built.request_in_quarantine.sha256
        files[quarantine_path(name)] = name
    return files


def _sha256_of(kept: ReadableFiles, path: str) -> str | None:
    with kept.faults():
        try:
            return sha256_of_file(kept, path)
        except NotAFileError as error:
            return str(error)
