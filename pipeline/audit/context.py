"""What every process of an audit knows, and the connections it opens for itself.

Values alone go from process to process; a connection is opened where it is used.
"""

import sqlite3
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from pipeline.audit.plan import open_plan
from pipeline.audit.rules.request import is_sampled
from pipeline.storage.index.engine import read_only
from pipeline.storage.index.run_index import INDEX_FILE

Depth = Literal["names", "bytes", "content"]
"""How closely a file is looked at: its name, size and mode; its bytes, hashed; what they say."""


@dataclass(frozen=True, slots=True)
class AuditContext:
    """What an audit is about.

    Attributes:
        root: Folder of the store.
        plan: File of the plan.
        audit_id: Seeds the sample.
        depth: Of files that are read.
        share: Of files that are read; the others are looked at by name. 1 for all, 0 for none.
        is_whole: Whether all of the store is asked about. Otherwise blobs are looked at where they
            are named, and no folder is looked through.
        of_some_runs: Whether names of files count only that are of the runs asked about.
    """

    root: str
    plan: str
    audit_id: str
    depth: Depth
    share: float
    is_whole: bool
    of_some_runs: bool

    def depth_of(self, path: str) -> Depth:
        """Return how closely the file at `path` is looked at."""
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
        """Let go of them."""
        for connection in self._open:
            connection.close()

    @cached_property
    def plan(self) -> sqlite3.Connection:
        """The plan, which is settled."""
        return self._kept(open_plan(self.context.plan))

    @cached_property
    def index(self) -> sqlite3.Connection | None:
        """The index, where artifacts are read that it can be held against."""
        if self.context.depth != "content" or not self.context.share:
            return None
        if self.plan.execute("SELECT 1 FROM run_rows LIMIT 1").fetchone() is None:
            return None
        return self._kept(read_only(self.root / INDEX_FILE))

    def _kept(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        self._open.append(connection)
        return connection
