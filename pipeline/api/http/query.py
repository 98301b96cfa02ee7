"""Query parameters: an unknown name is refused, an empty value counts as none.

A list without a filter whose name was misspelt would look like an answer.
"""

from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator
from difflib import get_close_matches
from typing import Any
from urllib.parse import parse_qsl, urlencode

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.responses import Response

from pipeline.api.answers import ApiError

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

        async def checked(request: Request) -> Response:
            request.scope["query_string"] = checked_query(request.scope["query_string"], known)
            return await handle(request)

        return checked


def _parameters_of(dependant: Dependant) -> Iterator[str]:
    for field in dependant.query_params:
        shape = field.field_info.annotation
        if isinstance(shape, type) and issubclass(shape, BaseModel):
            yield from shape.model_fields
        else:
            yield field.alias


def checked_query(query: bytes, known: Iterable[str]) -> bytes:
    """Return `query` without its empty values.

    Raises:
        ApiError: A name is not one of `known`, or is there twice.
    """
    given = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    known = list(known)
    for name, count in Counter(name for name, _ in given).items():
        if name not in known:
            raise ApiError(422, "INVALID_QUERY", _unknown(name, known))
        if count > 1:
            raise ApiError(422, "INVALID_QUERY", f"{name}: expected one value, found {count}.")
    kept = [(name, value) for name, value in given if value or name in _NEVER_EMPTY]
    return query if len(kept) == len(given) else urlencode(kept).encode()


def _unknown(name: str, known: list[str]) -> str:
    unknown = f"There is no parameter {name[:_SHOWN_CHARACTERS]!r} here"
    if name == "offset" and "cursor" in known:
        return f"{unknown}: the next page is asked for with cursor, the next_cursor of this one."
    close = get_close_matches(name.lower(), known, n=1)
    if close:
        return f"{unknown}: did you mean {close[0]}?"
    return f"{unknown}; expected one of {', '.join(sorted(known))}." if known else f"{unknown}."
