"""The text of a v1 store: what v1 wrote is read, and written again to the same bytes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.json.strict import InvalidJsonError
from pipeline.legacy.v1.text import format_row, format_rows, parse_row, parse_rows

FIELDS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
STORES = st.dictionaries(TEXT, st.dictionaries(TEXT, FIELDS, max_size=4), max_size=4)


def as_v1_wrote(runs: dict[str, Any]) -> bytes:
    return json.dumps(runs, indent=2, sort_keys=True).encode()


@given(STORES)
def test_what_v1_wrote_is_written_again_to_the_same_bytes(runs: dict[str, Any]) -> None:
    body = as_v1_wrote(runs)
    rows = parse_rows(body)
    assert format_rows({row.run_id: row.text for row in rows}) == body
    assert format_rows({row.run_id: format_row(row.value()) for row in rows}) == body
    assert {row.run_id: row.value() for row in rows} == runs


def test_a_row_reports_its_place_and_keeps_its_text() -> None:
    rows = parse_rows(b'{\n "b": {"x": 1.10,\n\n "y": 12345678901234567890123},\n "a"  :{} }\n')
    assert [(row.run_id, row.line) for row in rows] == [("b", 2), ("a", 5)]
    assert rows[0].text == '{"x": 1.10,\n\n "y": 12345678901234567890123}'
    assert rows[0].value() == {"x": 1.1, "y": 12345678901234567890123}


def test_a_row_is_added_without_a_byte_of_another_changed() -> None:
    by_hand = '{"x":1.10,  "name": "Ahorn ä"}'
    written = format_rows({"run_b": by_hand, "run_a": format_row({"k": [1]})})
    assert by_hand.encode() in written
    assert json.loads(written) == {"run_a": {"k": [1]}, "run_b": {"x": 1.1, "name": "Ahorn ä"}}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "an empty file"),
        (b"[]", "expected '{', found something else at line 1, byte 0"),
        (b'{\n  "a": {', "the end of the file at line 2, byte 10"),
        (b'{"a": {}', "expected '}', found the end of the file"),
        (b'{"a": {}}\n{}', "expected the end of the file, found something else at line 2, byte 10"),
        (b'{"\xc3\xa4": nul}', "Expecting value\\), found something else at line 1, byte 7"),
        (b'{"a": {},}', "byte 9"),
        (b"{1: {}}", "expected a run_id"),
        (b'{"a": {}, "b": {},\n "a": {}}', "once, found that of line 1 again at line 2, byte 20"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{\n"a": "\xff"}', "expected UTF-8, found something else at line 2, byte 8"),
        (b'{"a": ' + b"[" * 100_000, "fewer levels"),
    ],
)
def test_a_file_that_v1_cannot_have_finished_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(InvalidJsonError, match=message.replace("[", r"\[")):
        parse_rows(body)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"score": NaN}', "a JSON number, found NaN, in the row at line 3"),
        ('{"a": 1, "a": 2}', "duplicate keys"),
        ('{"a": "\\ud800"}', "lone surrogate"),
        ('{"a": 1e999}', "largest double"),
        ("[]", "expected an object"),
        ("null", "expected an object"),
        ('{"a":' + "[" * 64 + "]" * 64 + "}", "64 levels"),
    ],
)
def test_what_is_wrong_in_one_row_concerns_no_other(text: str, message: str) -> None:
    good, bad = parse_rows(f'{{\n"good": {{"x": 1}},\n"bad": {text}}}'.encode())
    assert good.value() == {"x": 1}
    assert bad.text == text
    with pytest.raises(InvalidJsonError, match=message):
        bad.value()
    with pytest.raises(InvalidJsonError):
        parse_row(text)
