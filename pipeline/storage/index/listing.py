"""Listing runs: newest first, filtered, page by page with a strict keyset cursor."""

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import cache, lru_cache
from typing import Any

import orjson
from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Integer,
    bindparam,
    literal_column,
    select,
    text,
    tuple_,
)

from pipeline.core.json.canonical import FAST_OPTIONS, canonical_json
from pipeline.core.runs.safety import may_cut
from pipeline.errors import InputError
from pipeline.storage.index.database import Reader, text_for
from pipeline.storage.index.merging import ARRIVALS, merged, newest_first, without_search
from pipeline.storage.index.programs import is_of_program, refusing_run_ids
from pipeline.storage.index.tables import LISTED_BY, runs
from schemas.fields import LABEL_LIMIT_CHARACTERS, is_run_id
from schemas.run_filter import LARGEST_LIMIT, RunFilter
from schemas.timestamps import microseconds_since_epoch

_CURSOR = re.compile(r"(-?[0-9]{1,18})\|(.+)")
_PLAIN_FROM = 1e-4
"""Below it orjson writes a number in another form than canonical JSON."""
_DAY_US = 86_400_000_000
_LAST_TEXT = "\U0010ffff" * LABEL_LIMIT_CHARACTERS
_SHOWN = (
    *("run_id", "created_at_utc", "event_type", "status", "mode", "tool_id", "material_id"),
    *("machine_id", "workflow_session_id", "risk_level", "block_reason", "feasibility_sha256"),
    *("toolpaths_sha256", "gcode_sha256", "gcode_known_by", "artifact_sha256", "artifact_path"),
)
_COLUMNS = tuple(runs.c[name] for name in (*_SHOWN, "score", "legacy", "created_at_us"))
_LINKED = """FROM advisories WHERE advisories.run_id = page.run_id AND link_path IS NOT NULL
    AND source_offset IS NOT NULL"""
# SQLite's own JSON would cut a score off after 15 digits; with 21 each is read as it was.
_SCORE = "iif(score IS NULL, NULL, printf('%!.20e', score))"
_JSON_OF_ROWS = {
    "sqlite": ("json_group_array", "json_array", _SCORE),
    "postgresql": ("json_agg", "json_build_array", "score"),
}
_FIRST_BUDGET = 1000
"""Tools that are merged, or runs that are looked through, before the other way is tried."""

# Not LIKE, which does not distinguish `saw` from `SAW` and so cannot use the index. Each tool_id is
# one seek, however many runs it has.
_TOOLS = """WITH RECURSIVE parts(key) AS (
        SELECT kept.tool_id FROM runs AS kept WHERE kept.rowid = (
            SELECT rowid FROM runs WHERE tool_id >= :prefix AND tool_id < :prefix_end
            ORDER BY tool_id LIMIT 1)
        UNION ALL
        SELECT kept.tool_id FROM parts CROSS JOIN runs AS kept ON kept.rowid = (
            SELECT rowid FROM runs WHERE tool_id > parts.key AND tool_id < :prefix_end
            ORDER BY tool_id LIMIT 1)
        LIMIT :budget)"""
# PostgreSQL computes no more of it than the query behind it takes.
_TOOLS_ONE_BY_ONE = """WITH RECURSIVE parts(key) AS (
        (SELECT tool_id FROM runs WHERE tool_id >= :prefix AND tool_id < :prefix_end
            ORDER BY tool_id LIMIT 1)
        UNION ALL
        SELECT (SELECT tool_id FROM runs WHERE tool_id > parts.key AND tool_id < :prefix_end
            ORDER BY tool_id LIMIT 1)
        FROM parts WHERE parts.key IS NOT NULL)"""
_COUNT_TOOLS = {
    "sqlite": f"{_TOOLS} SELECT count(*) FROM parts",  # noqa: S608
    "postgresql": f"""{_TOOLS_ONE_BY_ONE} SELECT count(*) FROM
        (SELECT 1 FROM parts WHERE key IS NOT NULL LIMIT :budget) AS found""",  # noqa: S608
}
_OF_PREFIX = "tool_id >= :prefix AND tool_id < :prefix_end"
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


