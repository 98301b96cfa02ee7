"""However many violations a request holds, looking for them has a bound."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.violations import bounded_document, shape_violations
from schemas.run_request import RunRequest
from tests.builders import attachment, document, incomplete_request, run_request


def bounded(request: dict[str, Any]) -> dict[str, Any]:
    return bounded_document(request, RunRequest)


@pytest.mark.parametrize(
    "request_",
    [
        run_request(),
        incomplete_request(attachments=[attachment(), {}, 5], decision={"x": 1}),
        run_request(errors=[1] * 1000, attachments=[{}] * 1000),
        run_request(errors=["fine"] * 5000 + [1]),
        run_request(outputs={f"x{number}": 1 for number in range(50)}),
        run_request(errors="no list", attachments={}, decision=[], outputs=None),
    ],
)
def test_a_request_within_the_bounds_comes_back_as_it_is(request_: dict[str, Any]) -> None:
    assert bounded(request_) == request_


def test_only_the_first_thousand_wrong_elements_of_a_list_are_looked_at() -> None:
    request = run_request(
        errors=["fine", *[1] * 1000, "not looked at"],
        attachments=[{}] * 1001,
        decision={"warnings": [None] * 1001},
    )
    cut = bounded(request)
    assert cut["errors"] == ["fine", *[1] * 1000]
    assert cut["attachments"] == [{}] * 1000
    assert cut["decision"] == {"warnings": [None] * 1000}
    assert cut["outputs"] == request["outputs"]


def test_only_the_first_fifty_unknown_fields_of_an_object_are_looked_at() -> None:
    unknown = {f"x{number:02}": 1 for number in reversed(range(60))}
    first = {f"x{number:02}" for number in range(50)}
    cut = bounded(run_request(**unknown, error=unknown, attachments=[attachment() | unknown]))
    assert cut.keys() == run_request().keys() | first | {"error", "attachments"}
    assert cut["error"].keys() == first
    assert cut["attachments"][0].keys() == attachment().keys() | first


FIELDS = st.dictionaries(
    st.sampled_from(["sha256", "kind", "x", "score", "warnings", "gcode_text"])
    | st.text(max_size=2),
    st.sampled_from([1, "a", None, [], {}, ["a", 2]]),
    max_size=4,
)


@settings(max_examples=100)
@given(FIELDS, FIELDS, st.lists(FIELDS | st.just(1), max_size=3), st.integers(0, 80))
def test_what_is_left_is_wrong_exactly_where_the_request_is(
    decision: Any, outputs: Any, attachments: Any, unknown: int
) -> None:
    request = run_request(decision=decision, outputs=outputs, attachments=attachments)
    request |= {f"x{number:02}": 1 for number in range(unknown)}
    before = {violation.top for violation in whole(request)}
    after = {violation.top for violation in shape_violations(request, RunRequest)}
    assert after <= before
    assert {top for top in before if top in RunRequest.model_fields} <= after
    assert sorted(shape_violations(request, RunRequest))[:50] == sorted(whole(request))[:50]


def whole(request: dict[str, Any]) -> list[Any]:
    """Every violation, found a few fields at a time so that no bound is met."""
    known = {name: value for name, value in request.items() if name in RunRequest.model_fields}
    found = shape_violations(known, RunRequest)
    for name in request.keys() - known.keys():
        found += [
            violation
            for violation in shape_violations(known | {name: request[name]}, RunRequest)
            if violation.top == name
        ]
    return found


@pytest.mark.parametrize(
    "changes",
    [
        lambda: {"attachments": [{}] * 1_300_000},
        lambda: {"errors": [1] * 2_000_000},
        lambda: {"decision": {"warnings": [[]] * 1_300_000}},
        lambda: {f"x{number}": 1 for number in range(350_000)},
        lambda: {"attachments": [{f"x{number}": 1 for number in range(350_000)}]},
    ],
    ids=["attachments", "errors", "warnings", "unknown fields", "unknown fields of one"],
)
def test_a_large_request_full_of_faults_is_judged_in_no_time(
    changes: Callable[[], dict[str, Any]],
) -> None:
    request = run_request(**changes())
    began = time.process_time()
    shape_violations(request, RunRequest)
    # Tenths of a second; finding all of them took up to two minutes and 9 GiB.
    assert time.process_time() - began < 5


def test_a_list_full_of_faults_still_names_the_first_fifty() -> None:
    decision = document(run_request(errors=[1] * 5000))["decision"]
    assert len(decision["details"]["violations"]) == 50
    assert decision["block_reason"].startswith("INCOMPLETE_REQUEST: errors.0, errors.1, errors.10")
