"""Hypothesis strategies for JSON: any value that strict JSON can carry."""

from typing import Any

from hypothesis import strategies as st

# Keys and texts that have been confused before: code points around the surrogates, quotes,
# texts that look like numbers, and keys that two escapes spell alike.
_NASTY_TEXTS = st.sampled_from(
    [
        *("", '"', "\\", '\\"', "\x00", "\x1f", "\x7f", "é", "e\u0301", "\u2028"),
        *("\ue000", "\uffff", "\U00010000", "\U0010ffff"),
        *("0.0000", "1e-7", ":1e-7", ",0.00001", "{", "]", "\\u0022"),
    ]
)


def texts() -> st.SearchStrategy[str]:
    """Any text without a lone surrogate."""
    return _NASTY_TEXTS | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def numbers() -> st.SearchStrategy[float]:
    """Any number: integers of any size, finite doubles, many of them below 1e-4."""
    small = st.builds(
        lambda digits, exponent, sign: sign * digits * 10.0**exponent,
        st.floats(min_value=1, max_value=10),
        st.integers(min_value=-320, max_value=-3),
        st.sampled_from([1, -1]),
    )
    limits = st.sampled_from([2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1])
    doubles = st.floats(allow_nan=False, allow_infinity=False)
    return st.integers() | limits | st.integers(-(10**60), 10**60) | doubles | small


def json_values(max_leaves: int = 12) -> st.SearchStrategy[Any]:
    """Any JSON value."""
    return st.recursive(
        st.none() | st.booleans() | numbers() | texts(),
        lambda inner: st.lists(inner, max_size=4) | json_objects(inner),
        max_leaves=max_leaves,
    )


def json_objects(inner: st.SearchStrategy[Any] | None = None) -> st.SearchStrategy[dict[str, Any]]:
    """Any JSON object."""
    return st.dictionaries(texts(), json_values() if inner is None else inner, max_size=4)
