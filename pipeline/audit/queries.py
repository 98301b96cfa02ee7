"""The SQL of an audit, for its own database and for the store's index.

The plan holds what the leaves record (`run_leaves`, `advisory_leaves`), a copy of the index's rows
(`run_rows`, `advisory_rows`, `attachment_rows`), and what follows from both: one leaf for each run
and advisory (`runs`, `advisories`), the expected files by date, the blobs that rows name.

Paths are put together as in `core/layout`. They are never parsed here: the function `date_of`,
which the connection brings, parses them; its function `is_gone` looks whether a file is there.
"""

from typing import Final

from pipeline.audit.rules.parts import END_US, FIRST_US
from pipeline.storage.index.tables import (
    advisories,
    attachments,
    runs,
    withheld_blobs,
    withheld_payloads,
)
from schemas.audit_finding import AuditCode

RUN_FILE: Final = "{0}.run_id || '.json'"
RUN_PATH: Final = f"'runs/' || {{0}}.date || '/' || {RUN_FILE}"
LINK_FILE: Final = "{0}.run_id || '_advisory_' || {0}.advisory_id || '.json'"
BLOB_PATH: Final = "'{0}/' || substr({1}, 1, 2) || '/' || substr({1}, 3, 2) || '/' || {1}"

TABLES: Final = """
CREATE TABLE logs (log INTEGER PRIMARY KEY, epoch INTEGER, topic TEXT, partition INTEGER,
    is_legacy INTEGER);
CREATE TABLE run_leaves (run_id TEXT, is_run INTEGER, date TEXT, sha256 TEXT,
    size_bytes INTEGER, broker_ms INTEGER, log INTEGER, number INTEGER, offset INTEGER);
CREATE TABLE advisory_leaves (run_id TEXT, advisory_id TEXT, is_advisory INTEGER, link_sha256 TEXT,
    broker_ms INTEGER, log INTEGER, number INTEGER, offset INTEGER);
CREATE TABLE run_rows (run_id TEXT PRIMARY KEY, artifact_path TEXT, sha256 TEXT,
    size_bytes INTEGER, status TEXT, request_sha256 TEXT,
    epoch INTEGER, topic TEXT, partition INTEGER, offset INTEGER, created_at_us INTEGER)
    WITHOUT ROWID;
CREATE TABLE advisory_rows (run_id TEXT, advisory_id TEXT, link_sha256 TEXT, link_path TEXT,
    content_sha256 TEXT, epoch INTEGER, topic TEXT, partition INTEGER, offset INTEGER,
    PRIMARY KEY (run_id, advisory_id)) WITHOUT ROWID;
CREATE TABLE attachment_rows (run_id TEXT, sha256 TEXT);
CREATE TABLE runs (run_id TEXT PRIMARY KEY, is_run INTEGER, date TEXT, sha256 TEXT,
    size_bytes INTEGER, broker_ms INTEGER, log INTEGER, offset INTEGER, leaves INTEGER)
    WITHOUT ROWID;
CREATE TABLE advisories (run_id TEXT, advisory_id TEXT, is_advisory INTEGER, link_sha256 TEXT,
    broker_ms INTEGER, log INTEGER, offset INTEGER,
    PRIMARY KEY (run_id, advisory_id)) WITHOUT ROWID;
CREATE TABLE expected (date TEXT, name TEXT, kind TEXT, sha256 TEXT, size_bytes INTEGER,
    broker_ms INTEGER, run_id TEXT, is_waiting INTEGER, is_archived INTEGER,
    PRIMARY KEY (date, name)) WITHOUT ROWID;
CREATE TABLE archived (date TEXT, log INTEGER, next_offset INTEGER, PRIMARY KEY (date, log))
    WITHOUT ROWID;
CREATE TABLE blobs (path TEXT PRIMARY KEY, named_by TEXT) WITHOUT ROWID;
CREATE TABLE known (has_rows INTEGER);
CREATE TABLE scope (is_whole INTEGER, is_part INTEGER);
CREATE TABLE dates_asked (date TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE runs_asked (run_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE wanted (run_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE strays (run_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE requests (path TEXT PRIMARY KEY) WITHOUT ROWID;
"""

