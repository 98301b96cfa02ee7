"""The artifact: a pure function of the body that shows everything, or withholds what could cut."""

import json
import pickle
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.json.canonical import canonical_json
from pipeline.core.runs.artifact_parts import INLINE_GCODE_LIMIT_BYTES, values_without_place
from pipeline.core.runs.verdict import JudgedRun, judge_run_record
from schemas.run_artifact import RunArtifact
from tests.builders import (
    ABSENT,
    CREATED_AT_UTC,
    GCODE,
    RUN_ID,
    attachment,
    attachment_ref,
    document,
    encode,
    incomplete_request,
    judged,
    red_request,
    rosette_request,
    router_request,
    run_request,
    sha256,
)
from tests.json_values import json_objects, json_values

ALWAYS_THERE = {
    *("schema_version", "run_id", "created_at_utc", "mode", "tool_id", "status", "event_type"),
    *("request_summary", "feasibility", "decision", "hashes", "outputs", "attachments"),
    *("advisory_inputs", "meta", "provenance"),
}
KEPT_KINDS = [
    *("feasibility", "geometry", "dxf_input", "geometry_svg", "geometry_spec_json", "manifest"),
    *("debug", "request"),
]
MARKER = "G1 X61.8034 F1618"
"""Stands in everything that a machine could cut by, and nowhere else."""

UNSAFE = {
    "RED": {"feasibility": {"risk_level": "RED"}},
    "RED under safety": {"feasibility": {"risk_level": "GREEN", "safety": {"risk_level": "RED"}}},
    "UNKNOWN": {"feasibility": {"score": 3}},
    "ERROR": {"feasibility": {"risk_level": "ERROR"}},
    "blocked by the producer": {"status": "BLOCKED"},
    "blocking": {"feasibility": {"risk_level": "GREEN", "blocking": True}},
    "failed at the producer": {"status": "ERROR"},
    "an error": {"error": {"type": "PostError", "message": "no post-processor"}},
    "no tool": {"tool_id": ABSENT},
    "an unknown field": {"unknown": 1},
    "a wrong decision": {"decision": {"score": 101}},
    "a wrong output": {"outputs": {"gcode_text": MARKER, "unknown": MARKER}, "attachments": ABSENT},
    "wrong types of outputs": {
        "outputs": {"gcode_text": [MARKER], "toolpaths": MARKER},
        "attachments": [attachment(canonical_json(MARKER), kind="debug")],
    },
    "a wrong claim": {"hashes": {"gcode_sha256": "0" * 64, "toolpaths_sha256": sha256("x")}},
    "a wrong attachment": {"attachments": [attachment(MARKER.encode(), size_bytes=1)]},
}
CUTTING = {
    "gcode_text": MARKER,
    "gcode_path": f"/jobs/{MARKER}.nc",
    "toolpaths": {"moves": [MARKER]},
    "opplan_json": [MARKER],
    "opplan_path": MARKER,
    "preview_svg": f"<svg>{MARKER}</svg>",
    "preview_svg_path": MARKER,
}


def cutting_request(**changes: Any) -> dict[str, Any]:
    """A request full of what could be cut, also listed under kinds that are kept."""
    listed = [
        attachment(MARKER.encode(), kind="gcode", filename="a.nc"),
        attachment(f"{MARKER}\n".encode(), kind="toolpaths"),
        attachment(f"other {MARKER}".encode(), kind="something_new"),
        attachment(MARKER.encode(), kind="debug"),
        attachment(canonical_json({"moves": [MARKER]}), kind="manifest"),
        attachment(canonical_json([MARKER]), kind="geometry"),
        attachment(b"kept", kind="dxf_input"),
    ]
    return run_request(**({"outputs": dict(CUTTING), "attachments": listed} | changes))


