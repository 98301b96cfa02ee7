"""Listing runs: newest first, filtered, page by page with a strict keyset cursor."""

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, or_, select, text

from pipeline.errors import InputError
from pipeline.storage.index import runs
from schemas.timestamps import microseconds_since_epoch

DEFAULT_LIMIT = 50
LARGEST_LIMIT = 200

_EXACT = ("status", "mode", "tool_id", "event_type", "risk_level", "workflow_session_id")
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
    "artifact_sha256",
    "artifact_path",
)
# For the runs of one page alone, each found by the index over its advisories.
_COUNT_ADVISORIES = text(
    "SELECT run_id, count(*) AS linked, sum(kind = 'explanation') AS explanations "
    "FROM advisories WHERE run_id IN (SELECT value FROM json_each(:ids)) "
    "AND link_path IS NOT NULL GROUP BY run_id"
)


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs to list; None does not filter. Dates are UTC and inclusive."""

    status: str | None = None
    mode: str | None = None
    tool_id: str | None = None
    tool_id_prefix: str | None = None
    event_type: str | None = None
    risk_level: str | None = None
    workflow_session_id: str | None = None
    date_from: date | None = None
    date_to: date | None = None


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


def list_runs(
    connection: Connection,
    wanted: RunFilter,
    *,
    limit: int = DEFAULT_LIMIT,
    cursor: str | None = None,
) -> RunPage:
    """Return one page of the runs that `wanted` lets through.

    Args:
        connection: A reading connection of the index.
        wanted: The filter.
        limit: Clamped to 1 to 200.
        cursor: `next_cursor` of the page before.

    Raises:
        InputError: The cursor is none of ours.
    """
    limit = max(1, min(limit, LARGEST_LIMIT))
    conditions = _conditions(wanted)
    if cursor is not None:
        conditions.append(_after(*_read_cursor(cursor)))
    query = (
        select(*(runs.c[name] for name in (*_SHOWN, "created_at_us")))
        .where(and_(True, *conditions))
        .order_by(runs.c.created_at_us.desc(), runs.c.run_id.desc())
        .limit(limit + 1)
    )
    rows = list(connection.execute(query).mappings())
    last = rows[limit - 1] if len(rows) > limit else None
    linked = _linked_advisories(connection, [row["run_id"] for row in rows[:limit]])
    return RunPage(
        [_item(row, *linked.get(row["run_id"], (0, 0))) for row in rows[:limit]],
        _write_cursor(last["created_at_us"], last["run_id"]) if last is not None else None,
        limit,
    )


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
        runs.c[name] == value for name in _EXACT if (value := getattr(wanted, name)) is not None
    ]
    if wanted.tool_id_prefix is not None:
        conditions.append(runs.c.tool_id.startswith(wanted.tool_id_prefix, autoescape=True))
    if wanted.date_from is not None:
        conditions.append(runs.c.created_at_us >= _midnight(wanted.date_from))
    if wanted.date_to is not None:
        conditions.append(runs.c.created_at_us < _midnight(wanted.date_to + timedelta(days=1)))
    return conditions


def _midnight(day: date) -> int:
    return microseconds_since_epoch(datetime.combine(day, time(), UTC))


def _after(created_at_us: int, run_id: str) -> ColumnElement[bool]:
    return or_(
        runs.c.created_at_us < created_at_us,
        and_(runs.c.created_at_us == created_at_us, runs.c.run_id < run_id),
    )


def _write_cursor(created_at_us: int, run_id: str) -> str:
    return base64.urlsafe_b64encode(f"{created_at_us}|{run_id}".encode()).decode()


def _read_cursor(cursor: str) -> tuple[int, str]:
    try:
        created_at_us, _, run_id = base64.urlsafe_b64decode(cursor).decode().partition("|")
        return int(created_at_us), run_id
    except (ValueError, binascii.Error) as error:
        message = "Expected a cursor from an earlier page of this listing."
        raise InputError(message) from error
