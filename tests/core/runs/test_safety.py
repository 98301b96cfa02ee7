"""The safety policy: the worst risk counts wherever it sits, and unsafe is never OK."""

from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.runs.safety import judge_safety, may_cut
from tests.json_values import json_values

FROM_BEST_TO_WORST = ["GREEN", "YELLOW", "UNKNOWN", "ERROR", "RED"]
MAYBE = [None, *FROM_BEST_TO_WORST]


def judge(
    feasibility: dict[str, Any],
    decision: dict[str, Any] | None = None,
    status: str | None = None,
    *,
    failed: bool = False,
) -> Any:
    return judge_safety(
        decision=decision, feasibility=feasibility, producer_status=status, producer_failed=failed
    )


def worst(levels: Any) -> str:
    found = [level for level in levels if level is not None]
    return max(found, key=FROM_BEST_TO_WORST.index) if found else "UNKNOWN"


@pytest.mark.parametrize("in_decision", MAYBE)
def test_the_worst_risk_wins_wherever_it_sits(in_decision: str | None) -> None:
    for top, bucket, inner, safety in product(MAYBE, repeat=4):
        feasibility = {
            "risk_level": top,
            "risk_bucket": bucket,
            "decision": {"risk_level": inner},
            "safety": {"risk_bucket": safety},
        }
        decision = None if in_decision is None else {"risk_level": in_decision}
        judgement = judge(feasibility, decision)
        expected = worst([in_decision, top, bucket, inner, safety])
        assert judgement.decision["risk_level"] == expected
        assert (judgement.status == "OK") == (expected in {"GREEN", "YELLOW"})


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"score": 7}, {"score": 7}),
        ({"block_reason": "why"}, {"block_reason": "why"}),
        ({"blocking_reasons": ["a", "b"]}, {"block_reason": "a; b"}),
        ({"warnings": ["w"]}, {"warnings": ["w"]}),
        ({"blocking": True}, {"block_reason": "FEASIBILITY_BLOCKING"}),
    ],
)
@pytest.mark.parametrize("place", ["decision", "safety"])
def test_a_place_that_names_no_risk_is_read_all_the_same(
    place: str, said: dict[str, Any], found: dict[str, Any]
) -> None:
    judgement = judge({"risk_level": "GREEN", place: said})
    assert judgement.decision == {"risk_level": "GREEN", **found}
    assert judgement.is_ok == ("blocking" not in said)


def test_what_the_producer_says_only_makes_it_stricter() -> None:
    said = product([None, "OK", "BLOCKED", "ERROR"], [False, True], [False, True])
    for risk, (status, failed, blocking) in product(FROM_BEST_TO_WORST, said):
        judgement = judge({"risk_level": risk, "blocking": blocking}, None, status, failed=failed)
        if risk not in {"GREEN", "YELLOW"}:
            expected = ("BLOCKED", f"RISK_{risk}")
        elif status == "BLOCKED":
            expected = ("BLOCKED", "PRODUCER_BLOCKED")
        elif blocking:
            expected = ("BLOCKED", "FEASIBILITY_BLOCKING")
        elif status == "ERROR" or failed:
            expected = ("ERROR", "PRODUCER_ERROR")
        else:
            expected = ("OK", None)
        case = (risk, status, failed, blocking)
        assert (judgement.status, judgement.decision.get("block_reason")) == expected, case
        assert judgement.decision["risk_level"] == risk, case


@pytest.mark.parametrize("place", ["top", "decision", "safety"])
def test_blocking_counts_in_each_free_form_place_and_only_as_true(place: str) -> None:
    for value in (True, False, None, "true", 1, [True]):
        inner = {"risk_level": "GREEN", "blocking": value}
        feasibility = inner if place == "top" else {place: inner}
        assert (judge(feasibility).status == "BLOCKED") == (value is True)


@pytest.mark.parametrize("value", [" green ", "Green", "green\n", "\tGREEN"])
def test_a_risk_is_read_stripped_and_in_any_case(value: str) -> None:
    assert judge({"risk_level": value}).decision["risk_level"] == "GREEN"
    assert judge({"risk_bucket": value}).decision["risk_level"] == "GREEN"


def test_any_other_value_in_a_free_form_place_is_unknown() -> None:
    values = ["", "LOW", "GREEN!", "GR EEN", "grün", 1, 0, True, False, [], ["GREEN"], {}]
    for place, key in product(["top", "decision", "safety"], ["risk_level", "risk_bucket"]):
        for value in values:
            inner = {"risk_level": "GREEN", "risk_bucket": "GREEN", key: value}
            feasibility = inner if place == "top" else {"risk_level": "GREEN", place: inner}
            judgement = judge(feasibility)
            found = (judgement.status, judgement.decision["risk_level"])
            assert found == ("BLOCKED", "UNKNOWN"), (place, key, value)


def test_null_is_not_there_and_none_at_all_is_unknown() -> None:
    assert judge({"risk_level": None, "risk_bucket": "YELLOW"}).decision["risk_level"] == "YELLOW"
    nothing = judge({"risk_level": None, "safety": {"risk_level": None}, "score": 99}, {})
    assert nothing.status == "BLOCKED"
    assert nothing.decision == {
        "risk_level": "UNKNOWN",
        "score": 99,
        "block_reason": "RISK_UNKNOWN",
    }


def test_a_risk_elsewhere_is_not_looked_at() -> None:
    feasibility = {"risk_level": "GREEN", "details": {"risk_level": "RED"}, "Safety": {}}
    feasibility |= {"decision": {"safety": {"risk_level": "RED"}}, "safety": [{"risk": "RED"}]}
    assert judge(feasibility).status == "OK"