ATTACH_INDEX: Final = "ATTACH 'file:{0}?mode=ro' AS store"
INDEX_VERSION: Final = "PRAGMA store.user_version"
FIRST_READ: Final = "SELECT 1 FROM store.runs LIMIT 1"
_COPY_ROWS: Final = (
    """INSERT INTO run_rows SELECT run_id, artifact_path, artifact_sha256,
    size_bytes, status, request_sha256,
    source_epoch, source_topic, source_partition, source_offset, created_at_us
    FROM {0}store.runs {1} ORDER BY run_id""",
    """INSERT INTO advisory_rows SELECT run_id, advisory_id, link_sha256, link_path, content_sha256,
    source_epoch, source_topic, source_partition, source_offset
    FROM {0}store.advisories {1} ORDER BY run_id, advisory_id""",
    "INSERT INTO attachment_rows SELECT run_id, sha256 FROM {0}store.attachments {1}",
)
COPY_ROWS: Final = [each.format("", "") for each in _COPY_ROWS]
# From the runs that are wanted to their rows: SQLite keeps the order of a CROSS JOIN.
COPY_WANTED: Final = [each.format("wanted CROSS JOIN ", "USING (run_id)") for each in _COPY_ROWS]
# Anything may be in a cell of an index: what is no time of the years 1 to 9999 has no date.
_HAS_DATE: Final = f"""(typeof({{0}}.created_at_us) = 'integer'
    AND {{0}}.created_at_us >= {FIRST_US} AND {{0}}.created_at_us < {END_US})"""
NEXT_MADE: Final = f"""SELECT min(created_at_us) FROM store.runs
    WHERE created_at_us >= ? AND {_HAS_DATE.format("runs")}"""
WANT_MADE: Final = """INSERT OR IGNORE INTO wanted
    SELECT run_id FROM store.runs WHERE created_at_us >= ? AND created_at_us < ?"""
WANT_REST: Final = (
    """INSERT OR IGNORE INTO wanted
    SELECT run_id FROM store.advisories WHERE run_id NOT IN (SELECT run_id FROM store.runs)""",
    f"""INSERT OR IGNORE INTO wanted
    SELECT run_id FROM store.runs WHERE NOT {_HAS_DATE.format("runs")}""",
)
# Quarantined requests of all dates, in the folders of a part. One of a run that is OK is looked up.
ADD_REQUEST: Final = f"""INSERT OR IGNORE INTO requests
    SELECT {BLOB_PATH.format("quarantine", "?1")} WHERE is_listed(?1)"""
COPY_REQUESTS: Final = f"""INSERT OR IGNORE INTO requests
    SELECT {BLOB_PATH.format("quarantine", "request_sha256")} FROM store.runs
    WHERE status IN ('BLOCKED', 'ERROR') AND is_listed(request_sha256)"""
WANT: Final = "INSERT OR IGNORE INTO wanted VALUES (?)"
WANTED: Final = "SELECT run_id FROM wanted"
ADD_ROWS: Final = "INSERT INTO {0} VALUES ({1})"
# Of the whole index, whatever rows of it are copied.
NOTE_ROWS: Final = """INSERT INTO known SELECT 1
    WHERE EXISTS (SELECT 1 FROM store.runs) OR EXISTS (SELECT 1 FROM store.advisories)"""
HAS_ROWS: Final = "SELECT has_rows FROM known LIMIT 1"
HAS_RUN_ROWS: Final = "SELECT 1 FROM run_rows LIMIT 1"

