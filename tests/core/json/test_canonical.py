"""Canonical JSON: the fast way gives the bytes of the rule, for any JSON there is."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.core.json.canonical import (
    canonical_json,
    canonical_json_by_rule,
    canonical_json_of_small_integers,
)
from tests.json_values import json_values, numbers


def rule(value: Any) -> bytes:
    """The definition as DESIGN and the test vectors state it, apart from our own code."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


@pytest.fixture
def few_digits() -> Iterator[None]:
    """Python that converts no integer above 640 digits, as PYTHONINTMAXSTRDIGITS can ask for."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    yield
    sys.set_int_max_str_digits(before)


@settings(max_examples=400)
@given(json_values())
@example(1e-05)
@example(-1e-07)
@example([9.9e-05, 1e-4, 1e16, 1e22, 5e-324, 1.7976931348623157e308])
@example({"-": -0.0, "0": 0.0})
@example({"0.0000": "0.00001", "e-": ["1e-7", ":1e-7"]})
@example([2**63, -(2**63) - 1, 10**4299])
@example({"\U00010000": 1, "\ue000": 2, "\uffff": 3, "\x7f": 4, "\u2028": 5})
def test_the_fast_way_gives_the_bytes_of_the_rule(value: Any) -> None:
    assert canonical_json(value) == rule(value) == canonical_json_by_rule(value)


@settings(max_examples=400)
@given(numbers())
def test_numbers_that_stand_alone_are_written_by_the_rule(value: float) -> None:
    assert canonical_json(value) == rule(value) == repr(value).encode()


@settings(max_examples=200)
@given(json_values())
def test_reading_canonical_bytes_and_writing_them_again_changes_nothing(value: Any) -> None:
    written = canonical_json(value)
    assert canonical_json(json.loads(written)) == written


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": {"d": [], "c": {}}}, '{"a":{"c":{},"d":[]},"b":1}'),
        ({"feed": 100.0, "tolerance": 1e-05}, '{"feed":100.0,"tolerance":1e-05}'),
        ({"é": "è\u2028\x7f/"}, '{"é":"è\u2028\x7f/"}'),
        ('"\\\b\f\n\r\t\x00\x1f', r'"\"\\\b\f\n\r\t\u0000\u001f"'),
        ([True, False, None], "[true,false,null]"),
        ({"\U00010000": 1, "\uffff": 2}, '{"\uffff":2,"\U00010000":1}'),
        (-0.0, "-0.0"),
        (12345678901234567890123, "12345678901234567890123"),
    ],
)
def test_the_bytes_are_those_that_the_rule_spells_out(value: Any, text: str) -> None:
    assert canonical_json(value) == text.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")]])
def test_the_rule_has_no_bytes_for_what_is_no_number(value: Any) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json_by_rule(value)


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", object(), {"a": {3}}])
def test_what_json_has_not_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        canonical_json(value)


def test_an_integer_above_64_bits_is_not_for_the_fast_way_alone() -> None:
    with pytest.raises(TypeError):
        canonical_json_of_small_integers({"a": 2**64})


@pytest.mark.usefixtures("few_digits")
def test_an_integer_of_many_digits_is_written_whatever_the_limit_of_python() -> None:
    value = {"z": [10**4299, True, None, 1e-05, "é"], "a": {"\U00010000": -(10**700), "\uffff": 1}}
    digits = b"1" + b"0" * 4299
    expected = b'{"a":{"\xef\xbf\xbf":1,"\xf0\x90\x80\x80":-1' + b"0" * 700
    expected += b'},"z":[' + digits + ',true,null,1e-05,"é"]}'.encode()
    assert canonical_json(value) == expected


@settings(max_examples=100)
@given(json_values(), st.integers(min_value=10**640))
def test_many_digits_change_nothing_of_what_lies_around_them(value: Any, large: int) -> None:
    both = {"value": value, "large": large}
    expected = rule(both)
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        assert canonical_json(both) == expected
    finally:
        sys.set_int_max_str_digits(before)