def list_runs(connection: Reader, wanted: RunFilter) -> RunPage:
    """Return the page that `wanted` asks for.

    Raises:
        InputError: The cursor is none of ours.
    """
    limit = max(1, min(wanted.limit, LARGEST_LIMIT))
    rows = _rows(connection, {**_values(wanted), "count": limit + 1})
    next_cursor = None
    if len(rows) > limit:
        del rows[limit:]
        next_cursor = _write_cursor(rows[-1][len(_SHOWN) + 2], rows[-1][0])
    return RunPage(list(map(_item, rows)), next_cursor, limit)


def _item(row: Sequence[Any]) -> dict[str, Any]:
    """Return the item of a row of `_found`."""
    score, legacy, _, advisory_count, is_explained = row[len(_SHOWN) :]
    item = dict(zip(_SHOWN, row, strict=False))
    item["score"] = None if score is None else float(score)
    # What no record explains is not listed.
    item["may_cut"] = may_cut(
        status=item["status"], risk_level=item["risk_level"], legacy=bool(legacy)
    )
    item["advisory_count"] = advisory_count
    item["explanation_status"] = "READY" if is_explained else "NONE"
    return item


def _values(wanted: RunFilter) -> dict[str, Any]:
    """Return what is bound to the query, by the names of its parameters."""
    filters = (*LISTED_BY, "gcode_sha256")
    values = {name: value for name in filters if (value := getattr(wanted, name)) is not None}
    if wanted.tool_id_prefix is not None:
        values["prefix"] = wanted.tool_id_prefix
        values["prefix_end"] = wanted.tool_id_prefix + _LAST_TEXT
    # Always bounded, so that a page is searched for and not scanned from the start.
    values["earliest"] = _EARLIEST_US if wanted.date_from is None else _midnight(wanted.date_from)
    if wanted.cursor is not None:
        values["last_us"], values["last_id"] = _read_cursor(wanted.cursor)
    if wanted.date_to is not None:
        day_after = _midnight(wanted.date_to) + _DAY_US
        # The nearer bound alone: of two, SQLite would search by either.
        if day_after <= values.get("last_us", day_after):
            values["day_after"] = day_after
            values.pop("last_us", None)
            values.pop("last_id", None)
    return values


def _rows(connection: Reader, values: Mapping[str, Any]) -> list[list[Any]]:
    """Return the rows that fit `values`, newest first, at most `count` of them."""
    names, dialect_name = frozenset(values), connection.dialect_name
    if "gcode_sha256" in names:
        return _found(connection, _of_program(names, dialect_name), values)
    if "prefix" in names:
        with connection.one_state():
            return _rows_of_prefix(connection, names, values)
    filters = names & set(LISTED_BY)
    if len(filters) > 1 and dialect_name == "sqlite":
        with connection.one_state():
            return _rows_of_the_fewest(connection, values, sorted(filters))
    return _found(connection, _newest(names, "count", dialect_name), values)


def _found(connection: Reader, query: str, values: Mapping[str, Any]) -> list[list[Any]]:
    """Return the rows of a query of `_COLUMNS`, each with what is linked: a number, and whether.

    SQLite lets the other threads of Python go first at each row: so all rows come as one.
    """
    of_all = _as_one_row(query, connection.dialect_name)
    found: list[list[Any]] = orjson.loads(connection.execute(of_all, values).fetchone()[0])
    return found


@lru_cache(maxsize=1024)
def _as_one_row(query: str, dialect_name: str) -> str:
    """Return the query of the rows of `query` as one JSON text, in their order."""
    array_of_rows, array, score = _JSON_OF_ROWS[dialect_name]
    # Every part is a constant of ours; values are bound. What is linked is found by the index over
    # advisories, for the runs of one page alone.
    return f"""SELECT coalesce(CAST({array_of_rows}({array}({", ".join(_SHOWN)}, {score}, legacy,
        created_at_us, (SELECT count(*) {_LINKED}),
        EXISTS (SELECT 1 {_LINKED} AND kind = 'explanation'))) AS text), '[]')
        FROM ({query}) AS page"""  # noqa: S608


