"""Verifying a migration: every value of a row is in the store, or it is said which is not."""

from pathlib import Path

import pytest

from pipeline.core.layout import quarantine_path
from pipeline.core.progress import no_progress
from pipeline.legacy.check import Difference, verify_migration
from pipeline.legacy.record import judge_legacy_record
from pipeline.legacy.source import open_source
from pipeline.storage.batch_plan import JudgedRecord
from tests.legacy_rows import mapped, v1_file, v1_row
from tests.storage.stores import TIMESTAMP_MS, opened, source

ROW = v1_row(gcode_text="G1 X1\n" * 40_000, gcode_path="/jobs/17.nc")


def differences(store: Path, rows: Path) -> list[Difference]:
    return list(
        verify_migration(open_source(rows, None), store, backup_dir=None, progress=no_progress)
    )


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "runs.json"
    path.write_bytes(v1_file(ROW))
    return path


def test_a_path_that_large_gcode_replaces_is_found_missing_where_it_was_lost(
    tmp_path: Path, rows: Path
) -> None:
    store, row = tmp_path / "store", mapped(ROW)
    judged = judge_legacy_record(row.judged.run_id.encode(), row.body)
    with opened(store) as opened_store:
        opened_store.commit([JudgedRecord.of(source(0), judged, row.body, TIMESTAMP_MS)])
    assert differences(store, rows) == []
    path = quarantine_path(row.judged.request_sha256)
    assert b"/jobs/17.nc" in (store / path).read_bytes()
    (store / path).unlink()
    (found,) = differences(store, rows)
    assert (found.code, found.path) == ("MISSING", path)
