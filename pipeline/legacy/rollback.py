"""The way back to a v1 store, which deletes nothing: `rmos migrate rollback`.

Procedure, with the same numbers in `roll_back`:

1. Refuse while a persist worker of either store runs: what it stored later would not be there.
   Only the broker knows, unless the caller has seen to it.
2. Check the backup against the hash in its name.
3. Take the lock of the v1 file. What it holds now is kept beside it under its own hash.
4. Gather the rows: those of the backup, those that the v1 store got since, and a row for every
   run of this store that is in neither.
5. Replace the file, at once; read it again.

Killed before 5. it has changed nothing; after, it is done. Again, it gives the same file.

A run becomes a row by its artifact and its linked advisories. One that came from an older store
gets its old values back from `meta.v1`, those under names that v1 has.
"""

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pipeline.broker.admin.groups import refuse_running_workers
from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.json.strict import InvalidJsonError
from pipeline.core.progress import Progress
from pipeline.disk.faults import store_faults
from pipeline.errors import BrokerError, InputError, IntegrityError, NotFoundError, RefusedError
from pipeline.legacy.backup import backups_of, check_backup, keep_replaced
from pipeline.legacy.v1.file import V1Store
from pipeline.legacy.v1.row import RowMark, marked, v1_row
from pipeline.legacy.v1.text import format_row, format_rows, parse_rows, read_rows
from pipeline.settings import Settings
from pipeline.storage.reader import open_reader

_ADVISORY_FIELDS = (
    *("advisory_id", "kind", "created_at_utc", "request_id", "engine_id", "engine_version"),
)
_OURS: Final = frozenset({"format", "row_sha256"})


def exported_row(
    artifact: Mapping[str, Any], advisories: Iterable[Mapping[str, Any]], artifact_sha256: str
) -> dict[str, Any]:
    """Return the row of a run, with the mark that this program wrote it.

    Args:
        artifact: The run.
        advisories: All of the run, as they are shown.
        artifact_sha256: Of the artifact's bytes.
    """
    row = _with_old_values(v1_row(artifact), artifact["meta"])
    row["advisory_inputs"] = [_advisory(each) for each in advisories] or None
    return marked(row, RowMark(artifact["provenance"]["request_sha256"], artifact_sha256))


def _with_old_values(row: dict[str, Any], meta: Mapping[str, Any]) -> dict[str, Any]:
    old = meta.get("v1")
    if not isinstance(old, dict) or not old.keys() >= _OURS:
        return row
    given_back = {name: value for name, value in old.items() if name in row and name != "meta"}
    rest = {
        name: value for name, value in old.items() if name not in given_back and name not in _OURS
    }
    own = {name: value for name, value in meta.items() if name != "v1"}
    return {**row, **given_back, "meta": {**own, **({"v1": rest} if rest else {})}}


def _advisory(shown: Mapping[str, Any]) -> dict[str, Any]:
    # The program of v1 fails over a field that it does not know.
    known = {name: shown.get(name) for name in _ADVISORY_FIELDS}
    return {
        **known,
        "kind": known["kind"] or "unknown",
        "created_at_utc": known["created_at_utc"] or "",
    }


@dataclass(slots=True)
class RollbackReport:
    """What the v1 file holds now.

    Attributes:
        path: The file.
        backup: What it was restored from; None where it was made from this store alone.
        replaced: Where its bytes of before are; None where there was no file, or the same bytes.
        from_backup: Rows of the backup.
        from_file: Rows that the file had and the backup had not.
        file_fault: Why the file's own rows could not be read; None where they were read.
        exported: Runs of this store that are in neither.
        failed: Runs whose file is missing or has other bytes: they could not be exported.
    """

    path: Path
    backup: Path | None
    replaced: Path | None = None
    from_backup: int = 0
    from_file: int = 0
    file_fault: str | None = None
    exported: int = 0
    failed: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """All rows of the file."""
        return self.from_backup + self.from_file + self.exported


