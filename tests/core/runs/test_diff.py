"""The difference of two runs: laws that hold for any two, and an example of each group."""

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pipeline.core.json import difference as value_diff
from pipeline.core.json.canonical import canonical_json
from pipeline.core.json.difference import (
    ITEM_LIMIT,
    PATHS_LIMIT_CHARACTERS,
    diff_values,
    dotted_path,
)
from pipeline.core.runs.diff import diff_runs
from schemas.export import json_schemas
from schemas.run_diff import RunDiff
from tests.builders import (
    attachment,
    attachment_ref,
    document,
    red_request,
    router_request,
    run_request,
    sha256,
)
from tests.legacy_rows import artifact, bare_row, original_v2_row, v1_row

SHA_A, SHA_B = "a" * 64, "b" * 64
SCHEMA = Draft202012Validator(json_schemas()["rmos.run_diff-1"])

KEYS = st.sampled_from(["", "a", "b", "a.b", ".", "\\", "a\\", "a\\.b", "0", "1", "10", "a-", "é"])
SCALARS = st.one_of(
    st.sampled_from([None, True, False, 0, 1, 0.0, -0.0, 1.0, 10**20, 1e20, 1e-9, "", "1", "a"]),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
)
ABSENT_SIDE = st.just(value_diff.ABSENT)


def unzipped(pairs: list[tuple[Any, Any]] | dict[str, tuple[Any, Any]]) -> tuple[Any, Any]:
    """Return two lists or objects of the pairs' sides, each without its absent parts."""
    if isinstance(pairs, list):
        a, b = ([pair[side] for pair in pairs if is_there(pair[side])] for side in (0, 1))
        return a, b
    one, other = (
        {key: pair[side] for key, pair in pairs.items() if is_there(pair[side])} for side in (0, 1)
    )
    return one, other


def is_there(value: object) -> bool:
    return value is not value_diff.ABSENT


def containers(pairs: st.SearchStrategy[tuple[Any, Any]]) -> st.SearchStrategy[tuple[Any, Any]]:
    parts = pairs | st.tuples(ABSENT_SIDE, SCALARS) | st.tuples(SCALARS, ABSENT_SIDE)
    # 12: indexes of two digits.
    return (st.lists(parts, max_size=12) | st.dictionaries(KEYS, parts, max_size=4)).map(unzipped)


# Two values of much the same structure, which differ deep inside; independent ones seldom do.
SAME = SCALARS.map(lambda value: (value, value))
OTHER = st.tuples(SCALARS, SCALARS | st.just({}) | st.just([0]))
PAIRS = st.recursive(SAME | OTHER, containers, max_leaves=10)
OBJECT_PAIRS = st.dictionaries(KEYS, PAIRS, max_size=3).map(unzipped)

LABELS = st.sampled_from(["saw", "router"])
HASHES = st.sampled_from([SHA_A, SHA_B])
FRAMES = st.fixed_dictionaries(
    {
        "run_id": st.sampled_from(["run_1", "run_2"]),
        "created_at_utc": st.just("2025-12-18T14:03:22Z"),
        "status": st.sampled_from(["OK", "BLOCKED"]),
        "mode": LABELS,
        "tool_id": LABELS,
        "event_type": LABELS,
        "decision": st.fixed_dictionaries(
            {"risk_level": st.sampled_from(["GREEN", "RED"])},
            optional={"score": st.sampled_from([1, 1.0, 50])},
        ),
        "hashes": st.fixed_dictionaries(
            {"feasibility_sha256": HASHES}, optional={"gcode_sha256": HASHES}
        ),
        "request_summary": st.just({}),
        "outputs": st.fixed_dictionaries({}, optional={"gcode_text": LABELS}),
        "attachments": st.lists(
            st.fixed_dictionaries({"kind": LABELS, "sha256": HASHES}), max_size=2
        ),
        "advisory_inputs": st.lists(
            st.fixed_dictionaries({"advisory_id": LABELS}, optional={"content_sha256": HASHES}),
            max_size=2,
        ),
    },
    optional={"notes": LABELS, "errors": st.lists(LABELS, max_size=2), "material_id": LABELS},
)
Pair = tuple[dict[str, Any], dict[str, Any]]


