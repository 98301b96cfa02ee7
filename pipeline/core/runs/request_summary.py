"""The request as an artifact shows it: without verdicts or secrets, and of bounded width."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pipeline.core.json.canonical import canonical_json

ITEM_LIMIT = 200
"""Longest list, and widest object below the top, that is shown."""

TOP_LEVEL_KEY_LIMIT = 80

_CLIENT_VERDICTS = frozenset({"feasibility", "safety"})
_SECRET_KEY = re.compile(r"passw(or)?d|token|secret|api[_-]?key|credential", re.IGNORECASE)
_REDACTED = "[redacted]"

# One of these stands in the canonical bytes of every request whose first step changes something,
# unless a letter outside ASCII folds to one of theirs.
_SIGNS = (b"passw", b"token", b"secret", b"api", b"credential", b'"feasibility"', b'"safety"')


@dataclass(frozen=True, slots=True)
class RequestSummary:
    """What is shown of a request.

    Attributes:
        shown: The summary itself.
        complete: The request before anything was shortened, without verdicts and secrets;
            None where `shown` is all of it.
    """

    shown: dict[str, Any]
    complete: dict[str, Any] | None


def summarise_request(request: dict[str, Any]) -> RequestSummary:
    """Return the summary of a free-form `request`.

    First the keys `feasibility` and `safety` go, at every depth: only the server's evaluation
    counts. Then values under keys that name a secret are redacted. Then wide lists and objects
    are replaced by their length, and the top is cut to its first keys in sorted order.
    """
    content = canonical_json(request)
    complete = _without_verdicts_and_secrets(request) if _may_hold_some(content) else request
    # A list of 201 elements has 200 commas of its own.
    if len(complete) <= TOP_LEVEL_KEY_LIMIT and content.count(b",") < ITEM_LIMIT:
        return RequestSummary(complete, None)
    shown = {key: _shortened(complete[key]) for key in sorted(complete)[:TOP_LEVEL_KEY_LIMIT]}
    return RequestSummary(shown, None if _is_all_of(shown, complete) else complete)


def _may_hold_some(content: bytes) -> bool:
    folded = content.lower()
    return not content.isascii() or any(sign in folded for sign in _SIGNS)


def _is_all_of(shown: dict[str, Any], complete: dict[str, Any]) -> bool:
    # A part that needed no shortening is the very same object.
    return len(shown) == len(complete) and all(
        shown[key] is value for key, value in complete.items()
    )


@lru_cache(maxsize=4096)
def _names_secret(key: str) -> bool:
    return _SECRET_KEY.search(key) is not None


def _without_verdicts_and_secrets(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return {
            key: _REDACTED if _names_secret(key) else _without_verdicts_and_secrets(item)
            for key, item in value.items()
            if key not in _CLIENT_VERDICTS
        }
    if isinstance(value, list):
        return [_without_verdicts_and_secrets(item) for item in value]
    return value


def _shortened(value: Any) -> Any:  # noqa: ANN401
    """Return `value` with wide parts replaced by their length; itself where nothing is wide."""
    if isinstance(value, dict):
        if len(value) > ITEM_LIMIT:
            return {"type": "dict", "len": len(value)}
        items = {key: _shortened(item) for key, item in value.items()}
        return value if all(items[key] is item for key, item in value.items()) else items
    if isinstance(value, list):
        if len(value) > ITEM_LIMIT:
            return {"type": "list", "len": len(value)}
        elements = [_shortened(item) for item in value]
        same = all(new is old for new, old in zip(elements, value, strict=True))
        return value if same else elements
    return value
