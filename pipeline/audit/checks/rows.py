"""Whole rows of the index against the artifacts that they are made from, for some runs at a time.

By SQLite's own driver: one query for all, and no object a row.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Final

from pipeline.audit import queries
from pipeline.audit.rules.finding import Finding
from pipeline.core.advisories.outcome import advisory_of_link
from pipeline.core.runs.outcome import run_of_document
from pipeline.storage.index.tables import (
    advisories,
    advisory_row,
    indexed_run,
    runs,
)

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
