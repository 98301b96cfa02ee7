"""The plan of an audit: the files that its leaves require, in a temporary SQLite file.

A store has more files than fit in memory, and their leaves come in the order of the logs, not of
the folders. SQLite sorts them on the disk, and lets every process of an audit read its part. The
file is temporary: an audit that resumes makes it again from the logs.

The rows of the store's index are copied too, as of the moment of the logs' checkpoints: they are
compared with the leaves, and stand in where there are none.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from pipeline.audit import queries
from pipeline.audit.audited_store import AuditedIndex
from pipeline.core.layout import ArtifactPath, parse_path
from pipeline.core.store.files import ReadableFiles
from pipeline.disk.sqlite.scratch import ScratchDatabase, SqliteError
from pipeline.errors import StoreError
from pipeline.ledger.log_id import LogId
from pipeline.storage.archives import ArchiveRecord, is_gone
from schemas.audit_request import AuditScope

RunRow: TypeAlias = tuple[str | None, bool, str, str | None, int | None, int, int, int]
"""run_id, whether it is of kind run, date, sha256, size, broker time, number, offset."""

AdvisoryRow: TypeAlias = tuple[str | None, str, bool, str | None, int, int, int]
"""run_id, advisory_id, whether of kind advisory, link_sha256, broker time, number, offset."""


class ExpectedFile(NamedTuple):
    """A file of one date that a leaf names.

    Attributes:
        name: In the folder of its date.
        kind: `run` or `link`.
        sha256: None where neither leaf nor row can be read.
        size_bytes: None of a link, and where neither can be read.
        broker_ms: When the broker got its record; None where that is not checked.
        run_id: Of its run.
        is_waiting: Whether the link, by the index, is not made yet.
        is_archived: Whether the record of an archived date covers it.
    """

    name: str
    kind: str
    sha256: str | None
    size_bytes: int | None
    broker_ms: int | None
    run_id: str
    is_waiting: int
    is_archived: int


class AuditPlan:
    """The file, while it is filled; one thread at a time."""

    def __init__(self, path: Path, files: ReadableFiles) -> None:
        """Make it at `path`, for an audit of the store with these files."""
        self.path = path
        self.has_rows = False
        self._distrusted: set[int] = set()
        self._db = _with_date_of(ScratchDatabase.make(path))
        self._db.create_function("is_gone", 1, partial(is_gone, files))
        self._db.executescript(queries.TABLES)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def begin(self, index: AuditedIndex) -> str | None:
        """Begin to read the index as it is now; return why it cannot be read, if so."""
        return index.begin(self._db)

    def copy_rows(self, index: AuditedIndex) -> str | None:
        """Copy the rows that `begin` sees; return why they cannot be read, if so."""
        failed = index.copy(self._db)
        self.has_rows = failed is None
        return failed

    @property
    def knows_runs(self) -> bool:
        """Whether the index has a row; that of a store that consumed nothing yet has none."""
        return bool(self.value(queries.HAS_ROWS))

    def add_log(self, number: int, log: LogId, *, is_legacy: bool) -> None:
        """Note which log has this number."""
        row = (number, log.epoch, log.topic, log.partition, is_legacy)
        self._db.execute(queries.ADD_LOG, row)

    def add_archive(self, record: ArchiveRecord, numbers: Mapping[str, int]) -> None:
        """Note what the record of an archived date covers.

        Args:
            record: The record.
            numbers: Of the logs, by their folders.
        """
        rows = [
            (record.date, numbers[each.log], each.next_offset)
            for each in record.logs
            if each.log in numbers
        ]
        self._db.executemany(queries.ADD_ARCHIVED, rows)

    def add_leaves(
        self, log: int, runs: Sequence[RunRow], advisories: Sequence[AdvisoryRow]
    ) -> None:
        """Add leaves of the log with this number."""
        self._db.execute("BEGIN")
        self._db.executemany(queries.ADD_RUN_LEAVES.format(log), runs)
        self._db.executemany(queries.ADD_ADVISORY_LEAVES.format(log), advisories)
        self._db.execute("COMMIT")

    def distrust(self, log: int, first: int, last: int) -> None:
        """Discard the leaves from `first` to `last`: the root does not cover them.

        Rows of this log stand in for them. Without rows the names alone are kept, so that their
        files do not count as added.
        """
        for statement in queries.FORGET_LEAVES if self.has_rows else queries.FORGET_HASHES:
            self._db.execute(statement, (log, first, last))
        self._distrusted.add(log)

    def resolve(self, scope: AuditScope, *, has_logs: bool) -> None:
        """Resolve leaves and rows, once all are there, to the files that are expected."""
        self._db.execute("BEGIN")
        self._db.execute(queries.ASK_FOR_ALL, (scope.all is not None,))
        self._db.executemany(queries.ASK_FOR_DATE, [(date,) for date in scope.dates or ()])
        self._db.executemany(queries.ASK_FOR_RUN, [(run_id,) for run_id in scope.run_ids or ()])
        # Rows stand for the leaves of logs that are not as they were written, or of all logs.
        for log in sorted(self._distrusted) if has_logs else (None,):
            for statement in queries.LEAVES_OF_ROWS:
                self._db.execute(statement, {"log": log})
        for statement in (*queries.RESOLVE, *queries.EXPECT):
            self._db.execute(statement)
        self._db.execute("COMMIT")

    def value(self, query: str, values: Sequence[Any] = ()) -> Any:  # noqa: ANN401
        """Return the one value that a query gives; None where it gives none."""
        row = self._db.execute(query, values).fetchone()
        return None if row is None else row[0]

    def dates(self) -> list[str]:
        """Return the dates of the files that are expected."""
        return [date for (date,) in self._db.execute(queries.EXPECTED_DATES)]

    def slices(self, query: str, value: str, size: int) -> Iterator[tuple[str, str]]:
        """Yield the first and the last of each `size` names that a query about `value` gives."""
        names = self._db.execute(query, (value,))
        while rows := names.fetchmany(size):
            yield rows[0][0], rows[-1][0]


@contextmanager
def plan_faults() -> Iterator[None]:
    """Translate errors of SQLite.

    Raises:
        StoreError: The plan could not be written or read.
    """
    try:
        yield
    except SqliteError as error:
        raise StoreError(
            f"The temporary database of the audit failed ({error}): make room where TMPDIR says, "
            "then start the audit again."
        ) from error


def _date_of(path: object) -> str | None:
    """Return the date of the folder in which an artifact lies at `path`; None where none does."""
    place = parse_path(path) if isinstance(path, str) else None
    return place.date if isinstance(place, ArtifactPath) else None


def _with_date_of(database: ScratchDatabase) -> ScratchDatabase:
    database.create_function("date_of", 1, _date_of, deterministic=True)
    return database


def open_plan(path: Path) -> ScratchDatabase:
    """Open a plan that is resolved, for reading."""
    return _with_date_of(ScratchDatabase.to_read(path))
