"""What the index knows of a program by its hash: the runs that refuse, cut or attach it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    CompoundSelect,
    Integer,
    String,
    bindparam,
    func,
    literal_column,
    select,
    union_all,
)

from pipeline.core.runs.outcome import StoredRun
from pipeline.storage.index.database import Reader, driver_text
from pipeline.storage.index.merging import ARRIVALS, merged, without_search
from pipeline.storage.index.tables import (
    ARRIVAL,
    HASH_START,
    attachments,
    hash_start,
    runs,
    stored_run_of_row,
    withheld_blobs,
    withheld_payloads,
)

_NAMES = tuple(runs.c.keys())
_SHA256: BindParameter[str] = bindparam("sha256")
_OK = literal_column("'OK'", String)
_ONE = literal_column("1", Integer)
_NONE_BEFORE = literal_column("0", Integer)


def refusing_run_ids(sha256: BindParameter[str]) -> CompoundSelect[tuple[str]]:
    """Return the query of the runs that refuse a program; a run may be there twice.

    Those that withhold its bytes, and those that are not OK and have them as an attachment. A
    request that is not OK may name a program as `debug` and at `outputs.gcode_path`: its artifact
    keeps the attachment and withholds the path.
    """
    attached = (
        select(attachments.c.run_id)
        .join_from(attachments, runs, runs.c.run_id == attachments.c.run_id)
        .where(attachments.c.sha256 == sha256, runs.c.status != _OK)
    )
    withheld = (
        select(table.c.run_id).where(table.c.sha256 == sha256)
        for table in (withheld_payloads, withheld_blobs)
    )
    return union_all(*withheld, attached)


def is_of_program(
    sha256: BindParameter[str], dialect_name: str
) -> Callable[[str], Sequence[ColumnElement[bool]]]:
    """Return what the runs of a program fit, in each part of those that came together."""

    def is_of_part(key: str) -> Sequence[ColumnElement[bool]]:
        return (
            literal_column(ARRIVAL) == literal_column(key),
            literal_column(hash_start("gcode_sha256"))
            == func.substr(sha256, literal_column("1"), literal_column(str(HASH_START))),
            # By the plus SQLite does not put the parameter into the line before.
            literal_column(without_search("gcode_sha256", dialect_name), String) == sha256,
        )

    return is_of_part


_refusing = refusing_run_ids(_SHA256).subquery()
# In the order of the keys, whichever comes first: to find the newest, all would be sorted.
_REFUSING = (
    select(runs)
    .join_from(_refusing, runs, runs.c.run_id == _refusing.c.run_id)
    .limit(_ONE)
    .offset(_NONE_BEFORE)
)
_ATTACHING = (
    select(attachments.c.run_id, attachments.c.kind)
    .join_from(attachments, runs, runs.c.run_id == attachments.c.run_id)
    .where(attachments.c.sha256 == _SHA256, runs.c.source_offset.is_not(None))
    .limit(_ONE)
    .offset(_NONE_BEFORE)
)


@cache
def _cutting(dialect_name: str) -> str:
    is_of_part = is_of_program(_SHA256, dialect_name)
    return merged(dialect_name, ARRIVALS, is_of_part, (), (), columns=_NAMES)


@dataclass(frozen=True, slots=True)
class ProgramRuns:
    """The runs that decide about a program, each None where there is none.

    Attributes:
        refusing: One of those that are not OK or withhold its bytes.
        cutting: The newest that a machine may cut by, its program being these bytes; where there
            is no such run, the newest of those whose program it is.
        attaching: run_id and kind of an attachment that is these bytes.
    """

    refusing: StoredRun | None
    cutting: StoredRun | None
    attaching: tuple[str, str] | None


def runs_of_program(connection: Reader, sha256: str) -> ProgramRuns:
    """Return the runs that decide about the program `sha256`, all of one state of the index."""
    values, name = {"sha256": sha256}, connection.dialect_name
    with connection.one_state():
        refusing = connection.execute(driver_text(_REFUSING, name), values).fetchone()
        cutting = None
        for row in connection.execute(_cutting(name), values):
            found = _run(row)
            cutting = cutting or found
            if found.may_cut:
                cutting = found
                break
        attaching = connection.execute(driver_text(_ATTACHING, name), values).fetchone()
    return ProgramRuns(refusing and _run(refusing), cutting, attaching)


def _run(row: tuple[object, ...]) -> StoredRun:
    return stored_run_of_row(dict(zip(_NAMES, row, strict=True)))
