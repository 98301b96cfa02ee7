"""The fast way to the run of a clean request makes what the rule makes, or leaves it to it."""

import json
from collections.abc import Iterator
from typing import Any

import msgspec
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from pipeline.core.dead_letters.carried_record import ReadContent
from pipeline.core.envelope import judged_apart
from pipeline.core.json.canonical import canonical_json
from pipeline.core.runs.artifact_parts import INLINE_GCODE_LIMIT_BYTES, ITEM_LIMIT
from pipeline.core.runs.verdict import (
    JudgedRun,
    Rejected,
    clean_run,
    judge_by_rule,
    judge_run_record,
)
from schemas.run_request import RunRequest
from tests.bench.requests import encoded_requests
from tests.builders import (
    ABSENT,
    attachment,
    encode,
    incomplete_request,
    record,
    red_request,
    rosette_request,
    router_request,
    run_request,
    sha256,
)
from tests.json_values import json_objects, json_values, texts

_DEEP: Any = [[[[[[[[]]]]]]]]
for _ in range(8):
    _DEEP = [[[[[[[_DEEP]]]]]]]

STRANGE = st.sampled_from(
    [
        *(
            None,
            True,
            0,
            1.5,
            2**64,
            1e-05,
            "",
            " ",
            "x" * 200,
            "x" * 201,
            "é" * 200,
            "\U0001f600" * 201,
        ),
        *("a\nb", "a\x7f", "a\x85b", "a\u00a0b", "\u2028", [], {}, [1], {"a": None}, _DEEP),
    ]
)
"""A value for any field: few of them fit."""

EVALUATIONS = st.fixed_dictionaries(
    {},
    optional={
        "risk_level": st.sampled_from(["GREEN", " yellow", "RED", "ERROR", "?", "", None, 1]),
        "risk_bucket": st.sampled_from(["GREEN", "RED", None, []]),
        "score": st.sampled_from([0, -0.0, 50, 99.5, 100.5, 1e-7, True, "9", 2**70, None]),
        "block_reason": st.sampled_from(["why", "", 1, None]),
        "blocking": st.booleans(),
        "blocking_reasons": st.sampled_from([[], ["a", "b"], [1], "x"]),
        "warnings": st.sampled_from([[], ["w"], [None], "x"]),
        "safety": st.sampled_from([{"risk_level": "GREEN", "score": 1}, "RED", "fine", {}]),
        "decision": st.sampled_from([{"risk_level": "YELLOW", "warnings": []}, "ERROR", None]),
        "x": json_values(3),
    },
)
PLAIN = st.dictionaries(
    st.text("abce-.0", max_size=4),
    st.integers(-9, 9) | st.floats(0.01, 1e6) | st.text('ab"e-0.:[{\\', max_size=9) | st.booleans(),
    max_size=5,
)
ASKED = json_objects() | st.sampled_from(
    [
        {"api_key": 1},
        {"a": {"Password": "x"}},
        {"safety": 1},
        {"a": [{"feasibility": {}}]},
        {"\u017fecret": "folds to a letter of ASCII"},
        {"ap\u0131_key": "without its dot"},
        {"prüfer": "Jörg"},
        {"wide": [0] * ITEM_LIMIT},
        {"wide": [0] * (ITEM_LIMIT + 1)},
        {f"k{n}": n for n in range(81)},
        {"\u212a": "e-5", "note": "0.0000, :0.00001"},
    ]
)
OUTPUTS = st.fixed_dictionaries(
    {},
    optional={
        "gcode_text": st.sampled_from(["", "G0 X10.0000\n", "é", "G" * 300_000, None, 1]),
        "toolpaths": json_values(8),
        "opplan_json": json_values(8),
        "preview_svg": st.sampled_from(["<svg/>", None]),
        "gcode_path": st.sampled_from(["/a.nc", None]),
        "unknown": st.just(1),
    },
)
PLAIN_OUTPUTS = st.fixed_dictionaries(
    {}, optional={"gcode_text": texts(), "toolpaths": PLAIN, "opplan_json": st.lists(PLAIN)}
)
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(RunRequest.model_fields, STRANGE),
        "feasibility": EVALUATIONS | STRANGE,
        "request": ASKED | STRANGE,
        "outputs": OUTPUTS | STRANGE,
        "meta": json_objects() | STRANGE,
        "status": st.sampled_from(["OK", "BLOCKED", "ERROR", "ok", None]),
        "decision": EVALUATIONS | st.none(),
        "unknown": STRANGE,
    },
)
"""Wrong in many fields."""

