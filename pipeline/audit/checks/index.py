"""The index compared with the ledger, and with the artifacts and links that are read.

Rows are compared with leaves, and leaves with each other, in the plan, as of one moment: only what
a leaf records. Whole rows are compared with the artifacts and links that their runs have, by
SQLite's own driver: one query for many runs, and no object a row.
"""

import json
import os
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Final

from pipeline.audit import queries
from pipeline.audit.rules.finding import Finding
from pipeline.audit.steps import AuditReader, Step, StepResult
from pipeline.core.advisories.outcome import advisory_of_link
from pipeline.core.runs.outcome import run_of_document
from pipeline.ledger.checksums import root_of_lines
from pipeline.storage.index.tables import (
    advisories,
    advisory_row,
    indexed_run,
    runs,
)
from schemas.audit_finding import AuditCode


def comparisons(part: str, *, has_rows: bool) -> Iterator[Step]:
    """Yield the steps that compare leaves with each other, and with the rows if there are any."""
    for code, query in queries.COMPARE_LEAVES:
        yield Step(part, compare, (code, query))
    for query in (*queries.COMPARE_ROWS, *queries.ROWS_WITHOUT_LEAF) if has_rows else ():
        yield Step(part, compare, ("INDEX_DIFFERS", query))


def compare(reader: AuditReader, code: AuditCode, query: str) -> StepResult:
    """Return a finding for each path where two records differ."""
    result = StepResult()
    for cells in reader.plan.execute(query):
        path, expected, found = ("something else" if cell is None else str(cell) for cell in cells)
        if query not in queries.ROWS_WITHOUT_LEAF or not os.path.lexists(reader.root / path):
            result.add(Finding(code, path, expected, found))
    return result


def compute_store_root(reader: AuditReader) -> StepResult:
    """Return the store root from the plan; None where there are no rows to name the attachments.

    It is over the lines of `sums_of`: the files that leaves name, and the attachments that rows
    name. A full audit compares each row with its artifact and looks for each link, so where it has
    no finding the lines are those that `store_sums` reads out of the files.
    """
    result = StepResult()
    if reader.index is not None:
        lines = (line for (line,) in reader.plan.execute(queries.CHECKSUM_LINES))
        # None is of a leaf that cannot be trusted, which is a finding.
        result.store_root = root_of_lines(line for line in lines if line is not None).hex()
    return result


_COLUMNS: Final = [column.name for column in runs.c]
# The columns behind are of the record that made it, not of the artifact.
_OWN: Final = _COLUMNS.index("source_epoch")
# Columns that are compared with leaves too, and found there.
_RUNS_BY_LEAVES: Final = frozenset({"artifact_sha256", "artifact_path", "size_bytes"})
_LINKS_BY_LEAVES: Final = frozenset({"link_sha256", "link_path"})

# The columns of a row of an advisory that its link makes; the others are of its record.
_OWN_OF_ADVISORY: Final = advisories.c.keys().index("source_epoch")


class IndexRows:
    """The rows of some runs."""

    def __init__(self, index: sqlite3.Connection, run_ids: Sequence[str]) -> None:
        ids = (json.dumps(run_ids),)
        self._failed: str | None = None
        self._runs: dict[str, tuple[Any, ...]] = {}
        self._attachments: defaultdict[str, list[tuple[Any, ...]]] = defaultdict(list)
        self._advisories: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        self._withheld: defaultdict[str, list[tuple[Any, ...]]] = defaultdict(list)
        self._payloads: defaultdict[str, list[tuple[Any, ...]]] = defaultdict(list)
        try:
            self._runs = {row[0]: row for row in index.execute(queries.INDEX_RUNS, ids)}
            for row in index.execute(queries.INDEX_ATTACHMENTS, ids):
                self._attachments[row[0]].append(row)
            for row in index.execute(queries.INDEX_WITHHELD, ids):
                self._withheld[row[1]].append(row)
            for row in index.execute(queries.INDEX_PAYLOADS, ids):
                self._payloads[row[1]].append(row)
            self._advisories = {
                row[:2]: row for row in index.execute(queries.INDEX_ADVISORIES, ids)
            }
        except sqlite3.Error as error:
            self._failed = str(error)

    def compare(
        self,
        document: dict[str, Any],
        path: str,
        artifact_sha256: str,
        size_bytes: int,
        payloads: tuple[str, ...] | None,
    ) -> Iterator[Finding]:
        """Yield what the row of an artifact tells otherwise.

        That there is no row at all the leaves tell.

        Args:
            document: The artifact.
            path: Where it is.
            artifact_sha256: Of its bytes.
            size_bytes: Their number.
            payloads: Hashes of what it withholds beside attachments; None where nobody can say.
        """
        row = self._runs.get(document["run_id"])
        if row is None:
            yield from self._unreadable(path)
            return
        run = run_of_document(document, artifact_sha256, path, size_bytes, None)
        expected = indexed_run(document, run, payloads)
        kept_payloads = self._payloads.get(run.run_id, [])
        pairs = (
            ("attachments", self._attachments.get(run.run_id, []), expected.attachments),
            ("withheld_blobs", self._withheld.get(run.run_id, []), expected.withheld),
            (
                "withheld_payloads",
                kept_payloads,
                kept_payloads if payloads is None else expected.withheld_payloads or [],
            ),
        )
        differing = [name for name, kept, told in pairs if sorted(kept) != sorted(told)]
        if row[:_OWN] != expected.row[:_OWN]:
            differing = _differing(_COLUMNS[:_OWN], row, expected.row, _RUNS_BY_LEAVES) + differing
        if differing:
            yield _finding(path, "artifact", differing)

    def compare_link(
        self, document: dict[str, Any], path: str, link_sha256: str
    ) -> Iterator[Finding]:
        """Yield what the row of a link tells otherwise."""
        row = self._advisories.get((document["run_id"], document["advisory_id"]))
        if row is None:
            yield from self._unreadable(path)
            return
        expected = advisory_row(advisory_of_link(document, link_sha256, path, None))
        differing = _differing(
            advisories.c.keys()[:_OWN_OF_ADVISORY], row, expected, _LINKS_BY_LEAVES
        )
        if differing:
            yield _finding(path, "link", differing)

    def _unreadable(self, path: str) -> Iterator[Finding]:
        if self._failed is not None:
            yield Finding("INDEX_DIFFERS", path, "a row that can be read", self._failed)


def _differing(
    columns: Sequence[str], row: Sequence[Any], expected: Sequence[Any], but: frozenset[str]
) -> list[str]:
    pairs = zip(columns, row, expected, strict=False)
    return [name for name, kept, told in pairs if kept != told and name not in but]


def _finding(path: str, what: str, differing: list[str]) -> Finding:
    expected = f"the row that this {what} makes"
    return Finding("INDEX_DIFFERS", path, expected, f"another {', '.join(differing)}")
