"""The dependencies of the routes, made by the composition root."""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from threading import Thread, current_thread
from time import monotonic
from typing import Annotated, Any, ParamSpec, TypeAlias, TypeVar

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

_HELD_SECONDS = 0.004
"""Longest wait of an answer for others, so that the loop wakes once for some: most look-ups take
less than 1 ms."""

_LONG_SECONDS = 0.02
"""A look-up that takes as long waits for a disk; others go on beside it."""


class Threads(ABC):
    """Runs blocking functions in threads; a call is typed as the function itself is."""

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
        with thread_faults():
            return await self._begin(partial(function, *arguments, **named))

    @abstractmethod
    def _begin(self, call: Callable[[], Value]) -> asyncio.Future[Value]: ...

    @abstractmethod
    def close(self) -> None:
        """Wait for what is being done, and take nothing more."""


class ThreadPool(Threads):
    """Runs as many calls at a time as there are threads."""

    def __init__(self, count: int, name: str) -> None:
        self.executor = ThreadPoolExecutor(count, thread_name_prefix=name)

    def _begin(self, call: Callable[[], Value]) -> asyncio.Future[Value]:
        return asyncio.get_running_loop().run_in_executor(self.executor, call)

    def close(self) -> None:  # noqa: D102 - as of the others
        self.executor.shutdown()


class OneByOne(Threads):
    """Runs one call after another; where one takes long, another thread goes on with the others.

    A call of SQLite or of the system gives up the interpreter for a moment, and wakes a thread that
    waits for it, which takes longer than what most calls do. So no two run at a time, and while
    calls wait, the loop gets the answers to some at once.
    """

    def __init__(self, count: int, name: str) -> None:
        """Prepare; no thread is started.

        Args:
            count: Most threads: one more than calls that may take long at a time.
            name: Of each thread.
        """
        self._count = count
        self._name = name
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._threads: set[Thread] = set()
        self._serving: Thread | None = None
        self._answers: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._taken_at = self._given_at = 0.0
        self._is_watched = False
        self._is_closed = False

    def _begin(self, call: Callable[[], Value]) -> asyncio.Future[Value]:
        loop = asyncio.get_running_loop()
        if self._is_closed:
            raise RuntimeError("cannot run a call after close")
        if not self._threads:
            self._start_thread()
        answer: asyncio.Future[Value] = loop.create_future()
        self._calls.put((loop, answer, call))
        if not self._is_watched:
            self._is_watched = True
            loop.call_later(_LONG_SECONDS, self._watch, loop)
        return answer

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """While calls wait, look whether the one before them takes long."""
        self._is_watched = not self._calls.empty()
        # After this look: where the last call was taken meanwhile, answers were held for it before.
        self._give()
        if not self._is_watched:
            return
        loop.call_later(_LONG_SECONDS, self._watch, loop)
        if monotonic() - self._taken_at > _LONG_SECONDS and len(self._threads) < self._count:
            # Where no thread can be started, they go on waiting.
            with suppress(RuntimeError):
                self._start_thread()

    def _start_thread(self) -> None:
        thread = Thread(target=self._serve, name=self._name, daemon=True)
        self._taken_at = monotonic()
        thread.start()
        self._threads.add(thread)

    def _serve(self) -> None:
        """Run calls until another thread does."""
        self._serving = this = current_thread()
        while self._serving is this and self._run_next():
            pass
        self._threads.discard(this)

    def _run_next(self) -> bool:
        taken = self._calls.get()
        if taken is None:
            return False
        self._taken_at = monotonic()
        loop, answer, call = taken
        value, error = None, None
        # Of a request that has gone nothing is looked up.
        if not answer.cancelled():
            try:
                value = call()
            except BaseException as raised:  # noqa: BLE001  # raised in the request
                error = raised
        self._answers.append((answer, value, error))
        # The fault's traceback holds this frame, so the frame must not hold the fault.
        del taken, answer, value, error, call
        now = monotonic()
        if self._calls.empty() or now - self._given_at > _HELD_SECONDS:
            self._given_at = now
            loop.call_soon_threadsafe(self._give)
        return True

    def _give(self) -> None:
        """Give the answers that are there to those who wait for them."""
        while self._answers:
            answer, value, error = self._answers.popleft()
            if answer.done():
                # Nobody waits any more.
                continue
            if error is None:
                answer.set_result(value)
            else:
                answer.set_exception(error)

    def close(self) -> None:  # noqa: D102 - as of the others
        self._is_closed = True
        for _ in range(self._count):
            self._calls.put(None)
        for thread in tuple(self._threads):
            thread.join()


_Call: TypeAlias = tuple[asyncio.AbstractEventLoop, asyncio.Future[Any], Callable[[], Any]]


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What every route depends on.

    Attributes:
        lookup: For look-ups, which take milliseconds.
        checks: What must hold to be ready, by name.
        reasons: Why the consumers of this process are not ready although they poll.
    """

    settings: Settings
    runs: LazyPublisher[RunEvent]
    lookup: Threads
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