async def roll_back(
    settings: Settings,
    path: Path,
    *,
    backup: Path | None,
    backup_dir: Path | None,
    progress: Progress,
    without_backup: bool = False,
    without_broker: bool = False,
) -> RollbackReport:
    """Restore the v1 file at `path`, with the runs made since in it.

    Args:
        settings: Which broker and store.
        path: The v1 file.
        backup: What it is restored from; None for its newest backup.
        backup_dir: Where backups are; None for beside the file.
        progress: Called with how far it is.
        without_backup: Make the file from this store alone, and the rows that it has.
        without_broker: Do not ask the broker whether a worker runs; the caller has stopped them.

    Raises:
        RefusedError: A worker runs.
        NotFoundError: There is no backup.
        IntegrityError: The backup has another hash than its name. Nothing was changed.
        InputError: The backup is no v1 store.
        StoreError: The disk failed; the file is the old one or the new one.
        BrokerError: The broker cannot be asked who runs.
    """
    if not without_broker:
        await _refuse_workers(settings)  # 1.
    chosen = None if without_backup else backup or _newest(path, backup_dir)
    content = _content(chosen)  # 2.
    report = RollbackReport(path, chosen)
    with V1Store(path).locked() as replace:  # 3.
        report.replaced = keep_replaced(path, sha256_of_bytes(content))
        texts = _rows_in(content, chosen)  # 4.
        report.from_backup = len(texts)
        _add_newer(path, texts, report)
        _export(settings.data_dir, texts, report, progress)
        is_whole = report.rows == report.from_backup
        replace(content if is_whole else format_rows(texts))  # 5.
    _check(path, report)
    return report


def _content(backup: Path | None) -> bytes:
    if backup is None:
        return format_rows({})
    check_backup(backup)
    with store_faults(backup):
        return backup.read_bytes()


def _rows_in(content: bytes, backup: Path | None) -> dict[str, str]:
    try:
        return {row.run_id: row.text for row in parse_rows(content)}
    except InvalidJsonError as error:
        raise InputError(f"The backup {backup} is no v1 store: {error}.") from error


async def _refuse_workers(settings: Settings) -> None:
    groups = (settings.topics.persist_group, settings.topics.persist_v1_group)
    reason = "what they store now would not be in the v1 store"
    try:
        await refuse_running_workers(settings, reason, groups, RefusedError)
    except BrokerError as error:
        raise BrokerError(
            f"{error} Nothing was changed. Only the broker knows whether a worker runs: "
            "where it is gone, stop every worker yourself and give --without-broker."
        ) from error


def _newest(path: Path, backup_dir: Path | None) -> Path:
    backups = backups_of(path, backup_dir)
    if not backups:
        raise NotFoundError(
            f"There is no backup of {path} in {backup_dir or path.parent}: name one with "
            "--backup, or make the file from this store with --without-backup."
        )
    return backups[0]


def _add_newer(path: Path, texts: dict[str, str], report: RollbackReport) -> None:
    """Add the rows that the file has and the backup has not; none where it cannot be read."""
    try:
        newer = {row.run_id: row.text for row in read_rows(path)[0] if row.run_id not in texts}
    except InputError as error:
        report.file_fault = str(error) if path.exists() else None
        return
    texts.update(newer)
    report.from_file = len(newer)


def _export(root: Path, texts: dict[str, str], report: RollbackReport, progress: Progress) -> None:
    with closing(open_reader(root)) as reader:
        run_ids = reader.run_ids()
        for count, run_id in enumerate(run_ids, start=1):
            progress("runs looked at", count, len(run_ids))
            if run_id in texts:
                continue
            try:
                found = reader.find(run_id)
            except IntegrityError:
                report.failed.append(run_id)
                continue
            view = found.view()
            row = exported_row(found.document(), view["advisory_inputs"], found.run.artifact_sha256)
            texts[run_id] = format_row(row)
            report.exported += 1


def _check(path: Path, report: RollbackReport) -> None:
    found = len(read_rows(path)[0])
    if found != report.rows:
        raise IntegrityError(f"Expected {report.rows:,} rows in {path}, found {found:,}.")