@st.composite
def run_pairs(draw: st.DrawFn) -> Pair:
    """Draw two runs; half of the time they differ in their free-form parts alone."""
    a = draw(FRAMES)
    b = draw(FRAMES | st.just(deepcopy(a)))
    plans = draw(PAIRS | st.none())
    for name in ("feasibility", "meta", "request_summary"):
        a[name], b[name] = draw(OBJECT_PAIRS)
    if plans is not None:
        a["outputs"]["opplan_json"], b["outputs"]["opplan_json"] = plans
    return a, b


RUN_PAIRS = run_pairs()


def scoped(run: dict[str, Any]) -> dict[str, Any]:
    parts = {name: run[name] for name in ("decision", "feasibility", "hashes", "request_summary")}
    return parts | {
        "outputs": {key: run["outputs"][key] for key in run["outputs"] if key == "opplan_json"}
    }


def segments_of(path: str) -> list[str]:
    """Read a path back by the rule that its description gives."""
    segments, escaped = [""], False
    for character in path:
        if escaped or character not in "\\.":
            segments[-1] += character
            escaped = False
        elif character == "\\":
            escaped = True
        else:
            segments.append("")
    return segments


def applied(items: list[dict[str, Any]], value: dict[str, Any]) -> dict[str, Any]:
    """Apply `items` to a copy of `value`, where each says that it applies."""
    changed = deepcopy(value)
    by_place = sorted(items, key=lambda item: [_place(part) for part in segments_of(item["path"])])
    added_last = [item for item in reversed(by_place) if item["op"] == "removed"]
    added_last += [item for item in by_place if item["op"] != "removed"]
    for item in added_last:
        _apply(item, changed)
    return changed


def _place(segment: str) -> tuple[int, str]:
    return (int(segment) if segment.isdecimal() and segment.isascii() else -1, segment)


def _apply(item: dict[str, Any], value: Any) -> None:
    *above, last = segments_of(item["path"])
    for segment in above:
        value = value[int(segment) if isinstance(value, list) else segment]
    key: Any = int(last) if isinstance(value, list) else last
    if "a" in item:
        assert canonical_json(value[key]) == canonical_json(item["a"])
    if item["op"] == "removed":
        del value[key]
    elif item["op"] == "added" and isinstance(value, list):
        assert key == len(value)
        value.append(item["b"])
    else:
        assert (key in value) == (item["op"] == "changed") or isinstance(value, list)
        value[key] = item["b"]


def swapped(leaf: dict[str, Any]) -> dict[str, Any]:
    ops = {"added": "removed", "removed": "added", "changed": "changed"}
    names = {"a": "b", "b": "a"}
    return {
        names.get(name, name): ops[value] if name == "op" else value for name, value in leaf.items()
    }


def swapped_groups(groups: dict[str, Any]) -> dict[str, Any]:
    nested = ("context", "hashes", "decision", "feasibility", "meta")
    return {
        name: {field: swapped(leaf) for field, leaf in found.items()}
        if name in nested
        else swapped(found)
        for name, found in groups.items()
    }


@given(RUN_PAIRS)
def test_a_run_does_not_differ_from_itself(runs: Pair) -> None:
    diff = diff_runs(runs[1], deepcopy(runs[1]))
    assert diff["diff"] == {}
    assert diff["changed_paths"] == diff["items"] == []
    assert diff["counts"] == {"added": 0, "removed": 0, "changed": 0}
    assert not diff["truncated"]
    assert diff["diff_severity"] == "INFO"
    assert diff["summary"] == "No differences detected in the fields that are compared."


@given(RUN_PAIRS)
def test_items_are_empty_exactly_where_the_scoped_parts_have_the_same_canonical_json(
    runs: Pair,
) -> None:
    a, b = runs
    same = canonical_json(scoped(a)) == canonical_json(scoped(b))
    assert (diff_runs(a, b)["items"] == []) == same


@given(PAIRS)
def test_two_values_differ_exactly_where_their_canonical_json_does(
    pair: tuple[object, object],
) -> None:
    a, b = pair
    assert (diff_values(a, b).items == []) == (canonical_json(a) == canonical_json(b))


@given(RUN_PAIRS)
def test_items_applied_to_a_give_b(runs: Pair) -> None:
    a, b = runs
    diff = diff_runs(a, b)
    assert not diff["truncated"]
    assert canonical_json(applied(diff["items"], scoped(a))) == canonical_json(scoped(b))