ADD_LOG: Final = "INSERT INTO logs VALUES (?, ?, ?, ?, ?)"
ADD_ARCHIVED: Final = "INSERT INTO archived VALUES (?, ?, ?)"
ADD_RUN_LEAVES: Final = "INSERT INTO run_leaves VALUES (?, ?, ?, ?, ?, ?, {0:d}, ?, ?)"
ADD_ADVISORY_LEAVES: Final = "INSERT INTO advisory_leaves VALUES (?, ?, ?, ?, ?, {0:d}, ?, ?)"
# Of an audit that looks at some dates or runs alone.
ADD_WANTED_RUN_LEAVES: Final = """INSERT INTO run_leaves
    SELECT ?1, ?2, ?3, ?4, ?5, ?6, {0:d}, ?7, ?8
    WHERE is_dated(?3) OR ?1 IN (SELECT run_id FROM wanted)"""
ADD_WANTED_ADVISORIES: Final = """INSERT INTO advisory_leaves
    SELECT ?1, ?2, ?3, ?4, ?5, {0:d}, ?6, ?7 WHERE ?1 IN (SELECT run_id FROM wanted)"""
# Runs that a leaf alone says to look at: other leaves of theirs were not kept.
FIND_STRAYS: Final = """INSERT INTO strays SELECT run_id FROM run_leaves
    WHERE run_id NOT IN (SELECT run_id FROM wanted) UNION SELECT run_id FROM advisory_leaves
    WHERE run_id NOT IN (SELECT run_id FROM wanted)"""
HAS_STRAYS: Final = "SELECT 1 FROM strays LIMIT 1"
WANT_STRAYS: Final = (
    "DELETE FROM run_leaves WHERE run_id IN (SELECT run_id FROM strays)",
    "DELETE FROM advisory_leaves WHERE run_id IN (SELECT run_id FROM strays)",
    "DELETE FROM wanted",
    "INSERT INTO wanted SELECT run_id FROM strays",
)
FORGET_LEAVES: Final = (
    "DELETE FROM run_leaves WHERE log = ? AND number BETWEEN ? AND ?",
    "DELETE FROM advisory_leaves WHERE log = ? AND number BETWEEN ? AND ?",
)
FORGET_HASHES: Final = (
    """UPDATE run_leaves SET sha256 = NULL, size_bytes = NULL
    WHERE log = ? AND number BETWEEN ? AND ?""",
    "UPDATE advisory_leaves SET link_sha256 = NULL WHERE log = ? AND number BETWEEN ? AND ?",
)

# Where there is no log, or none that can be trusted, rows stand for leaves. Anybody may have
# written a row: one whose path is not that of its run's file leads nowhere.
_OF_LOG: Final = """(:log IS NULL OR EXISTS (SELECT 1 FROM logs WHERE log = :log
    AND epoch = kept.epoch AND topic = kept.topic AND partition = kept.partition))"""
LEAVES_OF_ROWS: Final = (
    f"""INSERT INTO run_leaves (run_id, is_run, date, sha256, size_bytes, log, offset)
    SELECT run_id, 1, date, sha256, size_bytes, :log, offset
    FROM (SELECT *, date_of(artifact_path) AS date FROM run_rows) AS kept
    WHERE {_OF_LOG} AND run_id NOT IN (SELECT run_id FROM run_leaves)
    AND artifact_path = {RUN_PATH.format("kept")}""",
    f"""INSERT INTO advisory_leaves (run_id, advisory_id, is_advisory, link_sha256, log, offset)
    SELECT run_id, advisory_id, 1, link_sha256, :log, offset FROM advisory_rows AS kept
    WHERE {_OF_LOG} AND advisory_id NOT GLOB '*[^A-Za-z0-9._-]*'
    AND (run_id, advisory_id) NOT IN (SELECT run_id, advisory_id FROM advisory_leaves)""",
)

ASK_FOR_ALL: Final = "INSERT INTO scope VALUES (?, ?)"
ASK_FOR_DATE: Final = "INSERT OR IGNORE INTO dates_asked VALUES (?)"
NO_DATE: Final = ""
"""Among the dates of the part that looks at what has none."""
# SQLite cuts what it divides towards 0, and a day before 1970 ends below it.
_MADE_ON: Final = f"""CASE WHEN {_HAS_DATE} THEN date(
    ({{0}}.created_at_us - ({{0}}.created_at_us < 0) * 999999) / 1000000, 'unixepoch') END"""