def _rows_of_prefix(
    connection: Reader, names: frozenset[str], values: Mapping[str, Any]
) -> list[list[Any]]:
    """Return the rows that fit a prefix and more.

    Either the tools of the prefix are few and their runs are merged, or the newest runs are looked
    through: in turns, so that it takes as long as the quicker of both, whatever the data.
    """
    dialect_name, budget = connection.dialect_name, _FIRST_BUDGET
    while True:
        within = {**values, "budget": budget}
        (tools,) = connection.execute(_count_tools(dialect_name), within).fetchone()
        if tools < budget:
            return _found(connection, _of_tools(names, dialect_name), within)
        rows = _found(connection, _looked_through(names, _OF_PREFIX, dialect_name), within)
        if len(rows) == values["count"] or _has_seen_all(connection, within):
            return rows
        budget *= 8


def _rows_of_the_fewest(
    connection: Reader, values: Mapping[str, Any], filters: Sequence[str]
) -> list[list[Any]]:
    """Return the rows that fit several filters, by that which the fewest runs fit.

    SQLite knows nothing of the values and would search by any of them: 990,000 runs that are OK for
    the ten of a machine. So the runs of each filter are counted, as far as a budget, and in turns
    the newest of one are looked through: it takes as long as the quicker of both.
    """
    budget = _FIRST_BUDGET
    while True:
        within = {**values, "budget": budget}
        for name in filters:
            (fits,) = connection.execute(_count_of(name, "day_after" in values), within).fetchone()
            if fits < budget:
                break
        others = [each for each in filters if each != name]
        fit = " AND ".join(f"{each} = :{each}" for each in others)
        newest = _looked_through(frozenset(within).difference(others), fit, "sqlite")
        rows = _found(connection, newest, within)
        if fits < budget or len(rows) == values["count"]:
            return rows
        budget *= 8


@cache
def _count_of(name: str, is_bounded: bool) -> str:
    """Return the query that counts the runs of one filter, no further than `budget`."""
    bound = "AND created_at_us < :day_after" if is_bounded else ""
    # Every part is a constant of ours; values are bound.
    return f"""SELECT count(*) FROM (SELECT 1 FROM runs WHERE {name} = :{name}
        AND created_at_us >= :earliest {bound} LIMIT :budget)"""  # noqa: S608


@cache
def _count_tools(dialect_name: str) -> str:
    return text_for(text(_COUNT_TOOLS[dialect_name]), dialect_name)


@lru_cache(maxsize=1024)
def _of_program(names: frozenset[str], dialect_name: str) -> str:
    """Return the query of the newest runs of a program: those that cut it, and that refuse it.

    A run that is not OK has no program in its row. Those runs are found by what they withhold or
    attach and sorted, however few are asked for: the query takes as long as they are many.
    """
    program: BindParameter[str] = bindparam("gcode_sha256")
    # By the plus none of these columns leads the search: a program has few runs, a tool may have
    # all of them.
    others = [
        literal_column(without_search(name, dialect_name)) == bindparam(name)
        for name in LISTED_BY
        if name in names
    ]
    if "prefix" in names:
        tool_id: Any = literal_column(without_search("tool_id", dialect_name))
        others += [tool_id >= bindparam("prefix"), tool_id < bindparam("prefix_end")]
    fits = [*others, *_conditions(names - set(LISTED_BY))]
    fits_next = [*others, *_conditions(names - {*LISTED_BY, "day_after"})]
    is_of_part = is_of_program(program, dialect_name)
    cutting = _merged(dialect_name, ARRIVALS, is_of_part, fits, fits_next)
    refusing = select(*_COLUMNS).where(
        runs.c.run_id.in_(refusing_run_ids(program)),
        runs.c.gcode_sha256.is_distinct_from(program),
        *fits,
    )
    refused = newest_first(refusing, bindparam("count", type_=Integer), dialect_name)
    # Every part is a constant of ours; values are bound.
    limit = text_for(text("LIMIT :count"), dialect_name)
    return f"""SELECT * FROM (SELECT * FROM ({cutting}) AS cutting
        UNION ALL SELECT * FROM ({refused}) AS refused) AS found
        ORDER BY created_at_us DESC, run_id DESC {limit}"""  # noqa: S608