@given(RUN_PAIRS)
def test_swapping_the_runs_swaps_the_sides(runs: Pair) -> None:
    a, b = runs
    forth, back = diff_runs(a, b), diff_runs(b, a)
    counts = back["counts"]
    assert canonical_json(forth | {"summary": ""}) == canonical_json(
        back
        | {
            "a": back["b"],
            "b": back["a"],
            "diff": swapped_groups(back["diff"]),
            "items": [swapped(item) for item in back["items"]],
            "counts": counts | {"added": counts["removed"], "removed": counts["added"]},
            "summary": "",
        }
    )


@given(RUN_PAIRS)
def test_the_same_input_gives_the_same_output_whatever_the_order_of_keys(runs: Pair) -> None:
    before = canonical_json(runs)
    first = canonical_json(diff_runs(*runs))
    assert canonical_json(runs) == before
    assert canonical_json(diff_runs(*map(reordered, runs))) == first


def reordered(value: Any) -> Any:
    """Return the same JSON with the keys of every object the other way round."""
    if isinstance(value, list):
        return [reordered(element) for element in value]
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return value


@given(RUN_PAIRS)
def test_paths_are_unique_sorted_and_counted(runs: Pair) -> None:
    diff = diff_runs(*runs)
    for paths in ([item["path"] for item in diff["items"]], diff["changed_paths"]):
        assert paths == sorted(set(paths))
    for op, count in diff["counts"].items():
        assert count == sum(item["op"] == op for item in diff["items"])


@given(RUN_PAIRS)
def test_every_answer_fits_its_model_and_its_json_schema(runs: Pair) -> None:
    diff = json.loads(canonical_json(diff_runs(*runs)))
    read = RunDiff.model_validate(diff)
    assert canonical_json(read.model_dump()) == canonical_json(diff)
    assert SCHEMA.is_valid(diff)


@given(st.lists(st.text(max_size=3) | KEYS, min_size=1), st.lists(KEYS, min_size=1))
def test_a_path_can_be_read_back_so_two_paths_are_never_equal_by_chance(
    one: list[str], other: list[str]
) -> None:
    assert segments_of(dotted_path(one)) == one
    assert (dotted_path(one) == dotted_path(other)) == (one == other)


def saw(**changes: Any) -> dict[str, Any]:
    """Return the saw run's artifact, with top-level fields changed afterwards."""
    return document(run_request()) | changes


def one_leaf(a: dict[str, Any], b: dict[str, Any], *path: str) -> dict[str, Any]:
    """Return the leaf at `path`, which must be all that differs; it is what both documents say."""
    diff = diff_runs(a, b)
    assert diff["changed_paths"] == [dotted_path(path)]
    leaf: dict[str, Any] = diff["diff"]
    for name in path:
        assert list(leaf) == [name]
        leaf = leaf[name]
    return leaf


@pytest.mark.parametrize(
    ("path", "changed", "leaf"),
    [
        (("mode",), {"mode": "router"}, {"a": "saw", "b": "router"}),
        (("event_type",), {"event_type": "approval"}, {"a": "toolpaths", "b": "approval"}),
        (("status",), {"status": "BLOCKED"}, {"a": "OK", "b": "BLOCKED"}),
        (("notes",), {"notes": "by hand"}, {"b": "by hand"}),
        (("errors",), {"errors": ["late"]}, {"b": ["late"]}),
        (
            ("context", "tool_id"),
            {"tool_id": "saw:other"},
            {"a": "saw:veneer_160", "b": "saw:other"},
        ),
        (("context", "material_id"), {"material_id": "oak"}, {"a": "maple", "b": "oak"}),
        (("context", "machine_id"), {"machine_id": "saw_3"}, {"a": "shop_saw_2", "b": "saw_3"}),
        (("context", "workflow_mode"), {"workflow_mode": "cut"}, {"a": "saw", "b": "cut"}),
        (
            ("context", "workflow_session_id"),
            {"workflow_session_id": "1"},
            {"a": "ws_42", "b": "1"},
        ),
        (("meta", "job"), {"meta": {"operator": "ana"}}, {"a": "veneer 17"}),
        (
            ("meta", "a.b"),
            {"meta": {"operator": "ana", "job": "veneer 17", "a.b": None}},
            {"b": None},
        ),
    ],
)
def test_each_field_has_a_leaf_and_an_absent_side_is_left_out(
    path: tuple[str, ...], changed: dict[str, Any], leaf: dict[str, Any]
) -> None:
    assert one_leaf(saw(), saw(**changed), *path) == leaf


