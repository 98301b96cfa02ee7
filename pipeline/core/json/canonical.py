"""Canonical JSON: the one way in which a value becomes bytes, for hashes and for files.

Keys sorted by code point, separators `,` and `:`, no ASCII escaping, UTF-8, no newline;
integers keep every digit, other numbers are written as Python's `repr`. The rule is the
standard library's `json.dumps` with those options; orjson is a faster way to the same bytes.
"""

import json
import re
from decimal import Decimal
from typing import Any

import orjson

FAST_OPTIONS = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
"""What makes orjson write canonical JSON, but for small numbers and large integers."""

# orjson writes numbers below 1e-4 in another form than repr. Only a number can stand alone or
# follow one of these separators like this; in a text the match costs time and changes nothing.
_SMALL_NUMBER = re.compile(rb"(?:^|[:\[,])-?(?:0\.0000[0-9]|[0-9](?:\.[0-9]+)?e-)")
# What every match has in it: a search that begins with a letter is thirty times as fast.
_EXPONENT = re.compile(rb"e-[0-9]")
_ZEROS = re.compile(rb"0\.0000[0-9]")


def canonical_json(value: Any) -> bytes:  # noqa: ANN401
    """Return the canonical bytes of `value`, which holds JSON types only.

    NaN and infinities must have been kept out when parsing: orjson writes them as null.

    Raises:
        TypeError: `value` holds something that JSON has not.
    """
    try:
        return canonical_json_of_small_integers(value)
    except TypeError:
        return canonical_json_by_rule(value)


def canonical_json_of_small_integers(value: Any) -> bytes:  # noqa: ANN401
    """Return the canonical bytes of `value`, whose integers fit in 64 bits.

    Raises:
        TypeError: An integer does not fit, or `value` holds something that JSON has not.
    """
    fast = orjson.dumps(value, option=FAST_OPTIONS)
    return canonical_json_by_rule(value) if has_small_number(fast) else fast


def canonical_json_of_integers(value: Any) -> bytes:  # noqa: ANN401
    """Return the canonical bytes of `value`, which has no other number than integers of 64 bits.

    Raises:
        TypeError: An integer does not fit, or `value` holds something that JSON has not.
    """
    return orjson.dumps(value, option=FAST_OPTIONS)


def has_small_number(fast: bytes) -> bool:
    """Return whether a number in what orjson wrote may be one that repr writes differently."""
    return (
        _EXPONENT.search(fast) is not None
        or (b"0.0000" in fast and _ZEROS.search(fast) is not None)
    ) and _SMALL_NUMBER.search(fast) is not None


def canonical_json_by_rule(value: Any) -> bytes:  # noqa: ANN401
    """Return the canonical bytes of `value` by the definition itself.

    Raises:
        TypeError: `value` holds something that JSON has not.
        ValueError: `value` holds NaN, an infinity or a lone surrogate.
    """
    try:
        text = json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
    except ValueError:
        # NaN, or an integer of more digits than Python is configured to write.
        text = _text_of_any_digits(value)
    return text.encode()


def _text_of_any_digits(value: Any) -> str:  # noqa: ANN401
    """Return the same text as the rule, whatever PYTHONINTMAXSTRDIGITS is."""
    if isinstance(value, dict):
        members = (
            f"{_text_of_any_digits(key)}:{_text_of_any_digits(item)}"
            for key, item in sorted(value.items())
        )
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_text_of_any_digits, value)) + "]"
    if isinstance(value, int) and not isinstance(value, bool):
        # Decimal is exact here, and has no limit of digits.
        return str(Decimal(value))
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
