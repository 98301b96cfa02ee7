"""A step of an audit, what its process knows, and what it returns: plain values.

Values alone go from process to process; a connection is opened where it is used.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pipeline.audit import queries
from pipeline.audit.plan import open_plan
from pipeline.audit.rules.finding import Finding
from pipeline.audit.rules.request import is_sampled
from pipeline.storage.index.engine import read_only
from pipeline.storage.index.run_index import INDEX_FILE

Depth = Literal["names", "bytes", "content"]
"""How closely a file is checked: its name, size and mode; its bytes, hashed; their content."""


@dataclass(frozen=True, slots=True)
class AuditContext:
    """What an audit is about.

    Attributes:
        root: Folder of the store.
        plan: File of the plan.
        audit_id: Seeds the sample.
        depth: Of files that are read.
        share: Of files that are read; the others are checked by name. 1 for all, 0 for none.
        is_whole: Whether the scope is the whole store. Otherwise blobs are checked where a file
            names them, and no folder is listed.
        of_some_runs: Whether the scope is a list of runs, so that other names do not count.
    """

    root: str
    plan: str
    audit_id: str
    depth: Depth
    share: float
    is_whole: bool
    of_some_runs: bool

    def depth_of(self, path: str) -> Depth:
        """Return how closely the file at `path` is checked."""
        if self.share >= 1 or (self.share > 0 and is_sampled(self.audit_id, path, self.share)):
            return self.depth
        return "names"

    @property
    def follows_names(self) -> bool:
        """Whether every artifact is read, so that the blobs which they name are known from them.

        Otherwise the rows of the index say which blobs there must be.
        """
        return self.depth == "content" and self.share >= 1


class AuditReader:
    """The connections of one process, opened when they are first used: the plan is filled first."""

    def __init__(self, context: AuditContext) -> None:
        self.context = context
        self.root = Path(context.root)
        self._open: list[sqlite3.Connection] = []

    def close(self) -> None:
        """Close them."""
        for connection in self._open:
            connection.close()

    @cached_property
    def plan(self) -> sqlite3.Connection:
        """The plan, which is resolved."""
        return self._kept(open_plan(self.context.plan))

    @cached_property
    def index(self) -> sqlite3.Connection | None:
        """The index, where artifacts are read that its rows are compared with."""
        if self.context.depth != "content" or not self.context.share:
            return None
        if self.plan.execute(queries.HAS_RUN_ROWS).fetchone() is None:
            return None
        return self._kept(read_only(self.root / INDEX_FILE))

    def _kept(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        self._open.append(connection)
        return connection


@dataclass(frozen=True, slots=True)
class Step:
    """A piece of work that any process of an audit can do alone.

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
        counts: How many of what were checked.
        suspects: Paths that nothing explains, as far as the step knows.
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
        """Count something that was checked."""
        self.counts[name] = self.counts.get(name, 0) + number
