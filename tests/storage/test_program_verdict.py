"""The verdict of a program by its hash: MAY CUT for exactly the bytes of a run, never on doubt."""

from collections.abc import Callable
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.layout import attachment_path
from pipeline.core.runs.verdict import JudgedRun
from pipeline.legacy.record import judge_legacy_record
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.program_verdict import ProgramVerdict, program_verdict
from pipeline.storage.reader import open_reader
from schemas.run_filter import RunFilter
from tests.builders import (
    ABSENT,
    attachment,
    attachment_ref,
    red_request,
    run_request,
    sha256,
)
from tests.legacy_rows import bare_row, mapped, v1_row
from tests.storage.stores import TIMESTAMP_MS, change_index, judged_record, opened, row_of, source

PROGRAM = b"(umlaut \xc3\xa4)\nG90\nG1 Z-30\nM30\n"
EARLY, LATE = "2025-12-18T14:03:22Z", "2025-12-18T15:00:00Z"
_TO_CUT = {"kind": "gcode", "mime": "text/plain", "filename": "part.nc"}
_CLAIM = {"hashes": {"gcode_sha256": sha256(PROGRAM)}}
WAYS: dict[str, dict[str, Any]] = {
    "inline": {"outputs": {"gcode_text": PROGRAM.decode()}},
    "attached inline": {"outputs": ABSENT, "attachments": [attachment(PROGRAM, **_TO_CUT)]},
    "attached by name": {"outputs": ABSENT, "attachments": [attachment_ref(PROGRAM, **_TO_CUT)]},
    "at its path": {
        "outputs": {"gcode_path": attachment_path(sha256(PROGRAM))},
        "attachments": [attachment_ref(PROGRAM, kind="debug")],
    },
    "claimed": {"outputs": ABSENT, **_CLAIM},
}
OTHER_BYTES: dict[str, Callable[[bytes], bytes]] = {
    "one byte changed": lambda program: program.replace(b"-30", b"-31"),
    "CRLF in place of LF": lambda program: program.replace(b"\n", b"\r\n"),
    "one line feed more": lambda program: program + b"\n",
    "a byte order mark": lambda program: b"\xef\xbb\xbf" + program,
    "latin-1": lambda program: program.decode().encode("latin-1"),
    "its last byte missing": lambda program: program[:-1],
    "empty": lambda _program: b"",
}


def ok(run_id: str = "run_ok", way: str = "inline", **changes: Any) -> dict[str, Any]:
    return run_request(run_id=run_id, **WAYS[way], **changes)


def red(run_id: str = "run_red", way: str = "inline", **changes: Any) -> dict[str, Any]:
    return red_request(run_id=run_id, **WAYS[way], **changes)


def stored(root: Path, *requests: dict[str, Any]) -> Path:
    with opened(root) as store:
        first = store.index.count()
        store.commit([judged_record(each, first + place) for place, each in enumerate(requests)])
    return root


def verdict(root: Path, program: bytes = PROGRAM) -> ProgramVerdict:
    with closing(open_reader(root)) as reader:
        return program_verdict(reader, sha256(program))


@pytest.mark.parametrize("way", WAYS)
def test_exactly_these_bytes_may_be_cut_however_they_came(tmp_path: Path, way: str) -> None:
    found = verdict(stored(tmp_path, ok(way=way)))
    assert (found.may_cut, found.run_id) == (True, "run_ok")
    assert found.words == "MAY CUT: these bytes are the program of the run run_ok (GREEN)."


def test_other_bytes_are_another_program(tmp_path: Path) -> None:
    stored(tmp_path, ok())
    for name, changed in OTHER_BYTES.items():
        found = verdict(tmp_path, changed(PROGRAM))
        assert (found.may_cut, found.is_known) == (False, False), name
        assert found.words == "DO NOT CUT: no run knows these bytes."


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_withholds_the_same_bytes_refuses_them_whichever_is_newer(
    tmp_path: Path, way: str
) -> None:
    for number, (twin, times) in enumerate(product(WAYS, [(EARLY, LATE), (LATE, EARLY)])):
        root = stored(
            tmp_path / str(number),
            ok(way=way, created_at_utc=times[0]),
            red(way=twin, created_at_utc=times[1]),
        )
        found = verdict(root)
        assert (found.may_cut, found.is_known, found.run_id) == (False, True, "run_red")
        assert found.words == (
            "DO NOT CUT: rim speed above the blade's limit (the run run_red is BLOCKED)."
        )


def test_every_run_that_is_not_ok_refuses(tmp_path: Path) -> None:
    failed = {"type": "Timeout", "message": "the post-processor did not answer"}
    refusing = {
        "RED": red(),
        "incomplete": ok(tool_id=ABSENT),
        "ERROR": ok(status="ERROR"),
        "failed": ok(error=failed),
        "no verdict": ok(feasibility={"note": "none"}),
        "wrong hash": ok(hashes={"gcode_sha256": "0" * 64}),
    }
    for name, request in refusing.items():
        root = stored(tmp_path / name, ok(), {**request, "run_id": "run_other"})
        assert row_of(root, "run_other")["status"] != "OK", name
        assert verdict(root).run_id == "run_other", name
        assert not verdict(root).may_cut, name


