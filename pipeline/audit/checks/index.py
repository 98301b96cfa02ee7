"""The index compared with the ledger, and with the artifacts and links that are read.

Rows are compared with leaves, and leaves with each other, in the plan, as of one moment: only what
a leaf records. Whole rows are compared with the artifacts and links that their runs have, by the
driver of the database: one query for many runs, and no object a row.
"""

from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any, Final

from pipeline.audit import queries
from pipeline.audit.audited_store import RowReader
from pipeline.audit.rules.finding import Finding
from pipeline.audit.steps import AuditReader, Step, StepResult
from pipeline.core.advisories.outcome import advisory_of_link
from pipeline.core.runs.artifact import index_fields_of
from pipeline.core.runs.outcome import run_of_fields
from pipeline.disk.sqlite.scratch import SqliteError, has_no_room
from pipeline.storage.archives import is_seen
from pipeline.storage.checksums import root_of_lines
from pipeline.storage.index.run_index import INDEX_FILE
from pipeline.storage.index.tables import (
    advisories,
    advisory_row,
    attachments,
    indexed_run,
    runs,
    withheld_blobs,
    withheld_payloads,
)
from schemas.audit_finding import AuditCode


def index_missing(reason: str) -> Finding:
    """Return the finding that there is no index to compare, or none that can be read."""
    return Finding("INDEX_MISSING", INDEX_FILE, "an index that can be read", reason)


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
        if query not in queries.ROWS_WITHOUT_LEAF or not is_seen(reader.store.files, path):
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


# Columns that are compared with leaves too, and found there.
_RUNS_BY_LEAVES: Final = frozenset({"artifact_sha256", "artifact_path", "size_bytes"})
_LINKS_BY_LEAVES: Final = frozenset({"link_sha256", "link_path"})

_RUN_FIRST, _RUN_SECOND, _ADVISORY_FIRST = itemgetter(0), itemgetter(1), itemgetter(0, 1)
_OWNERS: Final = {
    runs.name: _RUN_FIRST,
    attachments.name: _RUN_FIRST,
    withheld_blobs.name: _RUN_SECOND,
    withheld_payloads.name: _RUN_SECOND,
    advisories.name: _ADVISORY_FIRST,
}
"""What the rows of each table belong to: a run_id, or an advisory's two ids."""


_NO_ROWS: Final[list[tuple[Any, ...]]] = []


class IndexRows:
    """The rows of some runs."""

    def __init__(self, index: RowReader, run_ids: Sequence[str]) -> None:
        self._failed: str | None = None
        self._rows: dict[str, dict[Any, list[tuple[Any, ...]]]] = {}
        try:
            for name, found in index.rows(run_ids):
                rows, owner = self._rows.setdefault(name, {}), _OWNERS[name]
                for row in found:
                    rows.setdefault(owner(row), []).append(row)
        except SqliteError as error:
            if has_no_room(error):
                raise  # A temporary table has no room: that is no fault of the index.
            self._rows = {name: {} for name in _OWNERS}
            self._failed = str(error)

    def compare(
        self,
        document: dict[str, Any],
        path: str,
        artifact_sha256: str,
        size_bytes: int,
        payloads: tuple[str, ...] | None,
    ) -> list[Finding]:
        """Return where the row of an artifact differs from it.

        A row that is missing is found by its leaf.

        Args:
            document: The artifact.
            path: Where it is.
            artifact_sha256: Of its bytes.
            size_bytes: Their number.
            payloads: Hashes of what it withholds beside attachments; None where they are not known.
        """
        run_id = document["run_id"]
        rows = self._rows[runs.name].get(run_id)
        if not rows:
            return self._unreadable(path)
        fields = index_fields_of(document)
        run = run_of_fields(fields, artifact_sha256, path, size_bytes, None)
        expected = indexed_run(fields, run, payloads)
        differing = _differing(runs.name, rows[0], expected.row, _RUNS_BY_LEAVES)
        for name, made in (
            (attachments.name, expected.attachments),
            (withheld_blobs.name, expected.withheld),
            (withheld_payloads.name, expected.withheld_payloads),
        ):
            kept = self._rows[name].get(run_id, _NO_ROWS)
            if made is not None and kept != made and sorted(kept) != sorted(made):
                differing.append(name)
        return [_finding(path, "artifact", differing)] if differing else []

    def compare_link(self, document: dict[str, Any], path: str, link_sha256: str) -> list[Finding]:
        """Return where the row of a link differs from it."""
        rows = self._rows[advisories.name].get((document["run_id"], document["advisory_id"]))
        if not rows:
            return self._unreadable(path)
        expected = advisory_row(advisory_of_link(document, link_sha256, path, None))
        differing = _differing(advisories.name, rows[0], expected, _LINKS_BY_LEAVES)
        return [_finding(path, "link", differing)] if differing else []

    def _unreadable(self, path: str) -> list[Finding]:
        if self._failed is None:
            return []
        return [Finding("INDEX_DIFFERS", path, "a row that can be read", self._failed)]


def _differing(
    table: str, row: Sequence[Any], expected: Sequence[Any], but: frozenset[str]
) -> list[str]:
    """Return the columns in which a row differs; those of its record, at the end, are not in it."""
    if row == expected[: len(row)]:
        return []
    pairs = zip(queries.COMPARED[table], row, expected, strict=False)
    return [column.name for column, kept, made in pairs if kept != made and column.name not in but]


def _finding(path: str, what: str, differing: list[str]) -> Finding:
    expected = f"the row that this {what} makes"
    return Finding("INDEX_DIFFERS", path, expected, f"another {', '.join(differing)}")
