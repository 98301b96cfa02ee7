"""A line of runs.csv: what it says of a run, and texts of producers that stay texts."""

import csv
import io
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import structs

from pipeline.core.layout import attachment_path
from pipeline.core.runs.artifact import index_fields_of
from pipeline.core.runs.outcome import StoredRun, run_of_fields
from pipeline.core.runs.words import (
    CELL_LIMIT_CHARACTERS,
    COLUMNS,
    LeftOut,
    cell,
    line_of_corrupt,
    line_of_run,
)
from tests.builders import (
    ABSENT,
    attachment_ref,
    document,
    red_request,
    run_request,
    sha256,
)
from tests.storage.stores import source

FORMULAS = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
TEXTS = st.text(st.sampled_from("=+-@;,|\"' \t\r\nab\uff1d\u202e"), max_size=12)


def line(
    request: dict[str, Any],
    *left_out: LeftOut,
    legacy: bool = False,
    refused_by: str | None = None,
) -> dict[str, str]:
    artifact = document(request)
    path = f"runs/2025-12-18/{artifact['run_id']}.json"
    run: StoredRun = run_of_fields(index_fields_of(artifact), "ab" * 32, path, 1, source(0))
    cells = line_of_run(structs.replace(run, legacy=legacy), artifact, left_out, refused_by)
    return dict(zip(COLUMNS, cells, strict=True))


def test_a_line_says_what_the_artifact_says() -> None:
    told = line(run_request(run_id="saw_1"), LeftOut("attachments/aa", "missing"))
    assert told == {
        "run_id": "saw_1",
        "created_at_utc": "2025-12-18T14:03:22.123456Z",
        "verdict": "MAY CUT",
        "status": "OK",
        "risk_level": "GREEN",
        "block_reason": "",
        "mode": "saw",
        "tool_id": "saw:veneer_160",
        "material_id": "maple",
        "machine_id": "shop_saw_2",
        "workflow_session_id": "ws_42",
        "gcode_sha256": document(run_request())["hashes"]["gcode_sha256"],
        "gcode_known_by": "stored",
        "artifact_sha256": "ab" * 32,
        "path": "runs/2025-12-18/saw_1.json",
        "not_exported": "missing attachments/aa",
    }


def test_only_a_run_that_may_be_cut_is_said_to_be_one() -> None:
    blocked = line(red_request())
    assert blocked["verdict"] == "DO NOT CUT: rim speed above the blade's limit"
    assert (blocked["gcode_sha256"], blocked["status"]) == ("", "BLOCKED")
    assert line(run_request(), legacy=True)["verdict"].startswith("DO NOT CUT: it is history")
    assert line(run_request(machine_id=ABSENT))["machine_id"] == ""
    unnamed = line(run_request(outputs=None))["verdict"]
    assert unnamed == "DO NOT CUT: its record names no program"
    alone = "MAY CUT by this run alone: the run r refuses exactly the same file"
    assert line(run_request(), refused_by="r")["verdict"] == alone
    assert line(red_request(), refused_by="r")["verdict"] == blocked["verdict"]
    corrupt = dict(zip(COLUMNS, line_of_corrupt("r", "2025-12-18T14:03:22Z", "why"), strict=True))
    assert corrupt["verdict"].startswith("DO NOT CUT: ")
    assert {name for name, value in corrupt.items() if value} == {
        "run_id",
        "created_at_utc",
        "verdict",
        "not_exported",
    }


def test_a_run_is_not_to_be_cut_by_what_is_corrupt_or_by_a_program_that_is_missing() -> None:
    program = b"G1 X1"
    request = run_request(outputs=None, attachments=[attachment_ref(program, kind="gcode")])
    path = attachment_path(sha256(program))
    missing, elsewhere = LeftOut(path, "missing"), LeftOut("attachments/aa", "missing")
    assert line(request, elsewhere)["verdict"] == "MAY CUT"
    assert line(request, elsewhere, missing)["verdict"] == (
        "DO NOT CUT: the store does not have its program"
    )
    corrupt = LeftOut("attachments/bb", "corrupt")
    assert line(request, corrupt)["verdict"] == "DO NOT CUT: attachments/bb is not what was stored"
    assert line(red_request(), corrupt)["verdict"].startswith("DO NOT CUT: rim speed")


@given(st.lists(TEXTS, min_size=2, max_size=3))
@example(["a;=1+1;b", "x"])
@example(["a", '";=1'])
@example(["  =1", "|-1"])
def test_no_text_becomes_a_formula_whatever_separates_cells(texts: list[str]) -> None:
    file = io.StringIO(newline="")
    csv.writer(file, quoting=csv.QUOTE_ALL).writerow(map(cell, texts))
    written = file.getvalue().removesuffix("\r\n")
    for separator in ",;|\t":
        (cells,) = csv.reader([written], delimiter=separator)
        naive = written.split(separator)
        for each in (*cells, *(text.strip('"') for text in naive)):
            assert not each.lstrip(" ").startswith(FORMULAS), (separator, each)


@pytest.mark.parametrize("text", ["saw:veneer_160", "rim speed 67 m/s; limit 50", "a - b", "Ω=2"])
def test_a_text_without_formulas_stays_as_it_is(text: str) -> None:
    assert cell(text) == text


def test_a_cell_is_one_line_that_hides_nothing() -> None:
    assert cell("a\r\n\u202eb\0") == "a\\u000d\\u000a\\u202eb\\u0000"


def test_a_cell_is_cut_where_a_spreadsheet_would_cut_it_and_says_so() -> None:
    longest = cell("=" + "\n" * 20_000)
    assert len(longest) == CELL_LIMIT_CHARACTERS
    assert longest.endswith("[cut: the artifact has all of it]")
    assert cell("x" * CELL_LIMIT_CHARACTERS) == "x" * CELL_LIMIT_CHARACTERS
