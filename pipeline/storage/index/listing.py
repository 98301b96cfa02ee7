"""Listing runs: newest first, filtered, page by page with a strict keyset cursor."""

import base64
import binascii
import json
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import lru_cache
from typing import Any

import orjson
from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Integer,
    Select,
    bindparam,
    literal_column,
    select,
    tuple_,
)

from pipeline.core.json.canonical import FAST_OPTIONS, canonical_json
from pipeline.errors import InputError
from pipeline.storage.index.tables import LISTED_BY, driver_text, runs
from schemas.fields import LABEL_LIMIT_CHARACTERS, is_run_id
from schemas.run_filter import LARGEST_LIMIT, RunFilter
from schemas.timestamps import microseconds_since_epoch

_CURSOR = re.compile(r"(-?[0-9]{1,18})\|(.+)")
_PLAIN_FROM = 1e-4
"""Below it orjson writes a number in another form than canonical JSON."""
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
_COUNT_ADVISORIES = (
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

    def content(self) -> bytes:
        """Return the canonical bytes of the same.

        Scores are the only fractions in it: to look at them is faster than to search all the bytes.
        """
        scores = (item["score"] for item in self.items)
        if any(score and abs(score) < _PLAIN_FROM for score in scores):
            return canonical_json(self.as_json())
        return orjson.dumps(self.as_json(), option=FAST_OPTIONS)


def list_runs(connection: sqlite3.Connection, wanted: RunFilter) -> RunPage:
    """Return the page that `wanted` asks for.

    Raises:
        InputError: The cursor is none of ours.
    """
    limit = max(1, min(wanted.limit, LARGEST_LIMIT))
    values = _values(wanted)
    query = _query(tuple(values))
    # Both of one state.
    connection.execute("BEGIN")
    try:
        rows = connection.execute(query, {**values, "count": limit + 1}).fetchall()
        linked = _linked_advisories(connection, [row[0] for row in rows[:limit]])
    finally:
        connection.execute("ROLLBACK")
    items = [dict(zip(_SHOWN, row, strict=False)) for row in rows[:limit]]
    for item in items:
        count, explanations = linked.get(item["run_id"], (0, 0))
        item["advisory_count"] = count
        item["explanation_status"] = "READY" if explanations else "NONE"
    next_cursor = None
    if len(rows) > limit:
        # created_at_us is selected behind what is shown.
        next_cursor = _write_cursor(rows[limit - 1][-1], items[-1]["run_id"])
    return RunPage(items, next_cursor, limit)


def _values(wanted: RunFilter) -> dict[str, Any]:
    """Return what is bound to the query, by the names of its parameters."""
    values = {name: value for name in LISTED_BY if (value := getattr(wanted, name)) is not None}
    if wanted.tool_id_prefix is not None:
        values["prefix"] = wanted.tool_id_prefix
        values["prefix_end"] = wanted.tool_id_prefix + _LAST_TEXT
    # Always bounded, so that a page is searched for and not scanned from the start.
    values["earliest"] = _EARLIEST_US if wanted.date_from is None else _midnight(wanted.date_from)
    if wanted.date_to is not None:
        values["day_after"] = _midnight(wanted.date_to) + _DAY_US
    if wanted.cursor is not None:
        values["last_us"], values["last_id"] = _read_cursor(wanted.cursor)
    return values


@lru_cache(maxsize=1024)
def _query(names: tuple[str, ...]) -> str:
    """Return the query with these parameters; making it takes longer than SQLite's answer."""
    conditions = _conditions({name: bindparam(name) for name in names})
    newest_first = (runs.c.created_at_us.desc(), runs.c.run_id.desc())
    shown = select(*(runs.c[name] for name in (*_SHOWN, "created_at_us")))
    if "prefix" not in names:
        return driver_text(_first(shown.where(*conditions).order_by(*newest_first)))
    # All that the prefix fits must be sorted, so the rows themselves are looked up afterwards.
    found = _first(select(runs.c.run_id).where(*conditions).order_by(*newest_first))
    return driver_text(
        shown.where(runs.c.run_id.in_(found.scalar_subquery())).order_by(*newest_first)
    )


def _first(query: Select[Any]) -> Select[Any]:
    # Without this offset SQLAlchemy binds one of its own.
    return query.limit(bindparam("count", type_=Integer)).offset(literal_column("0"))


def _conditions(values: Mapping[str, BindParameter[Any]]) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [
        runs.c[name] == values[name] for name in LISTED_BY if name in values
    ]
    # Found once a query, in an index of its own that is mostly empty.
    conditions.append(runs.c.run_id.not_in(_UNEXPLAINED))
    if "prefix" in values:
        # Not LIKE, which does not distinguish `saw` from `SAW` and so cannot use the index.
        conditions.append(runs.c.tool_id >= values["prefix"])
        conditions.append(runs.c.tool_id < values["prefix_end"])
    conditions.append(runs.c.created_at_us >= values["earliest"])
    if "day_after" in values:
        conditions.append(runs.c.created_at_us < values["day_after"])
    if "last_us" in values:
        last = tuple_(values["last_us"], values["last_id"])
        conditions.append(tuple_(runs.c.created_at_us, runs.c.run_id) < last)
    return conditions


def _linked_advisories(
    connection: sqlite3.Connection, run_ids: list[str]
) -> dict[str, tuple[int, int]]:
    """Return how many advisories each run has that are linked, and how many explain it."""
    found = connection.execute(_COUNT_ADVISORIES, {"ids": json.dumps(run_ids)})
    return {run_id: (linked, explanations) for run_id, linked, explanations in found}


def _midnight(day: str) -> int:
    return microseconds_since_epoch(datetime.combine(date.fromisoformat(day), time(), UTC))


_EARLIEST_US = _midnight("2000-01-01")


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
