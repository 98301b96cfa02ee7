"""What is wrong with a request, in our own closed set of codes and texts.

They are written into artifacts, so they must not change with the library that finds them.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from pipeline.core.bounded_document import bounded_document

VIOLATION_LIMIT = 50
"""Most violations that an artifact lists."""

REASON_PATH_LIMIT = 10
"""Most field paths that a block_reason names."""

PATH_LIMIT_CHARACTERS = 200
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")

REASONS = {
    "MISSING": "required, and not there",
    "UNKNOWN_FIELD": "not a field of this schema version",
    "WRONG_TYPE": "of another JSON type than the schema says",
    "BAD_FORMAT": "not of the form that the schema says",
    "BAD_LENGTH": "too long, too short or empty",
    "OUT_OF_RANGE": "outside the range that the schema says",
    "NOT_ALLOWED": "not one of the values that the schema names",
    "HASH_MISMATCH": "not the SHA-256 of the content that came with it",
    "SIZE_MISMATCH": "not the size of the content that came with it",
    "BAD_BASE64": "not padded base64 of RFC 4648 section 4",
}
"""Every code, with its text."""

_CODES = {
    "missing": "MISSING",
    "extra_forbidden": "UNKNOWN_FIELD",
    "string_pattern_mismatch": "BAD_FORMAT",
    "value_error": "BAD_FORMAT",
    "string_too_long": "BAD_LENGTH",
    "string_too_short": "BAD_LENGTH",
    "too_short": "BAD_LENGTH",
    "too_long": "BAD_LENGTH",
    "greater_than_equal": "OUT_OF_RANGE",
    "less_than_equal": "OUT_OF_RANGE",
    "literal_error": "NOT_ALLOWED",
}


@dataclass(frozen=True, slots=True, order=True)
class Violation:
    """One fault of one field.

    Attributes:
        field: Dotted path, lists by index, cut to 200 characters.
        code: One of `REASONS`.
        top: The top-level field that is dropped because of it.
    """

    field: str
    code: str
    top: str

    def as_json(self) -> dict[str, str]:
        """Return the violation as an artifact lists it."""
        return {"field": self.field, "code": self.code, "reason": REASONS[self.code]}


def violation_at(path: Iterable[str | int], code: str) -> Violation:
    """Return a violation of `code` at `path`."""
    parts = [str(part) for part in path]
    field = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", ".".join(parts))
    return Violation(field[:PATH_LIMIT_CHARACTERS], code, parts[0])


def shape_violations(document: dict[str, Any], shape: type[BaseModel]) -> list[Violation]:
    """Return what `shape` finds wrong with `document`, which has been parsed strictly."""
    try:
        shape.model_validate(bounded_document(document, shape))
    except ValidationError as error:
        return [
            violation_at(found["loc"], _code_of(found["type"], found["input"]))
            for found in error.errors(include_url=False, include_context=False)
        ]
    return []


def _code_of(kind: str, value: object) -> str:
    code = _CODES.get(kind, "WRONG_TYPE")
    # Null is the same as leaving a field out; that does not make a field known.
    return "MISSING" if value is None and code != "UNKNOWN_FIELD" else code


def decision_on_violations(violations: list[Violation]) -> dict[str, Any]:
    """Return the decision of an incomplete request: risk ERROR, and what was wrong."""
    ordered = sorted(set(violations))
    paths = list(dict.fromkeys(violation.field for violation in ordered))
    return {
        "risk_level": "ERROR",
        "block_reason": "INCOMPLETE_REQUEST: " + ", ".join(paths[:REASON_PATH_LIMIT]),
        "details": {"violations": [found.as_json() for found in ordered[:VIOLATION_LIMIT]]},
    }
