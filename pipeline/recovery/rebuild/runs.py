"""Rows of runs out of what they are derived from: files, leaves of the ledger, request topics.

The files say which runs there are. The leaf of the record that made a run says from which offset
it came and which bytes its file has; a file with others is a fault that no row may hide. Where
there is no ledger, the records of the topics say which of them made each file.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pipeline.core.record import RecordSource
from pipeline.core.runs.outcome import StoredRun, stored_run
from pipeline.core.runs.verdict import JudgedRun
from pipeline.ledger.leaf import LedgerLeaf
from pipeline.storage.artifacts import FoundArtifact, UnexpectedFile
from pipeline.storage.index.tables import IndexedRun, indexed_run, with_source


@dataclass(slots=True)
class RebuiltRun:
    """A run of the new index.

    Attributes:
        file_sha256: Of the file that is on disk; None where there is none.
    """

    run: StoredRun
    indexed: IndexedRun
    file_sha256: str | None

    @property
    def has_file(self) -> bool:
        """Whether the file is what the record made."""
        return self.file_sha256 == self.run.artifact_sha256


@dataclass(slots=True)
class RebuiltRuns:
    """Rows on their way into a new index.

    Attributes:
        hash_at: Gives the SHA-256 of the file at a path, whatever it is; None where there is none.
        rows: By run_id.
        wanted: By run_id the record and the leaf of a run whose file is missing: the rest of its
            row only that record can tell.
        differing: Sentences about files that are not what their leaf says.
    """

    hash_at: Callable[[str], str | None]
    rows: dict[str, RebuiltRun] = field(default_factory=dict)
    wanted: dict[str, tuple[RecordSource, LedgerLeaf]] = field(default_factory=dict)
    differing: list[str] = field(default_factory=list)

    def add_file(self, found: FoundArtifact) -> UnexpectedFile | None:
        """Take the row of an artifact; return the file where another one has told of its run."""
        row = RebuiltRun(found.run, found.indexed, found.run.artifact_sha256)
        known = self.rows.setdefault(found.run.run_id, row)
        if known is row:
            return None
        reason = f"expected one file of a run, found another at {known.run.artifact_path}"
        return UnexpectedFile(found.run.artifact_path, reason)

    def take_leaf(self, source: RecordSource, leaf: LedgerLeaf) -> UnexpectedFile | None:
        """Let the leaf of the record that made a run explain it, unless an earlier one has.

        Returns:
            A file of the run at another place than its own.
        """
        run_id, path, sha256 = leaf.run_id, leaf.path, leaf.sha256
        assert run_id is not None, "the leaf of a run names it, its file and its hash"
        assert path is not None
        assert sha256 is not None
        known = self.rows.get(run_id)
        if run_id in self.wanted or (known is not None and known.run.source is not None):
            return None
        if known is not None and (known.run.artifact_path, known.file_sha256) == (path, sha256):
            run = replace(known.run, source=source)
            self.rows[run_id] = RebuiltRun(run, with_source(known.indexed, source), sha256)
            return None
        found = self.hash_at(path)
        if found not in {None, sha256}:
            self.differing.append(differs(path, sha256, source, found))
        self.wanted[run_id] = source, leaf
        if known is None or self.rows.pop(run_id).run.artifact_path == path:
            return None
        return UnexpectedFile(
            known.run.artifact_path, f"expected the artifact of {run_id} at {path}"
        )

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
        run = replace(
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
            if row.run.source is not None and not row.has_file
        ]

    def paths(self) -> dict[str, str]:
        """Return the paths of the artifacts by run_id."""
        return {run_id: row.run.artifact_path for run_id, row in self.rows.items()}


def _indexed(judged: JudgedRun, run: StoredRun) -> IndexedRun:
    return indexed_run(judged.built.index_fields, run, judged.built.withheld_payloads)


def differs(path: str, expected: str | None, source: RecordSource, found: str | None) -> str:
    """Return the sentence about a file that is not what its leaf says."""
    return (
        f"expected {path} to have SHA-256 {expected}, as the leaf of offset {source.id.offset} of "
        f"{source.id.topic}, partition {source.id.partition} says, found {found}"
    )
