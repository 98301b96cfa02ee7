"""Reads a v1 store that other processes write: one row, rows in short, differences.

Any number of threads may use it at once. The file is read again where it has changed.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import structlog

from pipeline.core.json.strict import InvalidJsonError
from pipeline.errors import IntegrityError
from pipeline.legacy.v1.file import V1Store
from pipeline.legacy.v1.row import as_object, objects_in
from pipeline.legacy.v1.text import parse_row
from pipeline.storage.reader import run_not_found

_SUMMARY = (
    *("run_id", "created_at_utc", "event_type", "status", "workflow_session_id", "tool_id"),
    *("material_id", "machine_id", "workflow_mode", "request_hash", "toolpaths_hash"),
    *("gcode_hash", "notes"),
)

_IDENTITY = ("run_id", "created_at_utc")
_ALONE = ("event_type", "status", "notes", "errors")
_GROUPS = {
    "context": ("tool_id", "material_id", "machine_id", "workflow_mode", "workflow_session_id"),
    "hashes": ("request_hash", "toolpaths_hash", "gcode_hash", "geometry_hash"),
}
_NAMED_OF_FEASIBILITY = ("risk_bucket", "score")
"""The fields whose change is named as a path; that of any other is in the diff alone."""

_CRITICAL = {"hashes.gcode_hash", "hashes.toolpaths_hash", "feasibility.risk_bucket", "status"}
_WARNING = {"hashes.request_hash", "feasibility.score"}

_log = structlog.get_logger(__name__)


class V1Reader:
    """Looks at the rows of a v1 store."""

    def __init__(self, path: Path) -> None:
        """Prepare; nothing is read."""
        self._store = V1Store(path)

    def find(self, run_id: str) -> dict[str, Any]:
        """Return the row of a run, every digit of its numbers kept.

        Raises:
            NotFoundError: There is none.
            IntegrityError: It cannot be read.
            StoreError: The disk failed, or the file is no v1 store.
        """
        return _row(self._store.texts(), run_id)

    def list_rows(self, wanted: Mapping[str, str], limit: int) -> list[dict[str, Any]]:
        """Return the newest rows in short, as v1 did: by the text of their time.

        A row that cannot be read is left out, and named in the log.

        Args:
            wanted: The exact value that each of these fields must have.
            limit: Most rows.

        Raises:
            StoreError: The disk failed, or the file is no v1 store.
        """
        texts = self._store.texts()
        rows = [
            row
            for run_id in texts
            if (row := _readable(texts, run_id)) is not None
            and all(row.get(field) == value for field, value in wanted.items())
        ]
        rows.sort(key=lambda row: str(row.get("created_at_utc") or ""), reverse=True)
        return [{field: row.get(field) for field in _SUMMARY} for row in rows[:limit]]


def _row(texts: Mapping[str, str], run_id: str) -> dict[str, Any]:
    text = texts.get(run_id)
    if text is None:
        raise run_not_found(run_id)
    try:
        return parse_row(text)
    except InvalidJsonError as error:
        raise IntegrityError(
            f"ARTIFACT_CORRUPT: The row of {run_id} cannot be read ({error})."
        ) from error


def _readable(texts: Mapping[str, str], run_id: str) -> dict[str, Any] | None:
    try:
        return _row(texts, run_id)
    except IntegrityError as error:
        _log.error("row left out", reason=str(error))
        return None


def diff_rows(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Return how row `b` differs from row `a`, in the groups of v1, and how severe it is."""
    before, after = as_object(a.get("feasibility")), as_object(b.get("feasibility"))
    groups = {name: _changes(a, b, fields) for name, fields in _GROUPS.items()}
    groups["feasibility"] = _changes(before, after, sorted(before.keys() | after.keys()))
    alone = _changes(a, b, _ALONE)
    attachments = _attachments(a), _attachments(b)
    if attachments[0] != attachments[1]:
        alone["attachments"] = {"a": attachments[0], "b": attachments[1]}
    paths = alone.keys() | {
        f"{name}.{field}"
        for name, changes in groups.items()
        for field in changes
        if name != "feasibility" or field in _NAMED_OF_FEASIBILITY
    }
    severity = "CRITICAL" if paths & _CRITICAL else "WARNING" if paths & _WARNING else "INFO"
    return {
        **{side: {name: row.get(name) for name in _IDENTITY} for side, row in (("a", a), ("b", b))},
        "diff_severity": severity,
        "changed_paths": sorted(paths),
        "diff": {**{name: changes for name, changes in groups.items() if changes}, **alone},
    }


def _changes(
    a: Mapping[str, Any], b: Mapping[str, Any], fields: Iterable[str]
) -> dict[str, dict[str, Any]]:
    return {
        field: {"a": a.get(field), "b": b.get(field)}
        for field in fields
        if a.get(field) != b.get(field)
    }


def _attachments(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = [
        {name: each.get(name) for name in ("sha256", "kind", "filename")}
        for each in objects_in(row.get("attachments"))
    ]
    return sorted(found, key=lambda each: (str(each["kind"] or ""), str(each["sha256"] or "")))