@pytest.mark.parametrize("build", [run_request, router_request, rosette_request])
def test_a_good_request_is_ok_and_shows_all_of_it(build: Any) -> None:
    request = build()
    written = document(request)
    assert (written["status"], written["outputs"]) == ("OK", request["outputs"])
    assert written["feasibility"] == request["feasibility"]
    assert written["request_summary"] == request["request"]
    assert written["schema_version"] == "rmos.run_artifact/2"
    assert judged(request).built.quarantined is None
    for name in request.keys() - {"request", "decision", "schema_version", "created_at_utc"}:
        assert written[name] == request[name]


def test_the_smallest_request_makes_what_is_always_there_and_nothing_else() -> None:
    smallest = {
        "run_id": RUN_ID,
        "created_at_utc": "2025-12-18T15:03:22+01:00",
        "mode": "saw",
        "tool_id": "t",
        "feasibility": {"risk_level": "GREEN"},
        "request": {},
    }
    feasibility_sha256 = sha256(b'{"risk_level":"GREEN"}')
    assert document(smallest) == {
        "schema_version": "rmos.run_artifact/2",
        "run_id": RUN_ID,
        "created_at_utc": "2025-12-18T14:03:22Z",
        "mode": "saw",
        "tool_id": "t",
        "status": "OK",
        "event_type": "unknown",
        "request_summary": {},
        "feasibility": {"risk_level": "GREEN"},
        "decision": {"risk_level": "GREEN"},
        "hashes": {"feasibility_sha256": feasibility_sha256},
        "outputs": {},
        "attachments": [],
        "advisory_inputs": [],
        "meta": {},
        "provenance": {
            "request_sha256": sha256(canonical_json(smallest)),
            "version_stamps_missing": [
                "config_fingerprint",
                "engine_version",
                "post_processor_version",
                "toolchain_version",
            ],
        },
    }


@pytest.mark.parametrize("name", UNSAFE)
def test_nothing_that_could_cut_is_in_an_unsafe_artifact_or_its_blobs(name: str) -> None:
    run = judged(cutting_request(**UNSAFE[name]))
    written = run.built.document
    assert written["status"] in {"BLOCKED", "ERROR"}
    assert MARKER.encode() not in run.built.content
    assert all(MARKER.encode() not in blob.content for blob in run.built.blobs)
    assert written["outputs"] == {}
    assert list(written["hashes"]) == ["feasibility_sha256"]


@pytest.mark.parametrize("name", UNSAFE)
def test_the_whole_body_of_an_unsafe_run_is_kept_in_quarantine(name: str) -> None:
    request = cutting_request(**UNSAFE[name])
    quarantined = judged(request).built.quarantined
    assert quarantined is not None
    assert quarantined.content == canonical_json(request)
    assert quarantined.sha256 == sha256(quarantined.content)
    assert quarantined.sha256 == document(request)["provenance"]["request_sha256"]


def test_the_body_is_kept_in_quarantine_also_where_nothing_was_withheld() -> None:
    run = judged(red_request(outputs=ABSENT))
    assert "withheld" not in run.built.document["provenance"]
    assert run.built.quarantined is not None


def test_what_is_withheld_is_named_and_sorted() -> None:
    run = judged(cutting_request(feasibility={"risk_level": "RED"}))
    contents = [MARKER, f"{MARKER}\n", f"other {MARKER}"]
    contents += [json.dumps({"moves": [MARKER]}, separators=(",", ":")), f'["{MARKER}"]']
    expected = [f"attachments.{sha256(content)}" for content in contents]
    expected += [f"outputs.{name}" for name in CUTTING]
    expected += [f"hashes.{name}_sha256" for name in ("gcode", "toolpaths", "opplan")]
    assert run.built.document["provenance"]["withheld"] == sorted(expected)
    assert [ref["kind"] for ref in run.built.document["attachments"]] == ["dxf_input"]
    assert [blob.content for blob in run.built.blobs] == [b"kept"]


@pytest.mark.parametrize("kind", KEPT_KINDS)
def test_attachments_that_explain_a_verdict_stay(kind: str) -> None:
    run = judged(red_request(attachments=[attachment(b"why", kind=kind)]))
    assert run.built.document["attachments"] == [attachment_ref(b"why", kind=kind)]
    assert [blob.content for blob in run.built.blobs] == [b"why"]


