"""What an audit expects in a store, from its leaves, in a SQLite file of the audit's own.

A store has more files than fit in memory, and their leaves come in the order of the logs, not of
the folders. SQLite sorts them on the disk, and lets every process of an audit read its part. The
file is nothing to keep: an audit that goes on makes it again from the logs.

Rows of the store's index are copied too, as of the moment of the logs' checkpoints: they are
compared with the leaves, and stand in where there are none.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import quote

from pipeline.disk.regular_files import NotAFileError, state_of
from pipeline.errors import StoreError
from pipeline.ledger.log_id import LogId
from pipeline.storage.index.engine import INDEX_FORMAT
from schemas.audit_request import AuditScope

_CACHE_KIB: Final = 16_384
"""Of the file's pages; more is no faster for a million leaves."""

_TABLES: Final = """
CREATE TABLE logs (log INTEGER PRIMARY KEY, epoch INTEGER, topic TEXT, partition INTEGER,
    is_legacy INTEGER);
CREATE TABLE run_leaves (run_id TEXT, is_run INTEGER, date TEXT, name TEXT, sha256 TEXT,
    size_bytes INTEGER, broker_ms INTEGER, log INTEGER, number INTEGER, offset INTEGER);
CREATE TABLE advisory_leaves (run_id TEXT, advisory_id TEXT, is_advisory INTEGER, link_sha256 TEXT,
    broker_ms INTEGER, log INTEGER, number INTEGER, offset INTEGER);
CREATE INDEX run_leaves_by_run ON run_leaves (run_id);
CREATE INDEX advisory_leaves_by_advisory ON advisory_leaves (run_id, advisory_id);
CREATE TABLE run_rows (run_id TEXT PRIMARY KEY, date TEXT, name TEXT, artifact_path TEXT,
    sha256 TEXT, size_bytes INTEGER, status TEXT, request_sha256 TEXT,
    epoch INTEGER, topic TEXT, partition INTEGER, offset INTEGER) WITHOUT ROWID;
CREATE TABLE advisory_rows (run_id TEXT, advisory_id TEXT, link_sha256 TEXT, link_path TEXT,
    content_sha256 TEXT, epoch INTEGER, topic TEXT, partition INTEGER, offset INTEGER,
    PRIMARY KEY (run_id, advisory_id)) WITHOUT ROWID;
CREATE TABLE attachment_rows (run_id TEXT, sha256 TEXT);
CREATE TABLE runs (run_id TEXT PRIMARY KEY, is_run INTEGER, date TEXT, name TEXT, sha256 TEXT,
    size_bytes INTEGER, broker_ms INTEGER, log INTEGER, offset INTEGER) WITHOUT ROWID;
CREATE TABLE advisories (run_id TEXT, advisory_id TEXT, is_advisory INTEGER, link_sha256 TEXT,
    broker_ms INTEGER, log INTEGER, offset INTEGER,
    PRIMARY KEY (run_id, advisory_id)) WITHOUT ROWID;
CREATE TABLE expected (date TEXT, name TEXT, kind TEXT, sha256 TEXT, size_bytes INTEGER,
    broker_ms INTEGER, run_id TEXT, is_waiting INTEGER, PRIMARY KEY (date, name)) WITHOUT ROWID;
CREATE TABLE blobs (path TEXT PRIMARY KEY, named_by TEXT) WITHOUT ROWID;
CREATE TABLE dates_asked (date TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE runs_asked (run_id TEXT PRIMARY KEY) WITHOUT ROWID;
"""

_COPY_ROWS: Final = (
    """INSERT INTO run_rows SELECT run_id, substr(artifact_path, 6, 10), substr(artifact_path, 17),
    artifact_path, artifact_sha256, size_bytes, status, request_sha256,
    source_epoch, source_topic, source_partition, source_offset
    FROM store.runs ORDER BY run_id""",
    """INSERT INTO advisory_rows SELECT run_id, advisory_id, link_sha256, link_path, content_sha256,
    source_epoch, source_topic, source_partition, source_offset
    FROM store.advisories ORDER BY run_id, advisory_id""",
    "INSERT INTO attachment_rows SELECT run_id, sha256 FROM store.attachments",
)

