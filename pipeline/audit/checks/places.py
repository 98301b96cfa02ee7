"""Files and folders that the layout does not know, and modes that differ.

A ledger is looked at file by file too. A tile beyond the checkpoint is the next batch on its way,
or what a killed one left, and no part of the log; a superseded one should be gone, and does no
harm. Either is only named where it does not go with the leaves that the checkpoint covers.
"""

import re
import stat
from collections.abc import Iterator, Sequence
from typing import Final

from pipeline.audit.checks.leaves import tile_reader
from pipeline.audit.rules.finding import Finding, mode_finding
from pipeline.audit.steps import AuditReader, StepResult
from pipeline.core.layout import ARCHIVES_FOLDER, ArchivePath, parse_path
from pipeline.core.store.files import Inspection, ReadableFiles
from pipeline.core.store.identity import STORE_FILE
from pipeline.core.store.log_store import CHECKPOINT_FILE
from pipeline.disk.durable_files import FILE_MODE
from pipeline.errors import IntegrityError
from pipeline.ledger.log_id import LogId, parse_log_path
from pipeline.ledger.stored_log import StoredLog
from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.tiles import TILE_HEIGHT, TILE_WIDTH, Tile, cut_tile, parse_tile_path
from pipeline.storage.archives import read_record
from pipeline.storage.awaited_blobs import AWAITED_FOLDER, is_awaited_note

_FOLDERS: Final = {
    *("runs", "attachments", "quarantine", AWAITED_FOLDER, "ledger", "audits", ARCHIVES_FOLDER)
}
_AUDIT_FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.(json|ndjson)")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TILE_FOLDER: Final = re.compile(r"tile(/(entries|[0-9]{1,2})(/(x[0-9]{3}|[0-9]{3}\.p))*)?")


def folders_in(files: ReadableFiles, above: str, name: re.Pattern[str]) -> list[str]:
    """Return the folders in the folder `above` of the store that have such a name."""
    return [
        found
        for path, is_folder in files.names(above)
        if is_folder and name.fullmatch(found := path.rpartition("/")[2])
    ]


def dates_of_runs(files: ReadableFiles) -> list[str]:
    """Return the dates that have a folder of runs."""
    return folders_in(files, "runs", _DATE)


def unexplained_in(
    files: ReadableFiles, above: str, name: re.Pattern[str], expected: str
) -> Iterator[Finding]:
    """Yield what lies in the folder `above` of the store and is no folder of such a name."""
    for path, is_folder in files.names(above):
        is_expected = is_folder and name.fullmatch(path.rpartition("/")[2])
        if not is_expected and _is_there(files, path, is_folder=is_folder):
            found = "a folder" if is_folder else "a file"
            yield Finding("FILE_UNEXPLAINED", path, expected, found)


def _is_there(files: ReadableFiles, path: str, *, is_folder: bool) -> bool:
    """Return whether a name stands for anything: in a bucket a folder may be an empty object."""
    return not is_folder or files.has_folder(path)


def check_places(reader: AuditReader, logs: Sequence[tuple[LogId, int]]) -> StepResult:
    """Check what lies beside runs and blobs; `logs` have so many leaves each."""
    result = StepResult()
    if reader.context.extent.takes_rest:
        result.add(*unexplained_in(reader.store.files, "runs", _DATE, "a folder of a date"))
        result.add(*_unexpected_places(reader, dict(logs)))
    return result


def _is_known(path: str, *, is_folder: bool) -> bool:
    """Return whether the layout has an entry at `path`: in the store, in `audits`, of a record."""
    above, _, name = path.rpartition("/")
    if not above:
        return path in _FOLDERS if is_folder else path == STORE_FILE
    if above == ARCHIVES_FOLDER:
        return not is_folder and isinstance(parse_path(path), ArchivePath)
    is_file_of_ours = _AUDIT_FILE.fullmatch(name) if above == "audits" else is_awaited_note(path)
    return not is_folder and bool(is_file_of_ours)


def _unexpected_places(reader: AuditReader, sizes: dict[LogId, int]) -> Iterator[Finding]:
    files = reader.store.files
    for above in ("", "audits", ARCHIVES_FOLDER, AWAITED_FOLDER):
        for path, is_folder in files.names(above):
            is_own = reader.store.inspection.is_own(path, is_folder=is_folder)
            is_known = is_own or _is_known(path, is_folder=is_folder)
            if not is_known and _is_there(files, path, is_folder=is_folder):
                yield _unexpected(path, is_folder=is_folder)
    yield from _file_mode(reader.store.inspection, STORE_FILE)
    yield from _archive_records(reader)
    yield from _unexpected_in_ledger(reader, sizes)


