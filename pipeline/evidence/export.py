"""Exports runs as one ZIP: artifacts, links and attachments under the paths of the store.

1. The index gives the runs that fit, newest first, page by page.
2. The artifact of a run goes in if its bytes, and what it says, are those of the index.
3. So does each link whose bytes are those of the index.
4. So does each attachment that they name, once, if its bytes are those of its name and no verdict
   withholds it.
5. A line of runs.csv says what the run is, and what of it was left out, and why.
6. SHA256SUMS has the hash of every other member.

What is withheld, quarantined, archived or corrupt never goes in. Times, order and modes are fixed
and nothing is compressed: the same store and the same question give the same bytes. Contents go
through one at a time, attachments in pieces; memory grows by the directory of the ZIP alone.
"""

import csv
import io
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final
from zipfile import ZIP_STORED, ZipFile

from pipeline.core.advisories.outcome import StoredAdvisory
from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.layout import attachment_path
from pipeline.core.progress import Progress
from pipeline.core.runs.words import (
    COLUMNS,
    LeftOut,
    line_of_archived,
    line_of_corrupt,
    line_of_run,
)
from pipeline.core.visible_text import visible_json
from pipeline.disk.durable_files import FILE_MODE
from pipeline.disk.small_files import new_file
from pipeline.errors import ArchivedError, InputError, IntegrityError, NotFoundError, input_faults
from pipeline.evidence.bundle import member, write_blob, write_pieces
from pipeline.storage.artifacts import read_recorded, recorded_document
from pipeline.storage.attachments import PIECE_BYTES, OpenBlob
from pipeline.storage.checksums import sum_line
from pipeline.storage.program_verdict import refused_by
from pipeline.storage.reader import FoundRun, RunReader
from schemas.run_filter import LARGEST_LIMIT, RunFilter

_README: Final = """\
Runs of the store {store_id},
written by `rmos runs export` for the filter {wanted}.

runs.csv      a line for each run, newest first; a spreadsheet opens it
runs/         artifacts, and the links of advisories beside them
attachments/  what they name, by its SHA-256
SHA256SUMS    the hash of every other file: sha256sum -c SHA256SUMS

Files have the paths, names and bytes that they have in the store. An artifact is the record of
its run; runs.csv only explains. In a cell, an apostrophe stands before what a spreadsheet would
take for a formula. The column not_exported names what is not here: withheld by a verdict, missing
in the store, archived, or corrupt.

The sums show that these files are undamaged since the export, and prove nothing about the time
before. `rmos evidence RUN_ID` proves one run by the ledger, to a reader who trusts nobody.
"""


@dataclass(frozen=True, slots=True)
class CorruptFile:
    """A file that is not what was stored, so that it is not in the export.

    Attributes:
        run_id: The run that names it.
        reason: What was expected and what was found.
    """

    run_id: str
    reason: str


@dataclass(slots=True)
class ExportReport:
    """What an export has, and what it has not.

    Attributes:
        runs: Artifacts in it.
        links: Links of advisories in it.
        attachments: Attachments in it, each counted once.
        missing: Attachments that a run or a link names and the store has not, by name.
        withheld: Blobs that a run or a link names and a verdict withholds, by name.
        archived: Runs whose artifact is archived.
        corrupt: In the order of the runs.
    """

    runs: int = 0
    links: int = 0
    attachments: int = 0
    missing: int = 0
    withheld: int = 0
    archived: int = 0
    corrupt: list[CorruptFile] = field(default_factory=list)


def export_runs(
    path: Path, reader: RunReader, wanted: RunFilter, progress: Progress
) -> ExportReport:
    """Write the runs that fit to a new file at `path`, whole and durable or not at all.

    Args:
        path: Of the ZIP.
        reader: Of the store.
        wanted: Its limit and its cursor do not count.
        progress: Is called for each run.

    Raises:
        InputError: The file is there already or cannot be written.
        NotFoundError: No run fits.
        StoreError: The disk of the store failed.
    """
    if os.path.lexists(path):
        raise InputError(f"{path} is there already; name a new file.")
    items = _items(reader, wanted)
    first = next(items, None)
    if first is None:
        raise NotFoundError("RUN_NOT_FOUND: No run fits, so nothing was written.")
    with (
        input_faults(f"{path} cannot be written", "; name a new file"),
        new_file(path, FILE_MODE) as file,
        ZipFile(file, "w", ZIP_STORED) as bundle,
        TemporaryFile(dir=path.parent) as sums,
        TemporaryFile(dir=path.parent) as table,
    ):
        export = _Export(bundle, reader, sums, table)
        export.write_readme(wanted)
        for number, item in enumerate(chain([first], items), 1):
            export.write_run(item)
            progress("runs", number, None)
        export.end()
        return export.report


def _items(reader: RunReader, wanted: RunFilter) -> Iterator[dict[str, Any]]:
    cursor = None
    while True:
        page = reader.list_runs(
            wanted.model_copy(update={"limit": LARGEST_LIMIT, "cursor": cursor})
        )
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return