FEW_CHANGES = st.fixed_dictionaries(
    {"feasibility": EVALUATIONS, "request": PLAIN | ASKED, "outputs": OUTPUTS | PLAIN_OUTPUTS},
    optional={
        "meta": PLAIN | json_objects(),
        "status": st.sampled_from(["OK", "BLOCKED", "ERROR"]),
        "notes": texts(),
        **{name: texts() | st.just("a b") for name in ("mode", "tool_id", "machine_id")},
    },
)
"""Mostly right."""

ESCAPES = st.sampled_from(
    [
        *[(b":", b"\\u003a"), (b":", b"\\u003A"), (b'"', b"\\u0022"), (b"<", b"\\u003c")],
        *[
            (b"a", b"\\u0061"),
            (b"a", b"\\ud800"),
            (b"e", b"\\u0000"),
            (b"1", b"1e-9"),
            (b"1", b"1E2"),
        ],
        *[
            (b"0", b"-0"),
            (b".", b".0000000000001"),
            (b"{", b"{ "),
            (b",", b" ,\n"),
            (b"{", b'{"a":1,'),
        ],
        *[(b"{", b'{"mode":"x",'), (b"}", b',"mode":"x"}'), (b"[", b"[[")],
    ]
)


def by_rule(key: ReadContent | None, value: ReadContent | None) -> JudgedRun | Rejected:
    return judged_apart(lambda: judge_by_rule(key, value))


def takes_the_fast_way(key: bytes, value: bytes) -> bool:
    """Whether it is taken; whatever is taken is what the rule makes."""
    expected = by_rule(key, value)
    found = clean_run(key, value)
    assert found is None or found == expected
    assert judge_run_record(key, value) == expected
    if found is not None and isinstance(expected, JudgedRun):
        # 1 == 1.0 == True in Python: bytes tell values apart, equality does not.
        fields = [msgspec.to_builtins(each.built.index_fields) for each in (found, expected)]
        assert canonical_json(fields[0]) == canonical_json(fields[1])
    return found is not None


def test_requests_as_they_come_take_the_fast_way() -> None:
    for key, value in encoded_requests(200):
        assert takes_the_fast_way(key, value)
    statuses = [run_request(status=status) for status in ("OK", "BLOCKED", "ERROR")]
    for request in (run_request(), *statuses, router_request(), run_request(meta=ABSENT)):
        assert takes_the_fast_way(*record(request))


