"""A document cut to what its listing of violations can show, so that validation has a bound.

4 MiB have room for a million wrong list elements with several violations each. Finding them all
took 108 s and 9 GiB, for an artifact that lists 50.
"""

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
    if len(elements) <= WRONG_ELEMENT_LIMIT or _fits(part.elements, elements):
        return elements
    wrong = 0
    for count, element in enumerate(elements, 1):
        wrong += not _fits(part.element, element)
        if wrong == WRONG_ELEMENT_LIMIT:
            return elements[:count]
    return elements


def _fits(adapter: TypeAdapter[Any] | None, value: Any) -> bool:  # noqa: ANN401
    assert adapter is not None
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
