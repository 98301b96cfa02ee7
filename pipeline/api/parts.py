"""What the routes work with; the composition root makes it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ParamSpec, TypeVar

from fastapi import Depends, Request

from pipeline.api.broker_link import BrokerLink
from pipeline.settings import Settings
from pipeline.storage.run_reader import RunReader
from schemas.advisory_event import AdvisoryEvent
from schemas.run_event import RunEvent

PREFIX = "/api/rmos/runs"
ALIAS = "/runs"
"""The same routes under a second name."""

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")


class Threads:
    """Calls functions that block in threads of one kind."""

    def __init__(self, count: int, name: str) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def __call__(
        self,
        function: Callable[Arguments, Value],
        /,
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Value:
        """Return what `function` returns."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, partial(function, *arguments, **named))

    def close(self) -> None:
        """Wait for what is being done, and take nothing more."""
        self._executor.shutdown()


@dataclass(frozen=True, slots=True)
class ApiParts:
    """What the routes work with.

    Attributes:
        quick: Threads for look-ups, each of which takes milliseconds.
        bulk: Threads for blobs, which may take seconds and must not hold up the others.
        checks: What must hold to be ready, by name.
    """

    settings: Settings
    reader: RunReader
    runs: BrokerLink[RunEvent]
    advisories: BrokerLink[AdvisoryEvent]
    quick: Threads
    bulk: Threads
    checks: Callable[[], Awaitable[Mapping[str, bool]]]


# Not a plain function: FastAPI would call it in a thread for every request.
async def _parts(request: Request) -> ApiParts:
    parts: ApiParts = request.app.state.parts
    return parts


Parts = Annotated[ApiParts, Depends(_parts)]
