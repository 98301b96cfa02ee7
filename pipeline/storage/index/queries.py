"""The queries of one connection of the index, and the writes of one transaction."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    CursorResult,
    Executable,
    RowMapping,
    Table,
    TextClause,
    bindparam,
    delete,
    select,
    text,
    tuple_,
    update,
)

from pipeline.core.advisories.outcome import StoredAdvisory
from pipeline.core.advisories.verdict import JudgedAdvisory
from pipeline.core.record import Partition
from pipeline.core.reject_limit import RejectWindow
from pipeline.core.runs.outcome import StoredRun
from pipeline.core.runs.verdict import JudgedRun
from pipeline.storage.index import tables
from pipeline.storage.index.database import (
    DatabaseTransaction,
    Rowset,
    driver_text,
    each_of,
    each_pair_of,
)
from pipeline.storage.index.tables import (
    IndexedRun,
    advisories,
    advisory_of_row,
    advisory_row,
    runs,
    stored_run_of_row,
)

LOOKUP_IDS = 512
"""Most ids of one query: those of a chunk."""

# All that a batch asks or writes is text for the driver: to make a statement anew took longer than
# SQLite takes for it.
_KNOWN_RUNS = select(runs).where(runs.c.run_id.in_(select(each_of("ids"))))
_KNOWN_ADVISORIES = select(advisories).where(
    tuple_(advisories.c.run_id, advisories.c.advisory_id).in_(select(*each_pair_of("ids")))
)
_WINDOW = tables.reject_windows
_REJECT_WINDOWS = select(_WINDOW.c.group_id, _WINDOW.c.verdicts).where(
    _WINDOW.c.group_id.in_(select(each_of("ids")))
)
_OFFSETS = {
    table.name: select(table.c.topic, table.c.partition, table.c.next_offset).where(
        table.c.epoch == bindparam("epoch")
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

    def __bool__(self) -> bool:
        return bool(self.runs or self.advisories)

    def __or__(self, others: "KnownRows") -> "KnownRows":
        """Return these and others."""
        return KnownRows(self.runs | others.runs, self.advisories | others.advisories)


NOTHING_KNOWN = KnownRows({}, {})


class Question(NamedTuple):
    """A query with its values by name."""

    statement: Executable
    values: Mapping[str, Any]


def _lookups(query: Executable, ids: Sequence[Any]) -> list[Question]:
    return [
        Question(query, {"ids": json.dumps(ids[start : start + LOOKUP_IDS])})
        for start in range(0, len(ids), LOOKUP_IDS)
    ]


@dataclass(frozen=True, slots=True)
class BatchState:
    """What a batch begins with.

    Attributes:
        positions: The next offset of each partition of the epoch.
        windows: The last verdicts of the group in each partition of the batch.
        known: The rows under the ids of the batch.
    """

    positions: Mapping[Partition, int]
    windows: Mapping[Partition, RejectWindow]
    known: KnownRows


class BatchQuestions:
    """What a batch asks as it begins: all at once, as each answer may come from far away."""

    def __init__(
        self,
        epoch: int,
        group_id: str | None,
        places: Iterable[Partition],
        verdicts: Iterable[object],
    ) -> None:
        """Ask.

        Args:
            epoch: Of the store.
            group_id: Of the consumer group; None where no reject limit applies.
            places: The partitions of the batch.
            verdicts: Of its records.
        """
        run_ids, keys = _ids_of(verdicts)
        self._windows = {} if group_id is None else {_window_name(group_id, p): p for p in places}
        self._runs = _lookups(_KNOWN_RUNS, run_ids)
        self._advisories = _lookups(_KNOWN_ADVISORIES, keys)
        self.all = [
            Question(_OFFSETS[tables.positions.name], {"epoch": epoch}),
            *_lookups(_REJECT_WINDOWS, list(self._windows)),
            *self._runs,
            *self._advisories,
        ]

    def state(self, answers: Sequence[Rowset]) -> BatchState:
        """Return what was answered, in the order of `all`."""
        positions, *others = answers
        first = len(others) - len(self._advisories)
        windows = others[: first - len(self._runs)]
        runs = [row for rows in others[first - len(self._runs) : first] for row in rows]
        advisories = [advisory_of_row(row) for rows in others[first:] for row in rows]
        found = {
            self._windows[row["group_id"]]: RejectWindow(row["verdicts"])
            for rows in windows
            for row in rows
        }
        return BatchState(
            {(row["topic"], row["partition"]): row["next_offset"] for row in positions},
            {place: found.get(place, RejectWindow()) for place in self._windows.values()},
            KnownRows(
                {row["run_id"]: stored_run_of_row(row) for row in runs},
                {advisory.key: advisory for advisory in advisories},
            ),
        )


def _ids_of(verdicts: Iterable[object]) -> tuple[list[str], list[tuple[str, str]]]:
    judged = [each for each in verdicts if isinstance(each, (JudgedRun, JudgedAdvisory))]
    run_ids = dict.fromkeys(each.run_id for each in judged)
    keys = dict.fromkeys(each.key for each in judged if isinstance(each, JudgedAdvisory))
    return list(run_ids), list(keys)


def known_rows(connection: Connection, verdicts: Iterable[object]) -> KnownRows:
    """Return the rows under the ids of `verdicts`, with the runs that advisories are about."""
    run_ids, keys = _ids_of(verdicts)
    return KnownRows(known_runs(connection, run_ids), known_advisories(connection, keys))


def _looked_up(
    connection: Connection, query: Executable, ids: Sequence[Any]
) -> Iterator[RowMapping]:
    for question in _lookups(query, ids):
        yield from _run(connection, *question).mappings()


def _run(
    connection: Connection,
    statement: Executable,
    values: Any,  # noqa: ANN401 - one or many
) -> CursorResult[*tuple[Any, ...]]:
    text_of_driver = driver_text(statement, connection.dialect.name)
    return connection.exec_driver_sql(text_of_driver, values)


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
    rows = _run(connection, _OFFSETS[table.name], {"epoch": epoch})
    return {(topic, partition): following for topic, partition, following in rows}


def _window_name(group_id: str, place: Partition) -> str:
    """Return the name of a window; neither a group nor a topic has a space in its name."""
    topic, partition = place
    return f"{group_id} {topic}/{partition}"


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


def _upsert(table: Table, conflict: str) -> TextClause:
    """Return the insert of a row whose key may be there already."""
    names = table.c.keys()
    columns = ", ".join(f'"{name}"' for name in names)
    values = ", ".join(f":{name}" for name in names)
    # Every part is a constant of ours; values are bound.
    return text(f"INSERT INTO {table.name} ({columns}) VALUES ({values}) ON CONFLICT {conflict}")  # noqa: S608


def _raise_offset(table: Table) -> TextClause:
    """Return the insert of an offset; one that is there only becomes larger."""
    return _upsert(
        table,
        "(epoch, topic, partition) DO UPDATE SET next_offset = excluded.next_offset "
        f"WHERE excluded.next_offset > {table.name}.next_offset",
    )


_RAISE_OFFSET = {name: _raise_offset(tables.metadata.tables[name]) for name in _OFFSETS}
_KEEP_REJECT_WINDOW = _upsert(_WINDOW, "(group_id) DO UPDATE SET verdicts = excluded.verdicts")
_FORGET_REJECT_WINDOW = delete(_WINDOW).where(_WINDOW.c.group_id == bindparam("group_id"))
_TAKE_CLAIM = _upsert(tables.claims_in_hand, "DO NOTHING")
_NOTE_TOPIC_ID = _upsert(tables.topic_ids, "DO NOTHING")
_LINK_ADVISORY = (
    update(advisories)
    .where(
        advisories.c.run_id == bindparam("of_run"),
        advisories.c.advisory_id == bindparam("of_advisory"),
    )
    .values(link_path=bindparam("path"))
)


class IndexTransaction:
    """What is written between the begin and the commit of one batch."""

    def __init__(self, begun: DatabaseTransaction, dialect_name: str) -> None:
        self._begun = begun
        self._dialect_name = dialect_name

    @property
    def connection(self) -> Connection:
        """For its queries."""
        return self._begun.connection

    @property
    def answers(self) -> Sequence[Rowset]:
        """To what it asked first."""
        return self._begun.answers

    @property
    def may_lack_rows(self) -> bool:
        """Whether the database may have lost rows since the last transaction."""
        return self._begun.may_lack_rows

    def note_whole(self) -> None:
        """Note, with the commit, that it has them again."""
        self._begun.may_lack_rows = False

    def add_rows(self, rows: NewRows) -> KnownRows:
        """Write what a batch adds; return the rows of others that were first meanwhile.

        Nothing is added under their ids. From now on until the commit nobody else can be first
        with what was added.
        """
        later = self.add_runs(rows.runs)
        claimed_later = self.add_advisories(rows.claimed)
        linked = [
            {"path": each.link_path, "of_run": each.run_id, "of_advisory": each.advisory_id}
            for each in rows.linked
        ]
        self._write(_LINK_ADVISORY, linked)
        if not later and not claimed_later:
            return NOTHING_KNOWN
        return KnownRows(
            known_runs(self.connection, later), known_advisories(self.connection, claimed_later)
        )

    def add_runs(self, added: Iterable[IndexedRun]) -> list[str]:
        """Insert new runs with their attachments; return those that somebody else made first."""
        entries = list(added)
        later = [row[0] for row in self._claim(runs, [entry.row for entry in entries])]
        if later:
            not_ours = set(later)
            entries = [entry for entry in entries if entry.row[0] not in not_ours]
        self._insert(tables.attachments, [row for each in entries for row in each.attachments])
        self._insert(tables.withheld_blobs, [row for each in entries for row in each.withheld])
        self._insert(
            tables.withheld_payloads,
            [row for each in entries for row in each.withheld_payloads or ()],
        )
        return later

    def add_advisories(self, added: Iterable[StoredAdvisory]) -> list[tuple[str, str]]:
        """Insert new advisories, linked or not; return those that somebody else claimed first."""
        later = self._claim(advisories, list(map(advisory_row, added)))
        return [(row[0], row[1]) for row in later]

    def _claim(self, table: Table, rows: Sequence[tuple[Any, ...]]) -> Sequence[tuple[Any, ...]]:
        return self._begun.claim(table, rows) if rows else ()

    def _insert(self, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            self._begun.insert(table, rows)

    def _write(self, statement: Executable, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            self._begun.write(driver_text(statement, self._dialect_name), rows)

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
        self._write(_TAKE_CLAIM, [dict(zip(columns, claim, strict=True)) for claim in claims])

    def note_topic_id(self, epoch: int, topic: str, topic_id: str) -> None:
        """Note which topic of its name the store keeps in `epoch`; the first one stays."""
        self._write(_NOTE_TOPIC_ID, [{"epoch": epoch, "topic": topic, "topic_id": topic_id}])

    def _raise_offsets(
        self, table: Table, epoch: int, next_offsets: Mapping[Partition, int]
    ) -> None:
        rows = [
            {"epoch": epoch, "topic": topic, "partition": partition, "next_offset": offset}
            for (topic, partition), offset in next_offsets.items()
        ]
        self._write(_RAISE_OFFSET[table.name], rows)

    def keep_reject_windows(self, group_id: str, windows: Mapping[Partition, RejectWindow]) -> None:
        """Note the last verdicts of a consumer group in some partitions.

        A window that one group had for all of them, as an older version kept it, goes.
        """
        self._write(_FORGET_REJECT_WINDOW, [{"group_id": group_id}])
        self._write(
            _KEEP_REJECT_WINDOW,
            [
                {"group_id": _window_name(group_id, place), "verdicts": window.verdicts}
                for place, window in windows.items()
            ],
        )
