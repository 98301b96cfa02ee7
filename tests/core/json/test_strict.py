"""Strict JSON: the fast parser gives the verdict and the value of the definition, always."""

import json
import sys
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.core.json.canonical import canonical_json_by_rule
from pipeline.core.json.strict import InvalidJsonError, parse_by_rule, parse_object
from tests.builders import encode, run_request
from tests.json_values import json_objects, json_values

HOSTILE = {
    "empty": b"",
    "only spaces": b" \n\t\r",
    "a list": b"[1]",
    "a number": b"1",
    "null": b"null",
    "two objects": b"{}{}",
    "something after it": b'{"a":1} x',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "a comment": b'{"a":1/*x*/}',
    "single quotes": b"{'a':1}",
    "a trailing comma": b'{"a":1,}',
    "a trailing comma in a list": b'{"a":[1,]}',
    "a missing comma": b'{"a":1 "b":2}',
    "a key that is a number": b"{1:2}",
    "a key that is null": b"{null:2}",
    "NaN": b'{"a":NaN}',
    "-NaN": b'{"a":-NaN}',
    "Infinity": b'{"a":Infinity}',
    "-Infinity": b'{"a":[-Infinity]}',
    "1e400": b'{"a":1e400}',
    "-1e400": b'{"a":-1E+400}',
    "just above the largest double": b'{"a":1.7976931348623159e308}',
    "309 digits and a fraction": b'{"a":' + b"9" * 309 + b".0}",
    "an exponent of many digits": b'{"a":1e' + b"9" * 50 + b"}",
    "4,301 digits": b'{"a":' + b"1" * 4301 + b"}",
    "4,301 digits below zero": b'{"a":-' + b"1" * 4301 + b"}",
    "a leading zero": b'{"a":01}',
    "a plus": b'{"a":+1}',
    "a lone minus": b'{"a":-}',
    "no digit after the point": b'{"a":1.}',
    "no digit before the point": b'{"a":.5}',
    "hexadecimal": b'{"a":0x10}',
    "digits of another script": '{"a":\u0661}'.encode(),
    "a lone high surrogate": b'{"a":"\\ud800"}',
    "a lone low surrogate": b'{"a":"\\udc00"}',
    "surrogates the wrong way round": b'{"a":"\\udc00\\ud800"}',
    "a high surrogate and a letter": b'{"a":"\\ud800x"}',
    "a lone surrogate in a key": b'{"\\ud800":1}',
    "a lone surrogate in a nested list": b'{"a":[[["\\udfff"]]]}',
    "an encoded surrogate": b'{"a":"\xed\xa0\x80"}',
    "an overlong zero": b'{"a":"\xc0\x80"}',
    "half a character": b'{"a":"\xc3"}',
    "a byte that is never UTF-8": b'{"\xff":1}',
    "a raw newline in a text": b'{"a":"\n"}',
    "a raw NUL in a text": b'{"a":"\x00"}',
    "a raw tab in a key": b'{"a\t":1}',
    "a vertical tab between": b'{"a":\x0b1}',
    "a no-break space between": '{"a":\u00a01}'.encode(),
    "an unknown escape": b'{"a":"\\x41"}',
    "half an escape": b'{"a":"\\u00"}',
    "True": b'{"a":True}',
    "duplicate keys": b'{"a":1,"a":1}',
    "duplicate keys, other value": b'{"a":1,"a":2}',
    "duplicate keys far apart": b'{"a":1,"b":{"c":[1,2]},"a":3}',
    "duplicate keys deep inside": b'{"x":[{"y":{"a":1,"b":2,"a":1}}]}',
    "duplicate empty keys": b'{"":1,"":2}',
    "duplicate keys, one escaped": b'{"a":1,"\\u0061":2}',
    "duplicate keys, escaped in upper and lower case": b'{"\\u00e9":1,"\\u00E9":2}',
    "duplicate keys, one escaped slash": b'{"/":1,"\\/":2}',
    "duplicate keys outside the BMP": b'{"\\ud83e\\ude9a":1,"\xf0\x9f\xaa\x9a":2}',
    # The colon that the dropped member takes with it is made up by an escaped one.
    "duplicate keys with equal counts of colons": b'{"a":1,"a":"\\u003a"}',
    "duplicate keys with equal counts of colons in upper case": b'{"a":1,"a":"\\u003A"}',
    "duplicate colons as keys": b'{":":1,"\\u003a":2}',
    "duplicate quotes as keys": b'{"\\"":1,"\\u0022":2}',
    "duplicate keys beside a quoted text": b'{"a":"\\"","a":"\\u0022\\u0022\\u0022"}',
    "65 levels": b'{"a":' + b"[" * 64 + b"]" * 64 + b"}",
    "65 levels of objects": b'{"a":' * 64 + b"{}" + b"}" * 64,
    "65 levels, something in the last": b'{"a":' + b"[" * 64 + b"1" + b"]" * 64 + b"}",
    "levels that never close": b'{"a":' + b"[" * 100_000,
    "a string that never ends": b'{"a":"' + b"[" * 70,
    "a string that ends in an escape": b'{"a":"\\',
}

