"""One step of an audit, and what it hands back to the process that asked for it: plain values."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline.audit.rules.finding import Finding


@dataclass(frozen=True, slots=True)
class Step:
    """Something that any process of an audit can do by itself.

    Attributes:
        part: What it belongs to.
        function: Of a module; takes the reader of its process, then the arguments.
        arguments: Plain values.
    """

    part: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


@dataclass(slots=True)
class StepResult:
    """What one step found.

    Attributes:
        findings: In the order of the paths.
        counts: How many of what were looked at.
        suspects: Paths that nothing explains as far as the step can tell.
        store_root: Over the lines of all files, by the step that computes it.
    """

    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    suspects: list[str] = field(default_factory=list)
    store_root: str | None = None

    def add(self, *findings: Finding) -> None:
        """Add findings."""
        self.findings += findings

    def count(self, name: str, number: int = 1) -> None:
        """Count something that was looked at."""
        self.counts[name] = self.counts.get(name, 0) + number
