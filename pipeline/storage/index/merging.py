"""Queries that merge the runs of many parts of an index, all of them newest first.

A part is a tool, or the runs that came at about the same time: what an index keeps together. Within
a part its runs lie newest first. In SQLite the queue of a recursive query gives out the newest of
all: nothing is sorted, however many runs there are; it takes one seek a part and one a run.
"""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Integer,
    Select,
    bindparam,
    literal_column,
    select,
    text,
    tuple_,
)

from pipeline.storage.index.database import text_for
from pipeline.storage.index.tables import ARRIVAL, runs

NEWEST_FIRST = (runs.c.created_at_us.desc(), runs.c.run_id.desc())

ARRIVALS = f"""WITH RECURSIVE parts(key) AS (
        SELECT (SELECT {ARRIVAL} FROM runs WHERE {ARRIVAL} >= -1 ORDER BY {ARRIVAL} LIMIT 1)
        UNION ALL
        SELECT (SELECT {ARRIVAL} FROM runs WHERE {ARRIVAL} > parts.key
            ORDER BY {ARRIVAL} LIMIT 1)
        FROM parts WHERE parts.key IS NOT NULL)"""  # noqa: S608
"""The parts of `ARRIVAL`, each found by one seek; after the last a key that is null."""


def without_search(column: str, dialect_name: str) -> str:
    """Return a column of `runs` by which SQLite does not search: another one is to lead."""
    return f"+runs.{column}" if dialect_name == "sqlite" else f"runs.{column}"


def merged(
    dialect_name: str,
    parts: str,
    is_of_part: Callable[[str], Sequence[ColumnElement[bool]]],
    fits: Sequence[ColumnElement[bool]],
    fits_next: Sequence[ColumnElement[bool]],
    *,
    columns: Sequence[str],
    count: str | None = None,
) -> str:
    """Return the query of the runs of all parts, newest first.

    Args:
        dialect_name: Of the database.
        parts: `WITH RECURSIVE parts(key) AS ...`.
        is_of_part: From the name of a key to what the runs of that part fit.
        fits: What each run must fit besides.
        fits_next: The same without an upper bound of the time: SQLite searches by one, which is
            then the run before.
        columns: Of `runs`, in the rows of the answer.
        count: The name of the parameter that bounds the rows; None for all.
    """
    if dialect_name == "sqlite":
        return _queued(parts, is_of_part, fits, fits_next, columns=columns, count=count)
    return _gathered(parts, [*is_of_part("parts.key"), *fits], columns=columns, count=count)


def _gathered(
    parts: str,
    conditions: Sequence[ColumnElement[bool]],
    *,
    columns: Sequence[str],
    count: str | None,
) -> str:
    """Return the query for PostgreSQL, whose recursive queries have no queue.

    It takes the newest of each part and sorts them: as many as are asked for times the parts.
    """
    newest = select(*(runs.c[name] for name in columns)).where(*conditions)
    if count is None:
        kept, limit = text_for(newest, "postgresql"), ""
    else:
        bound = bindparam(count, type_=Integer)
        kept, limit = newest_first(newest, bound, "postgresql"), f"LIMIT %({count})s"
    # Every part is a constant of ours; values are bound.
    parts = text_for(text(parts), "postgresql")
    return f"""{parts} SELECT kept.* FROM parts CROSS JOIN LATERAL ({kept}) AS kept
        ORDER BY kept.created_at_us DESC, kept.run_id DESC {limit}"""  # noqa: S608


def _queued(
    parts: str,
    is_of_part: Callable[[str], Sequence[ColumnElement[bool]]],
    fits: Sequence[ColumnElement[bool]],
    fits_next: Sequence[ColumnElement[bool]],
    *,
    columns: Sequence[str],
    count: str | None,
) -> str:
    """Return the query for SQLite: the queue of its recursive query gives out the newest of all."""
    # Without any LIMIT SQLite would drop the order.
    limit = "LIMIT -1" if count is None else f"LIMIT :{count}"
    first = _newest([*is_of_part("parts.key"), *fits])
    # By the plus run_id is no column: SQLite compares two columns of text as bytes, which the index
    # does not, and would search by the time alone.
    before: Any = literal_column("(merged.created_at_us, +merged.run_id)")
    is_next = tuple_(runs.c.created_at_us, runs.c.run_id) < before
    following = _newest([*is_of_part("merged.key"), *fits_next, is_next])
    shown = ", ".join(f"kept.{name}" for name in columns)
    # Every part is a constant of ours; values are bound.
    return f"""{parts}, merged(place, key, created_at_us, run_id) AS (
        SELECT kept.rowid, parts.key, kept.created_at_us, kept.run_id
        FROM parts CROSS JOIN runs AS kept ON kept.rowid = ({first})
        UNION ALL
        SELECT kept.rowid, merged.key, kept.created_at_us, kept.run_id
        FROM merged CROSS JOIN runs AS kept ON kept.rowid = ({following})
        ORDER BY 3 DESC, 4 DESC {limit})
    SELECT {shown} FROM merged CROSS JOIN runs AS kept ON kept.rowid = merged.place"""  # noqa: S608


def newest_first(
    query: Select[Any] | CompoundSelect[Any], count: ColumnElement[int], dialect_name: str
) -> str:
    """Return the text of `query`, newest first, at most `count` rows."""
    # Without this offset SQLAlchemy binds one of its own.
    ordered = query.order_by(*NEWEST_FIRST).limit(count).offset(literal_column("0"))
    return text_for(ordered, dialect_name)


def _newest(conditions: Sequence[ColumnElement[bool]]) -> str:
    """Return the query of the rowid of the newest run that fits."""
    query: Select[Any] = select(literal_column("runs.rowid")).select_from(runs)
    return newest_first(query.where(*conditions), literal_column("1", Integer), "sqlite")
