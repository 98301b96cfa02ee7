"""Query parameters: an unknown name is refused, an empty value counts as none.

A list without a filter whose name was misspelt would look like an answer.
"""

from collections.abc import Callable, Coroutine, Iterator
from difflib import get_close_matches
from typing import Any
from urllib.parse import parse_qsl, urlencode

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from pipeline.api.answers import ApiError
from pipeline.api.dependencies import current_dependencies

_NEVER_EMPTY = frozenset({"cursor"})
"""Without its cursor a walk over the pages would start again, for ever."""

_SHOWN_CHARACTERS = 60


class ExactQueryRoute(APIRoute):
    """A route that takes the parameters which it declares, each at most once."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, with the query checked before it."""
        handle = super().get_route_handler()
        # Those of the function itself: nothing that our routes depend on has parameters.
        known = list(_parameters_of(self.dependant))
        arguments_of = _arguments_of(self.dependant)

        async def checked(request: Request) -> Response:
            given = parse_qsl(
                request.scope["query_string"].decode("latin-1"), keep_blank_values=True
            )
            query = checked_query(given, known)
            if len(query) < len(given):
                request.scope["query_string"] = urlencode(query).encode()
            arguments = arguments_of(request, query)
            if arguments is None:
                return await handle(request)
            found: Response = await self.endpoint(**arguments)
            return found

        return checked


def _arguments_of(
    dependant: Dependant,
) -> Callable[[Request, dict[str, str]], dict[str, Any] | None]:
    """Return what gathers the arguments of a route's function, or None where FastAPI has to.

    Texts of the path need no validation, and a filter validates itself. FastAPI takes about 60 us
    for as much; it answers where a value cannot be used.
    """
    names = [field.name for field in dependant.path_params if field.field_info.annotation is str]
    deps = [str(each.name) for each in dependant.dependencies if each.call is current_dependencies]
    filters = [
        (field.name, shape)
        for field in dependant.query_params
        if (shape := _shape_of(field.field_info.annotation)) is not None
    ]
    is_plain = (
        len(names) == len(dependant.path_params)
        and len(deps) == len(dependant.dependencies)
        and len(filters) == len(dependant.query_params) <= 1
        and not any(field.field_info.metadata for field in dependant.path_params)
        and not (dependant.header_params or dependant.cookie_params or dependant.body_params)
    )

    def gather(request: Request, query: dict[str, str]) -> dict[str, Any] | None:
        if not is_plain:
            return None
        found: dict[str, Any] = {name: request.path_params[name] for name in names}
        found |= dict.fromkeys(deps, request.app.state.dependencies)
        for name, shape in filters:
            try:
                found[name] = shape.model_validate(query)
            except ValidationError:
                return None
        if dependant.request_param_name is not None:
            found[dependant.request_param_name] = request
        return found

    return gather


def _shape_of(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None


def _parameters_of(dependant: Dependant) -> Iterator[str]:
    for field in dependant.query_params:
        shape = _shape_of(field.field_info.annotation)
        yield from (field.alias,) if shape is None else shape.model_fields


def checked_query(given: list[tuple[str, str]], known: list[str]) -> dict[str, str]:
    """Return the query that is `given`, without its empty values.

    Raises:
        ApiError: A name is not one of `known`, or is there twice.
    """
    names = [name for name, _ in given]
    for name in names:
        if name not in known:
            raise ApiError(422, "INVALID_QUERY", _unknown(name, known))
        if (count := names.count(name)) > 1:
            raise ApiError(422, "INVALID_QUERY", f"{name}: expected one value, found {count}.")
    return {name: value for name, value in given if value or name in _NEVER_EMPTY}


def _unknown(name: str, known: list[str]) -> str:
    unknown = f"There is no parameter {name[:_SHOWN_CHARACTERS]!r} here"
    if name == "offset" and "cursor" in known:
        return f"{unknown}: the next page is asked for with cursor, the next_cursor of this one."
    close = get_close_matches(name.lower(), known, n=1)
    if close:
        return f"{unknown}: did you mean {close[0]}?"
    return f"{unknown}; expected one of {', '.join(sorted(known))}." if known else f"{unknown}."
