"""The store as an audit opens it: contents, what is asked about its files, and its index.

The index may be missing or damaged, which is a finding, or be a database that other hosts write.
Its rows are compared as of the moment of the logs' checkpoints.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote

from sqlalchemy import Select, bindparam, column, func, literal_column, or_, select

from pipeline.audit import queries
from pipeline.audit.rules.parts import END_US, FIRST_US, Extent
from pipeline.core.store.contents import StoreContents
from pipeline.core.store.files import Inspection, NotAFileError
from pipeline.disk.contents import disk_contents
from pipeline.disk.inspection import DiskInspection
from pipeline.disk.regular_files import state_of
from pipeline.disk.sqlite.file import read_only
from pipeline.disk.sqlite.reading import ReadConnection
from pipeline.disk.sqlite.replacement import rows_left
from pipeline.disk.sqlite.scratch import ScratchDatabase, SqliteError, has_no_room
from pipeline.settings import Settings
from pipeline.storage.contents import shared_stores
from pipeline.storage.index.database import driver_text, each_of
from pipeline.storage.index.run_index import INDEX_FILE, RunIndex
from pipeline.storage.index.schema import SCHEMA
from pipeline.storage.index.tables import advisories, attachments, runs

NO_INDEX: Final = "no such file"
"""Why the index cannot be read where there is none."""

RowsOfTables = Iterator[tuple[str, Iterable[tuple[Any, ...]]]]
"""The name of each table, and rows of its columns that are compared, in their order."""


class RowReader(Protocol):
    """Rows of an index as it is by now."""

    def rows(self, run_ids: Sequence[str]) -> RowsOfTables:
        """Yield the rows that some runs have in each table that is made of artifacts and links."""

    def close(self) -> None:
        """Close the connection."""


class AuditedIndex(Protocol):
    """The rows of an index, be it whole or not."""

    def begin(self, plan: ScratchDatabase) -> str | None:
        """Begin to read the rows as they are now; return why they cannot be read, if so."""

    def copy(self, plan: ScratchDatabase, extent: Extent) -> str | None:
        """Copy the rows that `begin` sees into a plan; return why they cannot be read, if so.

        Of an extent that is not everything: of runs made on its dates, and of those that the plan
        wants; with what has no date, also of advisories without a run. Of a part, also which
        requests are quarantined in its folders. Whether the index has any row, it notes too.
        """

    def end(self) -> None:
        """Let go of what `begin` sees, however far an audit came; a second time of nothing."""

    def reader(self) -> RowReader:
        """Open it for look-ups."""

    def known_runs(self, run_ids: Sequence[str]) -> set[str]:
        """Return those of `run_ids` that have a row by now, as far as can be read."""

    def requests_of_runs(self, hashes: Sequence[str]) -> set[str]:
        """Return those of `hashes` that are of the request of a run, as far as can be read."""


@dataclass(frozen=True, slots=True)
class AuditedStore(StoreContents):
    """A store that is audited.

    Attributes:
        inspection: Of its files.
        index: Its index.
        again: Opens it once more, in another process; can be pickled.
    """

    inspection: Inspection
    index: AuditedIndex
    again: Callable[[], "AuditedStore"]


def audited_folder(root: Path) -> AuditedStore:
    """Open the store at `root`, whatever its index is like.

    Raises:
        StoreNotReadyError: There is no store.
    """
    store = disk_contents(root)
    return AuditedStore(
        store.identity,
        store.files,
        store.logs,
        store.lock,
        DiskInspection(root),
        IndexInFile(root),
        partial(audited_folder, root),
    )


def audited_store(settings: Settings) -> AuditedStore:
    """Open the store that the settings name.

    Raises:
        StoreNotReadyError: There is no store, or it cannot be used as it is.
        StoreAwayError: A bucket or a database does not answer.
    """
    if not settings.is_shared:
        return audited_folder(settings.data_dir)
    store, inspection = shared_stores().open_to_audit(settings)
    return AuditedStore(
        store.identity,
        store.files,
        store.logs,
        store.lock,
        inspection,
        IndexInDatabase(store.index),
        partial(audited_store, settings),
        let_go=store.close,
    )


class IndexInFile:
    """An index in a file of the store, which may be missing, damaged, or of another format."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def begin(self, plan: ScratchDatabase) -> str | None:
        """Attach the index to the plan, in a transaction."""
        index = self._root / INDEX_FILE
        try:
            if state_of(str(index)) is None:
                return NO_INDEX
        except NotAFileError as error:
            return str(error)
        try:
            plan.execute(queries.ATTACH_INDEX.format(quote(str(index))))
        except SqliteError as error:
            return str(error)
        try:
            (found,) = plan.execute(queries.INDEX_VERSION).fetchone()
            if found != SCHEMA.format:
                plan.execute("DETACH store")
                return f"an index of format {found}, not {SCHEMA.format}"
            plan.execute("BEGIN")
            # Only now the index is read, and stays as it is for this transaction.
            plan.execute(queries.FIRST_READ).fetchone()
        except SqliteError as error:
            _abandon(plan)
            return str(error)
        return None

    def copy(self, plan: ScratchDatabase, extent: Extent) -> str | None:
        """Copy the rows from file to file."""

        def next_us(least_us: int) -> int | None:
            found: int | None = plan.execute(queries.NEXT_MADE, (least_us,)).fetchone()[0]
            return found

        try:
            for span in extent.spans(next_us):
                plan.execute(queries.WANT_MADE, span)
            for statement in queries.WANT_REST if extent.part and extent.takes_rest else ():
                plan.execute(statement)
            if extent.part is not None:
                plan.execute(queries.COPY_REQUESTS)
            plan.execute(queries.NOTE_ROWS)
            for statement in queries.COPY_ROWS if extent.is_everything else queries.COPY_WANTED:
                plan.execute(statement)
            plan.execute("COMMIT")
            plan.execute("DETACH store")
        except SqliteError as error:
            if has_no_room(error):
                raise  # The plan's own file has no room: that is no fault of the index.
            _abandon(plan)
            return str(error)
        return None

    def end(self) -> None:
        """Do nothing: it ends with the plan."""

    def reader(self) -> "FileReader":
        """Open the file."""
        return FileReader(read_only(self._root / INDEX_FILE))

    def known_runs(self, run_ids: Sequence[str]) -> set[str]:
        """Return those of `run_ids` that have a row by now, as far as can be read."""
        left = rows_left(self._root, queries.INDEX_KNOWN, (json.dumps(run_ids),))
        return {row[0] for row in left}

    def requests_of_runs(self, hashes: Sequence[str]) -> set[str]:
        """Return those of `hashes` that are of the request of a run, as far as can be read."""
        # One question for all: the index has no order by request.
        left = rows_left(self._root, queries.INDEX_REQUESTS, (json.dumps(hashes),))
        return {row[0] for row in left}