ASK_FOR_DATES: Final = f"""INSERT OR IGNORE INTO dates_asked SELECT date FROM
    (SELECT date FROM run_leaves UNION SELECT {_MADE_ON.format("kept")} FROM run_rows AS kept)
    WHERE date IS NOT NULL AND is_dated(date)"""
ASK_FOR_RUN: Final = "INSERT OR IGNORE INTO runs_asked VALUES (?)"
IS_RUN_ASKED: Final = "SELECT 1 FROM runs_asked WHERE run_id = ?"
_ASKED: Final = """((SELECT is_whole FROM scope) OR {0} IN (SELECT date FROM dates_asked)
    OR {1}.run_id IN (SELECT run_id FROM runs_asked))"""
_ASKED_RUN: Final = _ASKED.format("runs.date", "runs")

# The first leaf of the record that made the run or advisory; else the first leaf that names it: a
# duplicate or conflict names a run of an epoch without a log. Leaves are sorted once, beyond the
# page cache in a temporary file: to keep an index while they come costs twice as much.
RESOLVE: Final = (
    """INSERT INTO runs
    SELECT run_id, is_run, date, sha256, size_bytes, broker_ms, log, offset, 1
    FROM run_leaves WHERE run_id IS NOT NULL ORDER BY run_id, is_run DESC, rowid
    ON CONFLICT (run_id) DO UPDATE SET leaves = leaves + 1""",
    """INSERT OR IGNORE INTO advisories
    SELECT run_id, advisory_id, is_advisory, link_sha256, broker_ms, log, offset
    FROM advisory_leaves ORDER BY run_id, advisory_id, is_advisory DESC, rowid""",
)
# The record of the date covers the leaf: the file is in a tar, whether it is here too or not.
_COVERED: Final = """EXISTS (SELECT 1 FROM archived WHERE archived.date = runs.date
    AND archived.log = {0}.log AND {0}.offset < archived.next_offset)"""
_RUN_COVERED: Final = _COVERED.format("runs")
_LINK_COVERED: Final = f"{_RUN_COVERED} AND {_COVERED.format('leaf')}"
_IS_SHA256: Final = "length({0}) = 64 AND {0} NOT GLOB '*[^0-9a-f]*'"
EXPECT: Final = (
    # The time of a record of the legacy topic is not checked: history may come at any time.
    f"""INSERT INTO expected SELECT runs.date, {RUN_FILE.format("runs")}, 'run',
    coalesce(runs.sha256, kept.sha256), coalesce(runs.size_bytes, kept.size_bytes),
    iif(logs.is_legacy, NULL, runs.broker_ms), runs.run_id, 0, {_RUN_COVERED}
    FROM runs LEFT JOIN logs USING (log) LEFT JOIN run_rows AS kept USING (run_id)
    WHERE {_ASKED_RUN}""",
    f"""INSERT INTO expected SELECT runs.date, {LINK_FILE.format("leaf")}, 'link',
    coalesce(leaf.link_sha256, kept.link_sha256), NULL, leaf.broker_ms, leaf.run_id,
    kept.run_id IS NOT NULL AND kept.link_path IS NULL, {_LINK_COVERED}
    FROM advisories AS leaf JOIN runs USING (run_id)
    LEFT JOIN advisory_rows AS kept USING (run_id, advisory_id)
    WHERE {_ASKED_RUN}""",
    f"""INSERT OR IGNORE INTO blobs SELECT {BLOB_PATH.format("attachments", "named.sha256")},
    {RUN_PATH.format("runs")} FROM attachment_rows AS named JOIN runs USING (run_id)
    WHERE {_ASKED_RUN} AND {_IS_SHA256.format("named.sha256")}
    AND NOT ({_RUN_COVERED} AND is_gone({RUN_PATH.format("runs")}))""",
    f"""INSERT OR IGNORE INTO blobs SELECT {BLOB_PATH.format("attachments", "content_sha256")},
    link_path FROM advisory_rows JOIN runs USING (run_id)
    LEFT JOIN advisories AS leaf USING (run_id, advisory_id)
    WHERE {_ASKED_RUN} AND link_path IS NOT NULL AND {_IS_SHA256.format("content_sha256")}
    AND NOT ({_LINK_COVERED} AND is_gone(link_path))""",
    f"""INSERT OR IGNORE INTO blobs SELECT {BLOB_PATH.format("quarantine", "request_sha256")},
    {RUN_PATH.format("runs")} FROM run_rows JOIN runs USING (run_id)
    WHERE {_ASKED_RUN} AND status <> 'OK' AND {_IS_SHA256.format("request_sha256")}""",
)