@pytest.mark.parametrize("kind", ["gcode", "toolpaths", "feasibility_2", "request_", "x"])
def test_attachments_of_any_other_kind_go(kind: str) -> None:
    run = judged(red_request(attachments=[attachment(b"why", kind=kind), attachment_ref(b"r")]))
    assert run.built.document["attachments"] == [attachment_ref(b"r")]
    assert run.built.document["provenance"]["withheld"] == [
        f"attachments.{sha256(b'why')}",
        "hashes.gcode_sha256",
        "hashes.toolpaths_sha256",
        "outputs.gcode_text",
        "outputs.toolpaths",
    ]
    assert run.built.blobs == ()


@pytest.mark.parametrize("name", ["gcode", "toolpaths", "opplan"])
def test_an_attachment_that_the_producer_claims_to_cut_by_goes_whatever_its_kind(
    name: str,
) -> None:
    claimed = {f"{name}_sha256": sha256(b"uploaded")}
    listed = [attachment_ref(b"uploaded", kind="debug")]
    run = judged(red_request(outputs=ABSENT, hashes=claimed, attachments=listed))
    assert run.built.document["attachments"] == []


def test_listed_gcode_goes_also_where_its_field_was_dropped() -> None:
    request = cutting_request(outputs=CUTTING | {"unknown": 1})
    kinds = [ref["kind"] for ref in document(request)["attachments"]]
    assert kinds == ["dxf_input"]


# Claims.


def test_claims_that_are_right_are_hashes_and_no_claims() -> None:
    request = router_request()
    hashes = document(request)["hashes"]
    assert set(hashes) == {"feasibility_sha256", "gcode_sha256", "opplan_sha256"}
    written = document(router_request(hashes=hashes))
    assert written["hashes"] == hashes
    assert "claimed_hashes" not in written["provenance"]
    assert written["status"] == "OK"


def test_claims_without_their_payload_are_kept_apart() -> None:
    claims = {f"{name}_sha256": sha256(name) for name in ("gcode", "toolpaths", "opplan")}
    written = document(run_request(outputs={"gcode_path": "/jobs/17.nc"}, hashes=claims))
    assert written["provenance"]["claimed_hashes"] == claims
    assert list(written["hashes"]) == ["feasibility_sha256"]
    assert written["status"] == "OK"


@pytest.mark.parametrize("name", ["feasibility", "gcode", "toolpaths", "opplan"])
def test_a_wrong_claim_is_a_violation_and_drops_all_claims(name: str) -> None:
    outputs = {"gcode_text": GCODE, "toolpaths": 1e-05, "opplan_json": []}
    claims = {f"{name}_sha256": "0" * 64}
    written = document(run_request(outputs=outputs, hashes=claims))
    assert written["decision"]["block_reason"] == f"INCOMPLETE_REQUEST: hashes.{name}_sha256"
    assert "claimed_hashes" not in written["provenance"]


def test_a_claim_for_a_feasibility_that_was_dropped_is_kept_as_a_claim() -> None:
    claims = {"feasibility_sha256": sha256(b"[]")}
    written = document(run_request(feasibility=[], hashes=claims))
    assert written["provenance"]["claimed_hashes"] == claims
    assert written["hashes"] == {"feasibility_sha256": sha256(b"{}")}


@pytest.mark.parametrize(
    ("field", "payload", "canonical"),
    [
        ("toolpaths", 1e-05, b"1e-05"),
        ("toolpaths", {"b": 100.0, "a": -0.0}, b'{"a":-0.0,"b":100.0}'),
        ("toolpaths", "", b'""'),
        ("toolpaths", False, b"false"),
        ("opplan_json", [2**64, None], b"[18446744073709551616,null]"),
        ("opplan_json", 0, b"0"),
        ("gcode_text", "", b""),
        ("gcode_text", "(Säge)\r\n", "(Säge)\r\n".encode()),
    ],
)
def test_hashes_are_of_what_the_file_shows(field: str, payload: Any, canonical: bytes) -> None:
    name = {"toolpaths": "toolpaths", "opplan_json": "opplan", "gcode_text": "gcode"}[field]
    written = document(run_request(outputs={field: payload}))
    assert written["outputs"] == {field: payload}
    assert written["hashes"][f"{name}_sha256"] == sha256(canonical)