def test_a_risk_bucket_in_the_decision_is_not_looked_at() -> None:
    assert judge({"risk_level": "GREEN"}, {"risk_bucket": "RED"}).status == "OK"


def test_the_first_place_that_holds_the_worst_risk_speaks() -> None:
    judgement = judge(
        {
            "risk_level": "GREEN",
            "score": 90,
            "warnings": ["top"],
            "decision": {"risk_level": "RED", "score": 12.5, "block_reason": "inner"},
            "safety": {"risk_level": "RED", "score": 1, "block_reason": "x", "warnings": ["s"]},
        },
        {"risk_level": "YELLOW", "score": 50, "block_reason": "mine", "warnings": ["mine"]},
    )
    assert judgement.decision == {
        "risk_level": "RED",
        "score": 12.5,
        "block_reason": "inner",
        "warnings": ["s"],
    }


def test_the_other_places_follow_in_their_order() -> None:
    judgement = judge(
        {"score": 70, "warnings": ["top"], "safety": {"risk_level": "RED"}},
        {"risk_level": "GREEN", "block_reason": "mine", "details": {"rule": 7}},
    )
    assert judgement.decision == {
        "risk_level": "RED",
        "score": 70,
        "block_reason": "mine",
        "warnings": ["top"],
        "details": {"rule": 7},
    }


def test_reasons_are_joined_where_there_is_no_reason() -> None:
    reasons = {"risk_level": "RED", "blocking_reasons": ["too deep", "too fast"]}
    assert judge(reasons).decision["block_reason"] == "too deep; too fast"
    assert judge(reasons | {"block_reason": "deep"}).decision["block_reason"] == "deep"
    assert judge(reasons | {"block_reason": ""}).decision["block_reason"] == "too deep; too fast"
    assert judge(reasons | {"block_reason": None}).decision["block_reason"] == "too deep; too fast"
    assert judge({"risk_level": "RED", "blocking_reasons": []}).decision["block_reason"] == (
        "RISK_RED"
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("score", -0.1),
        ("score", 100.1),
        ("score", "50"),
        ("score", True),
        ("score", 10**400),
        ("score", [50]),
        ("block_reason", 7),
        ("block_reason", "x" * 20_001),
        ("blocking_reasons", "one text"),
        ("blocking_reasons", ["one", 2]),
        ("blocking_reasons", ["x" * 20_000, "y"]),
        ("warnings", "one text"),
        ("warnings", [None]),
        ("warnings", ["x" * 20_001]),
        ("warnings", {"a": "b"}),
    ],
)
def test_what_does_not_fit_the_decision_is_passed_over(field: str, value: object) -> None:
    fitting = {"score": 3, "block_reason": "fits", "warnings": ["fits"]}
    judgement = judge({"risk_level": "RED", field: value, "safety": fitting})
    assert judgement.decision == {"risk_level": "RED"} | fitting


@pytest.mark.parametrize("score", [0, 100, 0.0, 100.0, 62.5])
def test_a_score_in_range_is_kept_as_it_was_written(score: float) -> None:
    kept = judge({"risk_level": "GREEN", "score": score}).decision["score"]
    assert (kept, type(kept)) == (score, type(score))


def test_a_machine_may_cut_only_by_a_run_that_is_ok_safe_and_no_history() -> None:
    every = product(["OK", "BLOCKED", "ERROR"], FROM_BEST_TO_WORST, [False, True])
    allowed = [
        each for each in every if may_cut(status=each[0], risk_level=each[1], legacy=each[2])
    ]
    assert allowed == [("OK", "GREEN", False), ("OK", "YELLOW", False)]


RISKS = st.sampled_from([*FROM_BEST_TO_WORST, "green", "?", None, 3])
FREE_FORM = st.fixed_dictionaries(
    {},
    optional={
        "risk_level": RISKS,
        "risk_bucket": RISKS,
        "blocking": st.booleans(),
        "score": json_values(2),
        "warnings": json_values(2),
        "block_reason": json_values(2),
        "blocking_reasons": json_values(2),
    },
)


@settings(max_examples=250)
@given(FREE_FORM, FREE_FORM | json_values(2), FREE_FORM | json_values(2))
def test_ok_is_never_said_of_what_is_unsafe(top: Any, inner: Any, safety: Any) -> None:
    judgement = judge(top | {"decision": inner, "safety": safety})
    assert (judgement.status == "OK") <= (judgement.decision["risk_level"] in {"GREEN", "YELLOW"})
    assert None not in judgement.decision.values()
    if judgement.status != "OK":
        assert judgement.decision["block_reason"]


@pytest.mark.parametrize("place", ["decision", "safety"])
@pytest.mark.parametrize("text", ["RED", " red ", "UNKNOWN", "ERROR"])
def test_an_unsafe_risk_as_a_bare_text_is_not_passed_over(place: str, text: str) -> None:
    judgement = judge({"risk_level": "GREEN", place: text})
    assert judgement.decision["risk_level"] == text.strip().upper()
    assert judgement.status == "BLOCKED"


@pytest.mark.parametrize("place", ["decision", "safety"])
@pytest.mark.parametrize("other", ["GREEN", "ALLOWED", 1, True, ["RED"]])
def test_a_place_that_is_no_object_makes_nothing_ok(place: str, other: object) -> None:
    assert judge({place: other}).decision["risk_level"] == "UNKNOWN"
    assert judge({"risk_level": "YELLOW", place: other}).decision["risk_level"] == "YELLOW"
