"""The findings of a replay, one line each, and their counts."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pipeline.core.layout import ArtifactPath, BlobArea, BlobPath, LinkPath, parse_path

FindingKind = Literal[
    "missing",
    "different",
    "foreign",
    "upload_missing",
    "restored",
    "internal_error",
    "waiting",
    "unreferenced",
]

DIFFERENCES: frozenset[FindingKind] = frozenset(
    {"missing", "different", "foreign", "upload_missing"}
)
"""Kinds for which topic and store disagree."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference from topic and ledger, or one fact that an operator should know.

    Attributes:
        kind: `missing`, `different` and `foreign` of what records explain; `upload_missing` of a
            blob that came by no message; `restored`; and what is no difference:
            `internal_error` of a record that our program could not judge, `waiting` of a link
            that the advise worker makes, `unreferenced` of an upload that nothing names.
        what: artifact, link, attachment, quarantine, row, leaf, rendering or file.
        path: Relative to the store, or what else it is about.
        expected: In a few words, a hash mostly.
        found: Likewise.
        source: The record that shows it, as `topic/partition/offset`.
        named_by: The file that names a blob.
    """

    kind: FindingKind
    what: str
    path: str
    expected: str | None = None
    found: str | None = None
    source: str | None = None
    named_by: str | None = None

    def document(self) -> dict[str, Any]:
        """Return it as JSON, without absent values."""
        document = {name: value for name, value in asdict(self).items() if value is not None}
        return {"finding": document.pop("kind"), **document}


def what_lies_at(path: str) -> str:
    """Return in one word what the layout has at `path`."""
    match parse_path(path):
        case ArtifactPath():
            return "artifact"
        case LinkPath():
            return "link"
        case BlobPath(area=BlobArea.QUARANTINE):
            return "quarantine"
        case BlobPath():
            return "attachment"
    return "file"


@dataclass(slots=True)
class Tally:
    """Findings on their way to their reader, and the counts.

    Attributes:
        report: Gets each finding once.
        counts: By kind, and of whatever else is counted.
    """

    report: Callable[[Finding], None]
    counts: Counter[str] = field(default_factory=Counter)
    _reported: set[tuple[str, str, str, str | None]] = field(default_factory=set)

    def add(self, finding: Finding) -> None:
        """Count and report a finding, once for what it is about and the file that names it."""
        key = (finding.kind, finding.what, finding.path, finding.named_by)
        if key in self._reported:
            return
        self._reported.add(key)
        self.counts[finding.kind] += 1
        self.report(finding)

    def add_all(self, findings: Iterable[Finding]) -> None:
        """Count and report findings."""
        for finding in findings:
            self.add(finding)

    @property
    def differs(self) -> bool:
        """Whether topic and store disagree."""
        return any(self.counts[kind] for kind in DIFFERENCES)