# Large G-code.


def gcode_of(size_bytes: int) -> str:
    """G-code with letters outside ASCII: fewer characters than bytes."""
    text = "(Säge \U0001fa9a)\n" * (size_bytes // 14)
    return text + "x" * (size_bytes - len(text.encode()))


def test_gcode_up_to_204800_bytes_stays_inline() -> None:
    gcode = gcode_of(204_800)
    assert len(gcode) < len(gcode.encode()) == INLINE_GCODE_LIMIT_BYTES == 204_800
    run = judged(run_request(outputs={"gcode_text": gcode}))
    assert run.built.document["outputs"] == {"gcode_text": gcode}
    assert (run.built.document["attachments"], run.built.blobs) == ([], ())


def test_gcode_above_204800_bytes_becomes_an_attachment() -> None:
    gcode = gcode_of(204_801)
    assert len(gcode) < 204_800
    listed = [attachment_ref(b"dxf")]
    request = run_request(
        outputs={"gcode_text": gcode, "gcode_path": "/jobs/17.nc", "toolpaths": []},
        attachments=listed,
    )
    run = judged(request)
    name = sha256(gcode)
    assert run.built.document["outputs"] == {
        "gcode_path": f"attachments/{name[:2]}/{name[2:4]}/{name}",
        "toolpaths": [],
    }
    assert run.built.document["attachments"] == [
        *listed,
        {
            "sha256": name,
            "kind": "gcode",
            "mime": "text/plain",
            "filename": f"{RUN_ID}.nc",
            "size_bytes": 204_801,
            "created_at_utc": CREATED_AT_UTC,
        },
    ]
    assert [(blob.sha256, blob.content) for blob in run.built.blobs] == [(name, gcode.encode())]
    assert run.built.document["hashes"]["gcode_sha256"] == name


def test_a_path_that_large_gcode_replaces_is_kept_in_quarantine_with_the_whole_request() -> None:
    request = run_request(outputs={"gcode_text": gcode_of(204_801), "gcode_path": "/jobs/17.nc"})
    run = judged(request).built
    assert run.quarantined is None
    assert run.request_in_quarantine is not None
    assert run.request_in_quarantine.content == canonical_json(request)
    assert run.request_in_quarantine.sha256 == run.index_fields.request_sha256
    given = values_without_place(request, run.document)
    assert given == {"outputs.gcode_path": "/jobs/17.nc"}


def test_a_decision_that_its_evaluation_overrules_is_kept_in_quarantine_too() -> None:
    decision = {"risk_level": "green", "score": 99, "warnings": ["mine"], "details": {}}
    overruled = router_request(decision=decision)
    run = judged(overruled).built
    assert run.index_fields.risk_level == "YELLOW"
    assert run.request_in_quarantine is not None
    assert values_without_place(overruled, run.document) == {"decision": decision}


@pytest.mark.parametrize(
    "request_",
    [
        run_request(),
        rosette_request(decision={"risk_level": " green ", "score": None, "warnings": []}),
        run_request(outputs={"gcode_text": "G1", "gcode_path": "/jobs/17.nc"}),
        run_request(outputs={"gcode_text": gcode_of(204_801)}),
        run_request(outputs={"gcode_text": gcode_of(204_801), "gcode_path": None}),
    ],
)
def test_a_request_that_its_artifact_shows_is_not_quarantined(
    request_: dict[str, Any],
) -> None:
    run = judged(request_).built
    assert run.index_fields.status == "OK"
    assert run.request_in_quarantine is None


def test_large_gcode_that_is_listed_already_is_not_listed_twice() -> None:
    gcode = gcode_of(204_801)
    listed = [attachment_ref(gcode.encode(), kind="debug", filename="job.nc"), attachment_ref()]
    run = judged(run_request(outputs={"gcode_text": gcode}, attachments=listed))
    assert run.built.document["attachments"] == listed
    assert "gcode_path" in run.built.document["outputs"]
    assert [blob.content for blob in run.built.blobs] == [gcode.encode()]


def test_large_gcode_comes_last_but_for_the_request() -> None:
    outputs = {"gcode_text": gcode_of(204_801)}
    request = run_request(outputs=outputs, request={"a": [0] * 201}, attachments=[attachment()])
    kinds = [ref["kind"] for ref in document(request)["attachments"]]
    assert kinds == ["dxf_input", "gcode", "request"]


def test_large_gcode_of_an_unsafe_run_is_withheld_like_any_other() -> None:
    run = judged(red_request(outputs={"gcode_text": gcode_of(204_801)}))
    assert run.built.document["attachments"] == []
    assert run.built.blobs == ()
    assert run.built.document["provenance"]["withheld"] == [
        "hashes.gcode_sha256",
        "outputs.gcode_text",
    ]


# A pure function of the body.


def rewritten(value: Any, choose: Any) -> str:
    """The same JSON in another spelling: order of keys, spaces, escapes."""
    space = choose(["", " ", "\n\t"])
    if isinstance(value, dict):
        keys = sorted(value, reverse=choose([True, False]))
        members = [f"{rewritten(k, choose)}{space}:{rewritten(value[k], choose)}" for k in keys]
        return "{" + space + f"{space},".join(members) + "}"
    if isinstance(value, list):
        return "[" + f",{space}".join(rewritten(item, choose) for item in value) + space + "]"
    if isinstance(value, str) and choose([True, False]):
        return json.dumps(value, ensure_ascii=choose([True, False]))
    return json.dumps(value)


@settings(max_examples=60)
@given(json_objects(), st.data())
def test_order_of_keys_spaces_and_escapes_change_nothing(meta: Any, data: st.DataObject) -> None:
    request = rosette_request(meta=meta | {"é\U0001fa9a/": "\u2028\x7f"})
    key = request["run_id"].encode()
    plain = judge_run_record(key, encode(request))
    other = rewritten(request, lambda options: data.draw(st.sampled_from(options)))
    assert judge_run_record(key, other.encode()) == plain
    assert isinstance(plain, JudgedRun)


@settings(max_examples=100)
@given(json_values(4), json_values(4))
def test_any_change_of_a_value_is_another_request(one: Any, other: Any) -> None:
    runs = [judged(run_request(meta={"value": value})) for value in (one, other)]
    same = canonical_json(one) == canonical_json(other)
    assert (runs[0].request_sha256 == runs[1].request_sha256) == same
    assert (runs[0].artifact_sha256 == runs[1].artifact_sha256) == same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"meta": {"n": 1}}, {"meta": {"n": 1.0}}),
        ({"meta": {"n": 0.0}}, {"meta": {"n": -0.0}}),
        ({"meta": {"n": None}}, {"meta": {}}),
        ({"notes": None}, {"notes": ABSENT}),
        (
            {"created_at_utc": "2025-12-18T14:03:22Z"},
            {"created_at_utc": "2025-12-18T14:03:22+00:00"},
        ),
        ({"created_at_utc": "2025-12-18T14:03:22Z"}, {"created_at_utc": "2025-12-18T14:03:22.0Z"}),
        ({"decision": {"risk_level": "GREEN"}}, {"decision": {"risk_level": "green"}}),
        ({"event_type": ABSENT}, {"event_type": "unknown"}),
        ({"schema_version": ABSENT}, {"schema_version": "rmos.run_request/1"}),
        ({"meta": {"é": 1}}, {"meta": {"e\u0301": 1}}),
        ({"outputs": ABSENT}, {"outputs": {}}),
    ],
)
def test_what_is_normalised_in_the_artifact_is_still_another_request(one: Any, other: Any) -> None:
    assert judged(run_request(**one)).request_sha256 != judged(run_request(**other)).request_sha256