@pytest.mark.parametrize("name", ["feasibility", "gcode", "opplan", "toolpaths"])
def test_each_hash_has_a_leaf(name: str) -> None:
    field = f"{name}_sha256"
    a, b = saw(), saw()
    b["hashes"][field] = SHA_B
    old = {"a": a["hashes"][field]} if field in a["hashes"] else {}
    assert one_leaf(a, b, "hashes", field) == old | {"b": SHA_B}


@pytest.mark.parametrize(
    ("field", "value"),
    [("risk_level", "YELLOW"), ("score", 92), ("block_reason", "dust"), ("warnings", ["dust"])],
)
def test_each_field_of_the_decision_has_a_leaf(field: str, value: object) -> None:
    a, b = saw(), saw()
    b["decision"][field] = value
    old = {"a": a["decision"][field]} if field in a["decision"] else {}
    assert one_leaf(a, b, "decision", field) == old | {"b": value}


def test_feasibility_is_compared_by_its_top_level_keys_and_items_go_inside() -> None:
    a, b = saw(), saw()
    b["feasibility"]["details"]["kerf_mm"] = 2
    leaf = one_leaf(a, b, "feasibility", "details")
    assert leaf == {"a": a["feasibility"]["details"], "b": b["feasibility"]["details"]}
    assert diff_runs(a, b)["items"] == [
        {"path": "feasibility.details.kerf_mm", "op": "changed", "a": 1.6, "b": 2}
    ]


def test_attachments_are_compared_by_kind_and_hash_in_any_order() -> None:
    dxf, debug = attachment(b"1"), attachment(b"2", kind="debug")
    a = document(run_request(attachments=[dxf, debug]))
    renamed = document(run_request(attachments=[debug, dxf | {"filename": "other.dxf"}]))
    assert diff_runs(a, renamed)["diff"] == {}
    fewer = document(run_request(attachments=[dxf]))
    assert one_leaf(a, fewer, "attachments") == {
        "a": [
            {"kind": "debug", "sha256": debug["sha256"]},
            {"kind": "dxf_input", "sha256": dxf["sha256"]},
        ],
        "b": [{"kind": "dxf_input", "sha256": dxf["sha256"]}],
    }


def test_advisories_are_compared_by_id_content_and_kind_in_any_order() -> None:
    first = {"advisory_id": "x1", "kind": "note", "run_id": "run_1", "content_sha256": SHA_A}
    second = {"advisory_id": "x2", "kind": "explanation", "run_id": "run_1"}
    other_run = [entry | {"run_id": "run_2"} for entry in (second, first)]
    a = saw(advisory_inputs=[first, second])
    assert diff_runs(a, saw(advisory_inputs=other_run))["diff"] == {}
    other_content = saw(advisory_inputs=[first | {"content_sha256": SHA_B}])
    assert one_leaf(a, other_content, "advisory_inputs") == {
        "a": [
            {"advisory_id": "x1", "kind": "note", "content_sha256": SHA_A},
            {"advisory_id": "x2", "kind": "explanation"},
        ],
        "b": [{"advisory_id": "x1", "kind": "note", "content_sha256": SHA_B}],
    }


@pytest.mark.parametrize(
    ("part", "field", "value", "severity"),
    [
        ("hashes", "gcode_sha256", SHA_B, "CRITICAL"),
        ("hashes", "toolpaths_sha256", SHA_B, "CRITICAL"),
        ("decision", "risk_level", "YELLOW", "CRITICAL"),
        ("hashes", "feasibility_sha256", SHA_B, "WARNING"),
        ("decision", "score", 92.0, "WARNING"),
        ("hashes", "opplan_sha256", SHA_B, "INFO"),
        ("decision", "block_reason", "dust", "INFO"),
        ("feasibility", "score", 1, "INFO"),
        ("feasibility", "risk_level", "RED", "INFO"),
        ("meta", "status", "BLOCKED", "INFO"),
    ],
)
def test_severity_depends_on_which_fields_differ(
    part: str, field: str, value: object, severity: str
) -> None:
    b = saw()
    b[part] = b[part] | {field: value}
    assert diff_runs(saw(), b)["diff_severity"] == severity


PROGRAM, OTHER_PROGRAM = b"G1 X1\n", b"G1 X999\n"
TWO_PROGRAMS = [attachment_ref(content, kind="gcode") for content in (PROGRAM, OTHER_PROGRAM)]