def _archive_records(reader: AuditReader) -> Iterator[Finding]:
    for path, _ in reader.store.files.names(ARCHIVES_FOLDER):
        if isinstance(place := parse_path(path), ArchivePath):
            yield from _file_mode(reader.store.inspection, path)
            try:
                read_record(reader.store, place.date)
            except IntegrityError as error:
                yield Finding("FILE_UNREADABLE", path, "the record of an archived date", str(error))


def _unexpected(path: str, *, is_folder: bool) -> Finding:
    found = "a folder" if is_folder else "a file"
    return Finding("STRANGE_FILE", path, "nothing: a store has no such name", found)


def _unexpected_in_ledger(reader: AuditReader, sizes: dict[LogId, int]) -> Iterator[Finding]:
    for epoch, is_folder in reader.store.files.names("ledger"):
        if not is_folder:
            yield _unexpected(epoch, is_folder=False)
        for path, is_log in reader.store.files.names(epoch) if is_folder else ():
            log = _log_at(path) if is_log else None
            if log is None and _is_there(reader.store.files, path, is_folder=is_log):
                yield _unexpected(path, is_folder=is_log)
            elif log is not None and log in sizes:
                # One that is new since the audit began is for the next.
                yield from _LogPlaces(reader, log, sizes[log]).unexpected()


def _log_at(path: str) -> LogId | None:
    try:
        return parse_log_path(path)
    except EvidenceError:
        return None


def _file_mode(inspection: Inspection, path: str) -> list[Finding]:
    try:
        mode = inspection.mode(path)
    except FileNotFoundError:
        return []  # A log that grows has replaced it.
    if mode is not None and not stat.S_ISREG(mode):
        return [_unexpected(path, is_folder=False)]
    return mode_finding(path, mode, FILE_MODE)


class _LogPlaces:
    """The files of one log of so many leaves."""

    def __init__(self, reader: AuditReader, log: LogId, size: int) -> None:
        self._inspection = reader.store.inspection
        self._files = reader.store.files
        self._path = log.path
        self._size = size
        self._read = tile_reader(StoredLog(reader.store.logs, log))

    def unexpected(self, folder: str = "") -> Iterator[Finding]:
        """Yield what is unexpected in a folder of the log and below."""
        for path, is_folder in self._files.names(f"{self._path}/{folder}".rstrip("/")):
            name = path.removeprefix(f"{self._path}/")
            if is_folder and _TILE_FOLDER.fullmatch(name):
                yield from self.unexpected(name)
            elif is_folder:
                if _is_there(self._files, path, is_folder=True):
                    yield _unexpected(path, is_folder=True)
            elif name == CHECKPOINT_FILE:
                yield from _file_mode(self._inspection, path)
            elif not self._inspection.is_own(path, is_folder=False):
                yield from self._check_tile(path, name)

    def _check_tile(self, path: str, name: str) -> Iterator[Finding]:
        try:
            tile = parse_tile_path(name)
        except EvidenceError:
            yield _unexpected(path, is_folder=False)
            return
        yield from _file_mode(self._inspection, path)
        covered = self._covered(tile)
        if covered is not None and covered != tile and self._differs(tile, covered):
            expected = f"no such file, or one that goes with the {self._size:,} leaves of the log"
            yield Finding("STRANGE_FILE", path, expected, "other bytes")

    def _covered(self, tile: Tile) -> Tile | None:
        """Return the form of `tile` that the log has; None where it has none."""
        count = self._size >> TILE_HEIGHT * max(tile.level, 0)
        width = min(TILE_WIDTH, count - tile.index * TILE_WIDTH)
        return Tile(tile.level, tile.index, width) if width > 0 else None

    def _differs(self, tile: Tile, covered: Tile) -> bool:
        """Return whether a narrower or wider form begins otherwise than the one that is covered."""
        narrow, wide = sorted((tile, covered))
        try:
            return cut_tile(narrow, wide, self._read(wide)) != self._read(narrow)
        except EvidenceError:
            # Of no form, unless it is gone by now: a log that grows has replaced it.
            path = f"{self._path}/{tile}"
            return path in self._files.readable([path])
