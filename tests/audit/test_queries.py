"""The paths that queries put together are those of the layout."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.audit import queries
from pipeline.audit.audited_store import FileReader
from pipeline.audit.checks.index import IndexRows
from pipeline.audit.plan import AuditPlan
from pipeline.audit.rules.parts import Extent
from pipeline.core.layout import ArtifactPath, BlobArea, BlobPath, LinkPath
from pipeline.disk.sqlite.file import read_only
from pipeline.disk.stored_files import StoredFiles
from pipeline.storage.index.run_index import INDEX_FILE
from schemas.audit_request import AuditScope
from tests.storage.stores import opened

IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
DATES = st.dates().map(str)


@given(date=DATES, run_id=IDS, advisory_id=IDS, sha256=st.binary(min_size=32, max_size=32))
def test_paths_in_queries_are_those_of_the_layout(
    date: str, run_id: str, advisory_id: str, sha256: bytes
) -> None:
    blobs = [queries.BLOB_PATH.format(area.value, "a.sha256") for area in BlobArea]
    link = f"'runs/' || a.date || '/' || {queries.LINK_FILE.format('a')}"
    columns = ", ".join([queries.RUN_PATH.format("a"), link, *blobs])
    row = sqlite3.connect(":memory:").execute(
        f"SELECT {columns} FROM "
        "(SELECT ? AS date, ? AS run_id, ? AS advisory_id, ? AS sha256) AS a",
        (date, run_id, advisory_id, sha256.hex()),
    )
    assert row.fetchone() == (
        str(ArtifactPath(date, run_id)),
        str(LinkPath(date, run_id, advisory_id)),
        *(str(BlobPath(area, sha256.hex())) for area in BlobArea),
    )


def test_rows_of_some_runs_are_found_without_reading_a_table(tmp_path: Path) -> None:
    with opened(tmp_path), closing(read_only(tmp_path / INDEX_FILE)) as index:
        for statement in queries.SORT_WITHHELD:
            index.execute(statement)
        for _, query in queries.INDEX_ROWS:
            plan = [row[3] for row in index.execute(f"EXPLAIN QUERY PLAN {query}", ("[]",))]
            assert [step for step in plan if "SCAN" in step and "json_each" not in step] == []


def test_a_row_has_a_date_where_its_path_is_that_of_an_artifact(tmp_path: Path) -> None:
    plan = AuditPlan(tmp_path / "plan", StoredFiles(tmp_path), Extent(AuditScope(all=True)))
    paths = {
        "runs/2025-12-18/a.json": "2025-12-18",
        "runs/2025-12-18/a_advisory_b.json": None,
        "runs/2025-12-18/../a.json": None,
        "runs/yesterday/a.json": None,
        "elsewhere": None,
        None: None,
    }
    found = {path: plan.value("SELECT date_of(?)", (path,)) for path in paths}
    plan.close()
    assert found == paths


def test_a_temporary_table_without_room_is_no_finding_about_the_index(tmp_path: Path) -> None:
    with opened(tmp_path / "store"):
        pass
    with closing(read_only(tmp_path / "store" / INDEX_FILE)) as index:
        index.execute("PRAGMA temp.max_page_count = 1")
        with pytest.raises(sqlite3.OperationalError, match="full"):
            IndexRows(FileReader(index), ["run_a"])
