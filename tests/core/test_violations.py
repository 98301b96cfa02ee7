"""What is wrong with a request: every field of the design's table with right and wrong values."""

from typing import Any

import pytest

from pipeline.core.violations import REASONS, decision_on_violations, violation_at
from schemas.fields import RUN_ID_PATTERN
from tests.builders import (
    ABSENT,
    attachment,
    attachment_ref,
    document,
    judged,
    run_request,
    sha256,
)

LABELS = [
    "mode",
    "tool_id",
    "event_type",
    "workflow_session_id",
    "material_id",
    "machine_id",
    "workflow_mode",
    "toolchain_id",
    "post_processor_id",
    "geometry_ref",
    "geometry_hash",
    "parent_run_id",
    "parent_plan_run_id",
    "request_id",
    "gate_policy_id",
    "gate_decision",
    "engine_version",
    "toolchain_version",
    "post_processor_version",
    "config_fingerprint",
]
LABEL_PATHS = [*LABELS, "error.type", *(f"outputs.{n}_path" for n in ("gcode", "opplan"))]
LABEL_PATHS += ["outputs.preview_svg_path"]
PROSE_PATHS = ["notes", "errors.0", "error.message", "decision.block_reason", "decision.warnings.0"]
OBJECT_PATHS = ["request", "meta", "feasibility", "decision.details"]
ANY_JSON_PATHS = ["drift_summary", "outputs.toolpaths", "outputs.opplan_json"]
TEXT_PATHS = ["outputs.gcode_text", "outputs.preview_svg"]


def with_value(path: str, value: Any) -> dict[str, Any]:
    """The saw request with `value` at `path`; an attachment where the path asks for one."""
    top, _, rest = path.partition(".")
    if not rest:
        return run_request(**{top: value})
    if rest == "0":
        return run_request(**{top: [value]})
    if top == "attachments":
        changed = attachment(**{rest.removeprefix("0."): value})
        return run_request(attachments=[changed])
    if rest == "warnings.0":
        return run_request(decision={"warnings": [value]})
    around = {"error": {"type": "t", "message": "m"}}.get(top, {})
    return run_request(**{top: around | ({} if value is ABSENT else {rest: value})})


def violations(request: dict[str, Any]) -> list[tuple[str, str]]:
    decision = document(request)["decision"]
    return [(v["field"], v["code"]) for v in decision.get("details", {}).get("violations", [])]


def table(paths: list[str], values: list[Any]) -> list[tuple[str, Any]]:
    return [(path, value) for path in paths for value in values]


RIGHT: list[tuple[str, Any]] = [
    *table(LABEL_PATHS, ["x", "x" * 200, "\U0001fa9a" * 200, " ", "saw:veneer_160", "\u2028"]),
    *table(PROSE_PATHS, ["", "x" * 20_000, "two\nlines\x00"]),
    *table(OBJECT_PATHS, [{"": None}, {"a": {"b": [1.5, None]}}]),
    *table(["request", "meta", "decision.details"], [{}]),
    *table(ANY_JSON_PATHS, [0, "", False, [], {}, [None], {"a": None}, 1e-05]),
    *table(TEXT_PATHS, ["", "\x00\n", "x" * 100_000]),
    *table(["decision.score"], [0, 100, 0.0, 100.0, 50, 99.999]),
    *table(["decision.risk_level"], ["GREEN", " green ", "nonsense", ""]),
    *table(["status"], ["OK", "BLOCKED", "ERROR"]),
    *table(["drift_detected"], [True, False]),
    *table(["schema_version"], ["rmos.run_request/1"]),
    *table(["errors", "attachments"], [[]]),
    *table(["error"], [{"type": "t", "message": ""}]),
    *table(["decision", "outputs", "hashes"], [{}]),
    *table(["attachments.0.kind"], ["a", "dxf_input", "0" * 64]),
    *table(
        ["attachments.0.mime"],
        [
            "text/plain",
            "text/plain;charset=utf-8",
            "text/plain; charset=UTF-8",
            "image/svg+xml",
            "a/" + "b" * 125,
        ],
    ),
    *table(["attachments.0.filename"], ["a", "a b\\c.dxf", "..", "é" * 200]),
    *table(["attachments.0.created_at_utc"], ["2000-01-01T00:00:00+00:00"]),
]