GOOD = {
    "an empty object": b"{}",
    "spaces of all four kinds": b' \t\r\n{ "a" :\n[ 1 , 2 ] } ',
    "4,300 digits": b'{"a":' + b"1" * 4300 + b"}",
    "4,300 digits below zero": b'{"a":-' + b"9" * 4300 + b"}",
    "2^64": b'{"a":18446744073709551616}',
    "minus zero": b'{"a":-0,"b":-0.0,"c":0e5,"d":-0E-5}',
    "zero with a huge exponent": b'{"a":0e99999999999999999999}',
    "a number too small": b'{"a":1e-400,"b":1e-99999999999999999999}',
    "the largest double": b'{"a":1.7976931348623157e308,"b":1.7976931348623158e308}',
    "a fraction of 100,000 digits": b'{"a":0.' + b"3" * 100_000 + b"}",
    "halfway between two doubles": b'{"a":9007199254740993.0,"b":1.00000000000000011102230246251}',
    "a pair of surrogates": b'{"a":"\\ud83e\\ude9a"}',
    "an escaped NUL": b'{"a":"\\u0000"}',
    "DEL as it is": b'{"a":"\x7f"}',
    "escaped quotes": b'{"\\u0022":"\\u0022","\\"\\"":1}',
    "an escaped backslash before u0022": b'{"a":"\\\\u0022"}',
    "one key at two places": b'{"a":{"a":1},"b":[{"a":1},{"a":1}]}',
    "composed and decomposed": '{"\u00e9":1,"e\u0301":2}'.encode(),
    "64 levels": b'{"a":' + b"[" * 63 + b"]" * 63 + b"}",
    "64 levels of objects": b'{"a":' * 63 + b"{}" + b"}" * 63,
    "64 levels, something in the last": b'{"a":' + b"[" * 63 + b"1" + b"]" * 63 + b"}",
    "many brackets in texts": b'{"a":"' + b"[{" * 200 + b'"}',
    "many brackets side by side": b'{"a":[' + b",".join([b"[]"] * 200) + b"]}",
    "an indent inside a text": b'{"a":[' + b"{}," * 80 + b'"\\n' + b" " * 200 + b'"]}',
}


def verdict(parse: Any, body: bytes) -> Any:
    try:
        return parse(body)
    except InvalidJsonError as error:
        return str(error)


def same_verdict(body: bytes) -> bool:
    """Whether both parsers agree; True where they take `body`."""
    by_rule = verdict(parse_by_rule, body)
    fast = verdict(parse_object, body)
    if isinstance(by_rule, str):
        assert fast == by_rule, body[:200]
        return False
    canonical = canonical_json_by_rule(by_rule)
    assert isinstance(fast, tuple), fast
    assert fast[1] == canonical, body[:200]
    # 1 == 1.0 == True in Python: bytes tell values apart, equality does not.
    assert canonical_json_by_rule(fast[0]) == canonical
    return True


def test_hostile_bytes_are_refused_by_both() -> None:
    assert [name for name, body in HOSTILE.items() if same_verdict(body)] == []


def test_unusual_but_strict_json_is_taken_by_both() -> None:
    assert [name for name, body in GOOD.items() if not same_verdict(body)] == []


@pytest.mark.parametrize("digits", [0, 640])
def test_verdicts_are_the_same_whatever_digits_python_may_convert(digits: int) -> None:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(digits)
    try:
        assert parse_object(GOOD["4,300 digits"])[1] == GOOD["4,300 digits"]
        assert parse_object(b'{"a":-' + b"7" * 641 + b"}")[1] == b'{"a":-' + b"7" * 641 + b"}"
        for parse in (parse_object, parse_by_rule):
            with pytest.raises(InvalidJsonError, match="4,300 digits"):
                parse(HOSTILE["4,301 digits"])
    finally:
        sys.set_int_max_str_digits(before)


