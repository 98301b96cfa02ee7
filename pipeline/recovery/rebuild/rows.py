"""Rows of a new index, as far as the disk alone tells: files, and the leaves that explain them."""

from pathlib import Path

from pipeline.core.advisories.outcome import StoredAdvisory
from pipeline.core.advisories.verdict import JudgedAdvisory
from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.progress import Progress
from pipeline.core.record import Partition, RecordId, RecordSource
from pipeline.core.runs.verdict import JudgedRun
from pipeline.disk.faults import store_faults
from pipeline.disk.regular_files import NotAFileError, read_below
from pipeline.errors import IntegrityError
from pipeline.ledger.folder import ledger_faults
from pipeline.ledger.leaf import LedgerLeaf, parse_leaf
from pipeline.ledger.reader import StoreLogs
from pipeline.recovery.rebuild.advisories import RebuiltAdvisories
from pipeline.recovery.rebuild.runs import RebuiltRuns
from pipeline.recovery.replay.history import Verdict
from pipeline.storage.artifacts import (
    DOCUMENT_LIMIT_BYTES,
    FoundArtifact,
    UnexpectedFile,
    find_run_files,
)


class RebuiltRows:
    """Rows of runs and advisories on their way into a new index.

    Attributes:
        runs: Of runs.
        advisories: Of advisories.
        unexpected: Files below `runs` that are no artifact and no link of their place.
    """

    def __init__(self, root: Path) -> None:
        """Begin with none; `root` is the store."""
        self._root = root
        self.runs = RebuiltRuns(self._hash_at)
        self.advisories = RebuiltAdvisories()
        self.unexpected: list[UnexpectedFile] = []

    def take_files(self, progress: Progress) -> None:
        """Take the row of every artifact and link.

        Raises:
            StoreError: The disk failed.
        """
        for count, found in enumerate(find_run_files(self._root), start=1):
            progress("files", count, None)
            if isinstance(found, StoredAdvisory):
                self._note(self.advisories.add_link(found))
            elif isinstance(found, FoundArtifact):
                self._note(self.runs.add_file(found))
            else:
                self._note(found)
                self.advisories.add_unexpected(found.path, self._hash_at(found.path))

    def take_leaves(self, logs: StoreLogs, progress: Progress) -> dict[int, dict[Partition, int]]:
        """Let the leaves explain the files; return the next offset of each log, by epoch.

        Raises:
            IntegrityError: A log is not what was written.
            StoreError: The disk failed.
        """
        positions: dict[int, dict[Partition, int]] = {}
        count = 0
        for reader in logs.open_all():
            log = reader.log
            for entry in reader.entries():
                with ledger_faults(log):
                    leaf = parse_leaf(entry)
                record = RecordId(log.topic, log.partition, leaf.offset)
                source = RecordSource(log.epoch, record)
                if leaf.kind == "run":
                    self._note(self.runs.take_leaf(source, leaf))
                elif leaf.kind == "advisory":
                    self.advisories.take_leaf(source, leaf)
                count += 1
                progress("leaves", count, None)
            positions.setdefault(log.epoch, {})[log.topic, log.partition] = reader.next_offset
        return positions

    def take_record(self, source: RecordSource, verdict: Verdict) -> None:
        """Let the record of a wanted leaf complete its row."""
        if isinstance(verdict, JudgedRun):
            self.runs.take_record(source, verdict)
        elif isinstance(verdict, JudgedAdvisory):
            self.advisories.take_record(source, verdict)

    def explain(self, source: RecordSource, verdict: Verdict, *, is_consumed: bool) -> None:
        """Let a record explain the file that it made, unless an earlier record has.

        Args:
            source: The record.
            verdict: What it is.
            is_consumed: Whether its group has passed it: then it has a row, file or no file.
        """
        if isinstance(verdict, JudgedRun):
            self.runs.explain(source, verdict, is_consumed=is_consumed)
        elif isinstance(verdict, JudgedAdvisory):
            self.advisories.explain(source, verdict, is_consumed=is_consumed)

    def refuse_differing(self) -> None:
        """Refuse files that are not what their leaf says.

        Raises:
            IntegrityError: There are some.
        """
        differing = [*self.runs.differing, *self.advisories.differing]
        if differing:
            others = f"; and {len(differing) - 1} more" if len(differing) > 1 else ""
            raise IntegrityError(
                f"Nothing was replaced: {differing[0]}{others}; put back a copy of it, or move it "
                "away and run rmos replay restore."
            )

    @property
    def wanted(self) -> list[tuple[RecordSource, LedgerLeaf]]:
        """Leaves without a file, of which only the record tells the rest of the row."""
        return [*self.runs.wanted.values(), *self.advisories.wanted.values()]

    @property
    def has_unexplained(self) -> bool:
        """Whether there are files that no leaf explains."""
        return bool(self.runs.without_record()) or any(self.advisories.without_record())

    def _note(self, unexpected: UnexpectedFile | None) -> None:
        if unexpected is not None:
            self.unexpected.append(unexpected)

    def _hash_at(self, path: str) -> str | None:
        with store_faults(self._root):
            try:
                return sha256_of_bytes(read_below(self._root, path, DOCUMENT_LIMIT_BYTES))
            except (FileNotFoundError, NotADirectoryError):
                return None
            except NotAFileError as error:
                return str(error)