def _abandon(plan: ScratchDatabase) -> None:
    if plan.in_transaction:
        plan.execute("ROLLBACK")
    plan.execute("DETACH store")


class FileReader:
    """An index in a file, open."""

    def __init__(self, connection: ReadConnection) -> None:
        self._connection = connection

    def rows(self, run_ids: Sequence[str]) -> RowsOfTables:
        """Yield the rows of some runs."""
        for statement in queries.SORT_WITHHELD:
            self._connection.execute(statement)
        wanted = (json.dumps(run_ids),)
        for name, query in queries.INDEX_ROWS:
            yield name, self._connection.execute(query, wanted)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


_COPIED: Final[tuple[tuple[str, Select[Any]], ...]] = tuple(
    (queries.ADD_ROWS.format(name, ", ".join("?" * len(columns))), select(*columns))
    for name, columns in (
        (
            "run_rows",
            (
                *(runs.c.run_id, runs.c.artifact_path, runs.c.artifact_sha256, runs.c.size_bytes),
                *(runs.c.status, runs.c.request_sha256, runs.c.source_epoch, runs.c.source_topic),
                *(runs.c.source_partition, runs.c.source_offset, runs.c.created_at_us),
            ),
        ),
        (
            "advisory_rows",
            (
                *(advisories.c.run_id, advisories.c.advisory_id, advisories.c.link_sha256),
                *(advisories.c.link_path, advisories.c.content_sha256, advisories.c.source_epoch),
                *(advisories.c.source_topic, advisories.c.source_partition),
                advisories.c.source_offset,
            ),
        ),
        ("attachment_rows", (attachments.c.run_id, attachments.c.sha256)),
    )
)
_COPIED_WANTED: Final = tuple(
    (insert, rows.where(rows.selected_columns.run_id.in_(select(each_of("run_ids")))))
    for insert, rows in _COPIED
)
_HAS_ROWS: Final[Select[Any]] = select(literal_column("1")).where(
    or_(select(runs.c.run_id).exists(), select(advisories.c.run_id).exists())
)
_NEXT_MADE: Final = select(func.min(runs.c.created_at_us)).where(
    runs.c.created_at_us >= bindparam("least"), runs.c.created_at_us < END_US
)
_OF_NO_DATE: Final = select(runs.c.run_id).where(
    or_(runs.c.created_at_us < FIRST_US, runs.c.created_at_us >= END_US)
)
_MADE: Final = select(runs.c.run_id).where(
    runs.c.created_at_us >= bindparam("start"), runs.c.created_at_us < bindparam("end")
)
_OF_NO_RUN: Final = select(advisories.c.run_id).where(
    ~select(runs.c.run_id).where(runs.c.run_id == advisories.c.run_id).exists()
)
_REQUESTS_KEPT: Final = select(runs.c.request_sha256).where(runs.c.status.in_(["BLOCKED", "ERROR"]))
_KNOWN: Final = select(runs.c.run_id).where(runs.c.run_id.in_(select(each_of("run_ids"))))
_OF_RUNS: Final = tuple(
    (name, select(*columns).where(column("run_id").in_(select(each_of("run_ids")))))
    for name, columns in queries.COMPARED.items()
)
_REQUESTS: Final = select(runs.c.request_sha256).where(
    runs.c.request_sha256.in_(select(each_of("hashes")))
)
_COPIED_AT_ONCE: Final = 10_000


