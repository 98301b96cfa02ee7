"""Reads the v1 store that others write: one row, or a list of rows in short.

Any number of threads may use it at once. The file is read again where it has changed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from pipeline.core.json.strict import InvalidJsonError
from pipeline.errors import IntegrityError
from pipeline.legacy.rows import parse_row
from pipeline.legacy.v1_mode.file import V1Store
from pipeline.storage.reader import run_not_found

_SUMMARY = (
    *("run_id", "created_at_utc", "event_type", "status", "workflow_session_id", "tool_id"),
    *("material_id", "machine_id", "workflow_mode", "request_hash", "toolpaths_hash"),
    *("gcode_hash", "notes"),
)

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
