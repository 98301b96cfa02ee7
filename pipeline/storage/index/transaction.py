"""What one transaction of the index writes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import (
    ClauseElement,
    Connection,
    Table,
    func,
)
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.dialects.sqlite import insert

from pipeline.core.advisories.outcome import StoredAdvisory
from pipeline.core.record import Partition
from pipeline.core.reject_limit import RejectWindow
from pipeline.storage.index.tables import (
    IndexedRun,
    accepted_losses,
    advisories,
    advisory_row,
    attachments,
    positions,
    reject_windows,
    reported_claims,
    runs,
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


_INSERT_ADVISORY = _driver_sql(insert(advisories))
_LINK_ADVISORY = "UPDATE advisories SET link_path = ? WHERE run_id = ? AND advisory_id = ?"


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


class IndexTransaction:
    """What is written between the begin and the commit of one batch.

    Attributes:
        connection: For what it reads.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def add_rows(self, rows: NewRows) -> None:
        """Write what a batch adds."""
        self.add_runs(rows.runs)
        self.add_advisories(rows.claimed)
        self.link_advisories(rows.linked)

    def add_runs(self, added: Iterable[IndexedRun]) -> None:
        """Insert new runs with their attachments."""
        entries = list(added)
        listed = [row for entry in entries for row in entry.attachments]
        withheld = [row for entry in entries for row in entry.withheld]
        payloads = [row for entry in entries for row in entry.withheld_payloads or ()]
        # Straight to the driver: binding 26 named values a row took longer than the insert.
        if entries:
            self.connection.exec_driver_sql(_INSERT_RUN, [entry.row for entry in entries])
        if listed:
            self.connection.exec_driver_sql(_INSERT_ATTACHMENT, listed)
        if withheld:
            self.connection.exec_driver_sql(_INSERT_WITHHELD, withheld)
        if payloads:
            self.connection.exec_driver_sql(_INSERT_WITHHELD_PAYLOAD, payloads)

    def add_advisories(self, added: Iterable[StoredAdvisory]) -> None:
        """Insert new advisories, linked or not."""
        entries = [advisory_row(advisory) for advisory in added]
        if entries:
            self.connection.exec_driver_sql(_INSERT_ADVISORY, entries)

    def link_advisories(self, linked: Iterable[StoredAdvisory]) -> None:
        """Note the links of advisories that were waiting for their run."""
        entries = [(each.link_path, *each.key) for each in linked]
        if entries:
            self.connection.exec_driver_sql(_LINK_ADVISORY, entries)

    def advance(self, epoch: int, next_offsets: Mapping[Partition, int]) -> None:
        """Note the next offset of partitions; never one that is smaller than before."""
        self._raise_offsets(positions, epoch, next_offsets)

    def accept_losses(self, epoch: int, next_offsets: Mapping[Partition, int]) -> None:
        """Note that what the store misses before these offsets is given up."""
        self._raise_offsets(accepted_losses, epoch, next_offsets)

    def note_reported_claims(self, epoch: int, next_offsets: Mapping[Partition, int]) -> None:
        """Note that every claim that waits before these offsets was reported."""
        self._raise_offsets(reported_claims, epoch, next_offsets)

    def note_topic_id(self, epoch: int, topic: str, topic_id: str) -> None:
        """Note which topic of its name the store keeps in `epoch`; the first one stays."""
        self.connection.execute(
            insert(topic_ids).on_conflict_do_nothing(),
            {"epoch": epoch, "topic": topic, "topic_id": topic_id},
        )

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
            self.connection.execute(statement, rows)

    def keep_reject_window(self, group_id: str, window: RejectWindow) -> None:
        """Note the last verdicts of a consumer group."""
        statement = insert(reject_windows)
        statement = statement.on_conflict_do_update(
            index_elements=["group_id"], set_={"verdicts": statement.excluded.verdicts}
        )
        self.connection.execute(statement, {"group_id": group_id, "verdicts": window.verdicts})
