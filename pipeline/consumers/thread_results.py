"""What a function in a thread hands over, given to the loop as it comes.

The thread waits while the loop is behind, so neither of the two needs more memory than the other
keeps up with.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import CancelledError, Executor, Future
from threading import Condition
from typing import Any, Generic, Self, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Answer = TypeVar("Answer")

WAITING_LIMIT = 1000
"""Most items that wait for the loop."""


class StoppedError(Exception):
    """Nobody takes what the function would hand over; raised in its thread."""


class ThreadResults(Generic[Item, Result]):
    """Runs a function beside the loop for the length of a block.

    At the end of the block the function is stopped by what it does next of: hand over, ask, check.
    """

    def __init__(
        self, executor: Executor, work: Callable[[Callable[[Item], None]], Result]
    ) -> None:
        """Prepare; nothing runs before the block begins.

        Args:
            executor: Whose thread it is.
            work: Given a function to hand items over with; what it returns is the result.
        """
        self._executor = executor
        self._work = work
        self._items: deque[Item] = deque()
        self._room = Condition()
        self._stopped = False
        self._asked: set[Future[Any]] = set()
        self._arrived = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def __aenter__(self) -> Self:
        self._working = self._loop.run_in_executor(self._executor, self._work, self._hand)
        self._working.add_done_callback(lambda _done: self._arrived.set())
        return self

    async def __aexit__(self, *_exception: object) -> None:
        with self._room:
            self._stopped = True
            self._room.notify()
        for question in list(self._asked):
            question.cancel()
        await asyncio.wait([self._working])
        # Read once, so that nobody is told of an exception that nobody waited for.
        self._working.exception()

    def check(self) -> None:
        """Let the function end between two of its steps, if nobody waits for it any more.

        Raises:
            StoppedError: The block has ended.
        """
        if self._stopped:
            raise StoppedError

    def ask(self, question: Coroutine[Any, Any, Answer]) -> Answer:
        """Run `question` in the loop, and wait for its answer; to be called by the function.

        Raises:
            StoppedError: The block has ended.
        """
        asked = asyncio.run_coroutine_threadsafe(question, self._loop)
        self._asked.add(asked)
        try:
            if self._stopped:
                raise StoppedError
            return asked.result()
        except CancelledError as error:
            raise StoppedError from error
        finally:
            asked.cancel()
            self._asked.discard(asked)

    def _hand(self, item: Item) -> None:
        with self._room:
            self._room.wait_for(lambda: self._stopped or len(self._items) < WAITING_LIMIT)
            if self._stopped:
                raise StoppedError
            self._items.append(item)
        self._loop.call_soon_threadsafe(self._arrived.set)

    async def lists(self) -> AsyncGenerator[list[Item]]:
        """Yield what is there by then, again and again, in order, until the function returns."""
        is_last = False
        while not is_last:
            await self._arrived.wait()
            self._arrived.clear()
            # Asked first: what was handed over before the end is then there too.
            is_last = self._working.done()
            with self._room:
                items = list(self._items)
                self._items.clear()
                self._room.notify()
            if items:
                yield items

    async def result(self) -> Result:
        """Return what the function returned, or raise what it raised."""
        return await asyncio.shield(self._working)