class IndexInDatabase:
    """An index that many hosts write; its faults are those of the network."""

    def __init__(self, index: RunIndex) -> None:
        self._database = index.database
        self._state = ExitStack()

    def begin(self, plan: ScratchDatabase) -> None:
        """Begin a transaction that sees the rows of now."""
        del plan
        connection = self._state.enter_context(self._database.reading())
        connection.execute(select(runs.c.run_id).limit(1))
        self._connection = connection.execution_options(yield_per=_COPIED_AT_ONCE)

    def copy(self, plan: ScratchDatabase, extent: Extent) -> None:
        """Copy the rows, some thousands at a time."""
        plan.execute("BEGIN")
        self._add(plan, queries.ADD_ROWS.format("known", "?"), _HAS_ROWS)
        if extent.is_everything:
            for insert, rows in _COPIED:
                self._add(plan, insert, rows)
        else:
            for start, end in extent.spans(self._next_us):
                self._add(plan, queries.WANT, _MADE, start=start, end=end)
            if extent.takes_rest:
                self._add(plan, queries.WANT, _OF_NO_RUN)
                self._add(plan, queries.WANT, _OF_NO_DATE)
            if extent.part is not None:
                self._add(plan, queries.ADD_REQUEST, _REQUESTS_KEPT)
            wanted = plan.execute(queries.WANTED)
            while some := wanted.fetchmany(_COPIED_AT_ONCE):
                run_ids = json.dumps([run_id for (run_id,) in some])
                for insert, rows in _COPIED_WANTED:
                    self._add(plan, insert, rows, run_ids=run_ids)
        plan.execute("COMMIT")
        self.end()

    def _add(self, plan: ScratchDatabase, insert: str, rows: Select[Any], **bound: object) -> None:
        for some in self._connection.execute(rows, bound).partitions():
            plan.executemany(insert, map(tuple, some))

    def _next_us(self, least_us: int) -> int | None:
        found: int | None = self._connection.execute(_NEXT_MADE, {"least": least_us}).scalar()
        return found

    def end(self) -> None:
        """Give the connection back."""
        self._state.close()

    def reader(self) -> "IndexInDatabase":
        """Borrow a connection for each look-up."""
        return self

    def close(self) -> None:
        """Do nothing: the store that was opened closes it."""

    def rows(self, run_ids: Sequence[str]) -> RowsOfTables:
        """Yield the rows of some runs, all of one state."""
        with self._database.looking_up() as connection, connection.one_state():
            for name, query in _OF_RUNS:
                text = driver_text(query, connection.dialect_name)
                yield name, connection.execute(text, {"run_ids": json.dumps(run_ids)}).fetchall()

    def known_runs(self, run_ids: Sequence[str]) -> set[str]:
        """Return those of `run_ids` that have a row by now."""
        return self._found(_KNOWN, "run_ids", run_ids)

    def requests_of_runs(self, hashes: Sequence[str]) -> set[str]:
        """Return those of `hashes` that are of the request of a run."""
        return self._found(_REQUESTS, "hashes", hashes)

    def _found(self, query: Select[Any], name: str, values: Sequence[str]) -> set[str]:
        with self._database.looking_up() as connection:
            text = driver_text(query, connection.dialect_name)
            return {row[0] for row in connection.execute(text, {name: json.dumps(values)})}
