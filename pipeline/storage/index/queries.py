"""Queries of the index over one connection, the same for readers and for transactions."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Executable, RowMapping, Table, select, text

from pipeline.core.advisories.outcome import StoredAdvisory
from pipeline.core.advisories.verdict import JudgedAdvisory
from pipeline.core.record import Partition
from pipeline.core.reject_limit import RejectWindow
from pipeline.core.runs.outcome import StoredRun
from pipeline.core.runs.verdict import JudgedRun
from pipeline.storage.index import tables
from pipeline.storage.index.tables import STORED_COLUMNS, advisory_of_row, runs, stored_run_of_row

LOOKUP_IDS = 500

# One value for all the ids: binding each took as long as finding it.
_KNOWN_RUNS = text(
    f"SELECT {', '.join(STORED_COLUMNS)} FROM runs "  # noqa: S608
    "WHERE run_id IN (SELECT value FROM json_each(:ids))"
).columns(*(runs.c[name] for name in STORED_COLUMNS))

_KNOWN_ADVISORIES = text(
    "SELECT * FROM advisories WHERE (run_id, advisory_id) IN "
    "(SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(:ids))"
).columns(*tables.advisories.c)


def known_runs(connection: Connection, run_ids: Sequence[str]) -> dict[str, StoredRun]:
    """Return those of `run_ids` that the index holds."""
    found = _looked_up(connection, _KNOWN_RUNS, run_ids)
    return {row["run_id"]: stored_run_of_row(row) for row in found}


def known_advisories(
    connection: Connection, keys: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], StoredAdvisory]:
    """Return those of `keys`, each a run_id and an advisory_id, that the index holds."""
    found = map(advisory_of_row, _looked_up(connection, _KNOWN_ADVISORIES, keys))
    return {advisory.key: advisory for advisory in found}


@dataclass(frozen=True, slots=True)
class KnownRows:
    """The rows that the index has under the ids of a batch."""

    runs: dict[str, StoredRun]
    advisories: dict[tuple[str, str], StoredAdvisory]


def known_rows(connection: Connection, verdicts: Iterable[object]) -> KnownRows:
    """Return the rows under the ids of `verdicts`, with the runs that advisories are about."""
    judged = [each for each in verdicts if isinstance(each, JudgedRun | JudgedAdvisory)]
    run_ids = dict.fromkeys(each.run_id for each in judged)
    keys = dict.fromkeys(each.key for each in judged if isinstance(each, JudgedAdvisory))
    return KnownRows(
        known_runs(connection, list(run_ids)), known_advisories(connection, list(keys))
    )


def _looked_up(
    connection: Connection, query: Executable, ids: Sequence[Any]
) -> Iterator[RowMapping]:
    for start in range(0, len(ids), LOOKUP_IDS):
        wanted = json.dumps(ids[start : start + LOOKUP_IDS])
        yield from connection.execute(query, {"ids": wanted}).mappings()


def positions(connection: Connection, epoch: int) -> dict[Partition, int]:
    """Return the next offset of each topic and partition in `epoch`."""
    return _offsets(connection, tables.positions, epoch)


def accepted_losses(connection: Connection, epoch: int) -> dict[Partition, int]:
    """Return up to which offset of each topic and partition a loss was accepted."""
    return _offsets(connection, tables.accepted_losses, epoch)


def reported_claims(connection: Connection, epoch: int) -> dict[Partition, int]:
    """Return before which offset of each topic and partition waiting claims were reported."""
    return _offsets(connection, tables.reported_claims, epoch)


def _offsets(connection: Connection, table: Table, epoch: int) -> dict[Partition, int]:
    rows = connection.execute(select(table).where(table.c.epoch == epoch))
    return {(row.topic, row.partition): row.next_offset for row in rows}


def reject_window(connection: Connection, group_id: str) -> RejectWindow:
    """Return the last verdicts of a consumer group."""
    windows = tables.reject_windows
    query = select(windows.c.verdicts).where(windows.c.group_id == group_id)
    return RejectWindow(connection.execute(query).scalar() or "")
