"""Strict JSON in: one object, or a reason why not.

RFC 8259, and stricter where readers disagree: no duplicate keys, no NaN or infinity, no number
beyond the largest double, no integer of more than 4,300 digits, no lone surrogate, no byte
order mark, at most 64 levels.

`parse_by_rule` is the definition, on the standard library's parser. `parse_object` gives the
same verdict faster: msgspec refuses most of what the rule refuses, and what msgspec or the
cheap checks after it cannot decide goes to the rule.
"""

import json
import re
from decimal import Decimal
from typing import Any, NoReturn

import msgspec
import orjson

from pipeline.core.json.canonical import canonical_json, canonical_json_of_small_integers

LEVEL_LIMIT = 64
INTEGER_LIMIT_DIGITS = 4300

_decode = msgspec.json.Decoder().decode
_SURROGATE = re.compile("[\ud800-\udfff]")
_LEVEL_LIMIT_INDENT = b"\n" + b"  " * LEVEL_LIMIT


class InvalidJsonError(ValueError):
    """The bytes are not strict JSON; its text names what was found.

    Attributes:
        at_byte: Where, if it is one place.
    """

    def __init__(self, message: str, at_byte: int | None = None) -> None:
        super().__init__(message if at_byte is None else f"{message} at byte {at_byte}")
        self.at_byte = at_byte

    @property
    def sentence(self) -> str:
        """Its text as a sentence, for an error of its own."""
        text = str(self)
        return f"{text[0].upper()}{text[1:]}."


def parse_object(body: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the object that `body` holds and its canonical bytes.

    Raises:
        InvalidJsonError: `body` is not one object in strict JSON.
    """
    try:
        value = _decode(body)
        canonical = canonical_json_of_small_integers(value)
    except (ValueError, TypeError, RecursionError):
        # Refused, or an integer above 64 bits, or very deep: the rule decides.
        return _parse_slowly(body)
    if (
        not isinstance(value, dict)
        or may_lack_members(body, canonical)
        or is_deep(value, canonical)
    ):
        return _parse_slowly(body)
    return value, canonical


def _parse_slowly(body: bytes) -> tuple[dict[str, Any], bytes]:
    value = parse_by_rule(body)
    return value, canonical_json(value)


def may_lack_members(body: bytes, canonical: bytes) -> bool:
    """Return whether a member can have been dropped between `body` and the bytes of its value.

    A dropped member takes the colon after its key with it. Both texts write a colon inside a
    string as one colon, unless `body` writes it as an escaped number.
    """
    return body.count(b":") != canonical.count(b":") or (
        # Some encoders escape the neighbours of the colon, < and >: they need one search.
        b"\\u003" in body and (b"\\u003a" in body or b"\\u003A" in body)
    )


def is_deep(value: dict[str, Any], canonical: bytes) -> bool:
    """Return whether an object has too many levels.

    Args:
        value: The object.
        canonical: Its canonical bytes, or those of parts that have all but its first two levels.
    """
    opened = canonical.count(b"{") + canonical.count(b"[") + 2
    # An object behind another in a list is on the level of that one, in a text it is on none.
    if opened <= LEVEL_LIMIT or opened - canonical.count(b"},{") <= LEVEL_LIMIT:
        return False
    # A line break inside a string is escaped, so an indent of this depth is one of nesting.
    return _LEVEL_LIMIT_INDENT in orjson.dumps(value, option=orjson.OPT_INDENT_2)


def parse_by_rule(body: bytes) -> dict[str, Any]:
    """Return the object that `body` holds, by the definition itself.

    Raises:
        InvalidJsonError: `body` is not one object in strict JSON.
    """
    text = _decode_text(body)
    if _nesting(text) > LEVEL_LIMIT:
        raise InvalidJsonError(f"expected at most {LEVEL_LIMIT} levels")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object_without_repeats,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
            parse_int=_bounded_int,
        )
    except json.JSONDecodeError as error:
        raise InvalidJsonError(
            "expected JSON, found something else", len(text[: error.pos].encode())
        ) from error
    if not isinstance(value, dict):
        raise InvalidJsonError("expected an object")
    return value


def _decode_text(body: bytes) -> str:
    if body.startswith(b"\xef\xbb\xbf"):
        raise InvalidJsonError("expected no byte order mark")
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise InvalidJsonError("expected UTF-8, found something else", error.start) from error


# A string that never ends matches too: refused at each of its quotes, it would take hours.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_NOT_BRACKET = re.compile(r"[^\[\]{}]+")


def _nesting(text: str) -> int:
    """Return the depth of brackets outside strings, at most one above the limit."""
    deepest = depth = 0
    for bracket in _NOT_BRACKET.sub("", _STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
        if deepest > LEVEL_LIMIT:
            break
    return deepest


def _object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise InvalidJsonError("expected no duplicate keys in an object")
    for key, item in pairs:
        _refuse_surrogates(key)
        _refuse_surrogates_inside(item)
    return value


def _refuse_surrogates_inside(item: Any) -> None:  # noqa: ANN401
    # Objects have been through the hook already.
    if isinstance(item, str):
        _refuse_surrogates(item)
    elif isinstance(item, list):
        for element in item:
            _refuse_surrogates_inside(element)


def _refuse_surrogates(text: str) -> None:
    if _SURROGATE.search(text):
        raise InvalidJsonError("expected no lone surrogate")


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidJsonError(f"expected a JSON number, found {name}")


def _finite_float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise InvalidJsonError("expected a number up to the largest double")
    return value


def _bounded_int(text: str) -> int:
    if len(text.removeprefix("-")) > INTEGER_LIMIT_DIGITS:
        raise InvalidJsonError(f"expected an integer of at most {INTEGER_LIMIT_DIGITS:,} digits")
    # int(text) would obey PYTHONINTMAXSTRDIGITS, and a verdict must not depend on that.
    return int(Decimal(text))
