"""The parts of an audit: the result of each, and which are done."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from pipeline.audit.rules.finding import MISSING_BLOB, Finding
from pipeline.audit.steps import StepResult
from schemas.audit_finding import AuditCode

LEDGER_PART: Final = "ledger"
PLACES_PART: Final = "places"


@dataclass(slots=True)
class Tally:
    """Of one part, or of several: they add up.

    Attributes:
        counts: By the names in `AuditCounts`.
        codes: Findings of each code.
    """

    counts: Counter[str] = field(default_factory=Counter)
    codes: Counter[AuditCode] = field(default_factory=Counter)

    def add(self, other: "Tally") -> None:
        """Add what another part has."""
        self.counts.update(other.counts)
        self.codes.update(other.codes)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Return the tally that the line of a part keeps."""
        return cls(Counter(document["counts"]), Counter(document["codes"]))

    def document(self, files: int) -> dict[str, Any]:
        """Return it as the line of a part keeps it; `files` is how many files the audit has."""
        return {"counts": dict(self.counts), "codes": dict(self.codes), "files": files}

    def note(self, code: AuditCode) -> None:
        """Count a finding."""
        self.codes[code] += 1
        self.counts["findings"] += 1


@dataclass(frozen=True, slots=True)
class PartDone:
    """A part that is done as a whole; an audit that resumes does not repeat it."""

    name: str
    tally: Tally


class Parts:
    """Takes results in the order of the parts; yields new findings, and the end of each part.

    Attributes:
        files: How many files of runs were checked so far.
    """

    def __init__(self, skip: Collection[str], known_missing: Collection[str] = ()) -> None:
        """Begin; findings in a part of `skip` were published before, and so were these blobs."""
        self.files = 0
        self._skip = skip
        self._part: str | None = None
        self._tally = Tally()
        self._known_missing = set(known_missing)

    def add(self, part: str, result: StepResult) -> Iterator[Finding | PartDone]:
        """Yield what a step found, after the end of the part before if it begins one."""
        if part != self._part:
            yield from self.end()
            self._part = part
        if part in self._skip:
            return
        self._tally.counts.update(result.counts)
        self.files += result.counts.get("artifacts", 0) + result.counts.get("links", 0)
        for finding in result.findings:
            if self._is_news(finding):
                self._tally.note(finding.code)
                yield finding

    def end(self) -> Iterator[PartDone]:
        """Yield that the part is done, once nothing more comes of it."""
        if self._part is not None and self._part not in self._skip:
            yield PartDone(self._part, self._tally)
        self._part, self._tally = None, Tally()

    def _is_news(self, finding: Finding) -> bool:
        """Return whether a missing blob was not reported before: several files may name it."""
        if finding.code not in MISSING_BLOB:
            return True
        known = finding.path in self._known_missing
        self._known_missing.add(finding.path)
        return not known