def test_integers_keep_every_digit_and_minus_zero_is_zero() -> None:
    value, canonical = parse_object(b'{"b":18446744073709551617,"a":-0,"c":-0.0,"d":1E2}')
    assert canonical == b'{"a":0,"b":18446744073709551617,"c":-0.0,"d":100.0}'
    assert value["b"] == 18446744073709551617


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\xef\xbb\xbf{}", "expected no byte order mark"),
        (b'{"a":"\xff"}', "expected UTF-8, found something else at byte 6"),
        ('{"é":x}'.encode(), "expected JSON, found something else at byte 6"),
        (b"[]", "expected an object"),
        (b'{"a":1,"a":1}', "expected no duplicate keys in an object"),
        (b'{"a":"\\ud800"}', "expected no lone surrogate"),
        (b'{"a":-Infinity}', "expected a JSON number, found -Infinity"),
        (b'{"a":1e999}', "expected a number up to the largest double"),
        (b'{"a":' + b"1" * 4301 + b"}", "expected an integer of at most 4,300 digits"),
        (b'{"a":' + b"[" * 64 + b"]" * 64 + b"}", "expected at most 64 levels"),
    ],
)
def test_the_message_says_what_was_expected(body: bytes, message: str) -> None:
    assert verdict(parse_object, body) == message


@settings(max_examples=300)
@given(json_objects(), st.booleans(), st.sampled_from([None, 0, 3]))
def test_whatever_is_written_is_read_alike(value: Any, ascii_only: bool, indent: Any) -> None:
    assert same_verdict(json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode())


SNIPPETS = [
    b'"',
    b"\\",
    b"\\u003a",
    b"\\u003A",
    b"\\u003c",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\x00",
    b"\xff",
    b"1e400",
]
SNIPPETS += [
    b"NaN",
    b"\\ud800",
    b'"a":1,',
    b'"\\u0061":2,',
    b"-",
    b"0",
    b".",
    b"\xef\xbb\xbf",
    b" ",
]


@settings(max_examples=600)
@given(
    json_objects(),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 2), st.sampled_from(SNIPPETS))),
    st.booleans(),
)
@example({"a": 1}, [(1, 0, b'"a":1,')], False)
def test_both_agree_on_mutated_bytes(
    value: Any, mutations: list[tuple[int, int, bytes]], ascii_only: bool
) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    for position, removed, inserted in mutations:
        at = position % (len(body) + 1)
        body = body[:at] + inserted + body[at + removed :]
    same_verdict(body)


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.sampled_from(['"', "a", "\\", "b"]), json_values(3)), max_size=5),
    st.data(),
)
def test_both_agree_on_duplicate_keys_in_any_disguise(members: Any, data: st.DataObject) -> None:
    def spelled(key: str) -> str:
        plain = json.dumps(key)
        escaped = f'"\\u{ord(key):04x}"'
        return data.draw(st.sampled_from([plain, escaped, escaped.upper().replace("U", "u")]))

    body = "{" + ",".join(f"{spelled(key)}:{json.dumps(item)}" for key, item in members) + "}"
    keys = [key for key, _ in members]
    assert same_verdict(body.encode()) == (len(keys) == len(set(keys)))


OPENINGS = {
    "[": 0,
    '{"a":': 0,
    '{"b":1,"a":': 0,
    '[{},{},{},{"b":"},{"},': 1,
    '{"a":[{},{}],"b":': 2,
}
"""Each with the levels that it has below its own, beside what follows."""


@settings(max_examples=150)
@given(st.lists(st.sampled_from([*OPENINGS]), min_size=55, max_size=70))
def test_both_count_levels_alike(openings: list[str]) -> None:
    closings = ["]" if opening[0] == "[" else "}" for opening in reversed(openings)]
    inner = "" if openings[-1] == "[" else "0"
    body = '{"x":' + "".join(openings) + inner + "".join(closings) + "}"
    levels = max(at + OPENINGS[opening] for at, opening in enumerate(openings, 2))
    assert same_verdict(body.encode()) == (levels <= 64)


@settings(max_examples=300)
@given(
    st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
)
def test_both_read_every_number_alike(number: str) -> None:
    same_verdict(f'{{"a":{number}}}'.encode())


def test_every_cut_of_a_request_is_refused() -> None:
    body = encode(run_request())
    for end in range(0, len(body), 7):
        assert not same_verdict(body[:end])


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":"' + b'\\"' * 60_000,
        b'{"a":' + b"[" * 4_000_000,
        b'{"a":' + b"1" * 4_000_000 + b"}",
        b'{"a":1e' + b"1" * 4_000_000 + b"}",
        b'{"a":[' + b'"\\u0022",' * 400_000 + b"NaN]}",
    ],
    ids=["escaped quotes without an end", "brackets", "digits", "exponent", "quotes"],
)
def test_a_large_hostile_body_is_refused_in_no_time(body: bytes) -> None:
    began = time.process_time()
    with pytest.raises(InvalidJsonError):
        parse_object(body)
    # Tens of milliseconds; what grows with the square of the length takes half a minute or hours.
    assert time.process_time() - began < 3
