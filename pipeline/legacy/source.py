"""An older store to migrate from, row by row: the file of v1, or the folder of the original v2.

The original v2 code wrote one folder a date with a file a run, indented JSON, and a file beside
it for each advisory. A store that cannot be read as a whole is refused as a whole; a fault of one
row is reported for that row.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from pipeline.core.json.strict import InvalidJsonError, parse_object
from pipeline.core.store.identity import STORE_FILE
from pipeline.disk.regular_files import read_named
from pipeline.errors import InputError
from pipeline.legacy.attachments import blob_names
from pipeline.legacy.blobs import BlobState, LegacyBlobs
from pipeline.legacy.mapping import LegacyRowError, MappedRow, advisories_of, map_row
from pipeline.legacy.v1.row import RowMark, mark_of
from pipeline.legacy.v1.text import V1Row, read_rows
from pipeline.storage.artifacts import DOCUMENT_LIMIT_BYTES
from schemas.legacy_run import LegacyFormat

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_LINK_SEPARATOR = "_advisory_"
_TWICE_RUN = "run_"
_ATTACHMENTS = "run_attachments"


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row of an older store, not parsed yet.

    Attributes:
        run_id: The id that it is filed under.
        row: Its text in a v1 store; None in a folder.
        paths: In a folder its file, more of them where its run_id is there twice.
        links: In a folder the files of its advisories.
    """

    run_id: str
    row: V1Row | None = None
    paths: Sequence[Path] = ()
    links: Sequence[Path] = ()

    def value(self) -> dict[str, Any]:
        """Return the row.

        Raises:
            LegacyRowError: It is no object in strict JSON, or its run_id is there twice.
            InputError: Its file cannot be read.
        """
        if self.row is not None:
            try:
                return self.row.value()
            except InvalidJsonError as error:
                raise LegacyRowError("UNREADABLE", f"The row: {error}.") from error
        if len(self.paths) != 1:
            raise self._not_one_file()
        return _object_in(self.paths[0])

    def _not_one_file(self) -> LegacyRowError:
        dates = " and ".join(path.parent.name for path in self.paths)
        if dates:
            return LegacyRowError("TWICE", f"Expected one file of the run, found one in {dates}.")
        return LegacyRowError("NO_RUN", "Expected the file of the run beside its advisory.")

    def advisories(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Return what its files of advisories hold, and why the others cannot be read."""
        found: list[dict[str, Any]] = []
        unread: list[str] = []
        for path in self.links:
            try:
                found.append(_object_in(path))
            except LegacyRowError as error:
                unread.append(str(error))
        return found, unread


@dataclass(frozen=True, slots=True)
class OlderStore:
    """An older store.

    Attributes:
        path: Where it is.
        format: Which kind.
        rows: In the order of the file, or by date and name.
        blobs: Contents of its attachments.
        sha256: Of the file of a v1 store; None for a folder.
        unexpected: Files in a folder that are neither runs nor advisories.
    """

    path: Path
    format: LegacyFormat
    rows: Sequence[SourceRow]
    blobs: LegacyBlobs
    sha256: str | None = None
    unexpected: Sequence[Path] = field(default_factory=tuple)


def open_source(path: Path, attachments: Path | None) -> OlderStore:
    """Open the older store at `path`, a file or a folder.

    Args:
        path: The file of a v1 store, or the folder of dates.
        attachments: Folder of its attachments; None for the one that it used by default, if that
            is there.

    Raises:
        InputError: It cannot be read, or is no older store.
    """
    if path.is_dir():
        rows, unexpected = _rows_of_folder(path)
        blobs = LegacyBlobs(attachments or _first_folder(path.parents[:2]))
        return OlderStore(path, "original_v2", rows, blobs, unexpected=unexpected)
    found, sha256 = read_rows(path)
    # Looked for beside what the name leads to, as the program of v1 did.
    blobs = LegacyBlobs(attachments or _first_folder([path.resolve().parent]))
    rows = [SourceRow(_shown(row.run_id), row) for row in found]
    return OlderStore(path, "v1", rows, blobs, sha256)


def _first_folder(places: Iterable[Path]) -> Path | None:
    folders = (place / _ATTACHMENTS for place in places)
    return next((folder for folder in folders if folder.is_dir()), None)


def _rows_of_folder(root: Path) -> tuple[list[SourceRow], list[Path]]:
    for place in (root, root.parent):
        if (place / STORE_FILE).exists():
            raise InputError(
                f"{place} is a store of this program: there is nothing to migrate in it."
            )
    try:
        dates = sorted(entry for entry in root.iterdir() if _DATE.fullmatch(entry.name))
        files = [file for date in dates for file in sorted(date.iterdir())]
    except OSError as error:
        raise InputError(
            f"The folder {error.filename} cannot be read: {error.strerror or error}."
        ) from error
    if not dates:
        raise InputError(f"Expected {root} to have folders such as 2025-12-18, found none.")
    return _filed(files)


def _filed(files: Iterable[Path]) -> tuple[list[SourceRow], list[Path]]:
    runs: dict[str, list[Path]] = {}
    links: list[Path] = []
    unexpected: list[Path] = []
    for file in files:
        if file.suffix != ".json" or file.name.startswith((".", "_")):
            unexpected.append(file)
        elif _LINK_SEPARATOR in file.stem:
            links.append(file)
        else:
            runs.setdefault(file.stem, []).append(file)
    linked: dict[str, list[Path]] = {}
    for link in links:
        linked.setdefault(_run_of(link, runs), []).append(link)
    names = dict.fromkeys([*runs, *linked])
    rows = [
        SourceRow(_shown(name), paths=tuple(runs.get(name, ())), links=tuple(linked.get(name, ())))
        for name in names
    ]
    return rows, unexpected


def _shown(name: str) -> str:
    """Return a name as text that any file can hold: lone surrogates are in no run_id anyway."""
    return name.encode(errors="replace").decode()


def _run_of(link: Path, runs: Iterable[str]) -> str:
    name = link.stem.partition(_LINK_SEPARATOR)[0]
    # A later original version put `run_` before a run_id that begins so already.
    shorter = name.removeprefix(_TWICE_RUN)
    return shorter if name not in runs and shorter in runs else name


def _object_in(path: Path) -> dict[str, Any]:
    where = _shown(f"{path.parent.name}/{path.name}")
    try:
        return parse_object(read_named(path, DOCUMENT_LIMIT_BYTES))[0]
    except OSError as error:
        why = error.strerror or error
        raise LegacyRowError("UNREADABLE", f"{where} cannot be read: {why}.") from error
    except InvalidJsonError as error:
        raise LegacyRowError("UNREADABLE", f"{where}: {error}.") from error


@dataclass(frozen=True, slots=True)
class CarriedRow:
    """A row that can be carried over.

    Attributes:
        row: As it was parsed.
        mapped: The message that carries it, and what it makes.
        blobs: What was found of each content that it names.
        unread: Files of advisories beside it that cannot be read, and why: they stay behind.
    """

    run_id: str
    row: dict[str, Any]
    mapped: MappedRow
    blobs: dict[str, BlobState]
    unread: tuple[str, ...] = ()

    @property
    def artifact_sha256(self) -> str:
        """Of the artifact that the row makes."""
        return self.mapped.judged.artifact_sha256


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that cannot be carried over, and why."""

    run_id: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class OwnRow:
    """A row that this program has written: its run comes from the request topic, not from here."""

    run_id: str
    mark: RowMark

    @property
    def artifact_sha256(self) -> str:
        """Of the artifact of its run, from the mark."""
        return self.mark.artifact_sha256


ReadRow: TypeAlias = CarriedRow | RefusedRow | OwnRow


def read_source(source: OlderStore) -> Iterator[ReadRow]:
    """Yield every row of `source`, in its order.

    Raises:
        InputError: An attachment cannot be read.
    """
    for each in source.rows:
        try:
            yield _read(source, each)
        except LegacyRowError as error:
            yield RefusedRow(each.run_id, error.code, str(error))


def _read(source: OlderStore, each: SourceRow) -> CarriedRow | OwnRow:
    row = each.value()
    mark = mark_of(row)
    if mark is not None:
        return OwnRow(each.run_id, mark)
    links, unread = each.advisories()
    names = blob_names(row, advisories_of(row, links))
    looked_up = {name: source.blobs.find(name) for name in names}
    found = {name: blob for name, (_, blob) in looked_up.items() if blob is not None}
    mapped = map_row(each.run_id, row, origin=source.format, blobs=found, links=links)
    states = {name: state for name, (state, _) in looked_up.items()}
    return CarriedRow(each.run_id, row, mapped, states, tuple(unread))