class _Export:
    """One export on its way into a ZIP."""

    def __init__(
        self, bundle: ZipFile, reader: RunReader, sums: IO[bytes], table: IO[bytes]
    ) -> None:
        # A ZIP takes one member at a time: sums and table grow beside it, and go in at the end.
        self.report = ExportReport()
        self._bundle = bundle
        self._reader = reader
        self._sums = sums
        self._table = table
        # A byte order mark, by which Excel knows UTF-8; csv ends lines with CRLF.
        self._text = io.TextIOWrapper(table, "utf-8-sig", newline="", write_through=True)
        self._lines = csv.writer(self._text, quoting=csv.QUOTE_ALL)
        self._lines.writerow(COLUMNS)

    def write_readme(self, wanted: RunFilter) -> None:
        asked = wanted.model_dump_json(exclude_none=True, exclude={"limit", "cursor"})
        store_id = self._reader.store.identity.store_id
        text = _README.format(store_id=store_id, wanted=visible_json(asked))
        self._write("README.txt", text.encode())

    def write_run(self, item: dict[str, Any]) -> None:
        """Write a run of the listing, and its line."""
        try:
            found = self._reader.find(item["run_id"])
            document = recorded_document(found.run, found.content)
        except ArchivedError as error:
            self.report.archived += 1
            self._lines.writerow(
                line_of_archived(item["run_id"], item["created_at_utc"], str(error))
            )
            return
        except IntegrityError as error:
            self.report.corrupt.append(CorruptFile(item["run_id"], str(error)))
            line = line_of_corrupt(item["run_id"], item["created_at_utc"], str(error))
            self._lines.writerow(line)
            return
        self._write(found.run.artifact_path, found.content)
        self.report.runs += 1
        withheld = document["provenance"].get("withheld", [])
        left_out = [LeftOut(name, "withheld") for name in withheld]
        left_out += self._parts(found, document)
        refusing = refused_by(self._reader, found.run)
        self._lines.writerow(line_of_run(found.run, document, left_out, refusing))

    def _parts(self, found: FoundRun, document: dict[str, Any]) -> Iterator[LeftOut]:
        """Write links and attachments of a run; yield what of them is left out."""
        listed = dict.fromkeys(ref["sha256"] for ref in document["attachments"])
        for digest in listed:
            # What one run withholds may be the program of another, which may be cut.
            yield from self._blob(found, document, digest, is_released=found.run.may_cut)
        for link in found.links:
            if (why := self._write_link(found, link)) is not None:
                yield why
                continue
            digest = link.claim.content_sha256
            if digest is not None and digest not in listed:
                yield from self._blob(found, document, digest, is_released=False)

    def _write_link(self, found: FoundRun, link: StoredAdvisory) -> LeftOut | None:
        path, sources = str(link.link_path), (found.run.source, link.source)
        try:
            content = read_recorded(self._reader.store, path, link.link_sha256, sources=sources)
        except ArchivedError:
            return LeftOut(path, "archived")
        except IntegrityError as error:
            self.report.corrupt.append(CorruptFile(found.run.run_id, str(error)))
            return LeftOut(path, "corrupt")
        self._write(path, content)
        self.report.links += 1
        return None

    def _blob(
        self, found: FoundRun, document: dict[str, Any], digest: str, *, is_released: bool
    ) -> Iterator[LeftOut]:
        """Write a blob, unless it is there; yield it where it is left out.

        Args:
            found: The run that names it, or whose link does.
            document: The artifact.
            digest: Its name.
            is_released: Whether it goes in even where a verdict of another run withholds it.
        """
        name = attachment_path(digest)
        if name in self._bundle.NameToInfo:
            return
        if not is_released and self._reader.is_withheld(document, digest):
            self.report.withheld += 1
            yield LeftOut(name, "withheld")
            return
        try:
            blob = self._reader.attachments.open(digest)
        except NotFoundError:
            self.report.missing += 1
            yield LeftOut(name, "missing")
            return
        with closing(blob):
            if not self._write_blob(found, name, blob):
                yield LeftOut(name, "corrupt")

    def _write_blob(self, found: FoundRun, name: str, blob: OpenBlob) -> bool:
        """Write a blob from the file that was checked; False where it is not what was stored."""
        with self._reader.store.faults():
            check = blob.check()
        if check.error is not None:
            self.report.corrupt.append(
                CorruptFile(
                    found.run.run_id,
                    f"ATTACHMENT_CORRUPT: Expected {name} to have the SHA-256 that is its name, "
                    f"found {check.actual_sha256}.",
                )
            )
            return False
        written = write_blob(self._bundle, name, blob)
        if written != check.actual_sha256:
            raise IntegrityError(
                f"The attachment {name} was changed while it was exported. Nothing was written."
            )
        self._keep_sum(written, name)
        self.report.attachments += 1
        return True

    def end(self) -> None:
        """Write the table and the sums."""
        self._text.detach()
        self._write_grown("runs.csv", self._table)
        self._write_grown("SHA256SUMS", self._sums)

    def _write(self, name: str, content: bytes) -> None:
        self._bundle.writestr(member(name), content)
        self._keep_sum(sha256_of_bytes(content), name)

    def _write_grown(self, name: str, grown: IO[bytes]) -> None:
        size_bytes = grown.seek(0, io.SEEK_END)
        grown.seek(0)
        pieces = iter(partial(grown.read, PIECE_BYTES), b"")
        self._keep_sum(write_pieces(self._bundle, name, size_bytes, pieces), name)

    def _keep_sum(self, digest: str, name: str) -> None:
        self._sums.write(f"{sum_line(digest, name)}\n".encode())