def test_the_hash_of_a_request_is_that_of_its_canonical_body() -> None:
    request = rosette_request(unknown=1, decision={"risk_level": " green "})
    assert judged(request).request_sha256 == sha256(
        json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    )


# A judged run travels between processes as its bytes.


def test_a_judged_run_survives_pickling() -> None:
    for request in (run_request(), red_request(attachments=[attachment()]), incomplete_request()):
        run = judged(request)
        assert pickle.loads(pickle.dumps(run)) == run


def test_a_judged_run_with_many_digits_survives_pickling_whatever_the_limit_of_python() -> None:
    run = judged(run_request(meta={"n": 10**4299}))
    pickled = pickle.dumps(run)
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        assert pickle.loads(pickled) == run
    finally:
        sys.set_int_max_str_digits(before)


# Every artifact.

CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from(["saw", "", 5, None]),
        "tool_id": st.sampled_from(["t", None]),
        "feasibility": json_objects(),
        "request": json_objects() | st.none(),
        "decision": st.sampled_from([None, {}, {"risk_level": None, "score": 1}, {"x": 1}, []]),
        "outputs": st.sampled_from([None, {}, {"toolpaths": None, "gcode_text": "x"}, {"x": 1}]),
        "error": st.sampled_from([None, {}, {"type": "t", "message": "m"}]),
        "hashes": st.sampled_from([None, {}, {"gcode_sha256": None, "opplan_sha256": "a" * 64}]),
        "attachments": st.sampled_from([None, [], [attachment()], [attachment_ref(), {}]]),
        "errors": st.sampled_from([None, [], ["e"], [None]]),
        "drift_summary": json_values(3),
        "drift_detected": st.sampled_from([None, True, 1]),
        "meta": json_objects() | st.none(),
        "notes": st.sampled_from([None, "", "n"]),
        "x": st.none(),
    },
)
FREE_FORM = {"feasibility", "request_summary", "meta", "drift_summary"}