def by_reference(content: bytes, kind: str, **changes: Any) -> dict[str, Any]:
    return document(
        run_request(attachments=[attachment_ref(content, kind=kind)], outputs=None, **changes)
    )


def by_claim(name: str, content: bytes, **changes: Any) -> dict[str, Any]:
    return document(run_request(hashes={name: sha256(content)}, outputs=None, **changes))


def inline(content: bytes, kind: str) -> dict[str, Any]:
    return document(run_request(attachments=[attachment(content, kind=kind)], outputs=None))


def old(**changes: Any) -> dict[str, Any]:
    return artifact(bare_row(**changes))


def original(name: str, content: bytes) -> dict[str, Any]:
    """Return a run of the original v2 code whose payloads are known by their hashes alone."""
    hashes = {"feasibility_sha256": SHA_A, name: sha256(content)}
    return artifact(original_v2_row(hashes=hashes, outputs=None), origin="original_v2")


@pytest.mark.parametrize(
    ("a", "b", "path", "severity"),
    [
        (
            by_claim("gcode_sha256", PROGRAM),
            by_claim("gcode_sha256", OTHER_PROGRAM),
            "hashes.gcode_sha256",
            "CRITICAL",
        ),
        (
            inline(PROGRAM, "gcode"),
            inline(OTHER_PROGRAM, "gcode"),
            "hashes.gcode_sha256",
            "CRITICAL",
        ),
        (
            by_reference(PROGRAM, "gcode"),
            document(run_request(outputs=None)),
            "hashes.gcode_sha256",
            "CRITICAL",
        ),
        (
            by_reference(PROGRAM, "gcode"),
            by_claim("gcode_sha256", OTHER_PROGRAM),
            "hashes.gcode_sha256",
            "CRITICAL",
        ),
        (old(), old(gcode_hash="5" * 64), "hashes.gcode_sha256", "CRITICAL"),
        (old(), old(gcode_hash=None), "hashes.gcode_sha256", "CRITICAL"),
        (old(), old(gcode_hash="unknown"), "hashes.gcode_sha256", "CRITICAL"),
        (
            artifact(v1_row(toolpaths_hash="5" * 64)),
            artifact(v1_row(toolpaths_hash="6" * 64)),
            "hashes.toolpaths_sha256",
            "CRITICAL",
        ),
        (
            by_claim("toolpaths_sha256", PROGRAM),
            by_claim("toolpaths_sha256", OTHER_PROGRAM),
            "hashes.toolpaths_sha256",
            "CRITICAL",
        ),
        (
            by_reference(PROGRAM, "toolpaths"),
            by_reference(OTHER_PROGRAM, "toolpaths"),
            "hashes.toolpaths_sha256",
            "CRITICAL",
        ),
        (
            by_claim("opplan_sha256", PROGRAM),
            by_claim("opplan_sha256", OTHER_PROGRAM),
            "hashes.opplan_sha256",
            "INFO",
        ),
        (
            by_reference(PROGRAM, "cam_plan"),
            by_reference(OTHER_PROGRAM, "cam_plan"),
            "hashes.opplan_sha256",
            "INFO",
        ),
        (
            document(run_request(outputs={"gcode_path": "/a.nc"})),
            document(run_request(outputs={"gcode_path": "/b.nc"})),
            "outputs.gcode_path",
            "CRITICAL",
        ),
        (
            document(run_request(outputs={"gcode_path": "/a.nc"})),
            document(run_request(outputs=None)),
            "outputs.gcode_path",
            "CRITICAL",
        ),
        (
            document(run_request(outputs={"gcode_text": "G1", "gcode_path": "/a.nc"})),
            document(run_request(outputs={"gcode_text": "G1", "gcode_path": "/b.nc"})),
            "outputs.gcode_path",
            "INFO",
        ),
        (
            document(run_request(outputs={"opplan_path": "/a.json"})),
            document(run_request(outputs={"opplan_path": "/b.json"})),
            "outputs.opplan_path",
            "INFO",
        ),
        (old(), old(request_hash="5" * 64), "hashes.request_hash", "WARNING"),
        (
            document(run_request(attachments=TWO_PROGRAMS, outputs={"gcode_path": "/a.nc"})),
            document(run_request(attachments=TWO_PROGRAMS, outputs={"gcode_path": "/b.nc"})),
            "outputs.gcode_path",
            "CRITICAL",
        ),
        *(
            (original(name, PROGRAM), original(name, OTHER_PROGRAM), f"hashes.{name}", severity)
            for name, severity in (
                ("feasibility_sha256", "WARNING"),
                ("gcode_sha256", "CRITICAL"),
                ("opplan_sha256", "INFO"),
                ("toolpaths_sha256", "CRITICAL"),
            )
        ),
        (
            document(red_request(attachments=[attachment_ref(PROGRAM, kind="gcode")])),
            document(red_request(attachments=[attachment_ref(OTHER_PROGRAM, kind="gcode")])),
            "withheld",
            "CRITICAL",
        ),
        (
            document(red_request()),
            document(red_request(outputs=None)),
            "withheld",
            "CRITICAL",
        ),
        (
            document(red_request(outputs={"opplan_json": {}})),
            document(red_request(outputs=None)),
            "withheld",
            "INFO",
        ),
    ],
)
def test_a_changed_payload_is_named_wherever_it_is_known(
    a: dict[str, Any], b: dict[str, Any], path: str, severity: str
) -> None:
    for diff in (diff_runs(a, b), diff_runs(b, a)):
        assert path in diff["changed_paths"]
        assert diff["diff_severity"] == severity
        RunDiff.model_validate(diff)
        SCHEMA.validate(diff)
    assert diff_runs(a, a)["changed_paths"] == []


