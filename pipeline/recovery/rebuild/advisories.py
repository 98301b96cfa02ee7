"""Rows of advisories out of what they are derived from: links, leaves, and the request topic.

The files say which links there are; the ledger, or where there is none the topic, says which record
claimed each. A claim that no link shows waits: its run had not come, or its link is lost, which
nothing can tell apart. Either way the advise worker makes the link once the run is there, with the
bytes that it had or would have had.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from pipeline.core.advisories.outcome import StoredAdvisory, stored_advisory
from pipeline.core.advisories.verdict import JudgedAdvisory
from pipeline.core.layout import LinkPath, parse_path
from pipeline.core.record import RecordSource
from pipeline.ledger.leaf import LedgerLeaf
from pipeline.recovery.rebuild.runs import differs
from pipeline.storage.artifacts import UnexpectedFile

_Key = tuple[str, str]


@dataclass(slots=True)
class RebuiltAdvisories:
    """Rows on their way into a new index.

    Attributes:
        rows: By run_id and advisory_id.
        changed: Those whose link file is not what their first request makes.
        wanted: By run_id and advisory_id the record and the leaf of a claim without its link: the
            rest of its row only that record can tell.
        differing: Sentences about links that are not what their leaf says.
        unexpected: Path and SHA-256 of what is in the place of a link and is none.
    """

    rows: dict[_Key, StoredAdvisory] = field(default_factory=dict)
    changed: list[_Key] = field(default_factory=list)
    wanted: dict[_Key, tuple[RecordSource, LedgerLeaf]] = field(default_factory=dict)
    differing: list[str] = field(default_factory=list)
    unexpected: dict[_Key, tuple[str, str | None]] = field(default_factory=dict)

    def add_link(self, advisory: StoredAdvisory) -> UnexpectedFile | None:
        """Take the row of a link file; return the file where another one has told of it."""
        known = self.rows.setdefault(advisory.key, advisory)
        if known is advisory:
            return None
        assert advisory.link_path is not None, "a link that was found has a path"
        reason = f"expected one link of an advisory, found another at {known.link_path}"
        return UnexpectedFile(advisory.link_path, reason)

    def add_unexpected(self, path: str, sha256: str | None) -> None:
        """Take a file that is no link: where it has the place of one, a leaf may tell of it."""
        place = parse_path(path)
        if isinstance(place, LinkPath):
            self.unexpected[place.run_id, place.advisory_id] = path, sha256

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
        path, found = self.unexpected.get(key, (None, None))
        if known is not None:
            path, found = known.link_path, known.link_sha256
        if path is not None:
            self.differing.append(differs(path, leaf.link_sha256, source, found))
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
