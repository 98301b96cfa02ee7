"""The index against the files: what a writer notes of a run is what its files say again."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.core.layout import attachment_path
from pipeline.core.runs.verdict import JudgedRun
from pipeline.legacy.record import judge_legacy_record
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.index_check import check_index
from tests.builders import (
    attachment,
    attachment_ref,
    incomplete_request,
    judged,
    red_request,
    run_request,
    sha256,
)
from tests.legacy_rows import bare_row, mapped, original_v2_row, unknown_row, v1_row
from tests.storage.stores import TIMESTAMP_MS, opened, source

PROGRAM = b"G1 X1\n"
CUT = attachment(PROGRAM, kind="gcode")
CLAIM = {"gcode_sha256": sha256(PROGRAM)}


def migrated(row: dict[str, Any], origin: str = "v1") -> tuple[JudgedRun, bytes]:
    body = mapped(row, origin=origin).body
    verdict = judge_legacy_record(row["run_id"].encode(), body)
    assert isinstance(verdict, JudgedRun)
    return verdict, body


def native(request: dict[str, Any]) -> tuple[JudgedRun, bytes]:
    return judged(request), b""


RUNS = {
    "GREEN": native(run_request(attachments=[CUT])),
    "large program": native(
        run_request(outputs={"gcode_text": "G1\n" * 100_000, "gcode_path": "/jobs/17.nc"})
    ),
    "attachment at its path": native(
        run_request(
            outputs={"gcode_path": attachment_path(sha256(PROGRAM))},
            attachments=[attachment_ref(PROGRAM, kind="debug")],
        )
    ),
    "claim": native(run_request(outputs=None, hashes=CLAIM)),
    "RED": native(red_request(attachments=[CUT])),
    "RED at its path": native(
        red_request(
            outputs={"gcode_path": attachment_path(sha256(PROGRAM))},
            attachments=[attachment_ref(PROGRAM, kind="debug")],
        )
    ),
    "RED at a path without an attachment": native(
        red_request(outputs={"gcode_path": attachment_path(sha256(PROGRAM))})
    ),
    "RED with a claim": native(red_request(outputs=None, hashes=CLAIM)),
    "incomplete": native(incomplete_request()),
    "v1": migrated(v1_row()),
    "v1 with a program": migrated(v1_row(gcode_text="G1 X1\n", gcode_hash="4" * 64)),
    "v1, UNKNOWN": migrated(unknown_row(gcode_hash="4" * 64)),
    "v1, OK by nobody": migrated(bare_row()),
    "v1, OK by nobody, with a program": migrated(bare_row(gcode_text="G1 X1\n")),
    "original v2": migrated(original_v2_row(), "original_v2"),
    "original v2, RED": migrated(
        original_v2_row(decision={"risk_level": "RED"}, status="BLOCKED"), "original_v2"
    ),
    "original v2, OK though RED": migrated(
        original_v2_row(decision={"risk_level": "RED"}, outputs=None), "original_v2"
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_the_row_of_a_run_is_the_one_that_its_files_make(tmp_path: Path, name: str) -> None:
    verdict, body = RUNS[name]
    with opened(tmp_path / "store") as store:
        store.commit([JudgedRecord.of(source(0), verdict, body, TIMESTAMP_MS)])
        assert list(check_index(store.store, store.index)) == []