def _has_seen_all(connection: Reader, within: Mapping[str, Any]) -> bool:
    """Return whether fewer rows than the budget fit all but the prefix."""
    newest = _newest(frozenset(within), "budget", connection.dialect_name)
    query = f"SELECT count(*) FROM ({newest}) AS newest"  # noqa: S608
    return bool(connection.execute(query, within).fetchone()[0] < within["budget"])


@lru_cache(maxsize=1024)
def _newest(names: frozenset[str], limit: str, dialect_name: str) -> str:
    """Return the query of the newest runs that fit all but a prefix.

    Made once for each set of parameters: making it takes longer than SQLite's answer.

    Args:
        names: The parameters that are bound.
        limit: The name of the one that bounds the rows.
        dialect_name: Of the database.
    """
    query = select(*_COLUMNS).where(*_conditions(names))
    return newest_first(query, bindparam(limit, type_=Integer), dialect_name)


@lru_cache(maxsize=1024)
def _looked_through(names: frozenset[str], fit: str, dialect_name: str) -> str:
    """Return the query of the runs that fit more among the newest `budget` that fit `names`.

    Args:
        names: The parameters that are bound.
        fit: What those runs must fit besides.
        dialect_name: Of the database.
    """
    # Every part is a constant of ours; values are bound.
    return f"""SELECT * FROM ({_newest(names, "budget", dialect_name)}) AS newest
        WHERE {text_for(text(f"{fit} LIMIT :count"), dialect_name)}"""  # noqa: S608


@lru_cache(maxsize=1024)
def _of_tools(names: frozenset[str], dialect_name: str) -> str:
    """Return the query that merges the runs of each tool, all of them newest first."""
    fits, fits_next = _conditions(names), _conditions(names - {"day_after"})
    tools = _TOOLS if dialect_name == "sqlite" else _TOOLS_ONE_BY_ONE

    def is_of_part(key: str) -> Sequence[ColumnElement[bool]]:
        return [runs.c.tool_id == literal_column(key)]

    return _merged(dialect_name, tools, is_of_part, fits, fits_next)


def _merged(
    dialect_name: str,
    parts: str,
    is_of_part: Callable[[str], Sequence[ColumnElement[bool]]],
    fits: Sequence[ColumnElement[bool]],
    fits_next: Sequence[ColumnElement[bool]],
) -> str:
    columns = [column.name for column in _COLUMNS]
    return merged(dialect_name, parts, is_of_part, fits, fits_next, columns=columns, count="count")


def _conditions(names: frozenset[str]) -> list[ColumnElement[bool]]:
    """Return what a run must fit beside the prefix."""
    values: dict[str, BindParameter[Any]] = {name: bindparam(name) for name in names}
    conditions: list[ColumnElement[bool]] = [
        runs.c[name] == values[name] for name in LISTED_BY if name in values
    ]
    # Found once a query, in an index of its own that is mostly empty.
    conditions.append(runs.c.run_id.not_in(_UNEXPLAINED))
    conditions.append(runs.c.created_at_us >= values["earliest"])
    if "day_after" in values:
        conditions.append(runs.c.created_at_us < values["day_after"])
    if "last_us" in values:
        last = tuple_(values["last_us"], values["last_id"])
        conditions.append(tuple_(runs.c.created_at_us, runs.c.run_id) < last)
    return conditions


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