def test_one_program_is_the_same_however_it_is_known() -> None:
    text = document(run_request(outputs={"gcode_text": PROGRAM.decode()}))
    known = (text, by_reference(PROGRAM, "gcode"), by_claim("gcode_sha256", PROGRAM))
    for a in known:
        for b in known:
            assert diff_runs(a, b)["diff_severity"] == "INFO"
            assert "hashes.gcode_sha256" not in diff_runs(a, b)["changed_paths"]


def test_hashes_that_contradict_each_other_are_listed() -> None:
    claim = {"gcode_sha256": sha256(OTHER_PROGRAM)}
    both = by_reference(PROGRAM, "gcode", hashes=claim)
    diff = diff_runs(by_claim("gcode_sha256", OTHER_PROGRAM), both)
    assert diff["diff"]["hashes"]["gcode_sha256"] == {
        "a": sha256(OTHER_PROGRAM),
        "b": sorted([sha256(PROGRAM), sha256(OTHER_PROGRAM)]),
    }


def test_another_status_alone_is_critical() -> None:
    assert diff_runs(saw(), saw(status="BLOCKED"))["diff_severity"] == "CRITICAL"


def test_a_key_with_a_dot_is_not_taken_for_a_field_that_is_critical() -> None:
    a, b = saw(), saw()
    b["feasibility"] = {"x.y": 1, "x": {"y": 1}}
    a["feasibility"] = {"x.y": 2, "x": {"y": 2}}
    assert [item["path"] for item in diff_runs(a, b)["items"]] == [
        "feasibility.x.y",
        "feasibility.x\\.y",
    ]


def test_a_blocked_run_against_an_approved_one() -> None:
    a, b = document(run_request()), document(red_request())
    diff = diff_runs(a, b)
    assert diff["diff_severity"] == "CRITICAL"
    assert diff["diff"]["status"] == {"a": "OK", "b": "BLOCKED"}
    assert diff["diff"]["hashes"]["gcode_sha256"] == {"a": a["hashes"]["gcode_sha256"]}
    assert diff["a"] == {"run_id": a["run_id"], "created_at_utc": a["created_at_utc"]}
    assert diff["summary"].startswith("CRITICAL: ")


def test_the_summary_names_five_fields_and_counts_the_rest() -> None:
    b = saw(mode="a", event_type="b", notes="c", tool_id="d", material_id="e", machine_id="f")
    assert diff_runs(saw(), b)["summary"] == (
        "INFO: 6 fields changed (context.machine_id, context.material_id, context.tool_id, "
        "event_type, mode, ...); values: 0 added, 0 removed, 0 changed."
    )


def test_the_summary_names_first_what_decides_the_severity() -> None:
    b = saw(event_type="a", mode="b", notes="c", status="BLOCKED", tool_id="d", machine_id="e")
    b["decision"]["score"] = 1
    assert diff_runs(saw(), b)["summary"].startswith(
        "CRITICAL: 7 fields changed (status, decision.score, context.machine_id, "
    )


