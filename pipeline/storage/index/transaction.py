"""What one transaction of the index reads and writes."""

import json
from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import (
    ClauseElement,
    Connection,
    Table,
    func,
    select,
    text,
)
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.dialects.sqlite import insert

from pipeline.core.advisories.outcome import StoredAdvisory
from pipeline.core.record import Partition
from pipeline.core.reject_limit import RejectWindow
from pipeline.core.runs.outcome import StoredRun
from pipeline.storage.index.tables import (
    _STORED,
    IndexedRun,
    _advisory_of_row,
    accepted_losses,
    advisories,
    advisory_row,
    attachments,
    positions,
    reject_windows,
    runs,
    stored_run_of_row,
    topic_ids,
    withheld_blobs,
    withheld_payloads,
)


def _driver_sql(statement: ClauseElement) -> str:
    """Return `statement` as SQLite reads it, its values by position."""
    return str(statement.compile(dialect=sqlite_dialect()))


_INSERT_RUN = _driver_sql(insert(runs))


_INSERT_ATTACHMENT = _driver_sql(insert(attachments))


_INSERT_WITHHELD = _driver_sql(insert(withheld_blobs))


_INSERT_WITHHELD_PAYLOAD = _driver_sql(insert(withheld_payloads))


# One value for all the ids: binding each took as long as finding it.
_KNOWN_RUNS = text(
    f"SELECT {', '.join(_STORED)} FROM runs WHERE run_id IN (SELECT value FROM json_each(:ids))"  # noqa: S608
).columns(*(runs.c[name] for name in _STORED))


_LOOKUP_IDS = 500


_INSERT_ADVISORY = _driver_sql(insert(advisories))


_LINK_ADVISORY = "UPDATE advisories SET link_path = ? WHERE run_id = ? AND advisory_id = ?"


_KNOWN_ADVISORIES = text(
    "SELECT * FROM advisories WHERE (run_id, advisory_id) IN "
    "(SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(:ids))"
).columns(*advisories.c)


class IndexTransaction:
    """What is done between the begin and the commit of one batch."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def known_runs(self, run_ids: Sequence[str]) -> dict[str, StoredRun]:
        """Return those of `run_ids` that the index holds."""
        found: dict[str, StoredRun] = {}
        for start in range(0, len(run_ids), _LOOKUP_IDS):
            ids = json.dumps(run_ids[start : start + _LOOKUP_IDS])
            for row in self._connection.execute(_KNOWN_RUNS, {"ids": ids}).mappings():
                found[row["run_id"]] = stored_run_of_row(row)
        return found

    def add_runs(self, added: Iterable[IndexedRun]) -> None:
        """Insert new runs with their attachments."""
        entries = list(added)
        listed = [row for entry in entries for row in entry.attachments]
        withheld = [row for entry in entries for row in entry.withheld]
        payloads = [row for entry in entries for row in entry.withheld_payloads or ()]
        # Straight to the driver: binding 26 named values a row took longer than the insert.
        if entries:
            self._connection.exec_driver_sql(_INSERT_RUN, [entry.row for entry in entries])
        if listed:
            self._connection.exec_driver_sql(_INSERT_ATTACHMENT, listed)
        if withheld:
            self._connection.exec_driver_sql(_INSERT_WITHHELD, withheld)
        if payloads:
            self._connection.exec_driver_sql(_INSERT_WITHHELD_PAYLOAD, payloads)

    def known_advisories(
        self, keys: Sequence[tuple[str, str]]
    ) -> dict[tuple[str, str], StoredAdvisory]:
        """Return those of `keys`, each a run_id and an advisory_id, that the index holds."""
        found: dict[tuple[str, str], StoredAdvisory] = {}
        for start in range(0, len(keys), _LOOKUP_IDS):
            ids = json.dumps(keys[start : start + _LOOKUP_IDS])
            for row in self._connection.execute(_KNOWN_ADVISORIES, {"ids": ids}).mappings():
                advisory = _advisory_of_row(row)
                found[advisory.key] = advisory
        return found

    def add_advisories(self, added: Iterable[StoredAdvisory]) -> None:
        """Insert new advisories, linked or not."""
        entries = [advisory_row(advisory) for advisory in added]
        if entries:
            self._connection.exec_driver_sql(_INSERT_ADVISORY, entries)

    def link_advisories(self, linked: Iterable[StoredAdvisory]) -> None:
        """Note the links of advisories that were waiting for their run."""
        entries = [(each.link_path, *each.key) for each in linked]
        if entries:
            self._connection.exec_driver_sql(_LINK_ADVISORY, entries)

    def positions(self, epoch: int) -> dict[Partition, int]:
        """Return the next offset of each topic and partition in `epoch`."""
        return self._offsets(positions, epoch)

    def advance(self, epoch: int, next_offsets: Mapping[Partition, int]) -> None:
        """Note the next offset of partitions; never one that is smaller than before."""
        self._raise_offsets(positions, epoch, next_offsets)

    def accepted_losses(self, epoch: int) -> dict[Partition, int]:
        """Return up to which offset of each topic and partition a loss was accepted."""
        return self._offsets(accepted_losses, epoch)

    def accept_losses(self, epoch: int, next_offsets: Mapping[Partition, int]) -> None:
        """Note that what the store misses before these offsets is given up."""
        self._raise_offsets(accepted_losses, epoch, next_offsets)

    def note_topic_id(self, epoch: int, topic: str, topic_id: str) -> None:
        """Note which topic of its name the store keeps in `epoch`; the first one stays."""
        self._connection.execute(
            insert(topic_ids).on_conflict_do_nothing(),
            {"epoch": epoch, "topic": topic, "topic_id": topic_id},
        )

    def _offsets(self, table: Table, epoch: int) -> dict[Partition, int]:
        rows = self._connection.execute(select(table).where(table.c.epoch == epoch))
        return {(row.topic, row.partition): row.next_offset for row in rows}

    def _raise_offsets(
        self, table: Table, epoch: int, next_offsets: Mapping[Partition, int]
    ) -> None:
        statement = insert(table)
        statement = statement.on_conflict_do_update(
            index_elements=["epoch", "topic", "partition"],
            set_={"next_offset": func.max(table.c.next_offset, statement.excluded.next_offset)},
        )
        rows = [
            {"epoch": epoch, "topic": topic, "partition": partition, "next_offset": offset}
            for (topic, partition), offset in next_offsets.items()
        ]
        if rows:
            self._connection.execute(statement, rows)

    def reject_window(self, group_id: str) -> RejectWindow:
        """Return the last verdicts of a consumer group."""
        statement = select(reject_windows.c.verdicts).where(reject_windows.c.group_id == group_id)
        return RejectWindow(self._connection.execute(statement).scalar() or "")

    def keep_reject_window(self, group_id: str, window: RejectWindow) -> None:
        """Note the last verdicts of a consumer group."""
        statement = insert(reject_windows)
        statement = statement.on_conflict_do_update(
            index_elements=["group_id"], set_={"verdicts": statement.excluded.verdicts}
        )
        self._connection.execute(statement, {"group_id": group_id, "verdicts": window.verdicts})
