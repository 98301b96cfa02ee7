"""Violations of a request, in our own closed set of codes and texts.

They are written into artifacts, so they must not change with the library that finds them.

A document cut to what its listing of violations can show, so that validation has a bound.

4 MiB have room for a million wrong list elements with several violations each. Finding them all
took 108 s and 9 GiB, for an artifact that lists 50.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, FailFast, TypeAdapter, ValidationError

UNKNOWN_FIELD_LIMIT = 50
"""Most unknown fields of one object that are looked at, first by name."""

WRONG_ELEMENT_LIMIT = 1000
"""Most wrong elements of one list that are looked at, first in its order."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A field that holds a typed object, or a list of typed elements.

    Attributes:
        model: The shape of the object, or of each element; None where an element is a text.
        element: Validates one element; None for an object.
        elements: Validates all of them up to the first wrong one; None for an object.
    """

    name: str
    model: type[BaseModel] | None
    element: TypeAdapter[Any] | None = None
    elements: TypeAdapter[Any] | None = None


def bounded_document(document: dict[str, Any], shape: type[BaseModel]) -> dict[str, Any]:
    """Return `document` without what could only lengthen a long list of violations of `shape`.

    What is left is wrong exactly where `document` is; a document with at most 50 unknown fields
    in each object and 1,000 wrong elements in each list comes back as it is.
    """
    kept = _with_few_unknown_fields(document, shape)
    for part in _parts(shape):
        value = document.get(part.name)
        if part.element is None:
            if isinstance(value, dict) and part.model is not None:
                kept = kept | {part.name: bounded_document(value, part.model)}
        elif isinstance(value, list):
            kept = kept | {part.name: _bounded_list(value, part)}
    return kept


def _with_few_unknown_fields(document: dict[str, Any], shape: type[BaseModel]) -> dict[str, Any]:
    if len(document) <= UNKNOWN_FIELD_LIMIT:
        return document
    unknown = sorted(document.keys() - shape.model_fields.keys())
    dropped = frozenset(unknown[UNKNOWN_FIELD_LIMIT:])
    return {name: value for name, value in document.items() if name not in dropped}


def _bounded_list(elements: list[Any], part: _Part) -> list[Any]:
    model = part.model
    if model is not None:
        elements = [
            bounded_document(element, model) if isinstance(element, dict) else element
            for element in elements
        ]
    assert part.element is not None, "the part is a list"
    assert part.elements is not None
    if len(elements) <= WRONG_ELEMENT_LIMIT or fits(part.elements, elements):
        return elements
    wrong = 0
    for count, element in enumerate(elements, 1):
        wrong += not fits(part.element, element)
        if wrong == WRONG_ELEMENT_LIMIT:
            return elements[:count]
    return elements


def fits(adapter: TypeAdapter[Any], value: object) -> bool:
    """Return whether a value is valid for `adapter`."""
    try:
        adapter.validate_python(value)
    except ValidationError:
        return False
    return True


@cache
def _parts(shape: type[BaseModel]) -> tuple[_Part, ...]:
    found = (
        _part(name, option)
        for name, field in shape.model_fields.items()
        for option in _options(field.annotation)
    )
    return tuple(part for part in found if part is not None)


def _options(annotation: Any) -> tuple[Any, ...]:  # noqa: ANN401
    is_union = get_origin(annotation) in {Union, UnionType}
    return get_args(annotation) if is_union else (annotation,)


def _part(name: str, annotation: Any) -> _Part | None:  # noqa: ANN401
    if get_origin(annotation) is list:
        (element,) = get_args(annotation)
        return _Part(
            name,
            element if _is_model(element) else None,
            TypeAdapter(element),
            TypeAdapter(Annotated[list[element], FailFast()]),  # type: ignore[valid-type,arg-type]
        )
    return _Part(name, annotation) if _is_model(annotation) else None


def _is_model(annotation: Any) -> bool:  # noqa: ANN401
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


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


def first_difference(error: ValidationError) -> str:
    """Return in a few words where a document first differs from its shape."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = ".".join(map(str, first["loc"])) or "the whole"
    # The texts of our own validators stand behind a prefix that means nothing to a reader.
    return f"{path}: {first['msg'].removeprefix('Value error, ')}"