def test_a_difference_that_only_items_show_is_not_summed_up_as_none() -> None:
    a = document(router_request())
    b = deepcopy(a)
    b["outputs"]["opplan_json"]["steps"].append({"op": "drill"})
    b["request_summary"]["params"]["doc_mm"] = 4
    diff = diff_runs(a, b)
    assert diff["changed_paths"] == []
    assert diff["items"] == [
        {"path": "outputs.opplan_json.steps.2", "op": "added", "b": {"op": "drill"}},
        {"path": "request_summary.params.doc_mm", "op": "changed", "a": 5.0, "b": 4},
    ]
    assert diff["summary"] == "INFO: 0 fields changed; values: 1 added, 0 removed, 1 changed."


def test_outputs_other_than_the_operation_plan_have_no_items() -> None:
    b = saw(outputs={"gcode_text": "M30", "preview_svg": "<svg/>"})
    assert diff_runs(saw(), b)["items"] == []


@pytest.mark.parametrize(("old", "new"), [(1, 1.0), (1, True), (0, False), (0.0, -0.0), ([], {})])
def test_what_python_calls_equal_differs_as_json_does(old: object, new: object) -> None:
    assert diff_values(old, new).counts["changed"] == 1
    assert one_leaf(saw(meta={"x": old}), saw(meta={"x": new}), "meta", "x") == {
        "a": old,
        "b": new,
    }


def test_another_type_is_one_change_of_the_whole() -> None:
    diff = diff_values({"x": {"y": 1}}, {"x": [1]})
    assert diff.items == [{"path": "x", "op": "changed", "a": {"y": 1}, "b": [1]}]


def test_items_stop_at_2000_and_counts_go_on() -> None:
    a = saw(feasibility={"x": [0] * 2500})
    exactly = diff_runs(a, saw(feasibility={"x": [1] * 2000 + [0] * 500}))
    assert len(exactly["items"]) == ITEM_LIMIT == 2000
    assert not exactly["truncated"]
    more = diff_runs(a, saw(feasibility={"x": [1] * 2500 + [1]}))
    assert len(more["items"]) == 2000
    assert more["truncated"]
    assert more["counts"] == {"added": 1, "removed": 0, "changed": 2500}
    listed = [item["path"] for item in more["items"]]
    assert listed == sorted(f"feasibility.x.{index}" for index in range(2000))


@given(st.integers(1, 5), st.integers(1, 40), PAIRS)
def test_limits_hold_for_either_side_and_one_item_is_always_listed(
    item_limit: int, paths_limit: int, pair: tuple[object, object]
) -> None:
    a, b = pair
    everything = {item["path"] for item in diff_values(a, b).items}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(value_diff, "ITEM_LIMIT", item_limit)
        patch.setattr(value_diff, "PATHS_LIMIT_CHARACTERS", paths_limit)
        limited, back = diff_values(a, b), diff_values(b, a)
    paths = [item["path"] for item in limited.items]
    assert len(paths) <= item_limit
    assert len(paths) == 1 or sum(map(len, paths)) <= paths_limit
    assert set(paths) <= everything
    assert bool(paths) == bool(everything)
    assert limited.truncated == (len(paths) < len(everything))
    assert sum(limited.counts.values()) == len(everything)
    assert limited.items == [swapped(item) for item in back.items]


def test_a_long_key_above_a_wide_list_is_not_repeated_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[str] = []

    def counted_path(segments: list[str | int]) -> str:
        written.append(dotted_path(segments))
        return written[-1]

    monkeypatch.setattr(value_diff, "dotted_path", counted_path)
    key = "k" * 100_000
    diff = diff_values({key: [0] * 3000}, {key: [1] * 3000})
    assert len(diff.items) == 9
    assert sum(len(item["path"]) for item in diff.items) <= PATHS_LIMIT_CHARACTERS
    assert len(written) == 10
    assert diff.truncated
    assert diff.counts["changed"] == 3000


def test_a_path_longer_than_all_paths_may_be_is_still_listed_alone() -> None:
    key = "k" * (PATHS_LIMIT_CHARACTERS + 1)
    diff = diff_values({key: [0, 0]}, {key: [1, 1]})
    assert [item["path"] for item in diff.items] == [f"{key}.0"]


def test_the_summary_stays_short_whatever_the_keys() -> None:
    long = {f"{index}{'k' * 10_000}": index for index in range(20)}
    assert len(diff_runs(saw(), saw(meta=saw()["meta"] | long))["summary"]) < 1000