def test_of_several_runs_the_newest_that_may_be_cut_is_named(tmp_path: Path) -> None:
    early, late = ok("run_z", created_at_utc=EARLY), ok("run_a", created_at_utc=LATE)
    assert verdict(stored(tmp_path, late, early)).run_id == "run_a"


def test_a_file_that_is_not_what_was_stored_releases_nothing(tmp_path: Path) -> None:
    stored(tmp_path, ok("run_old", created_at_utc=EARLY), ok("run_new", created_at_utc=LATE))
    path = tmp_path / row_of(tmp_path, "run_new")["artifact_path"]
    content = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(content.replace(b"maple", b"mople"))
    found = verdict(tmp_path)
    # Not by the older run either: somebody changed what was stored.
    assert (found.may_cut, found.run_id) == (False, "run_new")
    assert found.words.startswith(
        "DO NOT CUT: the run run_new is not what was stored (ARTIFACT_CORRUPT: Expected runs/"
    )
    path.unlink()
    assert "cannot be read" in verdict(tmp_path).words
    path.write_bytes(content)
    assert verdict(tmp_path).may_cut


@pytest.mark.parametrize(
    "change",
    [
        f"gcode_sha256 = '{sha256(PROGRAM)}'",
        f"gcode_sha256 = '{sha256(PROGRAM)}', status = 'OK', risk_level = 'GREEN'",
    ],
)
def test_a_row_that_says_more_than_its_artifact_releases_nothing(
    tmp_path: Path, change: str
) -> None:
    stored(tmp_path, run_request(run_id="run_1"), red("run_2"))
    change_index(tmp_path, f"UPDATE runs SET {change}, gcode_known_by = 'stored'")
    change_index(tmp_path, "DELETE FROM withheld_payloads")
    found = verdict(tmp_path)
    assert not found.may_cut
    assert "rmos index check" in found.words


def test_what_no_record_explains_releases_nothing_and_may_refuse(tmp_path: Path) -> None:
    stored(tmp_path, ok())
    change_index(tmp_path, "UPDATE runs SET source_offset = NULL")
    found = verdict(tmp_path)
    assert (found.may_cut, found.is_known) == (False, True)
    assert found.words == "DO NOT CUT: no leaf and no record explains the run run_ok."
    stored(tmp_path, ok("run_later"))
    assert verdict(tmp_path).run_id == "run_later"
    stored(tmp_path, red())
    change_index(tmp_path, "UPDATE runs SET source_offset = NULL WHERE run_id = 'run_red'")
    assert (verdict(tmp_path).may_cut, verdict(tmp_path).run_id) == (False, "run_red")


def migrated(root: Path, row: dict[str, Any]) -> None:
    body = mapped(row).body
    run = judge_legacy_record(row["run_id"].encode(), body)
    assert isinstance(run, JudgedRun)
    with opened(root) as store:
        store.commit([JudgedRecord.of(source(store.index.count()), run, body, TIMESTAMP_MS)])


def test_history_releases_nothing_and_refuses_only_what_it_withholds(tmp_path: Path) -> None:
    green, nobody = tmp_path / "green", tmp_path / "nobody"
    migrated(green, v1_row(gcode_text=PROGRAM.decode(), gcode_hash=sha256(PROGRAM)))
    found = verdict(green)
    assert (found.may_cut, found.is_known) == (False, True)
    assert found.words.startswith("DO NOT CUT: it is history of an older store")
    stored(green, ok(created_at_utc="2020-01-01T00:00:00Z"))
    assert (verdict(green).may_cut, verdict(green).run_id) == (True, "run_ok")

    migrated(nobody, bare_row(gcode_text=PROGRAM.decode()))
    stored(nobody, ok())
    assert not verdict(nobody).may_cut


def test_an_attachment_that_no_run_cuts_is_refused(tmp_path: Path) -> None:
    two = [attachment(PROGRAM, **_TO_CUT), attachment(b"M30\n", **_TO_CUT)]
    stored(tmp_path, run_request(run_id="run_1", outputs=ABSENT, attachments=two))
    found = verdict(tmp_path)
    assert (found.may_cut, found.run_id) == (False, "run_1")
    assert found.words.startswith("DO NOT CUT: these bytes are an attachment of kind gcode of")
    change_index(tmp_path, "UPDATE runs SET source_offset = NULL")
    assert not verdict(tmp_path).is_known


def test_history_that_names_and_withholds_a_program_is_listed_once(tmp_path: Path) -> None:
    migrated(tmp_path, bare_row(gcode_hash=sha256(PROGRAM)))
    assert not verdict(tmp_path).may_cut
    with closing(open_reader(tmp_path)) as reader:
        (item,) = reader.list_runs(RunFilter(gcode_sha256=sha256(PROGRAM))).items
    assert (item["gcode_sha256"], item["may_cut"]) == (sha256(PROGRAM), False)
