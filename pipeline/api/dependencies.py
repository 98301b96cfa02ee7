"""The dependencies of the routes, made by the composition root."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ParamSpec, TypeVar

from fastapi import Depends, Request

from pipeline.api.drawings import Drawings
from pipeline.api.publishing import LazyPublisher
from pipeline.broker.reading.looks import BrokerLooks
from pipeline.errors import thread_faults
from pipeline.legacy.v1.reader import V1Reader
from pipeline.settings import Settings
from pipeline.storage.reader import RunReader
from schemas.advisory_event import AdvisoryEvent
from schemas.run_event import RunEvent

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")


class ThreadPool:
    """Runs blocking functions in threads; a call is typed as the function itself is."""

    def __init__(self, count: int, name: str) -> None:
        self.executor = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def __call__(
        self,
        function: Callable[Arguments, Value],
        /,
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Value:
        """Return what `function` returns.

        Raises:
            ExecutorError: No thread can be started.
        """
        loop = asyncio.get_running_loop()
        call = partial(function, *arguments, **named)
        with thread_faults():
            return await loop.run_in_executor(self.executor, call)

    def close(self) -> None:
        """Wait for what is being done, and take nothing more."""
        self.executor.shutdown()


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What every route depends on.

    Attributes:
        lookup: Threads for look-ups, which take milliseconds.
        checks: What must hold to be ready, by name.
        reasons: Why the consumers of this process are not ready although they poll.
    """

    settings: Settings
    runs: LazyPublisher[RunEvent]
    lookup: ThreadPool
    checks: Callable[[], Awaitable[Mapping[str, bool]]]
    reasons: Callable[[], Sequence[str]]


@dataclass(frozen=True, slots=True)
class ApiDependencies(Dependencies):
    """What the routes over a store depend on.

    Attributes:
        transfer: Threads for blobs: a transfer may take seconds and must not delay a look-up.
        drawings: Of programs, made in a process of their own.
        broker: What people see of the broker.
    """

    reader: RunReader
    advisories: LazyPublisher[AdvisoryEvent]
    transfer: ThreadPool
    drawings: Drawings
    broker: BrokerLooks


@dataclass(frozen=True, slots=True)
class LegacyDependencies(Dependencies):
    """What the routes of v1 mode depend on."""

    reader: V1Reader


# Not a plain function: FastAPI would call it in a thread for every request.
async def current_dependencies(request: Request) -> Any:  # noqa: ANN401  # as each route names them
    """Return the dependencies of the application that `request` was sent to."""
    return request.app.state.dependencies


Deps = Annotated[Dependencies, Depends(current_dependencies)]
ApiDeps = Annotated[ApiDependencies, Depends(current_dependencies)]
LegacyDeps = Annotated[LegacyDependencies, Depends(current_dependencies)]
