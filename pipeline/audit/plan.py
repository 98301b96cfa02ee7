"""The plan of an audit: the files that its leaves require, in a temporary SQLite file.

A store has more files than fit in memory, and their leaves come in the order of the logs, not of
the folders. SQLite sorts them on the disk, and lets every process of an audit read its part. The
file is temporary: an audit that resumes makes it again from the logs.

The rows of the store's index are copied too, as of the moment of the logs' checkpoints: they are
compared with the leaves, and stand in where there are none.

An audit of some dates or runs keeps rows and leaves of these alone. All leaves of a run are kept if
its row has one of the dates, or a file in their folders has its name.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from pipeline.audit import queries
from pipeline.audit.audited_store import AuditedIndex
from pipeline.audit.rules.parts import Extent
from pipeline.core.layout import ArtifactPath, parse_path
from pipeline.core.store.files import ReadableFiles
from pipeline.disk.sqlite.scratch import ScratchDatabase, SqliteError
from pipeline.errors import StoreError
from pipeline.ledger.log_id import LogId
from pipeline.storage.archives import ArchiveRecord, is_gone
from schemas.audit_request import AuditScope
from schemas.fields import is_sha256

RunRow: TypeAlias = tuple[str | None, bool, str, str | None, int | None, int, int, int]
"""run_id, whether it is of kind run, date, sha256, size, broker time, number, offset."""

AdvisoryRow: TypeAlias = tuple[str | None, str, bool, str | None, int, int, int]
"""run_id, advisory_id, whether of kind advisory, link_sha256, broker time, number, offset."""


_WANTED_ALONE: Final = Extent(AuditScope.model_construct(run_ids=[]))


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

    def __init__(self, path: Path, files: ReadableFiles, extent: Extent) -> None:
        """Make it at `path`, for an audit that looks at a part of the store with these files."""
        self.path = path
        self.has_rows = False
        self._extent = extent
        self._has_date = cache(extent.has_date)
        self._reads_strays = False
        self._index: AuditedIndex | None = None
        self._distrusted: set[int] = set()
        self._db = _with_date_of(ScratchDatabase.make(path))
        self._db.create_function("is_gone", 1, partial(is_gone, files))
        self._db.create_function("is_dated", 1, self._is_dated)
        self._db.create_function("is_listed", 1, self._is_listed)
        self._db.executescript(queries.TABLES)

    def _is_dated(self, date: str) -> bool:
        """Return whether leaves of a date are kept for their date."""
        return not self._reads_strays and self._has_date(date)

    def _is_listed(self, blob_sha256: object) -> bool:
        """Return whether the folder of a blob is looked at."""
        return is_sha256(str(blob_sha256)) and self._extent.has_folder(str(blob_sha256)[:2])

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def want(self, run_ids: Iterable[str]) -> None:
        """Keep rows and leaves of these runs too, whatever date they have; before the moment."""
        self._db.execute("BEGIN")
        self._db.executemany(queries.WANT, ((run_id,) for run_id in run_ids))
        self._db.execute("COMMIT")

    def begin(self, index: AuditedIndex) -> str | None:
        """Begin to read the index as it is now; return why it cannot be read, if so."""
        self.has_rows = False
        return index.begin(self._db)

    def copy_rows(self, index: AuditedIndex) -> str | None:
        """Copy the rows that `begin` sees; return why they cannot be read, if so."""
        failed = index.copy(self._db, _WANTED_ALONE if self._reads_strays else self._extent)
        self.has_rows = failed is None
        self._index = index if self.has_rows else None
        return failed

    def begin_strays(self) -> bool:
        """Want rows and leaves of strays alone from now on; return whether there are any.

        Once all leaves were read. Strays are runs that have a leaf kept for its date, and neither
        a row nor a file said that they are of that date.
        """
        if not self._extent.is_everything:
            self._db.execute(queries.FIND_STRAYS)
        if self.value(queries.HAS_STRAYS) is None:
            return False
        for statement in queries.WANT_STRAYS:
            self._db.execute(statement)
        self._reads_strays = True
        return True

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
        add_runs, add_advisories = queries.ADD_RUN_LEAVES, queries.ADD_ADVISORY_LEAVES
        add_rest, rest = add_advisories, list[AdvisoryRow]()
        if not self._extent.is_everything:
            add_runs, add_advisories = queries.ADD_WANTED_RUN_LEAVES, queries.ADD_WANTED_ADVISORIES
            advisories, rest = self._without_rest(advisories)
        self._db.execute("BEGIN")
        self._db.executemany(add_runs.format(log), runs)
        self._db.executemany(add_advisories.format(log), advisories)
        self._db.executemany(add_rest.format(log), rest)
        self._db.execute("COMMIT")

    def _without_rest(
        self, advisories: Sequence[AdvisoryRow]
    ) -> tuple[list[AdvisoryRow], list[AdvisoryRow]]:
        """Return `advisories`, and apart those that are kept here as no row says of which date."""
        known = {run_id for run_id, *_ in advisories if run_id is not None}
        if known and self._extent.takes_rest and not self._reads_strays:
            known = set() if self._index is None else self._index.known_runs(list(known))
        return (
            [row for row in advisories if row[0] in known],
            [row for row in advisories if row[0] not in known],
        )

    def distrust(self, log: int, first: int, last: int) -> None:
        """Discard the leaves from `first` to `last`: the root does not cover them.

        Rows of this log stand in for them. Without rows the names alone are kept, so that their
        files do not count as added.
        """
        for statement in queries.FORGET_LEAVES if self.has_rows else queries.FORGET_HASHES:
            self._db.execute(statement, (log, first, last))
        self._distrusted.add(log)

    def resolve(self, *, has_logs: bool) -> None:
        """Resolve leaves and rows, once all are there, to the files that are expected."""
        scope = self._extent.scope
        self._db.execute("BEGIN")
        extent = self._extent
        self._db.execute(queries.ASK_FOR_ALL, (extent.is_everything, extent.part is not None))
        dates = [queries.NO_DATE] if extent.takes_rest else scope.dates or ()
        self._db.executemany(queries.ASK_FOR_DATE, [(date,) for date in dates])
        self._db.executemany(queries.ASK_FOR_RUN, [(run_id,) for run_id in scope.run_ids or ()])
        # Rows stand for the leaves of logs that are not as they were written, or of all logs.
        for log in sorted(self._distrusted) if has_logs else (None,):
            for statement in queries.LEAVES_OF_ROWS:
                self._db.execute(statement, {"log": log})
        if extent.part is not None:
            self._reads_strays = False
            self._db.execute(queries.ASK_FOR_DATES)
        for statement in (*queries.RESOLVE, *queries.EXPECT):
            self._db.execute(statement)
        self._db.execute("COMMIT")

    def value(self, query: str, values: Sequence[Any] = ()) -> Any:  # noqa: ANN401
        """Return the one value that a query gives; None where it gives none."""
        row = self._db.execute(query, values).fetchone()
        return None if row is None else row[0]

    def archived_counts(self) -> dict[str, tuple[int, int]]:
        """Return how many artifacts and links of each date the records of the dates cover."""
        found = self._db.execute(queries.ARCHIVED_COUNTS)
        return {date: (artifacts, links) for date, artifacts, links in found}

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
