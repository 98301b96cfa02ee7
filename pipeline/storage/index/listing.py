"""Listing runs: newest first, filtered, page by page with a strict keyset cursor."""

import base64
import binascii
import json
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, select, text, tuple_

from pipeline.errors import InputError
from pipeline.storage.index.tables import LISTED_BY, runs
from schemas.fields import LABEL_LIMIT_CHARACTERS, is_run_id
from schemas.run_filter import LARGEST_LIMIT, RunFilter
from schemas.timestamps import microseconds_since_epoch

_CURSOR = re.compile(r"(-?[0-9]{1,18})\|(.+)")
_DAY_US = 86_400_000_000
_LAST_TEXT = "\U0010ffff" * LABEL_LIMIT_CHARACTERS
_SHOWN = (
    "run_id",
    "created_at_utc",
    "event_type",
    "status",
    "mode",
    "tool_id",
    "material_id",
    "machine_id",
    "workflow_session_id",
    "risk_level",
    "score",
    "block_reason",
    "feasibility_sha256",
    "toolpaths_sha256",
    "gcode_sha256",
    "gcode_known_by",
    "artifact_sha256",
    "artifact_path",
)
# For the runs of one page alone, each found by the index over its advisories.
_COUNT_ADVISORIES = text(
    "SELECT run_id, count(*) AS linked, sum(kind = 'explanation') AS explanations "
    "FROM advisories WHERE run_id IN (SELECT value FROM json_each(:ids)) "
    "AND link_path IS NOT NULL AND source_offset IS NOT NULL GROUP BY run_id"
)
_UNEXPLAINED = select(runs.c.run_id).where(runs.c.source_offset.is_(None)).scalar_subquery()


@dataclass(frozen=True, slots=True)
class RunPage:
    """One page of a listing.

    Attributes:
        items: Newest first.
        next_cursor: Where the next page begins; None at the end.
        limit: Most items of the page.
    """

    items: list[dict[str, Any]]
    next_cursor: str | None
    limit: int

    def as_json(self) -> dict[str, Any]:
        """Return the page as the route answers it."""
        return {"items": self.items, "next_cursor": self.next_cursor, "limit": self.limit}


def list_runs(connection: Connection, wanted: RunFilter) -> RunPage:
    """Return the page that `wanted` asks for.

    Raises:
        InputError: The cursor is none of ours.
    """
    limit = max(1, min(wanted.limit, LARGEST_LIMIT))
    conditions = _conditions(wanted)
    if wanted.cursor is not None:
        conditions.append(_after(*_read_cursor(wanted.cursor)))
    rows = list(connection.execute(_page(conditions, wanted, limit + 1)).mappings())
    last = rows[limit - 1] if len(rows) > limit else None
    linked = _linked_advisories(connection, [row["run_id"] for row in rows[:limit]])
    return RunPage(
        [_item(row, *linked.get(row["run_id"], (0, 0))) for row in rows[:limit]],
        _write_cursor(last["created_at_us"], last["run_id"]) if last is not None else None,
        limit,
    )


def _page(
    conditions: list[ColumnElement[bool]], wanted: RunFilter, count: int
) -> Select[tuple[Any, ...]]:
    newest_first = (runs.c.created_at_us.desc(), runs.c.run_id.desc())
    shown = select(*(runs.c[name] for name in (*_SHOWN, "created_at_us")))
    if wanted.tool_id_prefix is None:
        return shown.where(*conditions).order_by(*newest_first).limit(count)
    # All that the prefix fits must be sorted, so the rows themselves are looked up afterwards.
    found = select(runs.c.run_id).where(*conditions).order_by(*newest_first).limit(count)
    return shown.where(runs.c.run_id.in_(found.scalar_subquery())).order_by(*newest_first)


def _linked_advisories(connection: Connection, run_ids: list[str]) -> dict[str, tuple[int, int]]:
    """Return how many advisories each run has that are linked, and how many explain it."""
    found = connection.execute(_COUNT_ADVISORIES, {"ids": json.dumps(run_ids)})
    return {row.run_id: (row.linked, row.explanations) for row in found}


def _item(row: RowMapping, linked: int, explanations: int) -> dict[str, Any]:
    return {
        **{name: row[name] for name in _SHOWN},
        "advisory_count": linked,
        "explanation_status": "READY" if explanations else "NONE",
    }


def _conditions(wanted: RunFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [
        runs.c[name] == value for name in LISTED_BY if (value := getattr(wanted, name)) is not None
    ]
    # Found once a query, in an index of its own that is mostly empty.
    conditions.append(runs.c.run_id.not_in(_UNEXPLAINED))
    if wanted.tool_id_prefix is not None:
        # Not LIKE, which does not distinguish `saw` from `SAW` and so cannot use the index.
        conditions.append(runs.c.tool_id >= wanted.tool_id_prefix)
        conditions.append(runs.c.tool_id < wanted.tool_id_prefix + _LAST_TEXT)
    # Always bounded, so that a page is searched for and not scanned from the start.
    earliest = wanted.date_from or "2000-01-01"
    conditions.append(runs.c.created_at_us >= _midnight(earliest))
    if wanted.date_to is not None:
        conditions.append(runs.c.created_at_us < _midnight(wanted.date_to) + _DAY_US)
    return conditions


def _midnight(day: str) -> int:
    return microseconds_since_epoch(datetime.combine(date.fromisoformat(day), time(), UTC))


def _after(created_at_us: int, run_id: str) -> ColumnElement[bool]:
    return tuple_(runs.c.created_at_us, runs.c.run_id) < (created_at_us, run_id)


def _write_cursor(created_at_us: int, run_id: str) -> str:
    return base64.urlsafe_b64encode(f"{created_at_us}|{run_id}".encode()).decode()


def _read_cursor(cursor: str) -> tuple[int, str]:
    """Return where the next page begins; only what `_write_cursor` wrote is read."""
    try:
        text = base64.urlsafe_b64decode(cursor).decode()
    except (ValueError, binascii.Error):
        text = ""
    found = _CURSOR.fullmatch(text)
    if found is None or not is_run_id(found[2]) or _write_cursor(int(found[1]), found[2]) != cursor:
        raise InputError("Expected a cursor from an earlier page of this listing.")
    return int(found[1]), found[2]