# Where there is no log, or none that can be trusted, rows stand for leaves. A row may be anybody's:
# its path is held against the form that ours have, and leads nowhere else.
_OF_LOG: Final = """(:log IS NULL OR EXISTS (SELECT 1 FROM logs WHERE log = :log
    AND epoch = kept.epoch AND topic = kept.topic AND partition = kept.partition))"""
_LEAVES_OF_ROWS: Final = (
    f"""INSERT INTO run_leaves (run_id, is_run, date, name, sha256, size_bytes, log, offset)
    SELECT run_id, 1, date, name, sha256, size_bytes, :log, offset FROM run_rows AS kept
    WHERE {_OF_LOG} AND run_id NOT IN (SELECT run_id FROM run_leaves)
    AND name = run_id || '.json' AND run_id NOT GLOB '*[^A-Za-z0-9._-]*'
    AND artifact_path = 'runs/' || date || '/' || name
    AND date GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]'""",
    f"""INSERT INTO advisory_leaves (run_id, advisory_id, is_advisory, link_sha256, log, offset)
    SELECT run_id, advisory_id, 1, link_sha256, :log, offset FROM advisory_rows AS kept
    WHERE {_OF_LOG} AND advisory_id NOT GLOB '*[^A-Za-z0-9._-]*'
    AND (run_id, advisory_id) NOT IN (SELECT run_id, advisory_id FROM advisory_leaves)""",
)
_FORGET_LEAVES: Final = (
    "DELETE FROM run_leaves WHERE log = ? AND number BETWEEN ? AND ?",
    "DELETE FROM advisory_leaves WHERE log = ? AND number BETWEEN ? AND ?",
)
_FORGET_HASHES: Final = (
    """UPDATE run_leaves SET sha256 = NULL, size_bytes = NULL
    WHERE log = ? AND number BETWEEN ? AND ?""",
    "UPDATE advisory_leaves SET link_sha256 = NULL WHERE log = ? AND number BETWEEN ? AND ?",
)

# Each of these follows the order of a key or an index: a sorter would hold all of the rows.
# `max` also picks the row whose other values are taken: the leaf of the record that made it, and
# of several the first. A duplicate or conflict tells of a run of an epoch without a log.
_SETTLE: Final = (
    """INSERT INTO runs
    SELECT run_id, is_run, date, name, sha256, size_bytes, broker_ms, log, offset
    FROM (SELECT *, max(is_run * 4611686018427387904 - rowid) FROM run_leaves GROUP BY run_id)""",
    """INSERT INTO advisories
    SELECT run_id, advisory_id, is_advisory, link_sha256, broker_ms, log, offset
    FROM (SELECT *, max(is_advisory * 4611686018427387904 - rowid)
          FROM advisory_leaves GROUP BY run_id, advisory_id)""",
)
_IS_SHA256: Final = "length({0}) = 64 AND {0} NOT GLOB '*[^0-9a-f]*'"
_BLOB_PATH: Final = "'{0}/' || substr({1}, 1, 2) || '/' || substr({1}, 3, 2) || '/' || {1}"
_EXPECT: Final = (
    # The log of a legacy topic is left out of the times: history comes when it comes.
    """INSERT INTO expected SELECT runs.date, runs.name, 'run', coalesce(runs.sha256, kept.sha256),
    coalesce(runs.size_bytes, kept.size_bytes), iif(logs.is_legacy, NULL, runs.broker_ms),
    runs.run_id, 0
    FROM runs LEFT JOIN logs USING (log) LEFT JOIN run_rows AS kept USING (run_id)
    WHERE {asked}""",
    """INSERT INTO expected SELECT runs.date,
    told.run_id || '_advisory_' || told.advisory_id || '.json', 'link',
    coalesce(told.link_sha256, kept.link_sha256), NULL, told.broker_ms, told.run_id,
    kept.run_id IS NOT NULL AND kept.link_path IS NULL
    FROM advisories AS told JOIN runs USING (run_id)
    LEFT JOIN advisory_rows AS kept USING (run_id, advisory_id)
    WHERE {asked}""",
    f"""INSERT OR IGNORE INTO blobs SELECT {_BLOB_PATH.format("attachments", "named.sha256")},
    'runs/' || runs.date || '/' || runs.name
    FROM attachment_rows AS named JOIN runs USING (run_id)
    WHERE {{asked}} AND {_IS_SHA256.format("named.sha256")}""",
    f"""INSERT OR IGNORE INTO blobs SELECT {_BLOB_PATH.format("attachments", "content_sha256")},
    link_path FROM advisory_rows JOIN runs USING (run_id)
    WHERE {{asked}} AND link_path IS NOT NULL AND {_IS_SHA256.format("content_sha256")}""",
    f"""INSERT OR IGNORE INTO blobs SELECT {_BLOB_PATH.format("quarantine", "request_sha256")},
    'runs/' || runs.date || '/' || runs.name
    FROM run_rows JOIN runs USING (run_id)
    WHERE {{asked}} AND status <> 'OK' AND {_IS_SHA256.format("request_sha256")}""",
)

