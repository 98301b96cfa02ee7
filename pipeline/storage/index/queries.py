"""The queries of one connection of the index, and the writes of one transaction."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, Table, bindparam, func, select
from sqlalchemy.dialects.sqlite import Insert, dialect, insert

from pipeline.core.advisories.outcome import StoredAdvisory
from pipeline.core.advisories.verdict import JudgedAdvisory
from pipeline.core.record import Partition
from pipeline.core.reject_limit import RejectWindow
from pipeline.core.runs.outcome import StoredRun
from pipeline.core.runs.verdict import JudgedRun
from pipeline.storage.index import tables
from pipeline.storage.index.tables import (
    IndexedRun,
    advisory_of_row,
    advisory_row,
    driver_text,
    stored_run_of_row,
)

LOOKUP_IDS = 512
"""Most ids of one query: those of a chunk."""

# One value for all the ids: binding each took as long as finding it. All that a batch asks or
# writes is text for the driver: to make a statement anew took longer than SQLite takes for it.
_KNOWN_RUNS = "SELECT * FROM runs WHERE run_id IN (SELECT value FROM json_each(?))"
_KNOWN_ADVISORIES = (
    "SELECT * FROM advisories WHERE (run_id, advisory_id) IN "
    "(SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"
)
_REJECT_WINDOW = "SELECT verdicts FROM flood_windows WHERE group_id = ?"
_OFFSETS = {
    table.name: driver_text(
        select(table.c.topic, table.c.partition, table.c.next_offset).where(
            table.c.epoch == bindparam("epoch")
        )
    )
    for table in (tables.positions, tables.accepted_losses, tables.reported_claims)
}


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
    judged = [each for each in verdicts if isinstance(each, (JudgedRun, JudgedAdvisory))]
    run_ids = dict.fromkeys(each.run_id for each in judged)
    keys = dict.fromkeys(each.key for each in judged if isinstance(each, JudgedAdvisory))
    return KnownRows(
        known_runs(connection, list(run_ids)), known_advisories(connection, list(keys))
    )


def _looked_up(connection: Connection, query: str, ids: Sequence[Any]) -> Iterator[RowMapping]:
    for start in range(0, len(ids), LOOKUP_IDS):
        wanted = json.dumps(ids[start : start + LOOKUP_IDS])
        yield from connection.exec_driver_sql(query, (wanted,)).mappings()


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
    rows = connection.exec_driver_sql(_OFFSETS[table.name], {"epoch": epoch})
    return {(topic, partition): following for topic, partition, following in rows}


def reject_window(connection: Connection, group_id: str) -> RejectWindow:
    """Return the last verdicts of a consumer group."""
    return RejectWindow(connection.exec_driver_sql(_REJECT_WINDOW, (group_id,)).scalar() or "")


@dataclass(frozen=True, slots=True)
class NewRows:
    """What the index has to hold. Also of a damaged file its row is as if the file were right.

    Attributes:
        runs: New ones.
        claimed: New advisories, linked or not.
        linked: Advisories that waited and now get their link.
    """

    runs: Sequence[IndexedRun] = ()
    claimed: Sequence[StoredAdvisory] = ()
    linked: Sequence[StoredAdvisory] = ()


def _text(statement: Insert) -> str:
    """Return the insert of whole rows as SQLite reads it, values by position."""
    return str(statement.compile(dialect=dialect()))


def _raise_offset(table: Table) -> str:
    """Return the insert of an offset; one that is there only becomes larger."""
    statement = insert(table)
    larger = func.max(table.c.next_offset, statement.excluded.next_offset)
    key = list(table.primary_key)
    return _text(statement.on_conflict_do_update(index_elements=key, set_={"next_offset": larger}))


_INSERT_RUN = _text(insert(tables.runs))
_INSERT_ATTACHMENT = _text(insert(tables.attachments))
_INSERT_WITHHELD = _text(insert(tables.withheld_blobs))
_INSERT_WITHHELD_PAYLOAD = _text(insert(tables.withheld_payloads))
_INSERT_ADVISORY = _text(insert(tables.advisories))
_RAISE_OFFSET = {name: _raise_offset(tables.metadata.tables[name]) for name in _OFFSETS}
_KEEP_REJECT_WINDOW = (
    "INSERT INTO flood_windows VALUES (?, ?) "
    "ON CONFLICT (group_id) DO UPDATE SET verdicts = excluded.verdicts"
)
_LINK_ADVISORY = "UPDATE advisories SET link_path = ? WHERE run_id = ? AND advisory_id = ?"


class IndexTransaction:
    """What is written between the begin and the commit of one batch.

    Attributes:
        connection: For its queries.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def add_rows(self, rows: NewRows) -> None:
        """Write what a batch adds."""
        self.add_runs(rows.runs)
        self.add_advisories(rows.claimed)
        self._write(_LINK_ADVISORY, [(each.link_path, *each.key) for each in rows.linked])

    def add_runs(self, added: Iterable[IndexedRun]) -> None:
        """Insert new runs with their attachments."""
        entries = list(added)
        self._write(_INSERT_RUN, [entry.row for entry in entries])
        self._write(_INSERT_ATTACHMENT, [row for each in entries for row in each.attachments])
        self._write(_INSERT_WITHHELD, [row for each in entries for row in each.withheld])
        self._write(
            _INSERT_WITHHELD_PAYLOAD,
            [row for each in entries for row in each.withheld_payloads or ()],
        )

    def add_advisories(self, added: Iterable[StoredAdvisory]) -> None:
        """Insert new advisories, linked or not."""
        self._write(_INSERT_ADVISORY, list(map(advisory_row, added)))

    def _write(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        # Straight to the driver: binding 26 named values a row took longer than the insert.
        if rows:
            self.connection.exec_driver_sql(statement, rows)

    def advance(self, epoch: int, next_offsets: Mapping[Partition, int]) -> None:
        """Note the next offset of partitions; never one that is smaller than before."""
        self._raise_offsets(tables.positions, epoch, next_offsets)

    def accept_losses(self, epoch: int, next_offsets: Mapping[Partition, int]) -> None:
        """Note that what the store misses before these offsets is given up."""
        self._raise_offsets(tables.accepted_losses, epoch, next_offsets)

    def note_reported_claims(self, epoch: int, next_offsets: Mapping[Partition, int]) -> None:
        """Note that every claim that waits before these offsets was reported."""
        self._raise_offsets(tables.reported_claims, epoch, next_offsets)

    def take_claims(self, claims: Sequence[tuple[int, str, int, int]]) -> None:
        """Note that claims are in hand: epoch, topic, partition and offset of each."""
        columns = tables.claims_in_hand.c.keys()
        rows = [dict(zip(columns, claim, strict=True)) for claim in claims]
        if rows:
            self.connection.execute(insert(tables.claims_in_hand).on_conflict_do_nothing(), rows)

    def note_topic_id(self, epoch: int, topic: str, topic_id: str) -> None:
        """Note which topic of its name the store keeps in `epoch`; the first one stays."""
        self.connection.execute(
            insert(tables.topic_ids).on_conflict_do_nothing(),
            {"epoch": epoch, "topic": topic, "topic_id": topic_id},
        )

    def _raise_offsets(
        self, table: Table, epoch: int, next_offsets: Mapping[Partition, int]
    ) -> None:
        rows = [(epoch, *partition, offset) for partition, offset in next_offsets.items()]
        self._write(_RAISE_OFFSET[table.name], rows)

    def keep_reject_window(self, group_id: str, window: RejectWindow) -> None:
        """Note the last verdicts of a consumer group."""
        self._write(_KEEP_REJECT_WINDOW, [(group_id, window.verdicts)])