# A leaf that only repeats a run or an advisory puts nothing into a tar.
ARCHIVED_COUNTS: Final = f"""SELECT date, sum(of_run), sum(NOT of_run) FROM (
    SELECT runs.date, 1 AS of_run FROM runs WHERE runs.is_run AND {_RUN_COVERED}
    UNION ALL SELECT runs.date, 0 FROM advisories AS leaf JOIN runs USING (run_id)
    WHERE runs.is_run AND leaf.is_advisory AND {_LINK_COVERED}) GROUP BY date"""

COUNT_EXPECTED: Final = "SELECT count(*) FROM expected"
EXPECTED_DATES: Final = "SELECT DISTINCT date FROM expected ORDER BY date"
EXPECTED_NAMES: Final = "SELECT name FROM expected WHERE date = ? ORDER BY name"
EXPECTED_FILES: Final = """SELECT name, kind, sha256, size_bytes, broker_ms, run_id, is_waiting,
    is_archived
    FROM expected WHERE date = ? AND name BETWEEN ? AND ? ORDER BY name"""
UNEXPECTED_NAMES: Final = """SELECT value FROM json_each(?) WHERE NOT EXISTS
    (SELECT 1 FROM expected WHERE date = ? AND name = value)"""
BLOB_PATHS: Final = "SELECT path FROM blobs WHERE path GLOB ? || '/*' ORDER BY path"
NAMED_BLOBS: Final = "SELECT path, named_by FROM blobs WHERE path BETWEEN ? AND ? ORDER BY path"
IS_BLOB_NAMED: Final = """SELECT 1 FROM blobs WHERE path = ?1
    UNION ALL SELECT 1 FROM requests WHERE path = ?1"""
DATE_OF_RUN: Final = "SELECT date FROM runs WHERE run_id = ?"
HAS_ADVISORY: Final = "SELECT 1 FROM advisories WHERE run_id = ? AND advisory_id = ?"
HAS_ROW_OF_PATH: Final = "SELECT 1 FROM run_rows WHERE artifact_path = ?"

# Leaves compared with each other, in the order of the logs, and with rows: the path, what was
# expected, what was found. A cell that is NULL is of a leaf that cannot be trusted.
_LINK: Final = f"coalesce('runs/' || runs.date || '/', 'of no run: ') || {LINK_FILE}"
_LEAF: Final = "logs.topic || '/' || logs.partition || ' at offset ' || leaf.offset"
_SOURCE: Final = "{0}.epoch || '/' || {0}.topic || '/' || {0}.partition || '/' || {1}.offset"
# Of a part: where no leaf gives the date of the run, its row does, if it has one.
_DATE_OF_RUN: Final = f"""coalesce(runs.date, (SELECT {_MADE_ON.format("made")}
    FROM run_rows AS made, scope WHERE is_part AND made.run_id = {{0}}.run_id), '{NO_DATE}')"""
_ASKED_ADVISORY: Final = _ASKED.format(_DATE_OF_RUN.format("leaf"), "leaf")

# As they are read; leaves that were read again, of some runs, are behind the others.
_AS_LOGGED: Final = "leaf.number IS NULL, leaf.log, leaf.number, leaf.rowid"