def has_null(value: Any) -> bool:
    if isinstance(value, dict):
        return any(has_null(item) for key, item in value.items() if key not in FREE_FORM)
    return value is None or (isinstance(value, list) and any(map(has_null, value)))


@settings(max_examples=250)
@given(CHANGES)
def test_every_artifact_has_its_shape_and_no_null_in_a_typed_field(changes: Any) -> None:
    run = judged(run_request(**changes))
    written = json.loads(run.built.content)
    RunArtifact.model_validate(written)
    assert not has_null(written)
    assert written.get("drift_summary", 0) is not None
    assert written.keys() >= ALWAYS_THERE
    assert "request" not in written
    assert canonical_json(written) == run.built.content
    assert sha256(run.built.content) == run.artifact_sha256
    assert (written["status"] == "OK") <= (written["decision"]["risk_level"] in {"GREEN", "YELLOW"})
    assert (written["status"] == "OK") == (run.built.quarantined is None)
    assert run.is_incomplete == ("violations" in written["decision"].get("details", {}))
    for name in ("withheld", "claimed_hashes", "version_stamps_missing"):
        assert written["provenance"].get(name, [1])


def test_incomplete_wins_over_any_risk() -> None:
    written = document(incomplete_request(feasibility={"risk_level": "RED"}, status="ERROR"))
    assert (written["status"], written["decision"]["risk_level"]) == ("BLOCKED", "ERROR")
    assert written["feasibility"] == {"risk_level": "RED"}


def test_an_error_of_the_producer_is_shown() -> None:
    error = {"type": "PostError", "message": "no post-processor\nfor fanuc"}
    written = document(run_request(error=error))
    assert written["error"] == error
    assert (written["status"], written["decision"]["block_reason"]) == ("ERROR", "PRODUCER_ERROR")