UNUSUAL: dict[str, dict[str, Any]] = {
    "null": run_request(notes=None),
    "an unknown field": run_request(unknown="x"),
    "an unknown output": run_request(outputs={"gcode_text": "x", "unknown": 1}),
    "a small number": run_request(meta={"n": 1e-05}),
    "an integer above 64 bits": run_request(meta={"n": 2**64}),
    "a claim": run_request(hashes={"gcode_sha256": sha256("x")}),
    "an attachment": run_request(attachments=[attachment()]),
    "a decision": run_request(decision={"risk_level": "GREEN"}),
    "a secret": run_request(request={"Api-Key": "x"}),
    "a secret with a letter that folds to another": run_request(request={"\u017fecret": "x"}),
    "a client's verdict": run_request(request={"safety": {}}),
    "a wide request": run_request(request={"points": list(range(ITEM_LIMIT + 1))}),
    "a request of many keys": run_request(request={f"k{n}": n for n in range(81)}),
    "an unknown status": run_request(status="ok"),
    "a control character": run_request(mode="a\x85"),
    "no feasibility": run_request(feasibility={}),
    "no tool": run_request(tool_id=ABSENT),
    "too many levels": run_request(meta={"deep": _DEEP}),
    "a large program": run_request(
        outputs={"gcode_text": "é" * (INLINE_GCODE_LIMIT_BYTES // 2 + 1)}
    ),
    "a path without place": run_request(outputs={"gcode_path": "/a.nc"}),
    "a bad time": run_request(created_at_utc="2025-02-30T00:00:00Z"),
    "a reserved run_id": run_request(run_id="diff"),
    "another version": run_request(schema_version="rmos.run_request/9"),
    "a wrong label": run_request(machine_id="x" * 201),
    "incomplete": incomplete_request(),
}


def test_what_is_unusual_is_left_to_the_rule() -> None:
    assert [name for name, each in UNUSUAL.items() if takes_the_fast_way(*record(each))] == []


def test_what_only_the_bytes_show_is_left_to_the_rule() -> None:
    key, value = record(run_request())
    body = value.removesuffix(b"}")
    bodies = {
        "a repeated field": body + b',"mode":"x"}',
        "a repeated field, its colon made up for": body + b',"mode":"x","notes":"\\u003A"}',
        "an unknown field, its colon made up for": body + b',"unknown":1,"notes":"\\u003a"}',
        "a lone surrogate": body + b',"notes":"\\ud800"}',
        "no JSON": body + b"}}",
        "too large": body + b" " * 4_200_000 + b"}",
    }
    assert [name for name, each in bodies.items() if takes_the_fast_way(key, each)] == []
    assert not takes_the_fast_way(b"other", value)
    assert judge_run_record(None, value) == by_rule(None, value)
    assert judge_run_record(key, None) == by_rule(key, None)


def _nested(levels: int) -> Iterator[dict[str, Any]]:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    yield run_request(feasibility={"risk_level": "GREEN", "deep": value})
    yield run_request(outputs={"toolpaths": value})
    yield run_request(meta={"deep": value})
    yield run_request(feasibility={"deep": value}, request={}, outputs=ABSENT, meta=ABSENT)


def test_levels_are_counted_as_the_rule_counts_them() -> None:
    for levels in (*range(58, 68), *range(248, 258)):
        for request in _nested(levels):
            takes_the_fast_way(*record(request))


@settings(max_examples=400)
@given(FEW_CHANGES, st.booleans(), st.sampled_from([None, 1]))
@example({"request": {}, "feasibility": {"safety": {"score": -0.0}}, "outputs": {}}, True, None)
def test_it_makes_what_the_rule_makes(changes: Any, is_ascii: bool, indent: int | None) -> None:
    request = run_request(**changes)
    value = json.dumps(request, ensure_ascii=is_ascii, indent=indent).encode()
    event(f"fast: {takes_the_fast_way(request['run_id'].encode(), value)}")


@settings(max_examples=300)
@given(CHANGES)
def test_wrong_fields_are_as_the_rule_finds_them(changes: Any) -> None:
    takes_the_fast_way(b"run_6f1d2c3b4a5968778695a4b3c2d1e0f0", encode(run_request(**changes)))


@settings(max_examples=300)
@given(
    st.sampled_from([run_request(), red_request(), rosette_request(), router_request()]),
    st.lists(st.tuples(ESCAPES, st.integers(0, 40)), max_size=3),
)
def test_any_spelling_of_a_body_is_as_the_rule_reads_it(
    request: dict[str, Any], edits: list[tuple[tuple[bytes, bytes], int]]
) -> None:
    value = encode(request)
    for (old, new), number in edits:
        pieces = value.split(old)
        place = number % len(pieces)
        head, tail = pieces[: place + 1], pieces[place + 1 :]
        if tail:
            value = old.join(head) + new + old.join(tail)
    event(f"fast: {takes_the_fast_way(request['run_id'].encode(), value)}")