COMPARE_LEAVES: Final[tuple[tuple[AuditCode, str], ...]] = (
    (
        "RUN_ID_TWICE",
        f"""SELECT {RUN_PATH.format("runs")},
    'one leaf of ' || runs.run_id || ', SHA-256 ' || runs.sha256,
    'another in ' || {_LEAF} || ': ' || {RUN_PATH.format("leaf")} || ', SHA-256 ' || leaf.sha256
    FROM run_leaves AS leaf JOIN runs USING (run_id) JOIN logs ON logs.log = leaf.log
    WHERE leaf.run_id IN (SELECT run_id FROM runs WHERE leaves > 1)
    AND (leaf.is_run AND (leaf.log, leaf.offset) <> (runs.log, runs.offset)
      OR leaf.date <> runs.date OR leaf.sha256 <> runs.sha256) AND {_ASKED_RUN}
    ORDER BY {_AS_LOGGED}""",
    ),
    (
        "ADVISORY_ID_TWICE",
        f"""SELECT {_LINK.format("leaf")},
    'one leaf of this advisory, link SHA-256 ' || first.link_sha256,
    'another in ' || {_LEAF} || ', link SHA-256 ' || leaf.link_sha256
    FROM advisory_leaves AS leaf JOIN advisories AS first USING (run_id, advisory_id)
    LEFT JOIN runs USING (run_id) JOIN logs ON logs.log = leaf.log
    WHERE (leaf.is_advisory AND (leaf.log, leaf.offset) <> (first.log, first.offset)
      OR leaf.link_sha256 <> first.link_sha256) AND {_ASKED_ADVISORY}
    ORDER BY {_AS_LOGGED}""",
    ),
)
COMPARE_ROWS: Final = (
    f"""SELECT {RUN_PATH.format("runs")}, 'a row of the run ' || runs.run_id, 'none'
    FROM runs LEFT JOIN run_rows AS kept USING (run_id)
    WHERE kept.run_id IS NULL AND {_ASKED_RUN}""",
    f"""SELECT {RUN_PATH.format("runs")}, 'a row with SHA-256 ' || runs.sha256 || ', '
    || runs.size_bytes || ' bytes, from ' || {_SOURCE.format("logs", "runs")},
    'one of ' || kept.artifact_path || ' with SHA-256 ' || kept.sha256 || ', ' || kept.size_bytes
    || ' bytes, from ' || coalesce({_SOURCE.format("kept", "kept")}, 'no record')
    FROM runs JOIN logs USING (log) JOIN run_rows AS kept USING (run_id)
    WHERE (kept.artifact_path <> {RUN_PATH.format("runs")} OR runs.sha256 <> kept.sha256
      OR runs.size_bytes <> kept.size_bytes
      OR runs.is_run AND (kept.epoch IS NOT logs.epoch OR kept.topic IS NOT logs.topic
        OR kept.partition IS NOT logs.partition OR kept.offset IS NOT runs.offset))
    AND {_ASKED_RUN}""",
    f"""SELECT {_LINK.format("leaf")}, 'a row of this advisory', 'none'
    FROM advisories AS leaf LEFT JOIN runs USING (run_id)
    LEFT JOIN advisory_rows AS kept USING (run_id, advisory_id)
    WHERE kept.run_id IS NULL AND {_ASKED_ADVISORY}""",
    f"""SELECT {_LINK.format("leaf")}, 'a row with link SHA-256 ' || leaf.link_sha256,
    'one of ' || coalesce(kept.link_path, 'no link yet') || ' with SHA-256 ' || kept.link_sha256
    FROM advisories AS leaf JOIN advisory_rows AS kept USING (run_id, advisory_id)
    LEFT JOIN runs USING (run_id)
    WHERE (leaf.link_sha256 <> kept.link_sha256
      OR kept.link_path IS NOT NULL
        AND (runs.run_id IS NULL OR kept.link_path <> {_LINK.format("leaf")}))
    AND {_ASKED_ADVISORY}""",
)
"""Rows that are missing, or differ from their leaf."""
_MADE_OR_NONE: Final = f"coalesce({_MADE_ON.format('kept')}, '{NO_DATE}')"
ROWS_WITHOUT_LEAF: Final = (
    f"""SELECT kept.artifact_path, 'no row: no leaf tells of this run',
    'a row of the run ' || kept.run_id
    FROM run_rows AS kept LEFT JOIN runs USING (run_id)
    WHERE runs.run_id IS NULL AND {_ASKED.format(_MADE_OR_NONE, "kept")}""",
    f"""SELECT {_LINK.format("kept")}, 'no row: no leaf tells of this advisory', 'a row of it'
    FROM advisory_rows AS kept LEFT JOIN advisories AS leaf USING (run_id, advisory_id)
    LEFT JOIN runs USING (run_id)
    WHERE leaf.run_id IS NULL AND {_ASKED.format(_DATE_OF_RUN.format("kept"), "kept")}""",
)
"""Where the file of such a row is there, it is reported as a file that no leaf explains."""