WRONG: list[tuple[str, Any, str]] = [
    *((p, v, "BAD_LENGTH") for p, v in table(LABEL_PATHS, ["", "x" * 201])),
    *((p, v, "BAD_FORMAT") for p, v in table(LABEL_PATHS, ["x\n", "\x00", "a\x7fb", "\x85"])),
    *((p, v, "WRONG_TYPE") for p, v in table(LABEL_PATHS, [5, True, [], {}, 1.0])),
    *((p, v, "BAD_LENGTH") for p, v in table(PROSE_PATHS, ["x" * 20_001])),
    *((p, v, "WRONG_TYPE") for p, v in table(PROSE_PATHS, [5, ["x"], {}])),
    *((p, v, "WRONG_TYPE") for p, v in table(OBJECT_PATHS, [[], "x", 1, [["a", 1]]])),
    *((p, v, "WRONG_TYPE") for p, v in table(TEXT_PATHS, [5, ["G0"], {}])),
    *((p, v, "WRONG_TYPE") for p, v in table(["decision.score"], ["50", True, [1]])),
    *((p, v, "OUT_OF_RANGE") for p, v in table(["decision.score"], [-1, 101, 100.01, -1e-9])),
    *((p, v, "NOT_ALLOWED") for p, v in table(["status"], ["ok", "", "GREEN", "OK "])),
    *((p, v, "NOT_ALLOWED") for p, v in table(["status", "decision.risk_level"], [1, []])),
    *((p, v, "WRONG_TYPE") for p, v in table(["drift_detected"], [1, 0, "true", []])),
    *((p, v, "WRONG_TYPE") for p, v in table(["errors", "attachments"], ["x", {}, 1])),
    *((p, v, "WRONG_TYPE") for p, v in table(["decision", "outputs", "hashes"], [[], "x", 1])),
    ("feasibility", {}, "BAD_LENGTH"),
    *((p, None, "MISSING") for p in ["mode", "tool_id", "feasibility", "request"]),
    *((p, ABSENT, "MISSING") for p in ["mode", "tool_id", "feasibility", "request"]),
    *((f"attachments.0.{f}", None, "MISSING") for f in attachment_ref()),
    *((f"attachments.0.{f}", ABSENT, "MISSING") for f in attachment_ref()),
    *((p, None, "MISSING") for p in ["error.type", "error.message"]),
    *((p, 1, "UNKNOWN_FIELD") for p in ["x", "risk_level", "advisory_inputs", "", "MODE"]),
    *((p, None, "UNKNOWN_FIELD") for p in ["x", "decision.risk_bucket", "hashes.sha256"]),
    *((f"{p}.x", {}, "UNKNOWN_FIELD") for p in ["decision", "outputs", "hashes", "error"]),
    ("attachments.0.x", 1, "UNKNOWN_FIELD"),
    *(
        (f"hashes.{n}_sha256", v, "BAD_FORMAT")
        for n in ("feasibility", "toolpaths", "gcode", "opplan")
        for v in ("", "A" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n")
    ),
    *((p, v, "BAD_FORMAT") for p, v in table(["attachments.0.sha256"], ["x", "AB" * 32])),
    *(
        (p, v, "BAD_FORMAT")
        for p, v in table(["attachments.0.kind"], ["", "A", "a-b", "a" * 65, "a\n"])
    ),
    *(
        (p, v, "BAD_FORMAT")
        for p, v in table(
            ["attachments.0.mime"],
            [
                "text",
                "text/",
                "/x",
                "Text/Plain",
                "text/plain;  charset=x",
                "text/plain; a=b",
                "a/b\n",
            ],
        )
    ),
    ("attachments.0.mime", "a/" + "b" * 126, "BAD_LENGTH"),
    *((p, v, "BAD_LENGTH") for p, v in table(["attachments.0.filename"], ["", "x" * 201])),
    *((p, v, "BAD_FORMAT") for p, v in table(["attachments.0.filename"], ["a/b", "a\n", "\x9f"])),
    *(
        (p, v, "OUT_OF_RANGE")
        for p, v in table(["attachments.0.size_bytes"], [-1, 2**53, 10**400, -(10**400)])
    ),
    *((p, v, "WRONG_TYPE") for p, v in table(["attachments.0.size_bytes"], [10.0, "10", True])),
    *(
        (p, v, "BAD_FORMAT")
        for p, v in table(
            ["attachments.0.created_at_utc"],
            [
                "",
                "2025-12-18",
                "2025-12-18T24:00:00Z",
                "1999-12-31T23:59:59Z",
                "2025-02-29T00:00:00Z",
            ],
        )
    ),
    ("attachments.0.created_at_utc", 5, "WRONG_TYPE"),
    ("attachments.0.content_base64", 5, "WRONG_TYPE"),
    ("attachments.0.content_base64", "QUI", "BAD_BASE64"),
    ("attachments.0.sha256", "0" * 64, "HASH_MISMATCH"),
    ("attachments.0.size_bytes", 0, "SIZE_MISMATCH"),
    *((f"hashes.{n}_sha256", "0" * 64, "HASH_MISMATCH") for n in ("feasibility", "gcode")),
    ("attachments.0", {}, "MISSING"),
    ("attachments.0", 5, "WRONG_TYPE"),
]


def named(value: Any) -> str:
    text = repr(value) if value is not ABSENT else "absent"
    return text if len(text) <= 30 else f"{text[:24]}... {len(text)}"


def test_right_values_are_no_violation() -> None:
    refused = [
        f"{path} = {named(value)}: {found}"
        for path, value in RIGHT
        if (found := violations(with_value(path, value)))
    ]
    assert not refused


def test_wrong_values_are_violations_with_a_code() -> None:
    passed = [
        f"{path} = {named(value)}: expected {code}, found {found}"
        for path, value, code in WRONG
        if not (found := violations(with_value(path, value)))
        or any(not field.startswith(path) or other != code for field, other in found)
    ]
    assert not passed


def test_every_code_is_met_by_some_wrong_value() -> None:
    assert {code for _, _, code in WRONG} == set(REASONS)


OPTIONAL = [
    *LABELS[2:],
    *("decision", "outputs", "hashes", "attachments", "meta", "errors", "error", "status"),
    *("notes", "drift_detected", "drift_summary", "schema_version"),
    *("decision.score", "decision.risk_level", "decision.block_reason", "decision.warnings"),
    *("decision.details", "outputs.gcode_text", "outputs.toolpaths", "outputs.gcode_path"),
    *("hashes.gcode_sha256", "attachments.0.content_base64"),
]


def test_null_in_an_optional_field_is_the_same_as_leaving_it_out() -> None:
    def written(path: str, value: Any) -> dict[str, Any]:
        artifact = document(with_value(path, value))
        del artifact["provenance"]["request_sha256"]
        return artifact

    assert not [path for path in OPTIONAL if written(path, None) != written(path, ABSENT)]


def test_a_violation_is_listed_with_our_own_text() -> None:
    decision = document(run_request(tool_id=5))["decision"]
    assert decision == {
        "risk_level": "ERROR",
        "block_reason": "INCOMPLETE_REQUEST: tool_id",
        "details": {
            "violations": [
                {
                    "field": "tool_id",
                    "code": "WRONG_TYPE",
                    "reason": "of another JSON type than the schema says",
                }
            ]
        },
    }


def test_violations_are_sorted_and_the_reason_names_the_first_ten_paths() -> None:
    request = run_request(**{f"x{number:02}": 1 for number in reversed(range(12))}, mode=5)
    paths = ["mode", *(f"x{number:02}" for number in range(12))]
    assert [field for field, _ in violations(request)] == paths
    reason = document(request)["decision"]["block_reason"]
    assert reason == "INCOMPLETE_REQUEST: " + ", ".join(paths[:10])


@pytest.mark.parametrize(("wrong", "listed"), [(49, 49), (50, 50), (51, 50), (300, 50)])
def test_at_most_fifty_violations_are_listed(wrong: int, listed: int) -> None:
    request = run_request(**{f"x{number:03}": 1 for number in range(wrong)})
    assert [field for field, _ in violations(request)] == [f"x{n:03}" for n in range(listed)]


def test_a_path_is_named_once_however_many_faults_it_has() -> None:
    found = [violation_at(("hashes", "a"), code) for code in ("HASH_MISMATCH", "BAD_FORMAT")]
    decision = decision_on_violations([*found, *found])
    assert decision["block_reason"] == "INCOMPLETE_REQUEST: hashes.a"
    codes = [violation["code"] for violation in decision["details"]["violations"]]
    assert codes == ["BAD_FORMAT", "HASH_MISMATCH"]


def test_a_strange_field_name_is_shown_without_control_characters_and_cut() -> None:
    (field, _), *more = violations(run_request(**{"x\n\x00" + "y" * 500: 1}))
    assert not more
    assert field == "x\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}" + "y" * 197


@pytest.mark.parametrize(
    ("change", "field", "left"),
    [
        ({"mode": 5}, "mode", "unknown"),
        ({"tool_id": ""}, "tool_id", "unknown"),
        ({"feasibility": []}, "feasibility", {}),
        ({"request": None}, "request_summary", {}),
        ({"event_type": 5}, "event_type", "unknown"),
        ({"meta": []}, "meta", {}),
        ({"attachments": [attachment(), attachment(kind="A")]}, "attachments", []),
        ({"notes": 5}, "notes", None),
        ({"errors": ["good", 5]}, "errors", None),
        ({"error": {"type": "t"}}, "error", None),
        ({"machine_id": "x" * 201}, "machine_id", None),
    ],
)
def test_a_top_level_field_with_a_violation_is_dropped_whole(
    change: dict[str, Any], field: str, left: Any
) -> None:
    written = document(run_request(**change))
    assert written.get(field) == left
    assert (written["status"], written["decision"]["risk_level"]) == ("BLOCKED", "ERROR")


def test_a_wrong_output_drops_all_outputs_and_their_hashes() -> None:
    written = document(run_request(outputs={"gcode_text": "G0 X1", "x": 1}))
    assert written["outputs"] == {}
    assert list(written["hashes"]) == ["feasibility_sha256"]
    assert "withheld" not in written["provenance"]
    assert "G0 X1" not in str(written)


def test_a_dropped_feasibility_is_hashed_as_the_empty_object_that_is_shown() -> None:
    written = document(run_request(feasibility=[]))
    assert written["hashes"] == {"feasibility_sha256": sha256(b"{}")}


def test_version_stamps_that_were_dropped_are_missing() -> None:
    written = document(run_request(engine_version="", toolchain_version=None))
    assert written["provenance"]["version_stamps_missing"] == [
        "engine_version",
        "toolchain_version",
    ]


def test_a_producers_text_that_looks_like_ours_makes_no_request_incomplete() -> None:
    feasibility = {"risk_level": "RED", "block_reason": "INCOMPLETE_REQUEST: mode"}
    assert not judged(run_request(feasibility=feasibility)).is_incomplete
    assert judged(run_request(feasibility=[])).is_incomplete


def test_the_pattern_of_a_run_id_is_the_published_one() -> None:
    assert RUN_ID_PATTERN == "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
