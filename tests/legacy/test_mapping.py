"""Rows of older stores become messages and artifacts; nothing is dropped, nothing is guessed."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.json.canonical import canonical_json
from pipeline.core.runs.artifact_parts import values_without_place
from pipeline.legacy.mapping import LegacyRowError, map_row
from schemas.run_artifact import RunArtifact
from tests.builders import ABSENT, sha256
from tests.json_values import json_values
from tests.legacy_rows import (
    artifact,
    bare_row,
    found,
    mapped,
    original_v2_row,
    unknown_row,
    v1_row,
)

DATA = Path(__file__).parents[3] / "shared" / "data" / "v1" / "runs.json"


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def refusal(row: dict[str, Any], key: str | None = None) -> str:
    with pytest.raises(LegacyRowError) as raised:
        map_row(key or row["run_id"], row, origin="v1")
    return raised.value.code


def test_green_in_safety_alone_stays_green() -> None:
    document = artifact(v1_row())
    assert document["status"] == "OK"
    assert document["decision"] == {
        "risk_level": "GREEN",
        "score": 75.0,
        "warnings": ["stub feasibility for rosette"],
    }


def test_unknown_stays_unknown_with_its_recorded_status_and_reason() -> None:
    document = artifact(unknown_row())
    assert document["status"] == "BLOCKED"
    assert document["decision"]["risk_level"] == "UNKNOWN"
    assert document["decision"]["block_reason"] == "Unsupported mode for feasibility: unknown"
    assert document["notes"] == "Blocked by safety policy: UNKNOWN"


def test_a_run_that_was_ok_without_any_verdict_stays_ok_and_gets_no_reason() -> None:
    document = artifact(bare_row())
    assert document["status"] == "OK"
    assert document["decision"] == {"risk_level": "UNKNOWN"}
    assert document["feasibility"] == {}
    assert document["hashes"] == {"feasibility_sha256": sha256(b"{}")}
    assert document["provenance"]["legacy"] is True


@pytest.mark.parametrize(
    ("decision", "feasibility", "risk"),
    [
        ({"risk_level": "YELLOW"}, {"safety": {"risk_level": "GREEN"}}, "YELLOW"),
        ({"risk_bucket": "red"}, {}, "RED"),
        ("RED", {"risk_level": "GREEN"}, "RED"),
        ({"risk_level": None}, {"risk_level": " green "}, "GREEN"),
        ({"risk_level": "  "}, {"risk_level": "GREEN"}, "GREEN"),
        ({"score": 3}, {"decision": {"risk_level": "YELLOW"}}, "YELLOW"),
        ({"risk_level": "purple"}, {"risk_level": "GREEN"}, "UNKNOWN"),
        ({"risk_level": "GREEN"}, {"safety": {"risk_level": "RED"}}, "GREEN"),
        (None, {"risk_level": "GREEN", "safety": {"risk_level": "RED"}}, "RED"),
        (None, {"risk_level": "", "safety": {"risk_level": "GREEN"}}, "GREEN"),
        (None, {"risk_bucket": "GREEN"}, "GREEN"),
        (None, {"safety": "RED"}, "RED"),
        (None, {"risk_level": 1}, "UNKNOWN"),
        (None, {}, "UNKNOWN"),
    ],
)
def test_the_verdict_is_that_of_the_decision_else_the_worst_of_the_evaluation(
    decision: Any, feasibility: dict[str, Any], risk: str
) -> None:
    document = artifact(v1_row(decision=decision, feasibility=feasibility))
    assert document["decision"]["risk_level"] == risk


def test_what_contradicts_the_decision_gives_it_no_reason() -> None:
    safety = {"risk_level": "RED", "block_reason": "too fast", "score": 3}
    decision = {"risk_level": "GREEN", "details": {"rule": 7}}
    document = artifact(v1_row(decision=decision, feasibility={"safety": safety}))
    assert document["decision"] == decision


def test_a_decision_that_has_more_than_ours_is_kept_whole() -> None:
    decision = {"risk_level": "green", "score": 150, "by": "ana", "warnings": [], "details": {}}
    document = artifact(v1_row(decision=decision))
    assert document["decision"]["risk_level"] == "GREEN"
    assert document["decision"]["score"] == 75.0
    assert document["meta"]["v1"]["decision"] == decision


def test_old_hashes_are_kept_and_ours_are_computed_anew() -> None:
    row = v1_row(gcode_hash="9" * 64, opplan_hash="8" * 64)
    document = artifact(row)
    assert document["hashes"] == {"feasibility_sha256": sha256(canonical(row["feasibility"]))}
    old = document["meta"]["v1"]
    assert (old["request_hash"], old["toolpaths_hash"]) == ("1" * 64, "2" * 64)
    assert (old["gcode_hash"], old["opplan_hash"]) == ("9" * 64, "8" * 64)
    assert old["row_sha256"] == sha256(canonical(row))
    assert old["format"] == "v1"


def test_values_without_a_field_are_kept_under_their_names() -> None:
    row = v1_row(
        fork_of_event_type="approval",
        fork_reason="other post",
        override_note="ok by ana",
        gate_policy_version="3",
        explanation_status="READY",
        explanation_summary="short",
        post_processor_version="grbl 2",
        shop_floor={"line": None},
    )
    document = artifact(row)
    assert document["post_processor_version"] == "grbl 2"
    kept = document["meta"]["v1"]
    for name in (
        *("fork_of_event_type", "fork_reason", "override_note", "gate_policy_version"),
        *("explanation_status", "explanation_summary", "shop_floor"),
    ):
        assert kept[name] == row[name]


MISFITS: list[tuple[str, Any]] = [
    ("notes", "x" * 20_001),
    ("errors", "one text"),
    ("errors", ["a", 1]),
    ("material_id", "a\nb"),
    ("machine_id", 17),
    ("drift_detected", "yes"),
    ("tool_id", ""),
    ("event_type", "x" * 201),
    ("mode", ["saw"]),
    ("feasibility", ["GREEN"]),
    ("request_summary", "text"),
    ("advisory_inputs", [1]),
    ("attachments", "none"),
    ("decision", 7),
    ("meta", {"v1": "mine"}),
    ("meta", [1]),
    ("lineage", {"parent_plan_run_id": 7}),
]


def test_a_value_that_does_not_fit_its_field_is_kept_as_it_was() -> None:
    kept = [
        (name, artifact(v1_row(**{name: value}))["meta"]["v1"][name]) for name, value in MISFITS
    ]
    assert kept == MISFITS


def test_names_of_ours_in_a_row_are_kept_apart() -> None:
    document = artifact(v1_row(row_sha256="mine", format=7))
    assert document["meta"]["v1"]["values"] == {"row_sha256": "mine", "format": 7}


def test_a_row_from_before_the_extension_lacks_keys_and_is_carried_all_the_same() -> None:
    row = {"run_id": "run_1", "created_at_utc": "2025-10-01T00:00:00+00:00"}
    document = artifact(row)
    assert document["status"] == "OK"
    assert (document["mode"], document["tool_id"], document["event_type"]) == ("unknown",) * 3
    assert document["meta"] == {"v1": {"format": "v1", "row_sha256": sha256(canonical(row))}}


def test_the_mode_is_the_mode_else_that_of_the_workflow() -> None:
    assert artifact(v1_row(mode="saw"))["mode"] == "saw"
    document = artifact(v1_row())
    assert (document["mode"], document["workflow_mode"]) == ("rosette", "rosette")


@pytest.mark.parametrize(
    "moment",
    [
        *(ABSENT, None, "", "soon", 1_700_000_000, "2025-11-03 09:15:42+00:00"),
        *("2025-11-03T09:15:42", "2025-02-30T00:00:00Z", "1999-01-01T00:00:00Z"),
    ],
)
def test_a_time_that_cannot_be_read_is_an_error_of_its_row_and_never_now(moment: Any) -> None:
    assert refusal(v1_row(created_at_utc=moment)) == "BAD_DATE"


def test_a_time_with_an_offset_is_stored_in_utc_and_kept() -> None:
    document = artifact(v1_row(created_at_utc="2025-11-03T23:30:00-05:00"))
    assert document["created_at_utc"] == "2025-11-04T04:30:00Z"
    assert document["meta"]["v1"]["created_at_utc"] == "2025-11-03T23:30:00-05:00"
    assert "created_at_utc" not in artifact(v1_row())["meta"]["v1"]


@pytest.mark.parametrize(
    ("found_", "status", "kept"),
    [("BLOCKED", "BLOCKED", None), ("ok", "OK", "ok"), (None, "OK", None), (ABSENT, "OK", None)],
)
def test_the_recorded_status_is_kept(found_: Any, status: str, kept: str | None) -> None:
    document = artifact(v1_row(status=found_))
    assert document["status"] == status
    assert document["meta"]["v1"].get("status") == kept


@pytest.mark.parametrize("status", ["DONE", "", 1, True])
def test_a_status_that_nobody_knows_is_refused(status: Any) -> None:
    assert refusal(v1_row(status=status)) == "BAD_STATUS"


@pytest.mark.parametrize("run_id", ["../x", "a/b", "", "a_advisory_b", "x" * 101, "diff", "a\n"])
def test_a_run_id_is_refused_never_repaired(run_id: str) -> None:
    assert refusal(v1_row(run_id=run_id)) == "BAD_RUN_ID"


def test_a_row_filed_under_another_run_id_is_refused() -> None:
    assert refusal(v1_row(), key="run_other") == "BAD_RUN_ID"
    assert mapped(v1_row(run_id="a")).judged.run_id == "a"


def test_a_row_without_its_run_id_has_the_one_it_is_filed_under() -> None:
    assert map_row("run_7", v1_row(run_id=ABSENT), origin="v1").judged.run_id == "run_7"


def test_advisories_of_the_row_are_kept_with_their_times() -> None:
    advisories = [
        {
            "advisory_id": "adv_1",
            "kind": "opinion",
            "created_at_utc": "",
            "engine_id": None,
            "rating": 4,
        }
    ]
    document = artifact(v1_row(advisory_inputs=advisories))
    assert document["advisory_inputs"] == advisories
    assert "advisory_inputs" not in document["meta"]["v1"]


def test_advisories_beside_the_run_are_added_once_and_in_their_order() -> None:
    own = {"advisory_id": "adv_2", "kind": "note", "created_at_utc": "2025-12-20T00:00:00Z"}
    links = [
        {"advisory_id": "adv_3", "kind": "note", "created_at_utc": "2025-12-22T00:00:00Z"},
        {"advisory_id": "adv_2", "kind": "other", "created_at_utc": "2025-12-01T00:00:00Z"},
        {"advisory_id": "adv_1", "kind": "note", "created_at_utc": "2025-12-21T00:00:00Z"},
    ]
    row = original_v2_row(advisory_inputs=[own])
    document = artifact(row, origin="original_v2", links=links)
    listed = [(each["advisory_id"], each["kind"]) for each in document["advisory_inputs"]]
    assert listed == [("adv_2", "note"), ("adv_1", "note"), ("adv_3", "note")]


def test_an_artifact_of_the_original_v2_code_is_carried_with_its_outputs() -> None:
    document = artifact(original_v2_row(), origin="original_v2")
    assert document["outputs"] == {"gcode_text": "G0 X1\n"}
    assert document["hashes"]["gcode_sha256"] == sha256("G0 X1\n")
    assert document["request_summary"] == {
        "keys": ["design", "context"],
        "tool_id": "saw:veneer_160",
    }
    assert document["parent_plan_run_id"] == "run_plan_1"
    assert document["request_id"] == "req-7"
    assert document["meta"]["operator"] == "ana"
    assert document["meta"]["v1"]["hashes"] == original_v2_row()["hashes"]
    assert document["meta"]["v1"]["format"] == "original_v2"
    assert not {"outputs", "decision", "lineage"} & document["meta"]["v1"].keys()


REF = {
    "sha256": sha256(b"G0 X1\n"),
    "kind": "gcode",
    "mime": "text/plain",
    "filename": "job.nc",
    "size_bytes": 6,
    "created_at_utc": "2025-11-03T09:15:42.004200Z",
}


def test_an_attachment_comes_inline_and_is_listed_as_it_was() -> None:
    listed = REF | {"created_at_utc": "2025-11-03T09:15:42.004200+00:00"}
    run = mapped(v1_row(attachments=[listed]), found(b"G0 X1\n"))
    assert [blob.content for blob in run.judged.built.blobs] == [b"G0 X1\n"]
    document = run.judged.built.document
    assert document["attachments"] == [REF]
    assert "attachments" not in document["meta"]["v1"]
    assert run.oversized == ()


def test_an_attachment_without_its_content_is_a_reference() -> None:
    run = mapped(v1_row(attachments=[REF]))
    assert run.judged.built.document["attachments"] == [REF]
    assert run.judged.built.blobs == ()


@pytest.mark.parametrize(
    "change",
    [
        *({"kind": "G-Code"}, {"mime": "text"}, {"filename": "a/b"}, {"size_bytes": 7}),
        *({"size_bytes": True}, {"note": 1}, {"kind": None}, {"created_at_utc": None}),
        {"created_at_utc": "2025-11-03T10:15:42+01:00"},
    ],
)
def test_a_list_of_attachments_that_says_anything_else_is_kept_too(change: dict[str, Any]) -> None:
    listed = [REF | change]
    document = artifact(v1_row(attachments=listed), found(b"G0 X1\n"))
    assert document["meta"]["v1"]["attachments"] == listed
    assert [each["sha256"] for each in document["attachments"]] == [REF["sha256"]]
    assert document["attachments"][0]["size_bytes"] == 6


def test_what_names_no_content_stays_in_the_list_of_old() -> None:
    listed = [{"sha256": "short", "kind": "debug"}, 7]
    document = artifact(v1_row(attachments=listed))
    assert document["attachments"] == []
    assert document["meta"]["v1"]["attachments"] == listed


@pytest.mark.parametrize("moment", ["soon", 5, "2025-11-03T09:15:42"])
def test_a_time_of_an_attachment_that_cannot_be_read_is_an_error_of_its_row(moment: Any) -> None:
    assert refusal(v1_row(attachments=[REF | {"created_at_utc": moment}])) == "BAD_DATE"


def test_contents_go_inline_as_long_as_there_is_room_and_apart_after_that() -> None:
    contents = [bytes([number]) * 1_500_000 for number in range(3)]
    refs = [REF | {"sha256": sha256(each), "size_bytes": len(each)} for each in contents]
    refs += [refs[0], REF]
    run = mapped(v1_row(attachments=refs), *map(found, contents), found(b"G0 X1\n"))
    assert run.oversized == (sha256(contents[2]),)
    assert len(run.body) <= 4_194_304
    stored = {blob.sha256 for blob in run.judged.built.blobs}
    assert stored == {sha256(contents[0]), sha256(contents[1]), sha256(b"G0 X1\n")}
    assert len(run.judged.built.document["attachments"]) == 5


def test_the_content_of_an_advisory_is_attached_where_the_older_store_had_it() -> None:
    content = b'{"markdown":"fine"}'
    advisory = {"advisory_id": sha256(content), "kind": "explanation"}
    document = artifact(v1_row(advisory_inputs=[advisory]), found(content, ".json"))
    (attached,) = document["attachments"]
    assert attached["sha256"] == sha256(content)
    assert (attached["kind"], attached["mime"]) == ("advisory", "application/json")


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "BLOCKED"},
        {"status": "ERROR"},
        {"feasibility": None},
        {"feasibility": {"risk_level": "RED"}},
        {"decision": {"risk_level": "GREEN"}, "feasibility": {"safety": {"risk_level": "RED"}}},
        {"feasibility": {"risk_level": "GREEN", "blocking": True}},
    ],
)
def test_what_could_be_cut_is_withheld_unless_all_say_green_or_yellow(
    changes: dict[str, Any],
) -> None:
    debug = REF | {"sha256": sha256(b"trace"), "kind": "debug", "size_bytes": 5}
    hidden = REF | {"sha256": "9" * 64, "kind": "debug", "size_bytes": 5}
    row = v1_row(
        gcode_text="G0 X1\n",
        gcode=["G0"],
        gcode_hash="9" * 64,
        outputs={"x": 1},
        attachments=[REF, debug, hidden],
        **changes,
    )
    run = mapped(row, found(b"G0 X1\n"), found(b"trace"))
    document = run.judged.built.document
    assert document["status"] == changes.get("status", "OK")
    assert document["outputs"] == {}
    assert list(document["hashes"]) == ["feasibility_sha256"]
    assert [each["sha256"] for each in document["attachments"]] == [debug["sha256"]]
    assert [blob.content for blob in run.judged.built.blobs] == [b"trace"]
    assert document["provenance"]["withheld"] == sorted(
        [
            f"attachments.{REF['sha256']}",
            f"attachments.{'9' * 64}",
            *("hashes.gcode_sha256", "meta.v1.gcode", "meta.v1.outputs", "outputs.gcode_text"),
        ]
    )
    assert b"G0 X1" not in run.judged.built.content
    assert run.judged.built.quarantined is not None
    assert run.judged.built.quarantined.content == run.body


@pytest.mark.parametrize("risk", ["GREEN", "YELLOW"])
def test_what_was_generated_for_a_safe_run_is_shown(risk: str) -> None:
    row = v1_row(gcode_text="G0 X1\n", attachments=[REF], feasibility={"risk_level": risk})
    run = mapped(row, found(b"G0 X1\n"))
    document = run.judged.built.document
    assert document["outputs"] == {"gcode_text": "G0 X1\n"}
    assert document["attachments"] == [REF]
    assert "withheld" not in document["provenance"]
    assert run.judged.built.quarantined is None


def test_a_path_that_large_gcode_replaces_is_kept_in_quarantine() -> None:
    run = mapped(v1_row(gcode_text="G1 X1\n" * 40_000, gcode_path="/jobs/17.nc"))
    assert run.judged.built.quarantined is None
    assert run.judged.built.request_in_quarantine is not None
    assert run.judged.built.request_in_quarantine.content == run.body
    given = values_without_place(json.loads(run.body), run.judged.built.document)
    assert given == {"outputs.gcode_path": "/jobs/17.nc"}


def test_what_the_summary_hides_of_a_request_is_kept_in_quarantine() -> None:
    run = mapped(original_v2_row(request_summary={"api_key": "k", "x": 1}), origin="original_v2")
    assert run.judged.built.document["request_summary"] == {"api_key": "[redacted]", "x": 1}
    assert run.judged.built.quarantined is not None


def test_the_same_row_makes_the_same_bytes_whatever_the_order_of_its_keys() -> None:
    row = v1_row()
    assert mapped(row).body == mapped(dict(reversed(row.items()))).body


def test_any_change_of_a_row_makes_other_bytes() -> None:
    row = v1_row()
    before = mapped(row).judged.artifact_sha256
    unchanged, refused = [], []
    for name in row.keys() - {"run_id"}:
        value: Any = None if row[name] else "x"
        if name == "created_at_utc":
            value = "2025-11-03T09:15:42.0042+00:00"
        try:
            if mapped(v1_row(**{name: value})).judged.artifact_sha256 == before:
                unchanged.append(name)
        except LegacyRowError:
            refused.append(name)
    assert unchanged == []
    assert set(refused) <= {"status"}


names = st.sampled_from([*v1_row(), "extra", "outputs", "lineage", "hashes", "gcode_text", "v1"])
PARTS = {"decision", "outputs", "lineage", "attachments", "advisory_inputs", "meta", "run_id"}


def kept_of(body: dict[str, Any], name: str) -> list[Any]:
    """Return every place of a message where a value of a row may have been taken to."""
    old = body["meta"]["v1"]
    renamed = {"request_summary": "request"}.get(name, name)
    outputs = body.get("outputs", {})
    return [old.get(name), old.get("values", {}).get(name), body.get(renamed), outputs.get(name)]


def in_parts(body: dict[str, Any], name: str, value: Any) -> bool:
    """Tell whether a value of several parts is in a message, each part where it belongs."""
    rest = body["meta"]["v1"].get(name)
    if rest == value or name == "run_id":
        return True
    match name:
        case "decision":
            told = {key: item for key, item in value.items() if item not in (None, [], {})}
            return told.items() <= body["decision"].items() if told else True
        case "outputs":
            taken = body.get("outputs", {}) | (rest or {})
            return all(item is None or key in taken for key, item in value.items())
        case "lineage":
            return rest is None or "parent_plan_run_id" not in rest
        case "meta":
            return value.items() <= body["meta"].items()
        case _:
            return len(value) == len(body.get(name, []))


@given(st.dictionaries(names, json_values()))
def test_whatever_a_row_holds_it_is_refused_or_found_again(values: dict[str, Any]) -> None:
    row = v1_row() | values | {"run_id": "run_1"}
    try:
        run = map_row("run_1", row, origin="v1")
    except LegacyRowError:
        return
    document = run.judged.built.document
    RunArtifact.model_validate(document)
    assert document["provenance"]["legacy"] is True
    body = json.loads(run.body)
    for name, value in row.items():
        if value is None or name == "created_at_utc":
            continue
        found_again = any(canonical(value) == canonical(each) for each in kept_of(body, name))
        assert found_again or (name in PARTS and in_parts(body, name, value)), name


@given(json_values(), json_values())
def test_two_rows_that_differ_make_two_artifacts(one: Any, other: Any) -> None:
    first, second = v1_row(drift_summary=one), v1_row(drift_summary=other)
    same = canonical(one) == canonical(other)
    hashes = {mapped(row).judged.artifact_sha256 for row in (first, second)}
    assert len(hashes) == (1 if same else 2)


@pytest.mark.skipif(
    not DATA.is_file(), reason="the shop's data (shared/data beside the repository) are not here"
)
def test_every_real_row_keeps_what_was_recorded() -> None:
    rows = json.loads(DATA.read_text())
    assert len(rows) == 13
    for run_id, row in rows.items():
        document = json.loads(map_row(run_id, row, origin="v1").judged.built.content)
        safety = (row["feasibility"] or {}).get("safety", {})
        assert document["status"] == row["status"]
        assert document["decision"]["risk_level"] == safety.get("risk_level", "UNKNOWN")
        assert document["decision"].get("block_reason") == safety.get("block_reason")
        assert document["hashes"] == {
            "feasibility_sha256": sha256(canonical(row["feasibility"] or {}))
        }
        assert document["meta"]["v1"]["request_hash"] == row["request_hash"]


def test_outputs_that_no_message_can_hold_become_attachments_of_their_own() -> None:
    program, plan = "G1 X1\n" * 800_000, {"steps": ["x" * 4_300_000]}
    row = mapped(v1_row(gcode_text=program, opplan_json=plan, preview_svg="<svg/>"))
    names = {sha256(program.encode()): "gcode", sha256(canonical_json(plan)): "opplan"}
    assert {name: sha256(content) for name, content in row.contents.items()} == {
        name: name for name in names
    }
    assert set(row.oversized) >= names.keys()
    document = json.loads(row.judged.built.content)
    refs = {ref["sha256"]: ref["kind"] for ref in document["attachments"]}
    assert refs.items() >= names.items()
    assert document["outputs"] == {"preview_svg": "<svg/>"}
    assert len(row.body) <= 4 * 1024 * 1024


def test_outputs_apart_of_an_unsafe_row_are_withheld() -> None:
    program = "G1 X1\n" * 800_000
    row = mapped(unknown_row(gcode_text=program))
    document = json.loads(row.judged.built.content)
    assert f"attachments.{sha256(program.encode())}" in document["provenance"]["withheld"]
    assert document["attachments"] == []