_BLOB_LINE: Final = f"{{0}} || '  ' || {BLOB_PATH.format('attachments', '{0}')}"
CHECKSUM_LINES: Final = f"""
SELECT sha256 || '  ' || {RUN_PATH.format("runs")} AS line FROM runs WHERE is_run
UNION SELECT leaf.link_sha256 || '  runs/' || runs.date || '/' || {LINK_FILE.format("leaf")}
    FROM advisories AS leaf JOIN runs USING (run_id) WHERE runs.is_run AND leaf.is_advisory
UNION SELECT {_BLOB_LINE.format("kept.sha256")}
    FROM attachment_rows AS kept JOIN runs USING (run_id) WHERE runs.is_run
UNION SELECT {_BLOB_LINE.format("kept.content_sha256")}
    FROM advisory_rows AS kept JOIN runs USING (run_id) JOIN advisories AS leaf
    USING (run_id, advisory_id)
    WHERE runs.is_run AND leaf.is_advisory AND kept.content_sha256 IS NOT NULL
ORDER BY line"""

# Of the store's index: rows of some runs, in the order of the columns of their tables.
_OF_RUNS: Final = "WHERE run_id IN (SELECT value FROM json_each(?))"
COMPARED: Final = {
    table.name: [each for each in table.c if not each.name.startswith("source_")]
    for table in (runs, attachments, withheld_blobs, withheld_payloads, advisories)
}
"""The columns that an artifact or a link makes; the others are of its record."""
_NAMES: Final = {name: ", ".join(each.name for each in found) for name, found in COMPARED.items()}
INDEX_RUNS, INDEX_ATTACHMENTS, INDEX_ADVISORIES = (
    f"SELECT {_NAMES[table.name]} FROM {table.name} {_OF_RUNS}"
    for table in (runs, attachments, advisories)
)
INDEX_WITHHELD, INDEX_PAYLOADS = (
    f"SELECT {_NAMES[table.name]} FROM {table.name}_by_run {_OF_RUNS}"
    for table in (withheld_blobs, withheld_payloads)
)
# The index keeps these by blob: a question about some runs would read the whole table.
SORT_WITHHELD: Final = tuple(
    statement
    for name in (withheld_blobs.name, withheld_payloads.name)
    for statement in (
        f"CREATE TEMP TABLE IF NOT EXISTS {name}_by_run AS SELECT * FROM main.{name}",
        f"CREATE INDEX IF NOT EXISTS temp.of_{name} ON {name}_by_run (run_id)",
    )
)
INDEX_ROWS: Final = (
    (runs.name, INDEX_RUNS),
    (attachments.name, INDEX_ATTACHMENTS),
    (withheld_blobs.name, INDEX_WITHHELD),
    (withheld_payloads.name, INDEX_PAYLOADS),
    (advisories.name, INDEX_ADVISORIES),
)
INDEX_KNOWN: Final = f"SELECT run_id FROM runs {_OF_RUNS}"
INDEX_REQUESTS: Final = """SELECT DISTINCT request_sha256 FROM runs
    WHERE request_sha256 IN (SELECT value FROM json_each(?))"""