NO_INDEX: Final = "no such file"
"""Why the index cannot be read where there is none."""

RunRow: TypeAlias = tuple[str | None, bool, str, str, str | None, int | None, int, int, int]
"""run_id, whether it is of kind run, date, name, sha256, size, broker time, number, offset."""

AdvisoryRow: TypeAlias = tuple[str | None, str, bool, str | None, int, int, int]
"""run_id, advisory_id, whether of kind advisory, link_sha256, broker time, number, offset."""


class ExpectedFile(NamedTuple):
    """A file of one date that a leaf tells of.

    Attributes:
        name: In the folder of its date.
        kind: `run` or `link`.
        sha256: None where neither leaf nor row can be read.
        size_bytes: None of a link, and where neither can be read.
        broker_ms: When the broker got its record; None where that is not to be asked.
        run_id: Of its run.
        is_waiting: Whether the index says that the link is still to be made.
    """

    name: str
    kind: str
    sha256: str | None
    size_bytes: int | None
    broker_ms: int | None
    run_id: str
    is_waiting: int


class AuditPlan:
    """The file, while it is filled; one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.has_rows = False
        self._distrusted: set[int] = set()
        # A generator of ours may be resumed by another thread than the one that began it.
        self._db = sqlite3.connect(
            f"file:{quote(str(path))}", uri=True, isolation_level=None, check_same_thread=False
        )
        for pragma in ("journal_mode=MEMORY", "synchronous=OFF", f"cache_size=-{_CACHE_KIB}"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(_TABLES)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def begin(self, index: Path) -> str | None:
        """Begin to read the index as it is now; return why it cannot be read, if so."""
        try:
            if state_of(str(index)) is None:
                return NO_INDEX
        except NotAFileError as error:
            return str(error)
        try:
            self._db.execute(f"ATTACH 'file:{quote(str(index))}?mode=ro' AS store")
        except sqlite3.Error as error:
            return str(error)
        try:
            found = self._db.execute("PRAGMA store.user_version").fetchone()[0]
            if found != INDEX_FORMAT:
                self._db.execute("DETACH store")
                return f"an index of format {found}, not {INDEX_FORMAT}"
            self._db.execute("BEGIN")
            # Only now the index is read, and stays as it is for this transaction.
            self._db.execute("SELECT 1 FROM store.runs LIMIT 1").fetchone()
        except sqlite3.Error as error:
            self._abandon_rows()
            return str(error)
        return None

    def copy_rows(self) -> str | None:
        """Copy the rows that `begin` sees; return why they cannot be read, if so."""
        try:
            for statement in _COPY_ROWS:
                self._db.execute(statement)
            self._db.execute("COMMIT")
            self._db.execute("DETACH store")
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL:
                raise  # The plan's own file has no room: that is no fault of the index.
            self._abandon_rows()
            return str(error)
        self.has_rows = True
        return None

    def _abandon_rows(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self._db.execute("DETACH store")

    @property
    def knows_runs(self) -> bool:
        """Whether the index has a row; that of a store that consumed nothing yet has none."""
        return any(self.value(f"SELECT 1 FROM {table}") for table in ("run_rows", "advisory_rows"))

    def add_log(self, number: int, log: LogId, *, is_legacy: bool) -> None:
        """Note which log has this number."""
        row = (number, log.epoch, log.topic, log.partition, is_legacy)
        self._db.execute("INSERT INTO logs VALUES (?, ?, ?, ?, ?)", row)

    def add_leaves(
        self, log: int, runs: Sequence[RunRow], advisories: Sequence[AdvisoryRow]
    ) -> None:
        """Add leaves of the log with this number."""
        self._db.execute("BEGIN")
        self._db.executemany(
            f"INSERT INTO run_leaves VALUES (?, ?, ?, ?, ?, ?, ?, {log:d}, ?, ?)", runs
        )
        self._db.executemany(
            f"INSERT INTO advisory_leaves VALUES (?, ?, ?, ?, ?, {log:d}, ?, ?)", advisories
        )
        self._db.execute("COMMIT")

    def distrust(self, log: int, first: int, last: int) -> None:
        """Forget what the leaves from `first` to `last` tell: the root does not cover them.

        Rows of this log stand in for them; where there are none, the names alone are kept, so
        that the files are not taken for added ones.
        """
        for statement in _FORGET_LEAVES if self.has_rows else _FORGET_HASHES:
            self._db.execute(statement, (log, first, last))
        self._distrusted.add(log)

    def settle(self, scope: AuditScope, *, has_logs: bool) -> None:
        """Work out what is expected where, once every leaf and row is there."""
        dates = [(date,) for date in dict.fromkeys(scope.dates or ())]
        run_ids = [(run_id,) for run_id in dict.fromkeys(scope.run_ids or ())]
        self._db.execute("BEGIN")
        self._db.executemany("INSERT INTO dates_asked VALUES (?)", dates)
        self._db.executemany("INSERT INTO runs_asked VALUES (?)", run_ids)
        if not has_logs:
            self._add_rows_as_leaves(None)
        for log in sorted(self._distrusted):
            self._add_rows_as_leaves(log)
        for statement in (*_SETTLE, *_EXPECT):
            condition = asked("runs.date", "runs.run_id", everything=scope.all is not None)
            self._db.execute(statement.format(asked=condition))
        self._db.execute("COMMIT")

    def _add_rows_as_leaves(self, log: int | None) -> None:
        """Let rows stand for leaves: those of one log that have none, or all if there is no log."""
        for statement in _LEAVES_OF_ROWS:
            self._db.execute(statement, {"log": log})

    def rows(self, query: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Yield what a query of a module of the audit gives."""
        yield from self._db.execute(query, values)

    def value(self, query: str, values: Sequence[Any] = ()) -> Any:  # noqa: ANN401
        """Return the one value that a query gives; None where it gives none."""
        row = self._db.execute(query, values).fetchone()
        return None if row is None else row[0]

    def dates(self) -> list[str]:
        """Return the dates of the files that are expected."""
        return [row[0] for row in self.rows("SELECT DISTINCT date FROM expected ORDER BY date")]

    def slices_of(self, date: str, size: int) -> Iterator[tuple[str, str]]:
        """Yield the first and the last name of each `size` files of a date."""
        query = "SELECT name FROM expected WHERE date = ? ORDER BY name"
        return self._slices(query, date, size)

    def slices_of_blobs(self, area: str, size: int) -> Iterator[tuple[str, str]]:
        """Yield the first and the last path of each `size` blobs of an area that rows name."""
        query = "SELECT path FROM blobs WHERE path GLOB ? || '/*' ORDER BY path"
        return self._slices(query, area, size)

    def _slices(self, query: str, value: str, size: int) -> Iterator[tuple[str, str]]:
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
    except sqlite3.Error as error:
        raise StoreError(
            f"The temporary database of the audit failed ({error}): make room where TMPDIR says, "
            "then start the audit again."
        ) from error


def asked(date: str, run_id: str, *, everything: bool) -> str:
    """Return the condition that a run with the columns `date` and `run_id` is asked for."""
    if everything:
        return "TRUE"
    return (
        f"({date} IN (SELECT date FROM dates_asked) OR {run_id} IN (SELECT run_id FROM runs_asked))"
    )


def open_plan(path: str) -> sqlite3.Connection:
    """Open a plan that is settled, for reading."""
    return sqlite3.connect(
        f"file:{quote(path)}?mode=ro&immutable=1", uri=True, check_same_thread=False
    )
