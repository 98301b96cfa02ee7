"""Runs the steps of an audit in several processes, and returns their results in order.

Only so many steps are on their way at a time, so a store of any size needs the same memory.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Self

from pipeline.audit.step import AuditContext, AuditReader, Step
from pipeline.child_process import child_pool, init_child, submitted

_AHEAD = 3
"""Steps on their way for each process: one at work, one waiting, one on its way back."""

_reader: AuditReader | None = None


class StepPool:
    """Runs steps, here or in processes of their own.

    Attributes:
        context: What the steps are about.
    """

    def __init__(self, processes: int, context: AuditContext) -> None:
        """Start the processes, as helpers of this thread, and do not wait for them.

        Args:
            processes: How many; 0 to run every step here.
            context: What the steps are about.

        Raises:
            HelperError: No process can be started.
        """
        self.context = context
        self._processes = processes
        self._own = AuditReader(context)
        self._pool: ProcessPoolExecutor | None = None
        if processes:
            self._pool = child_pool(processes, _begin, (context,))
            with _memory_faults():
                for _ in range(processes):
                    submitted(self._pool, _be_ready)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._own.close()

    def run(self, steps: Iterable[Step]) -> Iterator[tuple[Step, Any]]:
        """Yield each of `steps` with what it returns, in their order.

        Raises:
            MemoryError: A process was killed, as the kernel does where memory is short.
        """
        if self._pool is None:
            for step in steps:
                yield step, step.function(self._own, *step.arguments)
            return
        waiting: deque[tuple[Step, Future[Any]]] = deque()
        try:
            with _memory_faults():
                for step in steps:
                    waiting.append((step, self._pool.submit(_run, step.function, *step.arguments)))
                    if len(waiting) >= self._processes * _AHEAD:
                        yield _next(waiting)
                while waiting:
                    yield _next(waiting)
        finally:
            for _, future in waiting:
                future.cancel()


@contextmanager
def _memory_faults() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise MemoryError(
            "A process of the audit was killed, most likely for want of memory; give it more, or "
            "set RMOS_AUDIT_PROCESSES=0, then start the audit again: it resumes after the last "
            "whole day."
        ) from error


def _next(waiting: deque[tuple[Step, Future[Any]]]) -> tuple[Step, Any]:
    step, future = waiting.popleft()
    return step, future.result()


def _begin(context: AuditContext) -> None:
    global _reader  # noqa: PLW0603  # one a process, for all of its steps
    init_child()
    _reader = AuditReader(context)


def _be_ready() -> None:
    """Do nothing: a process that does it has started."""


def _run(function: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401
    return function(_reader, *arguments)
