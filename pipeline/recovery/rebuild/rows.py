"""The rows of a new index, rebuilt from files, leaves and the request topics.

The files say which runs and links there are. The leaf of the record that made a run or claimed an
advisory says from which offset it came and which bytes its file has; a file with others is a fault
that no row may hide. Where there is no ledger, the records of the topics say which of them made
each file.

A claim that no link shows waits: its run had not come, or its link is lost; nothing shows
which. Either way the advise worker makes the link once the run is there, with the bytes that it had
or would have had.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from msgspec import structs

from pipeline.core.advisories.outcome import StoredAdvisory, stored_advisory
from pipeline.core.advisories.verdict import JudgedAdvisory
from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.layout import LinkPath, parse_path
from pipeline.core.progress import Progress
from pipeline.core.record import Partition, RecordId, RecordSource
from pipeline.core.runs.outcome import StoredRun, stored_run
from pipeline.core.runs.verdict import JudgedRun
from pipeline.core.store.files import NotAFileError, ReadableFiles
from pipeline.errors import IntegrityError
from pipeline.ledger.leaf import LedgerLeaf
from pipeline.ledger.reader import StoreLogs
from pipeline.recovery.replay.history import Verdict
from pipeline.storage.artifacts import (
    DOCUMENT_LIMIT_BYTES,
    FoundArtifact,
    UnexpectedFile,
    find_run_files,
)
from pipeline.storage.index.tables import IndexedRun, indexed_run, with_source


@dataclass(slots=True)
class RebuiltRun:
    """A run of the new index.

    Attributes:
        file_sha256: Of the file that is on disk; None where there is none.
        is_archived: Whether the file is archived.
    """

    run: StoredRun
    indexed: IndexedRun
    file_sha256: str | None
    is_archived: bool = False

    @property
    def has_file(self) -> bool:
        """Whether the file is what the record made."""
        return self.file_sha256 == self.run.artifact_sha256


@dataclass(slots=True)
class RebuiltRuns:
    """Rows on their way into a new index.

    Attributes:
        hash_at: Gives the SHA-256 of the file at a path, whatever it is; None where there is none.
        unexpected: Gets the files of a run beside its own.
        rows: By run_id.
        wanted: By run_id the record and the leaf of a run whose file is missing: only that record
            has the rest of its row.
        differing: Sentences about files that differ from their leaf.
    """

    hash_at: Callable[[str], str | None]
    unexpected: list[UnexpectedFile]
    rows: dict[str, RebuiltRun] = field(default_factory=dict)
    wanted: dict[str, tuple[RecordSource, LedgerLeaf]] = field(default_factory=dict)
    differing: list[str] = field(default_factory=list)

    def add_file(self, found: FoundArtifact) -> None:
        """Take the row of an artifact; of two files of one run the first counts."""
        row = RebuiltRun(found.run, found.indexed, found.run.artifact_sha256)
        known = self.rows.setdefault(found.run.run_id, row)
        if known is not row:
            reason = f"expected one file of a run, found another at {known.run.artifact_path}"
            self.unexpected.append(UnexpectedFile(found.run.artifact_path, reason))

    def take_leaf(self, source: RecordSource, leaf: LedgerLeaf) -> None:
        """Let the leaf of the record that made a run explain it, unless an earlier one has."""
        run_id, path, sha256 = leaf.run_id, leaf.path, leaf.sha256
        assert run_id is not None, "the leaf of a run names it, its file and its hash"
        assert path is not None
        assert sha256 is not None
        known = self.rows.get(run_id)
        if run_id in self.wanted or (known is not None and known.run.source is not None):
            return
        if known is not None and (known.run.artifact_path, known.file_sha256) == (path, sha256):
            run = structs.replace(known.run, source=source)
            self.rows[run_id] = RebuiltRun(run, with_source(known.indexed, source), sha256)
            return
        found = self.hash_at(path)
        if found not in {None, sha256}:
            self.differing.append(_differs(path, sha256, source, found))
        self.wanted[run_id] = source, leaf
        if known is not None and self.rows.pop(run_id).run.artifact_path != path:
            reason = f"expected the artifact of {run_id} at {path}"
            self.unexpected.append(UnexpectedFile(known.run.artifact_path, reason))

    def take_record(self, source: RecordSource, judged: JudgedRun) -> None:
        """Make the row of a wanted leaf from its record.

        The row is as if the file were right, so that the loss is found and not papered over.
        """
        wanted_source, leaf = self.wanted.get(judged.run_id, (None, None))
        if leaf is None or wanted_source != source:
            return
        assert leaf.path is not None, "the leaf of a run names its file"
        assert leaf.sha256 is not None
        assert leaf.size_bytes is not None
        run = structs.replace(
            stored_run(judged, source),
            artifact_path=leaf.path,
            artifact_sha256=leaf.sha256,
            size_bytes=leaf.size_bytes,
        )
        self.rows[run.run_id] = RebuiltRun(run, _indexed(judged, run), self.hash_at(leaf.path))
        del self.wanted[run.run_id]

    def explain(self, source: RecordSource, judged: JudgedRun, *, is_consumed: bool) -> None:
        """Let a record explain its run, unless an earlier record has.

        Of two topics, whose records have no order, the one whose record made the file explains it.
        """
        known = self.rows.get(judged.run_id)
        explained_by = known.run.source if known is not None else None
        run = stored_run(judged, source)
        file_sha256 = known.file_sha256 if known is not None else None
        row = RebuiltRun(run, _indexed(judged, run), file_sha256)
        if explained_by is not None:
            is_better = row.has_file and explained_by.id.topic != source.id.topic
            if (known is not None and known.has_file) or not is_better:
                return
        if row.has_file or is_consumed:
            self.rows[run.run_id] = row

    def without_record(self) -> list[str]:
        """Return the runs whose file nothing explains."""
        return [run_id for run_id, row in sorted(self.rows.items()) if row.run.source is None]

    def without_file(self) -> list[str]:
        """Return the runs that a record made and whose file is not what it made."""
        return [
            run_id
            for run_id, row in sorted(self.rows.items())
            if row.run.source is not None and not row.has_file and not row.is_archived
        ]

    def paths(self) -> dict[str, str]:
        """Return the paths of the artifacts by run_id."""
        return {run_id: row.run.artifact_path for run_id, row in self.rows.items()}


def _indexed(judged: JudgedRun, run: StoredRun) -> IndexedRun:
    return indexed_run(judged.built.index_fields, run, judged.built.withheld_payloads)


def _differs(path: str, expected: str | None, source: RecordSource, found: str | None) -> str:
    """Return the sentence about a file that differs from its leaf."""
    return (
        f"expected {path} to have SHA-256 {expected}, as the leaf of offset {source.id.offset} of "
        f"{source.id.topic}, partition {source.id.partition} says, found {found}"
    )


_Key = tuple[str, str]


@dataclass(slots=True)
class RebuiltAdvisories:
    """Rows on their way into a new index.

    Attributes:
        unexpected: Gets the links of an advisory beside its own.
        rows: By run_id and advisory_id.
        changed: Those whose link file is not what their first request makes.
        wanted: By run_id and advisory_id the record and the leaf of a claim without its link:
            only that record has the rest of its row.
        differing: Sentences about links that differ from their leaf.
        no_links: Path and SHA-256 of what is in the place of a link and is none.
    """

    unexpected: list[UnexpectedFile]
    rows: dict[_Key, StoredAdvisory] = field(default_factory=dict)
    changed: list[_Key] = field(default_factory=list)
    wanted: dict[_Key, tuple[RecordSource, LedgerLeaf]] = field(default_factory=dict)
    differing: list[str] = field(default_factory=list)
    no_links: dict[_Key, tuple[str, str | None]] = field(default_factory=dict)

    def add_link(self, advisory: StoredAdvisory) -> None:
        """Take the row of a link file; of two links of one advisory the first counts."""
        known = self.rows.setdefault(advisory.key, advisory)
        if known is not advisory:
            assert advisory.link_path is not None, "a link that was found has a path"
            reason = f"expected one link of an advisory, found another at {known.link_path}"
            self.unexpected.append(UnexpectedFile(advisory.link_path, reason))

    def add_no_link(self, path: str, sha256: str | None) -> None:
        """Take a file that is no link: where it has the place of one, a leaf may name it."""
        place = parse_path(path)
        if isinstance(place, LinkPath):
            self.no_links[place.run_id, place.advisory_id] = path, sha256

    def take_leaf(self, source: RecordSource, leaf: LedgerLeaf) -> None:
        """Let the leaf of the record that claimed an advisory explain it, unless one has before."""
        assert leaf.run_id is not None, "the leaf of an advisory names it and its run"
        assert leaf.advisory_id is not None
        key = leaf.run_id, leaf.advisory_id
        known = self.rows.get(key)
        if key in self.wanted or (known is not None and known.source is not None):
            return
        if known is not None and known.link_sha256 == leaf.link_sha256:
            self.rows[key] = replace(known, source=source)
            return
        path, found = self.no_links.get(key, (None, None))
        if known is not None:
            path, found = known.link_path, known.link_sha256
        if path is not None:
            self.differing.append(_differs(path, leaf.link_sha256, source, found))
        self.wanted[key] = source, leaf

    def take_record(self, source: RecordSource, judged: JudgedAdvisory) -> None:
        """Make the row of a wanted leaf from its record."""
        wanted_source, leaf = self.wanted.get(judged.key, (None, None))
        if leaf is None or wanted_source != source:
            return
        assert leaf.link_sha256 is not None, "the leaf of an advisory has the hash of its link"
        row = stored_advisory(judged, source, None)
        self.rows[judged.key] = replace(row, link_sha256=leaf.link_sha256)
        del self.wanted[judged.key]

    def explain(self, source: RecordSource, judged: JudgedAdvisory, *, is_consumed: bool) -> None:
        """Let a record explain its advisory, unless an earlier record has."""
        known = self.rows.get(judged.key)
        if known is not None and known.source is not None:
            return
        if known is not None and known.link_sha256 == judged.link_sha256:
            self.rows[judged.key] = replace(known, source=source)
        elif is_consumed:
            # As if the link were right, so that the difference is found and not papered over.
            link_path = known.link_path if known is not None else None
            self.rows[judged.key] = stored_advisory(judged, source, link_path)
            if known is not None:
                self.changed.append(judged.key)

    def without_record(self) -> Iterator[_Key]:
        """Give the advisories whose link no record of the topic explains."""
        return (key for key, row in sorted(self.rows.items()) if row.source is None)

    def to_be_linked(self, artifact_paths: Mapping[str, str]) -> Iterator[_Key]:
        """Give the claims whose run is there: the advise worker links them.

        Args:
            artifact_paths: Of the runs, by run_id.
        """
        waiting = (key for key, row in sorted(self.rows.items()) if row.link_path is None)
        return (key for key in waiting if key[0] in artifact_paths)

    def misplaced(self, artifact_paths: Mapping[str, str]) -> Iterator[UnexpectedFile]:
        """Give the links that lie in another folder than their run, or have none.

        Args:
            artifact_paths: Of the runs, by run_id.
        """
        for row in self.rows.values():
            path = artifact_paths.get(row.run_id)
            if row.link_path is None:
                continue
            if path is None:
                yield UnexpectedFile(row.link_path, f"expected its run {row.run_id}, found none")
            elif PurePosixPath(path).parent != PurePosixPath(row.link_path).parent:
                yield UnexpectedFile(row.link_path, f"expected the link beside {path}")


class RebuiltRows:
    """Rows of runs and advisories on their way into a new index.

    Attributes:
        runs: Of runs.
        advisories: Of advisories.
        unexpected: Files below `runs` that are no artifact and no link of their place.
    """

    def __init__(self, files: ReadableFiles) -> None:
        """Begin with none; `files` are those of the store."""
        self._files = files
        self.unexpected: list[UnexpectedFile] = []
        self.runs = RebuiltRuns(self._hash_at, self.unexpected)
        self.advisories = RebuiltAdvisories(self.unexpected)

    def take_files(self, progress: Progress) -> None:
        """Take the row of every artifact and link.

        Raises:
            StoreError: The disk failed.
        """
        for count, found in enumerate(find_run_files(self._files), start=1):
            progress("files", count, None)
            if isinstance(found, StoredAdvisory):
                self.advisories.add_link(found)
            elif isinstance(found, FoundArtifact):
                self.runs.add_file(found)
            else:
                self.unexpected.append(found)
                self.advisories.add_no_link(found.path, self._hash_at(found.path))

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
            for leaf in reader.leaves():
                record = RecordId(log.topic, log.partition, leaf.offset)
                source = RecordSource(log.epoch, record)
                if leaf.kind == "run":
                    self.runs.take_leaf(source, leaf)
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
            verdict: Its verdict.
            is_consumed: Whether its group has passed it: then it has a row, file or no file.
        """
        if isinstance(verdict, JudgedRun):
            self.runs.explain(source, verdict, is_consumed=is_consumed)
        elif isinstance(verdict, JudgedAdvisory):
            self.advisories.explain(source, verdict, is_consumed=is_consumed)

    def refuse_differing(self) -> None:
        """Refuse files that differ from their leaf.

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
        """Leaves without a file: only the record has the rest of the row."""
        return [*self.runs.wanted.values(), *self.advisories.wanted.values()]

    @property
    def has_unexplained(self) -> bool:
        """Whether there are files that no leaf explains."""
        return bool(self.runs.without_record()) or any(self.advisories.without_record())

    def _hash_at(self, path: str) -> str | None:
        with self._files.faults():
            try:
                return sha256_of_bytes(self._files.read(path, DOCUMENT_LIMIT_BYTES))
            except (FileNotFoundError, NotADirectoryError):
                return None
            except NotAFileError as error:
                return str(error)
