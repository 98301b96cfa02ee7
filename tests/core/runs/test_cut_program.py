"""The program that would be cut by a run, wherever its artifact says which it is."""

from itertools import combinations
from typing import Any

from pipeline.core.layout import attachment_path
from pipeline.core.runs.artifact import index_fields_of
from pipeline.core.runs.cut_program import CutProgram, cut_program
from pipeline.core.runs.diff import diff_runs
from tests.builders import attachment, attachment_ref, document, red_request, run_request, sha256
from tests.legacy_rows import artifact, bare_row, original_v2_row, unknown_row, v1_row

PROGRAM, OTHER = b"G1 X1\n", b"G1 X999\n"
CUT = attachment_ref(PROGRAM, kind="gcode", mime="text/plain", filename="a.nc")
OTHER_CUT = attachment_ref(OTHER, kind="gcode", mime="text/plain", filename="b.nc")
CLAIM = {"gcode_sha256": sha256(PROGRAM)}


def without_text(**changes: Any) -> dict[str, Any]:
    return document(run_request(outputs={"gcode_path": "/jobs/17.nc"}, **changes))


ATTACHED = CutProgram(sha256(PROGRAM), "attached")
CLAIMED = CutProgram(sha256(PROGRAM), "claimed")

PROGRAMS: dict[str, tuple[dict[str, Any], CutProgram | None]] = {
    "text": (
        document(run_request(outputs={"gcode_text": PROGRAM.decode()})),
        CutProgram(sha256(PROGRAM), "stored"),
    ),
    "large text": (
        document(run_request(outputs={"gcode_text": "G1\n" * 100_000})),
        CutProgram(sha256(b"G1\n" * 100_000), "stored"),
    ),
    "reference": (without_text(attachments=[CUT]), ATTACHED),
    "inline attachment": (
        without_text(attachments=[attachment(PROGRAM, kind="gcode")]),
        ATTACHED,
    ),
    "claim": (without_text(hashes=CLAIM), CLAIMED),
    "reference and claim": (without_text(attachments=[OTHER_CUT, CUT], hashes=CLAIM), ATTACHED),
    "claim of another": (without_text(attachments=[OTHER_CUT], hashes=CLAIM), CLAIMED),
    "one listed twice": (without_text(attachments=[CUT, CUT | {"filename": "c.nc"}]), ATTACHED),
    "two programs": (without_text(attachments=[CUT, OTHER_CUT]), None),
    "two programs, one of them by its path": (
        document(
            run_request(
                outputs={"gcode_path": attachment_path(sha256(PROGRAM))},
                attachments=[OTHER_CUT, CUT],
            )
        ),
        ATTACHED,
    ),
    "another kind": (without_text(attachments=[attachment_ref(PROGRAM, kind="debug")]), None),
    "another kind and claim": (
        without_text(attachments=[attachment_ref(PROGRAM, kind="debug")], hashes=CLAIM),
        ATTACHED,
    ),
    "another kind by its path": (
        document(
            run_request(
                outputs={"gcode_path": attachment_path(sha256(PROGRAM))},
                attachments=[attachment_ref(PROGRAM, kind="debug")],
                hashes={"gcode_sha256": sha256(OTHER)},
            )
        ),
        ATTACHED,
    ),
    "path alone": (without_text(), None),
    "not OK": (document(red_request(hashes=CLAIM, outputs=None, attachments=[CUT])), None),
    "older row": (artifact(bare_row()), CutProgram("4" * 64, "claimed")),
    "older row without a hash": (artifact(bare_row(gcode_hash=None)), None),
    "older row with no hash for one": (artifact(bare_row(gcode_hash="none")), None),
    "older row that is not OK": (artifact(unknown_row(gcode_hash="4" * 64)), None),
    "older row with an attachment": (
        artifact(v1_row(gcode_hash=None, attachments=[CUT])),
        ATTACHED,
    ),
    "original v2": (artifact(original_v2_row()), CutProgram(sha256(b"G0 X1\n"), "stored")),
    "original v2 without its text": (
        artifact(original_v2_row(outputs=None)),
        CutProgram(sha256(b"G0 X1\n"), "claimed"),
    ),
}


def test_the_program_is_known_wherever_the_artifact_says_it() -> None:
    found = {name: cut_program(shown) for name, (shown, _) in PROGRAMS.items()}
    assert found == {name: program for name, (_, program) in PROGRAMS.items()}


def test_the_index_fields_of_an_artifact_say_the_same() -> None:
    found = {name: index_fields_of(shown).program for name, (shown, _) in PROGRAMS.items()}
    assert found == {name: program for name, (_, program) in PROGRAMS.items()}


def test_a_value_of_a_producer_under_meta_is_no_older_store() -> None:
    assert cut_program(without_text(meta={"v1": {"gcode_hash": "4" * 64}})) is None


def test_a_diff_of_two_programs_is_critical() -> None:
    sha256s = {name: program and program.sha256 for name, (_, program) in PROGRAMS.items()}
    others = [pair for pair in combinations(PROGRAMS, 2) if sha256s[pair[0]] != sha256s[pair[1]]]
    assert others
    severities = {
        (a, b): diff_runs(PROGRAMS[a][0], PROGRAMS[b][0])["diff_severity"] for a, b in others
    }
    assert [pair for pair, severity in severities.items() if severity != "CRITICAL"] == []
